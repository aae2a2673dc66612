"""dpkg was interrupted and has unfinished work.

What you see
    E: dpkg was interrupted, you must manually run 'sudo dpkg --configure -a' to correct the problem.

    Until then apt does not install or remove anything.
Why
    The power failed, the terminal was closed, or the machine was switched off while dpkg was unpacking packages.

    dpkg records each step in a small file in /var/lib/dpkg/updates. Steps that are still there were not finished.

    A package that must be reinstalled (reinst-required) was interrupted while its files were being copied.
Repair
    Let dpkg finish: dpkg --configure -a, then apt-get -f install. Check the free space on / and /boot first: a full
    disk often interrupts dpkg. dlhealth then reports the full disk as the cause.

    If a package must be reinstalled, dpkg --configure -a ends with an error. Then reinstall that package.
What the repair risks
    Little: dpkg continues where it stopped. Never delete the lock files or the files in /var/lib/dpkg/updates.
By hand
    df -h / /boot
    dpkg --audit
    dpkg --configure -a
    apt-get install --reinstall PACKAGE
    apt-get -f install
    update-initramfs -u -k all
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    DpkgConfigure,
    Evidence,
    Finding,
    Machine,
    PackageLocks,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
)


class DpkgInterrupted(Rule):
    id = "dpkg-interrupted"
    title = "dpkg was interrupted"
    stage = Stage.PACKAGE_STATE
    severity = Severity.ERROR
    explains = ("half-configured-driver-packages", "display-manager-not-started")

    def detect(self, packages: Packages, locks: PackageLocks | None) -> Iterator[Finding | Unknown]:
        broken = [p for p in packages.all() if p.flag == "reinstreq"]
        if packages.updates is None:
            yield Unknown("cannot read dpkg's unfinished steps")
        if not packages.updates and not broken:
            return
        if locks and locks.busy:
            yield Unknown(locks.busy)
            return
        evidence = [Evidence(f"/var/lib/dpkg/updates/{n}", "an unfinished step") for n in (packages.updates or ())[:5]]
        evidence += [Evidence("/var/lib/dpkg/status", f"{p.name}: {p.want} {p.flag} {p.state}") for p in broken[:10]]
        steps = len(packages.updates or ())
        what = [f"{steps} unfinished step{'s' * (steps != 1)} in /var/lib/dpkg/updates"] if steps else []
        if broken:
            what.append(f"{', '.join(p.name for p in broken[:5])} must be reinstalled")
        yield self.finding(
            "host",
            f"dpkg was interrupted: {' and '.join(what)}",
            *evidence,
            reinstall=tuple(sorted({p.name for p in broken})),
            journal=bool(packages.updates),
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        broken = finding.detail["reinstall"]
        if not broken:
            yield Plan("Let dpkg finish its work", Risk.LOW, (DpkgConfigure(), UpdateInitramfs("all")))
            return
        # apt needs dpkg to process its journal first, and dpkg cannot configure a package that must be reinstalled.
        journal = (DpkgConfigure(),) if finding.detail["journal"] else ()
        yield Plan(
            f"Let dpkg finish its work, and reinstall {', '.join(broken)}",
            Risk.LOW,
            (*journal, AptInstall(broken, reinstall=True), DpkgConfigure(), UpdateInitramfs("all")),
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        step = "Package: libnvidia-compute-550\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 550.120-0ubuntu0.24.04.1\n\n"
        yield Scenario(
            "a power failure during a driver upgrade",
            Machine.ubuntu2404_gpu().file("/var/lib/dpkg/updates/0000", step).file("/var/lib/dpkg/updates/0001", step),
            finds="host",
            steps=("dpkg-configure", "update-initramfs"),
            ladder=(("low", "dpkg-configure", "update-initramfs all"),),
        )
        yield Scenario(
            "interrupted while files were being copied",
            Machine.debian12().package("firefox-esr", "128.1-1", status="install reinstreq half-installed"),
            finds="host",
            steps=("apt-install", "dpkg-configure", "update-initramfs"),
            ladder=(("low network", "apt-install firefox-esr reinstall", "dpkg-configure", "update-initramfs all"),),
        )
        yield Scenario("nothing unfinished", Machine.debian12_gpu())
        yield Scenario(
            "a file name that dpkg reserves",
            Machine.debian12_gpu().file("/var/lib/dpkg/updates/tmp.i", ""),
        )
        yield Scenario(
            "the package records cannot be read", Machine.debian12().fifo("/var/lib/dpkg/status"), unknown=True
        )
