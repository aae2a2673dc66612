"""The packages of the driver are not all of one version.

What you see
    Impossible to initialize nvidia nvml : Driver/library version mismatch
    Installing some tool removed packages of the driver, or added libraries of another branch.
Why
    A tool that was built for Ubuntu's libnvidia-compute-NNN pulled in that branch beside, or in the place of, the one
    that the kernel module belongs to. Module and libraries only work together when they are of exactly one version.
    (nvidia-settings, nvidia-modprobe, the container toolkit and others have version numbers of their own.)
Repair
    Install the complete driver of the branch that the module belongs to; the foreign library goes with it. Install
    the tool in a form that does not depend on a driver's package.
What the repair risks
    apt may propose to remove the tool. Look at the list of changes.
By hand
    apt-get -s install nvidia-driver-NNN libnvidia-compute-NNN; the same without -s; restart
"""

from collections.abc import Callable, Iterator, Sequence

from dlhealth.api import (
    AptHistory,
    AptInstall,
    DriverPackage,
    DriverPackages,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    Machine,
    PackageLocks,
    Packages,
    Plan,
    Reboot,
    Risk,
    Rule,
    Runfile,
    Scenario,
    Series,
    Severity,
    Stage,
    Unknown,
)


class ThirdPartyPackagePullsOtherLibnvidia(Rule):
    id = "third-party-package-pulls-other-libnvidia"
    title = "The packages of the driver are not all of one version"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("partial-driver-install",)

    def detect(
        self,
        driver: DriverPackages,
        modules: KernelModules | None,
        kernel: Kernel | None,
        runfile: Runfile,
        history: AptHistory | None,
        locks: PackageLocks | None,
    ) -> Iterator[Finding | Unknown]:
        # Debian's Tesla and legacy drivers may stand beside the current one: each is a set of its own.
        for members in _sets(driver.members):
            anchor, source = _anchor(members, modules, kernel, runfile)
            foreign = [
                m
                for m in members
                if m.role in ("compute", "gl", "x", "module", "driver") and m.package.upstream != anchor
            ]
            if not anchor or not foreign:
                continue
            if locks and locks.busy:
                yield Unknown(locks.busy)
                return
            first = min(foreign, key=lambda m: (m.role != "compute", m.package.name))
            evidence = [Evidence(source, anchor)]
            evidence += [Evidence("/var/lib/dpkg/status", f"{m.package.name} {m.package.version}") for m in foreign[:8]]
            run = history.last(first.package.name, first.package.version) if history else None
            by = ""
            if run:
                by = f" (installed by: {run.command})" if run.command else ""
                evidence.append(Evidence(run.source, f"{run.start} {run.command}"))
            yield self.finding(
                f"package:{first.package.name}",
                f"{first.package.name} is {first.package.upstream}, but the driver is {anchor}{by}",
                *evidence,
                anchor=anchor,
                foreign=[m.package.name for m in foreign],
            )

    def remedies(self, finding: Finding, driver: DriverPackages, packages: Packages) -> Iterator[Plan]:
        anchor, foreign = finding.detail["anchor"], finding.detail["foreign"]
        same = [m for m in driver.members if m.package.upstream == anchor]
        series = next((m.series for role in ("module", "driver") for m in same if m.role == role), None)
        members = tuple(m for m in same if series is None or m.series.belongs_to(series))
        ours = DriverPackages(members, anchor, None)
        branch = anchor.split(".")[0]
        wanted = ours.complete or (f"nvidia-driver-{branch}", f"libnvidia-compute-{branch}")
        wanted += tuple(name for package, name in packages.unmet() if package.upstream == anchor)
        # What has its branch and flavour in its name goes, in exchange for ours: the two conflict.
        other = tuple(m.package.name for m in driver.members if _in_exchange(m, series, foreign))
        same_name = (n for n in (*(m.package.name for m in members if m.coupled), *foreign) if n not in other)
        install = AptInstall(tuple(dict.fromkeys((*wanted, *same_name))), remove=other)
        yield Plan(
            f"Install the driver of branch {branch} completely" + (f" and remove {', '.join(other)}" if other else ""),
            Risk.MEDIUM,
            (install, Reboot()),
            reboot=True,
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/x86_64-linux-gnu"

        def other_library(machine: Machine, package: str, version: str, suffix: str) -> Machine:
            return (
                machine.package(
                    package, version + suffix, [f"{lib}/libcuda.so.{version}", f"{lib}/libcuda.so.1"], multi_arch="same"
                )
                .library(f"{lib}/libcuda.so.{version}", "libcuda.so.1")
                .link(f"{lib}/libcuda.so.1", f"libcuda.so.{version}")
                .library(f"{lib}/libnvidia-ml.so.{version}", "libnvidia-ml.so.1")
                .link(f"{lib}/libnvidia-ml.so.1", f"libnvidia-ml.so.{version}")
            )

        history = (
            "\nStart-Date: 2025-01-20  14:02:11\nCommandline: apt install nvtop\nRequested-By: alice (1000)\n"
            "Install: nvtop:amd64 (3.0.2-1), libnvidia-compute-535:amd64 (535.183.01-0ubuntu0.24.04.1, automatic)\n"
            "Remove: libnvidia-compute-550:amd64 (550.120-0ubuntu0.24.04.1)\nEnd-Date: 2025-01-20  14:02:30\n"
        )
        yield Scenario(
            "nvtop replaced libnvidia-compute",
            other_library(
                Machine.ubuntu2404_gpu().without_package("libnvidia-compute-550"),
                "libnvidia-compute-535", "535.183.01", "-0ubuntu0.24.04.1",
            ).file("/var/log/apt/history.log", history),
            finds="package:libnvidia-compute-535", steps=("apt-install", "reboot"),
            alone=False,  # the files of the replaced package are still there in this folder
        )  # fmt: skip
        yield Scenario(
            "two branches side by side",
            Machine.ubuntu2404_gpu().package("libnvidia-compute-535", "535.183.01-0ubuntu0.24.04.1", multi_arch="same"),
            finds="package:libnvidia-compute-535",
        )
        yield Scenario(
            "only the libraries of Debian's driver were upgraded",
            Machine.debian12_gpu()
            .package("libcuda1", "535.274.02-1", [f"{lib}/nvidia/current/libcuda.so.1"], multi_arch="same")
            .package("libnvidia-ml1", "535.274.02-1", [], multi_arch="same"),
            finds="package:libcuda1",
            alone=False,
        )
        yield Scenario(
            "the module of one flavour with the libraries of another, of the same branch",
            _server_libraries("550.163.01"),
            finds="package:libnvidia-compute-550-server",
            alone=False,
        )
        yield Scenario("one version", Machine.ubuntu2404_gpu())
        yield Scenario(
            "helpers with versions of their own, the old branch's configuration left over",
            Machine.ubuntu2404_gpu()
            .package("nvidia-settings", "510.47.03-0ubuntu4")
            .package("nvidia-container-toolkit", "1.16.2-1")
            .package("libnvidia-egl-gbm1", "1.1.1-2build1")
            .package("nvidia-firmware-550-550.107.02", "550.107.02-0ubuntu0.24.04.1")
            .package("libnvidia-compute-535", "535.183.01-0ubuntu0.24.04.1", status="deinstall ok config-files")
            .package("nvidia-driver-535", "550.120-0ubuntu0.24.04.1"),
        )
        yield Scenario(
            "what an upgrade to another branch leaves behind, empty",
            Machine.ubuntu2404_gpu()
            .package("nvidia-driver-545", "545.29.06-0ubuntu0.24.04.2", depends="nvidia-driver-550")
            .package("nvidia-dkms-545", "545.29.06-0ubuntu0.24.04.2", depends="nvidia-dkms-550")
            .package("libnvidia-compute-545", "545.29.06-0ubuntu0.24.04.2", [], depends="libnvidia-compute-550"),
        )
        yield Scenario(
            "Debian's Tesla driver beside the current one",
            Machine.debian12_gpu()
            .package("nvidia-tesla-470-kernel-dkms", "470.256.02-1~deb12u1")
            .package("libnvidia-tesla-470-cuda1", "470.256.02-1~deb12u1"),
        )
        yield Scenario("no packages in sight", Machine().file("/etc/hostname", "disk"), unknown=True)


def _in_exchange(member: DriverPackage, series: Series | None, foreign: Sequence[str]) -> bool:
    if not member.coupled or not member.family.startswith("ubuntu"):
        return False
    if series is None or not series.scheme.startswith("ubuntu"):
        return member.package.name in foreign
    return not member.series.belongs_to(series)


def _sets(members: tuple[DriverPackage, ...]) -> list[list[DriverPackage]]:
    groups: dict[str, list[DriverPackage]] = {}
    for member in members:
        if member.coupled:
            flavour = (
                member.family.removeprefix("debian-") if "tesla" in member.family or "legacy" in member.family else ""
            )
            groups.setdefault(flavour, []).append(member)
    return list(groups.values())


def _anchor(
    members: list[DriverPackage], modules: KernelModules | None, kernel: Kernel | None, runfile: Runfile
) -> tuple[str, str]:
    """The version that the others must have, and where it is seen: the module's package before all."""
    for role in ("module", "driver"):
        versions = sorted({m.package.upstream for m in members if m.role == role}, key=_order(members))
        if versions:
            name = next(m.package.name for m in members if m.role == role and m.package.upstream == versions[0])
            return versions[0], f"package {name}"
    if runfile.installed:
        return "", ""  # the module is no package's: another rule's matter
    file = modules.seen(kernel.target if kernel else None) if modules else None
    if file and file.version:
        return file.version, file.path
    versions = sorted({m.package.upstream for m in members}, key=_order(members))
    return (versions[0], "most packages of the driver") if versions else ("", "")


def _order(members: list[DriverPackage]) -> Callable[[str], tuple[int, str]]:
    def rank(version: str) -> tuple[int, str]:
        return -sum(m.package.upstream == version for m in members), version

    return rank


def _server_libraries(version: str) -> Machine:
    """Ubuntu's driver for servers, with the kernel module of the one for desktops."""
    machine = Machine.ubuntu2404_gpu()
    for part in ("libnvidia-compute", "libnvidia-gl", "nvidia-utils", "nvidia-driver"):
        machine.without_package(f"{part}-550")
        machine.package(f"{part}-550-server", f"{version}-0ubuntu0.24.04.1", multi_arch="same" if "lib" in part else "")
    return machine
