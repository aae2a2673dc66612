"""A controller inside the GPU stopped (Xid 61, 62).

What you see
    NVRM: Xid (PCI:0000:01:00): 62, pid='<unknown>', name=<unknown>, 20ff(2d0c) 00000000 00000000
Why
    The GPU's power controller halted or reported a breakpoint. Known reasons are the driver version, power saving,
    and the card itself.
Repair
    Reset the GPU or reboot the machine. If the error returns, try another driver version, then test the card.
What the repair risks
    A reset ends all programs on that GPU.
By hand
    journalctl -k -b | grep -i xid
    nvidia-smi --gpu-reset -i N
"""

from collections.abc import Iterator

from dlhealth.api import Machine, Scenario, XidRule


class XidInternalMcu(XidRule):
    id = "xid-61-62-internal-mcu"
    title = "A controller inside the GPU stopped (Xid 61, 62)"
    explains = ("xid-application-errors-13-31-32-43-45-69",)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(number: int, text: str = "pid=4711, name=python3, Ch 00000008") -> Machine:
            return Machine.debian12_gpu().says("kernel", f"NVRM: Xid (PCI:0000:01:00): {number}, {text}")

        gpu = "gpu:0000:01:00.0"
        yield Scenario("it halted", said(62), finds=gpu, alone=True, ladder=(("medium", "by-hand --gpu-reset"),))
        yield Scenario(
            "a breakpoint",
            said(61),
            finds=gpu,
            alone=False,
            ladder=(("medium", "by-hand note line if comes back"),),
        )
        yield Scenario("another number", said(31))

        yield Scenario(
            "before the last boot",
            Machine.debian12_gpu()
            .says("kernel", "NVRM: Xid (PCI:0000:01:00): 62, pid=1", 100.0)
            .says("kernel", "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)", 900.0),
        )
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
