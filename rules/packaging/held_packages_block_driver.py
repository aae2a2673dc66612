"""Only some of the driver's packages are on hold.

What you see
    The following packages have been kept back

    E: Held packages were changed and -y was used without --allow-change-held-packages

    After some months, the libraries are newer than the module, or the headers are newer than the kernel.
Why
    apt-mark hold on one package (nvidia-driver-NNN or linux-image) does not hold the packages that belong to it. The
    next update keeps them back, or upgrades them without the held one. Then module, libraries, kernel and headers no
    longer match.

    If Ubuntu's prebuilt modules are on hold but the kernel is not, the next kernel has no module.

    A hold on the complete set is good practice. dlhealth does not report it.
Repair
    Hold the complete set, or release the hold and upgrade all packages together. While all packages have one version,
    dlhealth leaves the choice to you. Once the versions differ, it offers to release the hold.
What the repair risks
    Somebody set the hold for a reason. Ask that person first.
By hand
    apt-mark showhold
    # Either release the hold:
    apt-mark unhold PACKAGE
    # or hold the complete set:
    apt-mark hold PACKAGE1 PACKAGE2
"""

from collections.abc import Iterator, Sequence

from dlhealth.api import (
    AptInstall,
    AptUnhold,
    ByHand,
    DriverPackages,
    DriverUse,
    Evidence,
    Finding,
    Machine,
    Package,
    Packages,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)


class HeldPackagesBlockDriver(Rule):
    id = "held-packages-block-driver"
    title = "Only some of the driver's packages are on hold"
    stage = Stage.SOURCES
    severity = Severity.WARNING
    risk = Risk.MEDIUM
    explains = (
        "driver-library-version-mismatch-after-upgrade",
        "kernel-headers-missing",
        "third-party-package-pulls-other-libnvidia",
    )

    def detect(self, packages: Packages, driver: DriverPackages) -> Iterator[Finding]:
        members = [m.package for m in driver.members if m.coupled]
        if not members:
            return
        apart = len(driver.versions()) > 1
        coming = "an update will keep the others back or leave the driver with two versions"
        if apart:
            yield from self._split(members, apart, "the driver has two versions now")
        for image in packages.installed("linux-image-*"):
            series = image.name.removeprefix("linux-image-")
            headers = packages.get(f"linux-headers-{series}")
            if series[:1].isdigit():
                continue  # a package of one kernel, not a metapackage
            if headers and headers.unpacked:
                # Modules for the image are built with these headers.
                split = image.upstream != headers.upstream
                verb = "have different versions now" if split else "will have different versions"
                yield from self._split([image, headers], split, f"the kernel and its headers {verb}")
            for module in packages.installed(f"linux-modules-nvidia-*-{series}"):
                flavour = module.name.removeprefix("linux-modules-nvidia-").removesuffix(f"-{series}")
                # Modules for one kernel only ("580-6.14.0-37") stay with that kernel.
                if "." not in flavour and module.want == "hold" and image.want != "hold":
                    yield from self._split([image, module], False, "the next kernel will have no NVIDIA module")
        if not apart:
            yield from self._split(members, apart, coming)

    def _split(self, group: list[Package], split: bool, what: str) -> Iterator[Finding]:
        """Packages that belong together; only some are on hold."""
        held = sorted({p.name for p in group if p.want == "hold"})
        free = sorted(_movable(group))
        if held and free:
            yield self.finding(
                "host",
                f"{_some(held)} {'is' if len(held) == 1 else 'are'} on hold, but {_some(free)} "
                f"{'is' if len(free) == 1 else 'are'} not: {what}",
                *(Evidence("/var/lib/dpkg/status", f"{p.name} {p.version}: {p.want}") for p in _shown(group)),
                severity=Severity.ERROR if split else Severity.WARNING,
                coming=not split,
                held=tuple(held),
                free=tuple(free),
            )

    def remedies(self, finding: Finding, use: DriverUse | None) -> Iterator[Plan]:
        loaded = bool(use and use.version)  # then the old module stays loaded beside the new libraries
        held, free = finding.detail["held"], finding.detail["free"]
        hold_all = Plan(
            f"Hold the other packages too ({_some(free)})",
            Risk.LOW,
            (ByHand(f"apt-mark hold {' '.join(free)}"),),
        )
        if finding.severity is Severity.WARNING:
            # The versions match, and somebody set the hold: that person decides.
            yield hold_all
            text = f"apt-mark unhold {' '.join(held)}; apt-get install {' '.join((*held, *free))}"
            yield Plan("Or release the hold and upgrade all packages", Risk.MEDIUM, (ByHand(text),), network=True)
            return
        yield Plan(
            "Release the hold and bring all packages to one version",
            Risk.MEDIUM,
            (AptUnhold(held), AptInstall((*held, *free)), *([Reboot()] if loaded else [])),
            reboot=loaded,
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        version = "550.120-0ubuntu0.24.04.1"
        hold = "hold ok installed"
        yield Scenario(
            "only the metapackage is held, and all versions match",
            Machine.ubuntu2404_gpu().package("nvidia-driver-550", version, status=hold),
            finds="host",
            ladder=(
                (
                    "low",
                    "by-hand libnvidia-cfg1-550 libnvidia-common-550 libnvidia-compute-550 libnvidia-decode-550 libnvidia-encode-550 libnvidia-extra-550",
                ),
                (
                    "medium network",
                    "by-hand nvidia-driver-550 libnvidia-cfg1-550 libnvidia-common-550 libnvidia-compute-550 libnvidia-decode-550 libnvidia-encode-550",
                ),
            ),
        )
        yield Scenario(
            "the module's package is held, the libraries are newer",
            Machine.ubuntu2404_gpu()
            .package("nvidia-dkms-550", "550.107.02-0ubuntu0.24.04.1", status=hold)
            .package("nvidia-kernel-source-550", "550.107.02-0ubuntu0.24.04.1", status=hold),
            finds="host",
            steps=("apt-unhold", "apt-install", "reboot"),
            ladder=(
                (
                    "medium reboot network",
                    "apt-unhold nvidia-dkms-550 nvidia-kernel-source-550",
                    "apt-install nvidia-dkms-550..xserver-xorg-video-nvidia-550(14)",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "the kernel is held, but its headers are not",
            Machine.debian12_gpu()
            .package("linux-image-amd64", "6.1.170-1", status=hold)
            .package("linux-headers-amd64", "6.1.176-1"),
            finds="host",
            ladder=(
                (
                    "medium reboot network",
                    "apt-unhold linux-image-amd64",
                    "apt-install linux-image-amd64 linux-headers-amd64",
                    "reboot",
                ),
            ),
        )
        kernel = "6.8.0-50-generic"
        built = (
            Machine.ubuntu2404_gpu()
            .package("linux-image-generic", "6.8.0-50.51")
            .package(f"linux-modules-nvidia-550-{kernel}", "6.8.0-50.51")
            .package("linux-modules-nvidia-550-generic", "6.8.0-50.51", depends=f"linux-modules-nvidia-550-{kernel}")
            .mark("*nvidia*", hold)
        )
        yield Scenario(
            "Ubuntu's prebuilt modules are held, but the kernel is not",
            built,
            finds="host",
            ladder=(
                ("low", "by-hand linux-image-generic"),
                ("medium network", "by-hand linux-modules-nvidia-550-generic linux-image-generic"),
            ),
        )
        yield Scenario(
            "all packages named nvidia are held, which also keeps libcuda1",
            Machine.debian12_gpu()
            .mark("*nvidia*", hold)
            .package("libcuda1", "535.261.03-1", depends="nvidia-alternative (= 535.261.03-1)", multi_arch="same")
            .package("nvidia-alternative", "535.261.03-1", status=hold),
        )
        yield Scenario(
            "held, while the loaded module is still the one before the last update: the hold did not do that",
            Machine.ubuntu2404_gpu().package("nvidia-driver-550", version, status=hold).loaded_driver("550.107.02"),
            finds="host",
            alone=False,
        )
        yield Scenario("nothing is held", Machine.ubuntu2404_gpu())
        yield Scenario("the complete set is held", Machine.ubuntu2404_gpu().mark("*nvidia*", hold))
        yield Scenario(
            "only an unrelated package is held",
            Machine.ubuntu2404_gpu().package("firefox", "1:1snap1-0ubuntu5", status=hold),
        )
        yield Scenario("no package records", Machine().file("/etc/hostname", "disk"), unknown=True)


def _movable(group: list[Package]) -> set[str]:
    """Names of the packages that an update can change: not held, and not tied to the exact version of a package that
    cannot change, as libcuda1 is to nvidia-alternative."""
    fixed = {p.name for p in group if p.want == "hold"}
    free = {p.name: p for p in group if p.name not in fixed}
    while stuck := {n for n, p in free.items() if any(f"{f} (= {p.version})" in p.depends for f in fixed)}:
        fixed |= stuck
        free = {n: p for n, p in free.items() if n not in stuck}
    return set(free)


def _shown(group: list[Package]) -> list[Package]:
    """At most 12 packages, the held ones first."""
    return sorted(group, key=lambda p: (p.want != "hold", p.name))[:12]


def _some(names: Sequence[str]) -> str:
    """The first three names, and how many follow."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
