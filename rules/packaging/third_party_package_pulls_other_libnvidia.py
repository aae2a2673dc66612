"""The packages of the driver have different versions.

What you see
    Impossible to initialize nvidia nvml : Driver/library version mismatch

    Installing a tool removed packages of the driver, or added libraries of another branch.
Why
    A tool that depends on libnvidia-compute-NNN installed that branch beside the existing one, or instead of it.
    Module and libraries work together only if they have exactly the same version.

    nvidia-settings, nvidia-modprobe, the container toolkit and others have their own version numbers.
Repair
    Install the complete driver of the branch that the module belongs to. This replaces the other library. Install the
    tool in a form that does not depend on a driver package.
What the repair risks
    apt may want to remove the tool. Check the list of changes.
By hand
    # Simulate, then run it again without -s:
    apt-get -s install nvidia-driver-NNN libnvidia-compute-NNN
    systemctl reboot
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
    title = "The packages of the driver have different versions"
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
        # Debian's Tesla and legacy drivers may be installed beside the current one, so each is a separate set.
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
                f"{first.package.name} has version {first.package.upstream}, but the driver has {anchor}{by}",
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
        # Packages with the branch and flavour in their name are replaced by ours, because the two conflict.
        other = tuple(m.package.name for m in driver.members if _in_exchange(m, series, foreign))
        same_name = (n for n in (*(m.package.name for m in members if m.coupled), *foreign) if n not in other)
        install = AptInstall(tuple(dict.fromkeys((*wanted, *same_name))), remove=other)
        yield Plan(
            f"Install the complete driver of branch {branch}" + (f" and remove {', '.join(other)}" if other else ""),
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
            alone=False, ladder=(('medium reboot network', 'apt-install nvidia-driver-550..xserver-xorg-video-nvidia-550(15) remove=libnvidia-compute-535', 'reboot'),),  # the files of the replaced package are still in this directory
        )  # fmt: skip
        yield Scenario(
            "two branches side by side",
            Machine.ubuntu2404_gpu().package("libnvidia-compute-535", "535.183.01-0ubuntu0.24.04.1", multi_arch="same"),
            finds="package:libnvidia-compute-535",
        )
        yield Scenario(
            "only some libraries of Debian's driver were upgraded",
            Machine.debian12_gpu()
            .package("libcuda1", "535.274.02-1", [f"{lib}/nvidia/current/libcuda.so.1"], multi_arch="same")
            .package("libnvidia-ml1", "535.274.02-1", [], multi_arch="same"),
            finds="package:libcuda1",
            alone=False,
            ladder=(("medium reboot network", "apt-install nvidia-driver..nvidia-kernel-dkms(21)", "reboot"),),
        )
        yield Scenario(
            "module and libraries have different flavours of the same branch",
            _server_libraries("550.163.01"),
            finds="package:libnvidia-compute-550-server",
            alone=False,
            ladder=(
                (
                    "medium reboot network",
                    "apt-install nvidia-driver-550..xserver-xorg-video-nvidia-550(14) remove=libnvidia-compute-550-server,libnvidia-gl-550-server,nvidia-utils-550-server,nvidia-driver-550-server",
                    "reboot",
                ),
            ),
        )
        yield Scenario("all have one version", Machine.ubuntu2404_gpu())
        yield Scenario(
            "helpers with their own versions, and leftover configuration of the old branch",
            Machine.ubuntu2404_gpu()
            .package("nvidia-settings", "510.47.03-0ubuntu4")
            .package("nvidia-container-toolkit", "1.16.2-1")
            .package("libnvidia-egl-gbm1", "1.1.1-2build1")
            .package("nvidia-firmware-550-550.107.02", "550.107.02-0ubuntu0.24.04.1")
            .package("libnvidia-compute-535", "535.183.01-0ubuntu0.24.04.1", status="deinstall ok config-files")
            .package("nvidia-driver-535", "550.120-0ubuntu0.24.04.1"),
        )
        yield Scenario(
            "empty transitional packages after an upgrade to another branch",
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
        yield Scenario("no package records", Machine().file("/etc/hostname", "disk"), unknown=True)


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
    """The version that all packages must have, and its source. The module's package decides first."""
    for role in ("module", "driver"):
        versions = sorted({m.package.upstream for m in members if m.role == role}, key=_order(members))
        if versions:
            name = next(m.package.name for m in members if m.role == role and m.package.upstream == versions[0])
            return versions[0], f"package {name}"
    if runfile.installed:
        return "", ""  # the module belongs to no package, which another rule reports
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
    """Ubuntu's server driver with the kernel module of the desktop driver."""
    machine = Machine.ubuntu2404_gpu()
    for part in ("libnvidia-compute", "libnvidia-gl", "nvidia-utils", "nvidia-driver"):
        machine.without_package(f"{part}-550")
        machine.package(f"{part}-550-server", f"{version}-0ubuntu0.24.04.1", multi_arch="same" if "lib" in part else "")
    return machine
