"""Only a part of the driver's packages is on hold.

What you see
    The following packages have been kept back
    E: Held packages were changed and -y was used without --allow-change-held-packages
    After some months the libraries are newer than the module, or the headers newer than the kernel.
Why
    apt-mark hold on one package (nvidia-driver-NNN, or linux-image) does not hold what belongs to it. The rest moves
    on with the next update, and module, libraries, kernel and headers no longer fit. A hold on the complete set is good
    practice, and is not reported.
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
    Layer,
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
    layer = Layer.PACKAGING
    stage = Stage.SOURCES
    severity = Severity.WARNING
    risk = Risk.MEDIUM
    explains = (
        "third-party-package-pulls-other-libnvidia",
        "driver-library-version-mismatch-after-upgrade",
        "partial-driver-install",
        "kernel-headers-missing",
    )

    def detect(self, packages: Packages, driver: DriverPackages) -> Iterator[Finding]:
        members = [m.package for m in driver.members if m.coupled]
        if not members:
            return
        sets = [
            (members, "the driver", len(driver.versions()) > 1),
            # Image and headers of the same kernel series: a module is built from one for the other.
            *((pair, "the kernel", len({p.upstream for p in pair}) > 1) for pair in _kernel_metapackages(packages)),
        ]
        for group, what, split in sets:
            held = sorted({p.name for p in group if p.want == "hold"})
            free = sorted({p.name for p in group if p.want != "hold"} - set(held))
            if not held or not free:
                continue
            has_split = "has split" if split else "will split"
            yield self.finding(
                "host",
                f"{', '.join(held[:3])}{' ...' if len(held) > 3 else ''} on hold, but not {', '.join(free[:3])}"
                f"{' ...' if len(free) > 3 else ''}: {what} {has_split} into two versions",
                *(Evidence("/var/lib/dpkg/status", f"{p.name} {p.version}: {p.want}") for p in _shown(group)),
                severity=Severity.ERROR if split else Severity.WARNING,
                held=" ".join(held),
                free=" ".join(free),
            )

    def remedies(self, finding: Finding, use: DriverUse | None) -> Iterator[Plan]:
        loaded = bool(use and use.version)  # the old module, beside the new libraries
        held, free = tuple(finding.detail["held"].split()), tuple(finding.detail["free"].split())
        hold_all = Plan(
            f"Hold the rest as well ({', '.join(free[:3])} ...)", Risk.LOW, (ByHand(f"apt-mark hold {' '.join(free)}"),)
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
        yield Scenario("nothing is held", Machine.ubuntu2404_gpu())
        yield Scenario("the complete set is held", Machine.ubuntu2404_gpu().mark("*nvidia*", hold))
        yield Scenario(
            "what is held has nothing to do with it",
            Machine.ubuntu2404_gpu().package("firefox", "1:1snap1-0ubuntu5", status=hold),
        )
        yield Scenario("no packages in sight", Machine().file("/etc/hostname", "disk"), unknown=True)


def _kernel_metapackages(packages: Packages) -> list[list[Package]]:
    """The image's and the headers' metapackage of each kernel series ("amd64", "generic", "generic-hwe-22.04")."""
    pairs = []
    for image in packages.installed("linux-image-*"):
        series = image.name.removeprefix("linux-image-")
        headers = packages.get(f"linux-headers-{series}")
        if headers and headers.unpacked and not series[:1].isdigit():
            pairs.append([image, headers])
    return pairs


def _shown(group: list[Package]) -> list[Package]:
    """The held ones first, a dozen in all."""
    return sorted(group, key=lambda p: (p.want != "hold", p.name))[:12]
