"""dpkg refuses to unpack a package, because another package already has one of its files.

What you see
    dpkg: error processing archive /var/cache/apt/archives/nvidia-340_340.107_amd64.deb (--unpack):
    trying to overwrite '/lib/udev/rules.d/71-nvidia.rules', which is also in package nvidia-kernel-common-418 418.56
Why
    Two branches of the driver, or the builds of two makers, bring a file at the same path. Both packages cannot be
    installed. Usually one is left over from an earlier driver, or comes from another repository.

    Every run of apt stops there, and other packages stay unpacked but not configured.
Repair
    Remove the package that is not part of your driver, then let apt continue.
What the repair risks
    apt may want to remove more: read its list. dlhealth stops if it names anything else. Never let dpkg overwrite the
    file by force: the next upgrade of either package then fails again.
By hand
    grep -B1 'trying to overwrite' /var/log/apt/term.log
    dpkg -S FILE
    # Remove the package of the driver that you do not use:
    apt-get remove PACKAGE
    apt-get -f install
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptFailures,
    AptInstall,
    AptRemove,
    ByHand,
    DpkgConfigure,
    DriverPackages,
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
    classify,
)
from dlhealth.lazy import regex

ARCHIVE = regex(r"(?:archive|file) \S*?([a-z0-9][a-z0-9+.-]+)_([^_\s/]+)_([a-z0-9]+)\.deb", re.ASCII)
OVERWRITE = regex(
    r"trying to overwrite (?:shared )?'([^']+)', which is also in package (\S+?)(?::\w+)? (\S+)", re.ASCII
)


class DpkgFileOverwriteConflict(Rule):
    id = "dpkg-file-overwrite-conflict"
    title = "Two packages have the same file, so dpkg refuses one"
    stage = Stage.PACKAGE_STATE
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = (
        "half-configured-driver-packages",
        "partial-driver-install",
        "third-party-package-pulls-other-libnvidia",
    )
    explained_by = ("mixed-repositories",)

    def detect(
        self, packages: Packages, failures: AptFailures, driver: DriverPackages | None, locks: PackageLocks | None
    ) -> Iterator[Finding | Unknown]:
        archive, where = None, None
        for failure in failures.failures:
            archive, where = (found, failure) if (found := ARCHIVE.search(failure.text)) else (archive, where)
            said = OVERWRITE.search(failure.text)
            if not said:
                continue
            file, owner, version = said.groups()
            refused = archive[1] if archive else ""
            wanted = _version(archive[2]) if archive else ""
            there, new = packages.get(owner), packages.get(refused) if refused else None
            if not (there and there.unpacked) or (new and new.unpacked and new.version == wanted):
                continue  # resolved since
            if not (there.gpu or (refused and re.search("nvidia|cuda", refused))):
                continue
            if locks and locks.busy:
                yield Unknown(locks.busy)
                return
            yield self.finding(
                f"package:{refused or owner}",
                f"dpkg refuses {refused or 'a package'} {wanted}: {owner} {version} already has {file}".replace(
                    "  ", " "
                ),
                *([Evidence(where.source, where.text)] if where else []),
                Evidence(failure.source, failure.text),
                Evidence("/var/lib/dpkg/status", f"{owner} {there.version}: {there.state}"),
                about=[f"package:{owner}"],
                refused=refused,
                owner=owner,
                leftover=_is_leftover(owner, packages, driver),
            )
            return

    def remedies(self, finding: Finding, packages: Packages) -> Iterator[Plan]:
        refused, owner = finding.detail["refused"], finding.detail["owner"]
        if finding.detail["leftover"] and refused and not packages.dependents([owner]):
            yield Plan(
                f"Remove {owner}, a package of another driver, and install {refused}",
                Risk.MEDIUM,
                (AptRemove((owner,)), AptInstall((refused,)), DpkgConfigure()),
                network=True,
            )
            return
        text = (
            f"decide which driver you want: keep {owner} and do not install {refused or 'the new package'}, or remove {owner}"
            " with apt-get remove; then run apt-get -f install"
        )
        yield Plan("Keep only one of the two packages", Risk.MEDIUM, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def log(deb: str, file: str, owner: str, end: str = "") -> str:
            return (
                "\nLog started: 2026-11-20  09:00:00\n"
                f"dpkg: error processing archive /var/cache/apt/archives/{deb} (--unpack):\n"
                f" trying to overwrite '{file}', which is also in package {owner}\n{end}Log ended: 2026-11-20  09:00:09\n"
            )

        term, rules = "/var/log/apt/term.log", "/lib/udev/rules.d/71-nvidia.rules"
        common = "nvidia-kernel-common-550_550.120-0ubuntu0.24.04.1_amd64.deb"
        old = "nvidia-kernel-common-418"

        def upgrade() -> Machine:
            return (
                Machine.ubuntu2404_gpu()
                .without_package("nvidia-kernel-common-550")
                .package(old, "418.56-0ubuntu1", [rules])
                .file(term, log(common, rules, f"{old} 418.56-0ubuntu1"))
            )

        yield Scenario(
            "a package of an earlier branch is left over",
            upgrade(),
            finds="package:nvidia-kernel-common-550",
            alone=False,
            ladder=(
                (
                    "medium network",
                    f"apt-remove {old}",
                    "apt-install nvidia-kernel-common-550",
                    "dpkg-configure",
                ),
            ),
        )
        conf = "/usr/share/X11/xorg.conf.d/10-nvidia.conf"
        yield Scenario(
            "a package of another maker has a file of the driver",
            Machine.ubuntu2404_gpu().file(
                term, log("xserver-xlibre-nvidia_25.0_amd64.deb", conf, "nvidia-driver-550 550.120-0ubuntu0.24.04.1")
            ),
            finds="package:xserver-xlibre-nvidia",
            ladder=(("medium network", "by-hand apt-get nvidia-driver-550"),),
        )
        yield Scenario(
            "resolved since: the package is installed",
            Machine.ubuntu2404_gpu().file(
                term, log(common, rules, "nvidia-kernel-common-550 550.120-0ubuntu0.24.04.1")
            ),
        )
        yield Scenario(
            "resolved since: the other package is gone",
            Machine.ubuntu2404_gpu().file(
                term, log("nvidia-340_340.107-0ubuntu1_amd64.deb", rules, f"{old} 418.56-0ubuntu1")
            ),
        )
        yield Scenario(
            "an earlier run, and a good one after it",
            Machine.ubuntu2404_gpu().file(
                term, log(common, rules, f"{old} 1") + "\nLog started: 2026-11-21  09:00:00\nSetting up x (1) ...\n"
            ),
        )
        yield Scenario(
            "packages that have nothing to do with the driver",
            Machine.ubuntu2404_gpu()
            .package("bar", "1", status="install ok half-configured")
            .file(term, log("foo_1_all.deb", "/usr/bin/foo", "bar 1")),
        )
        yield Scenario("no log", Machine.ubuntu2404_gpu(), unknown=True)
        yield Scenario("apt is running", upgrade().locked("/var/lib/dpkg/lock", 1595, "dpkg"), unknown=True)


def _version(text: str) -> str:
    """The version in the name of a downloaded package, where a colon is written as %3a."""
    return text.replace("%3a", ":")


def _is_leftover(owner: str, packages: Packages, driver: DriverPackages | None) -> bool:
    """Whether a package is of another branch than the installed driver, which is what most of its packages are of."""
    package = packages.get(owner)
    member = classify(package) if package else None
    return bool(member and driver and driver.branch and member.branch != driver.branch)
