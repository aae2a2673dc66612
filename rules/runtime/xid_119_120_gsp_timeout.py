"""The GPU's system processor (GSP) does not answer (Xid 119, 120).

What you see
    NVRM: Xid (PCI:0000:01:00): 119, pid=1234, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU0
    GSP

    nvidia-smi hangs.
Why
    The firmware on the GPU stopped. Known reasons are bugs in a driver version, power saving, and the card itself.
Repair
    Reset the GPU or reboot the machine. If the error returns, upgrade the driver. On GPUs older than Blackwell, the
    closed kernel module can run without this firmware.
What the repair risks
    A reset ends all programs on that GPU.
By hand
    journalctl -k -b | grep -i xid
    nvidia-smi --gpu-reset
    # To run without the firmware (only the closed module), reboot after:
    f=/etc/modprobe.d/nvidia-no-gsp.conf
    echo 'options nvidia NVreg_EnableGpuFirmware=0' > $f
    update-initramfs -u
"""

from collections.abc import Iterator

from dlhealth.api import Machine, Scenario, XidRule


class XidGspTimeout(XidRule):
    id = "xid-119-120-gsp-timeout"
    title = "The GPU's system processor does not answer (Xid 119, 120)"
    explains = ("gpu-driver-hung", "xid-application-errors-13-31-32-43-45-69")

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(number: int, text: str = "pid=4711, name=python3, Ch 00000008") -> Machine:
            return Machine.debian12_gpu().says("kernel", f"NVRM: Xid (PCI:0000:01:00): {number}, {text}")

        gpu = "gpu:0000:01:00.0"
        yield Scenario("a timeout", said(119), finds=gpu, alone=True, ladder=(("medium", "by-hand --gpu-reset"),))
        yield Scenario("an error of the system processor", said(120), finds=gpu, alone=False)
        yield Scenario("another number", said(31))

        yield Scenario(
            "before the last boot",
            Machine.debian12_gpu()
            .says("kernel", "NVRM: Xid (PCI:0000:01:00): 119, pid=1", 100.0)
            .says("kernel", "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)", 900.0),
        )
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
