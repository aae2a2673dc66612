"""The driver drives other GPUs of this machine, but not this one.

What you see
    nvidia-smi shows three of four GPUs.
    nvidia 0000:04:00.0: probe with driver nvidia failed with error -1
    NVRM: The NVIDIA probe routine failed for 1 device(s).
Why
    One GPU does not answer, was refused when the driver started it, or is no longer on the bus, while the others work:
    a lack of power, a loose card or riser, too little address space in the firmware's settings, or a damaged card. The
    first NVRM lines of this start say more. A GPU that a virtual machine has, or that this driver does not support, is
    not reported here.
Repair
    Follow what the kernel log says of this GPU; restart with the power off in between.
What the repair risks
    All programs on all GPUs end at a restart.
By hand
    lspci -nnk -d 10de:; journalctl -k -b | grep -iE 'nvrm|nvidia 0000'; lspci -vvs ADDRESS (LnkSta, Region)
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
)

ERRORS = (UndrivenWhy.SILENT, UndrivenWhy.REFUSED)


class GpuNotDriven(Rule):
    id = "gpu-not-driven"
    title = "The driver drives other GPUs, but not this one"
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
                f"The {gpu.name} at {gpu.address} is not used, while the driver has {len(undriven.driven)} other "
                f"GPU{'s' if len(undriven.driven) > 1 else ''}: {gpu.why.value}",
                *gpu.evidence,
                Evidence("/sys/bus/pci/drivers/nvidia", ", ".join(undriven.driven)),
                severity=Severity.ERROR if gpu.why in ERRORS else Severity.WARNING,
                gone=gpu.why in (UndrivenWhy.SILENT, UndrivenWhy.GONE),
                address=gpu.address,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        address = finding.detail["address"]
        read = f"read what the kernel log says of it: journalctl -k -b | grep -iE 'nvrm|{address}'"
        if finding.detail["gone"]:
            steps = (
                "end what still runs, power the machine off, and on again after ten seconds",
                "if it does not come back: check the card's seat, riser and power cables, then test the card elsewhere",
            )
        else:
            steps = (read, f"bind it again: echo {address} > /sys/bus/pci/drivers/nvidia/bind; if that fails, restart")
        yield Plan(f"Bring the GPU at {address} back", Risk.HIGH, tuple(ByHand(s) for s in steps), reboot=True)

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
            "it reads ff everywhere, and no log",
            two().file(f"/sys/bus/pci/devices/{second}/config", b"\xff" * 64),
            finds=f"gpu:{second}",
            alone=True,
        )
        yield Scenario(
            "its probe failed",
            two().says("kernel", f"nvidia {second}: probe with driver nvidia failed with error -1"),
            finds=f"gpu:{second}",
            alone=True,
        )
        yield Scenario("nothing says why", two(), finds=f"gpu:{second}", alone=True)
        yield Scenario(
            "it was there before the last start",
            started(
                started(Machine.ubuntu2404_gpu(), "0000:01:00.0", third, seconds=-9000.0).says(
                    "kernel", "Linux version 6.8.0-50-generic (buildd@lcy02)", 1.0
                ),
                "0000:01:00.0",
            ),
            finds=f"gpu:{third}",
        )
        yield Scenario("both are driven", Machine.ubuntu2404_gpu().gpu("2684", second))
        yield Scenario("one is a virtual machine's", Machine.ubuntu2404_gpu().gpu("2684", second, driver="vfio-pci"))
        yield Scenario(
            "it fell off the bus: another fault",
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
        yield Scenario("no bus in sight", Machine().os_release("debian", "12"), unknown=True)
