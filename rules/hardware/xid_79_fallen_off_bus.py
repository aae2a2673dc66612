"""The GPU has fallen off the bus (Xid 79).

What you see
    NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.

    Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost. Reboot the system to recover this GPU
Why
    The GPU stopped answering on PCI Express. According to NVIDIA, the most common reasons are overheating, too little
    power, and an old mainboard firmware. Others are risers and, on laptops, power saving (ACPI, ASPM).

    Later Xids are consequences of this one. The driver packages are not the reason.
Repair
    Power the machine off, then on again. Then check power supply, cables, temperature and firmware.
What the repair risks
    Running jobs end. dlhealth does not reboot by itself here, because the machine could reboot again and again.
By hand
    journalctl -k | grep -iE 'xid|aer'
    # Power off, reseat the card and its cables. To test for low power:
    nvidia-smi -lgc 300,1500
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    FallenGpus,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class Xid79FallenOffBus(Rule):
    id = "xid-79-fallen-off-bus"
    title = "The GPU has fallen off the bus"
    stage = Stage.REBOOT
    severity = Severity.ERROR
    risk = Risk.HIGH
    explains = ("gpu-driver-hung", "gpu-not-driven", "gpu-not-on-bus", "nvidia-module-not-loaded")

    def detect(self, fallen: FallenGpus) -> Iterator[Finding | Unknown]:
        for gpu in fallen.gpus:
            number = " (Xid 79)" if gpu.xid else ""
            if gpu.gone is None:
                yield Unknown(
                    f"the kernel log says that the GPU at {gpu.address} fell off the bus{number}, but {gpu.how}"
                )
            elif gpu.gone:
                yield self.finding(
                    f"gpu:{gpu.address}",
                    f"The GPU at {gpu.address} has fallen off the bus{number}: {gpu.how}",
                    Evidence(gpu.source, gpu.text),
                    Evidence(f"PCI device {gpu.address}", gpu.how),
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Power the machine off and on, then check power supply, temperature and firmware",
            Risk.HIGH,
            (
                ByHand("end running programs, power the machine off, and power it on after ten seconds"),
                ByHand(
                    "if it happens again: reseat the card and its power cables, check temperatures and power supply, update the"
                    " mainboard's firmware; to test for low power, run nvidia-smi -lgc 300,1500; on a laptop, boot with pcie_aspm=off"
                ),
            ),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        xid = "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
        config = "/sys/bus/pci/devices/0000:01:00.0/config"
        yield Scenario(
            "its configuration space reads ff",
            Machine.debian12_gpu().file(config, b"\xff" * 64).says("kernel", xid),
            finds=gpu,
            ladder=(
                (
                    "high reboot",
                    "by-hand running programs power machine after seconds",
                    "by-hand -lgc 300,1500 pcie_aspm=off",
                ),
            ),
        )
        gone = Machine.ubuntu2404().ubuntu_driver().file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n")
        yield Scenario(
            "it is no longer on the bus",
            gone.says("kernel", "NVRM: GPU 0000:01:00.0: GPU has fallen off the bus."),
            finds=gpu,
        )
        yield Scenario(
            "later errors are consequences",
            Machine.debian12_gpu()
            .file(config, b"\xff" * 64)
            .says("kernel", xid, 5000.0)
            .says("kernel", "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x23:0x65:1204)", 5001.0),
            finds=gpu,
        )
        before = "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)"
        yield Scenario(
            "before the last boot",
            Machine.debian12_gpu().says("kernel", xid, 100.0).says("kernel", before, 900.0),
        )
        yield Scenario(
            "an error of a program",
            Machine.debian12_gpu().says("kernel", "NVRM: Xid (PCI:0000:01:00): 31, pid=1234, MMU Fault"),
        )
        yield Scenario(
            "its configuration space can be read again",
            Machine.debian12_gpu().file(config, b"\xde\x10\x06\x1b" * 16).says("kernel", xid),
            unknown=True,
        )
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
