"""Only a part of the driver's packages is on hold.

What you see
    The following packages have been kept back
    E: Held packages were changed and -y was used without --allow-change-held-packages
    After some months the libraries are newer than the module, or the headers newer than the kernel.
Why
    apt-mark hold on one package (nvidia-driver-NNN, or linux-image) does not hold what belongs to it. The rest is kept
    back with it, or moves on with the next update, and module, libraries, kernel and headers no longer fit. Where
    Ubuntu's built modules are held and the kernel is not, the next kernel has no module. A hold on the complete set is
    good practice, and is not reported.
Repair
    Hold the complete set, or none of it: take the hold off and upgrade all together.
What the repair risks
    A hold was set by a person for a reason: ask that person first.
By hand
    apt-mark showhold; apt-mark unhold PACKAGE...; or apt-mark hold of all of them
"""

from collections.abc import Iterator

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
    title = "Only a part of the driver's packages is on hold"
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
        split = len(driver.versions()) > 1
        coming = "an update keeps the rest back, or splits the driver into two versions"
        sets = [(members, split, "the driver has split into two versions" if split else coming)]
        for image in packages.installed("linux-image-*"):
            series = image.name.removeprefix("linux-image-")
            headers = packages.get(f"linux-headers-{series}")
            if series[:1].isdigit():
                continue  # one kernel, no metapackage
            if headers and headers.unpacked:
                # A module is built from one for the other.
                split = image.upstream != headers.upstream
                verb = "has split" if split else "will split"
                sets.append(([image, headers], split, f"the kernel {verb} into two versions"))
            for module in packages.installed(f"linux-modules-nvidia-*-{series}"):
                flavour = module.name.removeprefix("linux-modules-nvidia-").removesuffix(f"-{series}")
                # One kernel's own modules stay with it: "580-6.14.0-37".
                if "." not in flavour and module.want == "hold" and image.want != "hold":
                    sets.append(([image, module], False, "the next kernel comes without a module"))
        for group, split, what in sets:
            held = sorted({p.name for p in group if p.want == "hold"})
            free = sorted(_movable(group))
            if not held or not free:
                continue
            yield self.finding(
                "host",
                f"{', '.join(held[:3])}{' ...' if len(held) > 3 else ''} on hold, but not {', '.join(free[:3])}"
                f"{' ...' if len(free) > 3 else ''}: {what}",
                *(Evidence("/var/lib/dpkg/status", f"{p.name} {p.version}: {p.want}") for p in _shown(group)),
                severity=Severity.ERROR if split else Severity.WARNING,
                held=tuple(held),
                free=tuple(free),
            )

    def remedies(self, finding: Finding, use: DriverUse | None) -> Iterator[Plan]:
        loaded = bool(use and use.version)  # the old module, beside the new libraries
        held, free = finding.detail["held"], finding.detail["free"]
        hold_all = Plan(
            f"Hold the rest as well ({', '.join(free[:3])}{' ...' if len(free) > 3 else ''})",
            Risk.LOW,
            (ByHand(f"apt-mark hold {' '.join(free)}"),),
        )
        if finding.severity is Severity.WARNING:
            yield hold_all  # still of one version: the hold does what it is for once it is complete
        yield Plan(
            "Take the hold off and bring all to one version",
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
            "only the metapackage, all of one version",
            Machine.ubuntu2404_gpu().package("nvidia-driver-550", version, status=hold),
            finds="host",
            steps=("apt-unhold", "apt-install", "reboot"),
        )
        yield Scenario(
            "the module's package was held, the libraries moved on",
            Machine.ubuntu2404_gpu()
            .package("nvidia-dkms-550", "550.107.02-0ubuntu0.24.04.1", status=hold)
            .package("nvidia-kernel-source-550", "550.107.02-0ubuntu0.24.04.1", status=hold),
            finds="host",
        )
        yield Scenario(
            "the kernel is held, its headers are not",
            Machine.debian12_gpu()
            .package("linux-image-amd64", "6.1.170-1", status=hold)
            .package("linux-headers-amd64", "6.1.176-1"),
            finds="host",
        )
        kernel = "6.8.0-50-generic"
        built = (
            Machine.ubuntu2404_gpu()
            .package("linux-image-generic", "6.8.0-50.51")
            .package(f"linux-modules-nvidia-550-{kernel}", "6.8.0-50.51")
            .package("linux-modules-nvidia-550-generic", "6.8.0-50.51", depends=f"linux-modules-nvidia-550-{kernel}")
            .mark("*nvidia*", hold)
        )
        yield Scenario("Ubuntu's built modules are held, the kernel is not", built, finds="host")
        yield Scenario(
            "all that has nvidia in its name is held; libcuda1 can't go on without it",
            Machine.debian12_gpu()
            .mark("*nvidia*", hold)
            .package("libcuda1", "535.261.03-1", depends="nvidia-alternative (= 535.261.03-1)", multi_arch="same")
            .package("nvidia-alternative", "535.261.03-1", status=hold),
        )
        yield Scenario("nothing is held", Machine.ubuntu2404_gpu())
        yield Scenario("the complete set is held", Machine.ubuntu2404_gpu().mark("*nvidia*", hold))
        yield Scenario(
            "what is held has nothing to do with it",
            Machine.ubuntu2404_gpu().package("firefox", "1:1snap1-0ubuntu5", status=hold),
        )
        yield Scenario("no packages in sight", Machine().file("/etc/hostname", "disk"), unknown=True)


def _movable(group: list[Package]) -> set[str]:
    """Names of those that an update can change: not held, and needing no held one (or what needs one) in the very
    version that it has, as libcuda1 needs nvidia-alternative."""
    fixed = {p.name for p in group if p.want == "hold"}
    free = {p.name: p for p in group if p.name not in fixed}
    while stuck := {n for n, p in free.items() if any(f"{f} (= {p.version})" in p.depends for f in fixed)}:
        fixed |= stuck
        free = {n: p for n, p in free.items() if n not in stuck}
    return set(free)


def _shown(group: list[Package]) -> list[Package]:
    """The held ones first, a dozen in all."""
    return sorted(group, key=lambda p: (p.want != "hold", p.name))[:12]
