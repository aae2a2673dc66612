"""The closed kernel module is installed, but this GPU needs the open one.

What you see
    NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:2c58) installed in this system requires use of the NVIDIA open
    kernel modules.

    NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x22:0x56:884)

    nvidia-smi reports "No devices were found", although the driver is loaded.
Why
    Blackwell GPUs (GeForce RTX 50, RTX PRO Blackwell, B100, B200) work only with the open kernel module. The package
    without "-open" in its name has the closed one.
Repair
    Install the open kernel module of the same driver branch.
What the repair risks
    The open module does not support GPUs older than Turing in the same machine.
By hand
    # Ubuntu:
    apt-get install nvidia-driver-580-open
    # Debian with NVIDIA's repository:
    apt-get install nvidia-open
    systemctl reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    DriverFit,
    Drivers,
    Finding,
    Machine,
    MisfitKind,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    choose_between,
    reboot_into,
    switch_by_hand,
    switch_to,
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
                f"{misfit.when}The closed kernel module {misfit.driver.version} does not support {misfit.who}, which needs the open kernel module",
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
            yield reboot_into("the open kernel module")
            return
        if detail["older"]:
            yield choose_between(detail["older"], open_here=True)
            return
        offer = drivers.offer(detail["lowest"], None, open_flavour=True, near=detail["branch"])
        if offer:
            yield switch_to(offer[1], drivers, f"Install the open kernel module of branch {offer[0]}")
            return
        text = "install the open kernel module from the same source as the current driver (NVIDIA's repository: nvidia-open instead of cuda-drivers; .run file: --kernel-module-type=open), then reboot"
        yield switch_by_hand("Install the open kernel module", text)

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
        yield Scenario(
            "an RTX 5090 with the closed 580",
            loaded,
            finds=gpu,
            steps=("apt-install", "reboot"),
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-580-open may_remove=libnvidia-compute-580..xserver-xorg-video-nvidia-580(16)",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "installed, and loaded at the next boot",
            Machine.ubuntu2404().gpu("2c02", driver="").ubuntu_driver("570.124.06", loaded=False),
            finds=gpu,
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-570-open may_remove=libnvidia-compute-570..xserver-xorg-video-nvidia-570(16)",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "a B200 in a data center",
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
        yield Scenario(
            "an Ada GPU, which both modules support", Machine.ubuntu2404().gpu("2684").ubuntu_driver("580.95.05")
        )
        yield Scenario("another GPU", Machine.debian12_gpu())
        yield Scenario("no driver is installed", Machine.debian12().gpu("2b85", driver=""), unknown=True)
