"""The closed kernel module is installed for a GPU that only the open one supports.

What you see
    NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:2c58)
    NVRM: installed in this system requires use of the NVIDIA open kernel modules.
    NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x22:0x56:884)
    nvidia-smi: No devices were found, while the driver is loaded.
Why
    Blackwell GPUs (GeForce RTX 50, RTX PRO Blackwell, B100, B200) have no support in the closed module; a driver
    manager, or a person, chose the package without -open.
Repair
    Install the open module of the same branch.
What the repair risks
    GPUs before Turing in the same machine are not supported by the open module.
By hand
    apt-get install nvidia-driver-580-open (Ubuntu) or nvidia-open (NVIDIA's repository); reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverFit,
    Drivers,
    Finding,
    Machine,
    MisfitKind,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class ClosedModuleOnBlackwell(Rule):
    id = "closed-module-on-blackwell"
    title = "This GPU needs the open kernel module"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.HIGH
    explains = ("gpu-driver-hung", "nouveau-bound-instead-of-nvidia", "nvidia-module-not-loaded")

    def detect(self, fit: DriverFit) -> Iterator[Finding | Unknown]:
        for doubt in fit.doubts:
            yield Unknown(doubt.reason, f"gpu:{doubt.gpu.address}")
        for misfit in fit.of(MisfitKind.NEEDS_OPEN):
            yield self.finding(
                misfit.subject,
                f"{misfit.when}The closed kernel module {misfit.driver.version} does not support {misfit.who}: it needs the open one",
                *misfit.evidence,
                severity=misfit.severity,
                branch=misfit.driver.branch,
                lowest=misfit.branch or misfit.driver.branch,
                older=next((g.name for g in misfit.others if g.supports_open is False), ""),
                cured=misfit.cured,
            )

    def remedies(self, finding: Finding, drivers: Drivers) -> Iterator[Plan]:
        detail = finding.detail
        if detail["cured"]:
            yield Plan("Restart: the next start has the open module", Risk.MEDIUM, (Reboot(),), reboot=True)
            return
        if detail["older"]:
            text = f"no driver serves both GPUs: the {detail['older']} needs the closed kernel module. Take one of them out, or leave this one unused"
            yield Plan("Decide which of the two GPUs shall work", Risk.LOW, (ByHand(text),))
            return
        offer = drivers.offer(detail["lowest"], None, open_flavour=True, near=detail["branch"])
        if offer:
            yield Plan(
                f"Install the open kernel module of branch {offer[0]}",
                Risk.HIGH,
                (AptInstall((offer[1],), may_remove=drivers.packages, remove=drivers.beside), Reboot()),
                reboot=True,
                network=True,
            )
            return
        text = "install the open kernel module from where this driver came from (NVIDIA's repository: nvidia-open instead of cuda-drivers; .run file: --kernel-module-type=open); then restart"
        yield Plan("Install the open kernel module", Risk.HIGH, (ByHand(text),), reboot=True, network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        said = (
            "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2b85)",
            "NVRM: installed in this system requires use of the NVIDIA open kernel modules.",
            "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x22:0x56:884)",
        )
        loaded = Machine.ubuntu2404().gpu("2b85").ubuntu_driver("580.95.05")
        for number, line in enumerate(said):
            loaded.says("kernel", line, 5.0 + number / 1000)
        yield Scenario("an RTX 5090 with the closed 580", loaded, finds=gpu, steps=("apt-install", "reboot"))
        yield Scenario(
            "on the disk for the next start",
            Machine.ubuntu2404().gpu("2c02", driver="").ubuntu_driver("570.124.06", loaded=False),
            finds=gpu,
        )
        yield Scenario(
            "a data center's B200",
            Machine.ubuntu2404().gpu("2901", klass="0x030200").ubuntu_driver("580.95.05"),
            finds=gpu,
        )
        yield Scenario(
            "the open module", Machine.ubuntu2404().gpu("2b85").ubuntu_driver("580.95.05", open_flavour=True)
        )
        yield Scenario(
            "a driver that is too old in any flavour",
            Machine.ubuntu2404().gpu("2b85", driver="").ubuntu_driver(loaded=False),
        )
        yield Scenario("an Ada, which takes both", Machine.ubuntu2404().gpu("2684").ubuntu_driver("580.95.05"))
        yield Scenario("another GPU", Machine.debian12_gpu())
        yield Scenario("no driver in sight", Machine.debian12().gpu("2b85", driver=""), unknown=True)
