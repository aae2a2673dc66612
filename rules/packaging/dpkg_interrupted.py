"""dpkg was stopped in the middle of its work.

What you see
    E: dpkg was interrupted, you must manually run 'sudo dpkg --configure -a' to correct the problem.
    Until then apt installs and removes nothing.
Why
    The power failed, the terminal was closed or the machine was switched off while packages were unpacked. dpkg notes
    each step in a small file in /var/lib/dpkg/updates; what is still there was never merged into its status. A package
    that has to be reinstalled (reinst-required) was cut off while its files were copied.
Repair
    Let dpkg finish: dpkg --configure -a, then apt-get -f install. Look at the free space of / and /boot first: a full
    disk is often what stopped it, and is then reported as the cause. A package that has to be reinstalled makes
    dpkg --configure -a end with an error; install it again then.
What the repair risks
    Little: dpkg goes on where it was. Never delete the lock files or the files in /var/lib/dpkg/updates.
By hand
    df -h / /boot; dpkg --audit; dpkg --configure -a; apt-get install --reinstall PACKAGE; apt-get -f install;
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
    title = "dpkg was stopped in the middle of its work"
    stage = Stage.PACKAGE_STATE
    severity = Severity.ERROR
    explains = ("half-configured-driver-packages", "display-manager-not-started")

    def detect(self, packages: Packages, locks: PackageLocks | None) -> Iterator[Finding | Unknown]:
        broken = [p for p in packages.all() if p.flag == "reinstreq"]
        if packages.updates is None:
            yield Unknown("the steps that dpkg has not finished are not shown")
        if not packages.updates and not broken:
            return
        if locks and locks.busy:
            yield Unknown(locks.busy)
            return
        evidence = [
            Evidence(f"/var/lib/dpkg/updates/{n}", "a step that was never finished")
            for n in (packages.updates or ())[:5]
        ]
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
            yield Plan("Let dpkg finish what it began", Risk.LOW, (DpkgConfigure(), UpdateInitramfs("all")))
            return
        # apt refuses to work before dpkg has taken in its journal, and dpkg can't configure what has to be reinstalled.
        journal = (DpkgConfigure(),) if finding.detail["journal"] else ()
        yield Plan(
            f"Let dpkg finish what it can, and install {', '.join(broken)} again",
            Risk.LOW,
            (*journal, AptInstall(broken, reinstall=True), DpkgConfigure(), UpdateInitramfs("all")),
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        step = "Package: libnvidia-compute-550\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 550.120-0ubuntu0.24.04.1\n\n"
        yield Scenario(
            "power lost while the driver was upgraded",
            Machine.ubuntu2404_gpu().file("/var/lib/dpkg/updates/0000", step).file("/var/lib/dpkg/updates/0001", step),
            finds="host",
            steps=("dpkg-configure", "update-initramfs"),
        )
        yield Scenario(
            "cut off while files were copied",
            Machine.debian12().package("firefox-esr", "128.1-1", status="install reinstreq half-installed"),
            finds="host",
            steps=("apt-install", "dpkg-configure", "update-initramfs"),
        )
        yield Scenario("as installed", Machine.debian12_gpu())
        yield Scenario(
            "only a name that dpkg reserves",
            Machine.debian12_gpu().file("/var/lib/dpkg/updates/tmp.i", ""),
        )
        yield Scenario("the status can't be read", Machine.debian12().fifo("/var/lib/dpkg/status"), unknown=True)
