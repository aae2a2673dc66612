"""The driver's packages are still from the release before the upgrade.

What you see
    A black screen since the upgrade from Ubuntu 22.04 to 24.04.

    dpkg -l: nvidia-driver-470 470.256.02-0ubuntu0.22.04.1, on Ubuntu 24.04
Why
    A release upgrade switches other repositories off (# disabled on upgrade to noble) and keeps packages that the new
    release does not have. The old driver then gets no updates, and may not build for the new kernel.

    If its module still works, dlhealth only adds a note.
Repair
    Install the driver of the new release. If the new release has no such branch, choose one that supports the GPU.
What the repair risks
    Another driver version replaces module and libraries together. It needs a reboot.
By hand
    dpkg -l | grep -i nvidia
    grep -rn 'disabled on upgrade' /etc/apt/sources.list*
    apt-get update
    apt-get install nvidia-driver-NNN
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverPackages,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    Machine,
    PackageLocks,
    Plan,
    Reboot,
    ReleaseUpgrade,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    version_key,
)

RELEASE = {
    "ubuntu": re.compile(r"ubuntu.*?[.~+](?:gpu)?(\d\d\.\d\d)(?:\.\d+)?$"),
    "debian": re.compile(r"[~+]deb(\d+)u\d+$"),
}
"""By distribution, where a version names the release that its package was built for."""


class DriverAfterReleaseUpgrade(Rule):
    id = "driver-after-release-upgrade"
    title = "The driver's packages are from the previous release"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = (
        "dkms-module-missing-for-running-kernel",
        "gpl-only-symbol-build-failure",
        "kernel-too-new-for-driver-branch",
    )

    def detect(
        self,
        driver: DriverPackages,
        release: ReleaseUpgrade,
        kernel: Kernel | None,
        modules: KernelModules | None,
        locks: PackageLocks | None,
    ) -> Iterator[Finding | Unknown]:
        pattern = RELEASE.get(release.distribution)
        if pattern is None or not driver.members:
            return
        old = [
            (m.package, found[1])
            for m in driver.members
            if m.coupled and (found := pattern.search(m.package.version))
            if version_key(found[1]) < version_key(release.version)
        ]
        if not any(m.package is p for p, _ in old for m in driver.role("driver", "module", "compute")):
            return
        if locks and locks.busy:
            yield Unknown(locks.busy)  # a release upgrade takes long
            return
        target = kernel.target if kernel else None
        works = bool(modules and target and modules.usable(target))
        known = modules is not None and target is not None
        package, built = old[0]
        yield self.finding(
            "host",
            f"The driver's packages are from {release.distribution.title()} {built}, but this is {release.version}"
            + ("" if works or not known else f": kernel {target} has no NVIDIA module"),
            *(Evidence("/var/lib/dpkg/status", f"{p.name} {p.version}") for p, _ in old[:4]),
            Evidence("/etc/os-release", f"{release.distribution} {release.version}"),
            *(Evidence(place, text) for place, text in release.disabled[:2]),
            severity=Severity.ERROR if known and not works else Severity.NOTE,
            package=package.name,
        )

    def remedies(self, finding: Finding, driver: DriverPackages | None) -> Iterator[Plan]:
        if driver and driver.complete:
            yield Plan(
                f"Install this release's version of {', '.join(driver.complete)}",
                Risk.MEDIUM,
                (AptInstall(driver.complete), Reboot()),
                reboot=True,
                network=True,
            )
        text = (
            "if this release has no such branch: install one that supports the GPU (Ubuntu: ubuntu-drivers list; Debian:"
            " nvidia-detect), or switch its repository for this release on again, but only one source"
        )
        yield Plan("Choose a driver of this release", Risk.MEDIUM, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def older(machine: Machine) -> Machine:
            """The driver 535 of Ubuntu 22.04."""
            for part in ("nvidia-driver-550", "nvidia-dkms-550", "nvidia-kernel-source-550", "libnvidia-compute-550"):
                machine.package(part, "550.120-0ubuntu0.22.04.1", source="nvidia-graphics-drivers-550")
            return machine

        ladder = (
            ("medium reboot network", "apt-install nvidia-driver-550 nvidia-utils-550", "reboot"),
            ("medium network", "by-hand ubuntu-drivers nvidia-detect"),
        )
        yield Scenario(
            "its module does not exist for the new kernel",
            older(Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False)).file(
                "/etc/apt/sources.list.d/graphics-drivers-ubuntu-ppa-jammy.list",
                "# deb https://ppa.launchpadcontent.net/graphics-drivers/ppa/ubuntu/ jammy main # disabled on upgrade to noble\n",
            ),
            finds="host",
            alone=False,
            ladder=ladder,
        )
        yield Scenario(
            "it still works: a note", older(Machine.ubuntu2404_gpu()), finds="host", alone=False, ladder=ladder
        )
        yield Scenario("the driver of this release", Machine.ubuntu2404_gpu())
        yield Scenario("Debian's driver, whose version names no release", Machine.debian12_gpu())
        yield Scenario(
            "a package of a newer release, taken on purpose",
            Machine.ubuntu2404_gpu().package("libnvidia-compute-550", "550.120-0ubuntu0.24.10.1", multi_arch="same"),
        )
        yield Scenario(
            "the upgrade is going on",
            older(Machine.ubuntu2404_gpu()).locked("/var/lib/dpkg/lock", 1595, "dpkg"),
            unknown=True,
        )
