"""The open kernel module is installed, but only the closed one supports this GPU.

What you see
    NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:1b82) installed in this system is not supported by open nvidia.ko
    because it does not include the required GPU System Processor (GSP).

    nvidia-smi: No devices were found
Why
    The open module needs a processor on the GPU (GSP) that only Turing and newer GPUs have. Since branch 560,
    installers choose the open module by default, even for Maxwell, Pascal and Volta.

    In branches 515 to 545 the open module supports only data center GPUs. On other GPUs it works only with the
    parameter NVreg_OpenRmEnableUnsupportedGpus=1, and the kernel log says so.

    An old card beside supported ones is only ignored. In a virtual machine, a supported GPU may print the same
    message for another reason.
Repair
    Install the closed kernel module of a branch that still supports the GPU.
What the repair risks
    Another set of driver packages is installed. In a machine with an older and a newer GPU, the closed module of
    branch 580 or older must support both. If the newer GPU is a Blackwell, no driver supports both.
By hand
    # Ubuntu (without -open):
    apt-get install nvidia-driver-580
    # Debian:
    apt-get install nvidia-kernel-dkms
    systemctl reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
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
    SetAlternative,
    Severity,
    Stage,
    Unknown,
    choose_between,
    reboot_into,
    switch_by_hand,
    switch_to,
)


class OpenModuleOnUnsupportedGpu(Rule):
    id = "open-module-on-unsupported-gpu"
    title = "The open kernel module does not support this GPU"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.HIGH
    explains = ("gpu-driver-hung", "nouveau-bound-instead-of-nvidia", "nvidia-module-not-loaded")

    def detect(self, fit: DriverFit) -> Iterator[Finding | Unknown]:
        for doubt in fit.doubts:
            yield Unknown(doubt.reason, f"gpu:{doubt.gpu.address}")
        for misfit in fit.of(MisfitKind.NO_GSP, MisfitKind.NOT_READY):
            why = (
                "in this branch it supports only data center GPUs"
                if misfit.kind == MisfitKind.NOT_READY
                else "this GPU needs the closed kernel module"
            )
            yield self.finding(
                misfit.subject,
                f"{misfit.when}The open kernel module {misfit.driver.version} does not support {misfit.who}: {why}",
                *misfit.evidence,
                severity=misfit.severity,
                branch=misfit.driver.branch,
                last=misfit.branch,
                lowest=max((g.first_branch or 0 for g in (misfit.gpu, *misfit.others)), default=0),
                newer=next((g.name for g in misfit.others if g.needs_open), ""),
                cured=misfit.cured,
            )

    def remedies(self, finding: Finding, drivers: Drivers) -> Iterator[Plan]:
        detail = finding.detail
        if detail["cured"]:
            yield reboot_into("the closed kernel module")
            return
        if detail["newer"]:
            yield choose_between(detail["newer"], open_here=False)
            return
        branch, last = detail["branch"], detail["last"]
        if "nvidia-open-kernel-dkms" in drivers.packages and not drivers.repository:
            yield Plan(
                f"Install the closed kernel module of branch {branch}",
                Risk.HIGH,
                (
                    AptInstall(("nvidia-kernel-dkms",), may_remove=drivers.packages),
                    # Debian installs both side by side; this alternative chooses the one that modprobe loads.
                    SetAlternative("nvidia", "/usr/lib/nvidia/current"),
                    Reboot(),
                ),
                reboot=True,
                network=True,
            )
            return
        offer = drivers.offer(detail["lowest"], last, open_flavour=False, near=branch)
        if offer:
            yield switch_to(offer[1], drivers, f"Install the closed kernel module of branch {offer[0]}")
            return
        limit = f" of branch {last} or older" if last else ""
        text = f"install the closed kernel module{limit} from the same source as the current driver (NVIDIA's repository: cuda-drivers instead of nvidia-open; .run file: --kernel-module-type=proprietary), then reboot"
        yield switch_by_hand("Install the closed kernel module", text)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        said = (
            "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:{id})",
            "NVRM: installed in this system is not supported by open",
            "NVRM: nvidia.ko because it does not include the required GPU",
            "NVRM: System Processor (GSP).",
        )
        yield Scenario(
            "-open packages on a Pascal",
            Machine.ubuntu2404().gpu("1b06", driver="").ubuntu_driver("560.35.03", open_flavour=True),
            finds=gpu,
            steps=("apt-install", "reboot"),
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-560 may_remove=libnvidia-compute-560..xserver-xorg-video-nvidia-560(16)",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "installed, and loaded at the next boot",
            Machine.ubuntu2404().gpu("1db6", driver="").ubuntu_driver(open_flavour=True, loaded=False),
            finds=gpu,
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-550 may_remove=libnvidia-compute-550..xserver-xorg-video-nvidia-550(16)",
                    "reboot",
                ),
            ),
        )
        early = Machine.ubuntu2404().gpu("1e07").ubuntu_driver("515.76", open_flavour=True)
        early.says("kernel", "NVRM: Open nvidia.ko is only ready for use on Data Center GPUs.", 5.0)
        early.says("kernel", "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x63:0x0:1905)", 6.0)
        yield Scenario(
            "an early open module on a GeForce",
            early,
            finds=gpu,
            alone=True,
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-515 may_remove=libnvidia-compute-515..xserver-xorg-video-nvidia-515(16)",
                    "reboot",
                ),
            ),
        )
        unlisted = Machine.ubuntu2404().gpu("fffe", driver="").ubuntu_driver(open_flavour=True)
        for number, line in enumerate(said):
            unlisted.says("kernel", line.format(id="fffe"), 5.0 + number / 1000)
        yield Scenario("an unlisted id, but the kernel log reports it", unlisted, finds=gpu)
        yield Scenario(
            "a Maxwell beside a Turing",
            Machine.ubuntu2404().gpu("1eb8").gpu("1380", "0000:02:00.0", driver="").ubuntu_driver(open_flavour=True),
            finds="gpu:0000:02:00.0",
        )
        virtual = Machine.ubuntu2404().gpu("2331", driver="").ubuntu_driver(open_flavour=True)
        for number, line in enumerate(said):
            virtual.says("kernel", line.format(id="2331"), 5.0 + number / 1000)
        yield Scenario("an H100 in a confidential virtual machine", virtual, unknown=True)
        yield Scenario("a new GPU", Machine.ubuntu2404().gpu("2684").ubuntu_driver(open_flavour=True))
        yield Scenario(
            "a Tesla T4, which some lists lack", Machine.ubuntu2404().gpu("1eb8").ubuntu_driver(open_flavour=True)
        )
        yield Scenario("the closed module", Machine.debian12_gpu())
        yield Scenario(
            "the log of an older driver",
            Machine.debian12_gpu().says("kernel", "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.261.03"),
        )
        yield Scenario(
            "an unknown id",
            Machine.ubuntu2404().gpu("fffe", driver="").ubuntu_driver(open_flavour=True),
            unknown=True,
        )
