"""The driver uses other GPUs of this machine, but not this one.

What you see
    nvidia-smi shows three of four GPUs.

    nvidia 0000:04:00.0: probe with driver nvidia failed with error -1

    NVRM: The NVIDIA probe routine failed for 1 device(s).
Why
    One GPU does not answer, was rejected by the driver, or is no longer on the bus, while the others work. Common
    reasons: too little power, a loose card or riser, too little address space in the firmware settings, or a damaged
    card. The first NVRM lines since the boot say more.

    dlhealth does not report a GPU here that a virtual machine uses or that the driver does not support.
Repair
    Follow the kernel log's messages about this GPU. Power the machine off, then on again.
What the repair risks
    A reboot ends all programs on all GPUs.
By hand
    lspci -nnk -d 10de:
    journalctl -k -b | grep -iE 'nvrm|nvidia 0000'
    # Check the lines LnkSta and Region:
    lspci -vvs ADDRESS
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Gpus,
    GpuSwitch,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    UndrivenGpus,
    UndrivenWhy,
    Unknown,
    count,
)

ERRORS = (UndrivenWhy.SILENT, UndrivenWhy.REFUSED)


class GpuNotDriven(Rule):
    id = "gpu-not-driven"
    title = "The driver uses other GPUs, but not this one"
    stage = Stage.REBOOT
    severity = Severity.WARNING
    risk = Risk.HIGH

    def detect(self, undriven: UndrivenGpus, gpus: Gpus, switch: GpuSwitch | None) -> Iterator[Finding | Unknown]:
        for problem in gpus.problems:
            yield Unknown(problem)
        if switch and switch.chosen:
            return
        for gpu in undriven.gpus:
            yield self.finding(
                f"gpu:{gpu.address}",
                f"The driver uses {count(len(undriven.driven), 'other GPU')}, but not the {gpu.name} at {gpu.address}: "
                f"{gpu.why.value}",
                *gpu.evidence,
                Evidence("/sys/bus/pci/drivers/nvidia", ", ".join(undriven.driven)),
                severity=Severity.ERROR if gpu.why in ERRORS else Severity.WARNING,
                gone=gpu.why in (UndrivenWhy.SILENT, UndrivenWhy.GONE),
                address=gpu.address,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        address = finding.detail["address"]
        read = f"read the kernel log's messages about it: journalctl -k -b | grep -iE 'nvrm|{address}'"
        if finding.detail["gone"]:
            steps = (
                "end running programs, power the machine off, and power it on after ten seconds",
                "if the GPU is still missing: check the card's seat, riser and power cables, then test it in another machine",
            )
        else:
            steps = (read, f"bind it again: echo {address} > /sys/bus/pci/drivers/nvidia/bind; if that fails, reboot")
        yield Plan(
            f"Make the GPU at {address} available again", Risk.HIGH, tuple(ByHand(s) for s in steps), reboot=True
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        second, third = "0000:02:00.0", "0000:03:00.0"

        def two() -> Machine:
            return Machine.ubuntu2404_gpu().gpu("2684", second, driver="")

        def started(machine: Machine, *addresses: str, seconds: float = 10.0) -> Machine:
            for address in addresses:
                machine.says("kernel", f"pci {address}: [10de:2684] type 00 class 0x030000", seconds)
            return machine

        yield Scenario(
            "its configuration space reads ff, without a log",
            two().file(f"/sys/bus/pci/devices/{second}/config", b"\xff" * 64),
            finds=f"gpu:{second}",
            alone=True,
            ladder=(
                (
                    "high reboot",
                    "by-hand running programs power machine after seconds",
                    "by-hand still missing check card's seat riser",
                ),
            ),
        )
        yield Scenario(
            "its probe failed",
            two().says("kernel", f"nvidia {second}: probe with driver nvidia failed with error -1"),
            finds=f"gpu:{second}",
            alone=True,
            ladder=(
                (
                    "high reboot",
                    "by-hand -k -b -iE nvrm|0000:02:00.0",
                    "by-hand 0000:02:00.0 /sys/bus/pci/drivers/nvidia/bind",
                ),
            ),
        )
        yield Scenario("no message gives a reason", two(), finds=f"gpu:{second}", alone=True)
        yield Scenario(
            "it existed before the last boot",
            started(
                started(Machine.ubuntu2404_gpu(), "0000:01:00.0", third, seconds=-9000.0).says(
                    "kernel", "Linux version 6.8.0-50-generic (buildd@lcy02)", 1.0
                ),
                "0000:01:00.0",
            ),
            finds=f"gpu:{third}",
        )
        yield Scenario(
            "the driver started it before the last boot",
            Machine.ubuntu2404_gpu()
            .says("kernel", "nvidia 0000:01:00.0: enabling device (0000 -> 0003)", -9000.0)
            .says("kernel", f"nvidia {third}: enabling device (0000 -> 0003)", -9000.0)
            .says("kernel", "Linux version 6.8.0-50-generic (buildd@lcy02)", 1.0)
            .says("kernel", "nvidia 0000:01:00.0: enabling device (0000 -> 0003)"),
            finds=f"gpu:{third}",
        )
        yield Scenario("both are in use", Machine.ubuntu2404_gpu().gpu("2684", second))
        yield Scenario("a virtual machine uses one", Machine.ubuntu2404_gpu().gpu("2684", second, driver="vfio-pci"))
        yield Scenario(
            "it fell off the bus, which is another problem",
            two()
            .file(f"/sys/bus/pci/devices/{second}/config", b"\xff" * 64)
            .says("kernel", f"NVRM: GPU {second}: GPU has fallen off the bus."),
        )
        yield Scenario("an old card that this driver ignores", Machine.ubuntu2404_gpu().gpu("1180", second, driver=""))
        yield Scenario(
            "the bus was renumbered",
            started(
                started(Machine.ubuntu2404_gpu(), "0000:05:00.0", seconds=-9000.0).says(
                    "kernel", "Linux version 6.8.0-50-generic (buildd@lcy02)", 1.0
                ),
                "0000:01:00.0",
            ),
        )
        yield Scenario("no PCI bus to read", Machine().os_release("debian", "12"), unknown=True)
