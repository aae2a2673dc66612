"""Only a legacy driver branch supports this GPU (Kepler: 470, Fermi: 390, Tesla: 340).

What you see
    NVRM: The NVIDIA GeForce GT 710 GPU installed in this system is supported through the NVIDIA 470.xx Legacy
    drivers. The 535.129.03 NVIDIA driver will ignore this GPU.  Continuing probe...

    NVRM: No NVIDIA GPU found.
Why
    NVIDIA ends the support of a GPU architecture with a certain branch. A newer driver installs and loads, but
    ignores the GPU. Usually a metapackage or a .run file was newer than the card.

    The PCI id decides, not the name: cards named GT 710 or GT 730 have different architectures.

    An old card that only draws the screen, beside a newer one that computes, is not a problem.
Repair
    Install the legacy branch, on a kernel that it still builds for. For a card that is too old for any current CUDA
    version, nouveau is the better choice.
What the repair risks
    340 and 390 do not build on current kernels, and newer releases no longer have them. Then there is no accelerated
    driver.

    On Ubuntu, nvidia-driver-470 may be a transitional package that installs 535, which ignores the card again.
By hand
    # Debian 12:
    apt-get install nvidia-tesla-470-driver
    # Ubuntu 24.04:
    apt-get install nvidia-driver-470-server
    systemctl reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DriverFit,
    Drivers,
    Finding,
    Kernel,
    Machine,
    MisfitKind,
    Package,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    branch_of,
    reboot_into,
    switch_to,
    version_key,
)

NOUVEAU = "use nouveau: remove the NVIDIA driver and the blacklist of nouveau in /etc/modprobe.d, then run update-initramfs -u"


class LegacyGpuNeeds470390340(Rule):
    id = "legacy-gpu-needs-470-390-340"
    title = "The GPU needs a legacy driver branch"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.HIGH
    explains = ("gpu-driver-hung", "nouveau-bound-instead-of-nvidia", "nvidia-module-not-loaded")

    def detect(self, fit: DriverFit) -> Iterator[Finding | Unknown]:
        for doubt in fit.doubts:
            if not doubt.flavour:
                yield Unknown(doubt.reason, f"gpu:{doubt.gpu.address}")
        for misfit in fit.of(MisfitKind.LEGACY):
            yield self.finding(
                misfit.subject,
                f"{misfit.when}Driver {misfit.driver.version} ignores {misfit.who}; the last branch that supports it is {misfit.branch}",
                *misfit.evidence,
                severity=misfit.severity,
                branch=misfit.branch,
                cured=misfit.cured,
                beside=bool(misfit.others),
            )

    def remedies(
        self, finding: Finding, drivers: Drivers, kernel: Kernel | None, packages: Packages | None
    ) -> Iterator[Plan]:
        branch = finding.detail["branch"]
        if finding.detail["cured"]:
            yield reboot_into("a driver for this GPU")
            return
        if finding.detail["beside"]:
            text = f"leave it as it is, or use the other GPU for the screen; no driver supports both (branch {branch} is the last for this GPU)"
            yield Plan("No repair is needed if this card only draws the screen", Risk.LOW, (ByHand(text),))
            return
        offer = drivers.offer(branch, branch, open_flavour=False, near=branch)
        if offer and not _too_new(kernel, offer[2]):
            yield switch_to(offer[1], drivers, f"Switch to branch {branch}, the last one for this GPU")
        elif offer:
            text = f"boot an older kernel ({offer[1]} is known to build for kernels up to {offer[2]}) and install {offer[1]}"
            yield Plan(f"Switch to branch {branch}, on an older kernel", Risk.HIGH, (ByHand(text),))
        elif branch >= 470:
            where = f"dlhealth knows no package of it for {drivers.system or 'this system'}"
            if pointer := _pointer(packages, branch):
                where = (
                    f"the package {pointer.name} is transitional and installs {pointer.upstream}: install an "
                    f"older version of it ({pointer.name}={branch}.…) and hold it, or NVIDIA's .run file of branch {branch}"
                )
            text = f"install branch {branch} from the same source as the current driver; {where}"
            yield Plan(f"Switch to branch {branch}, the last one for this GPU", Risk.HIGH, (ByHand(text),))
        yield Plan("Use nouveau instead of the NVIDIA driver", Risk.HIGH, (ByHand(NOUVEAU),), reboot=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        said = (
            "NVRM: The NVIDIA GeForce GT 720 GPU installed in this system is",
            "NVRM:  supported through the NVIDIA 470.xx Legacy drivers. Please",
            "NVRM:  visit http://www.nvidia.com/object/unix.html for more",
            "NVRM:  information.  The 535.261.03 NVIDIA driver will ignore",
            "NVRM:  this GPU.  Continuing probe...",
        )
        kepler = Machine.debian12().gpu("1286", driver="").debian_driver(loaded=False)
        for number, line in enumerate(said):
            kepler.says("kernel", line, 5.0 + number / 1000)
        yield Scenario(
            "a Kepler with driver 535, which does not load",
            kepler,
            finds=gpu,
            steps=("apt-install", "reboot"),
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-tesla-470-driver may_remove=libcuda1..nvidia-kernel-dkms(22) remove=libcuda1..nvidia-kernel-dkms(21)",
                    "reboot",
                ),
                ("high reboot", "by-hand /etc/modprobe.d -u"),
            ),
        )
        yield Scenario(
            "a Kepler that uses nouveau",
            Machine.ubuntu2404()
            .gpu("1180", driver="nouveau")
            .ubuntu_driver(loaded=False)
            .remove("/usr/lib/modprobe.d/nvidia-graphics-drivers.conf"),
            finds=gpu,
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-470-server may_remove=libnvidia-compute-550..xserver-xorg-video-nvidia-550(16)",
                    "reboot",
                ),
                ("high reboot", "by-hand /etc/modprobe.d -u"),
            ),
        )
        yield Scenario(
            "a Fermi",
            Machine.debian12().gpu("0de1", driver="").debian_driver(loaded=False),
            finds=gpu,
            ladder=(("high reboot", "by-hand /etc/modprobe.d -u"),),
        )
        yield Scenario(
            "a mounted disk",
            Machine()
            .os_release("debian", "12")
            .kernel("6.1.0-50-amd64", running=False)
            .debian_driver(loaded=False)
            .says(
                "kernel",
                "NVRM: The NVIDIA GeForce GT 710 GPU installed in this system is supported through the NVIDIA 470.xx Legacy drivers.",
            ),
            finds="host",
        )
        yield Scenario(
            "a Kepler beside a Pascal is a note",
            Machine.debian12().gpu("1286", "0000:02:00.0", driver="").gpu().debian_driver(),
            finds="gpu:0000:02:00.0",
            ladder=(("low", "by-hand 470"),),
        )
        yield Scenario(
            "a GT 640, which the newest list lacks",
            Machine.debian12().gpu("0fc1", driver="").debian_driver(loaded=False),
            finds=gpu,
        )
        yield Scenario("a Kepler with 470", Machine.ubuntu2404().gpu("1180").ubuntu_driver("470.256.02"))
        yield Scenario("a Kepler without any driver", Machine.debian12().gpu("1286", driver="nouveau"), unknown=True)
        yield Scenario(
            "a Kepler reserved for a virtual machine",
            Machine.debian12().gpu("1286", driver="vfio-pci").debian_driver(loaded=False),
        )
        yield Scenario("a Pascal with 535", Machine.debian12_gpu())
        yield Scenario("an unknown id", Machine.debian12().gpu("fffe", driver="").debian_driver(), unknown=True)


def _too_new(kernel: Kernel | None, newest: str) -> bool:
    """Whether the machine's kernel is newer than the newest kernel that the package is known to build for."""
    release = (kernel.target or "") if kernel else ""
    return bool(newest) and version_key(release)[:2] > version_key(newest)


def _pointer(packages: Packages | None, branch: int) -> Package | None:
    """A transitional package: its name has this branch, its version another one."""
    named = packages.installed(f"nvidia-driver-{branch}") if packages else ()
    return next((p for p in named if branch_of(p.upstream) != branch), None)
