"""Only part of the driver is installed.

What you see
    Command 'nvidia-smi' not found

    The module is installed, but programs do not find libcuda. Or the libraries are installed, but no module.
Why
    A metapackage was removed, apt autoremove removed its dependencies, or somebody installed single packages.

    The driver needs a kernel module, the CUDA libraries and its tools. A desktop also needs the GL and X parts. All
    must have one version. A compute server without the GL and X parts is complete.
Repair
    Install the metapackage of the installed branch. If installed packages lack dependencies, apt first installs only
    those, and only if it removes nothing.
What the repair risks
    Little. On a server, check the list of new packages, or install nvidia-headless-NNN and nvidia-utils-NNN instead.
By hand
    # If the simulation removes nothing, run it again without -s:
    apt-get -s -f install
    apt-get install nvidia-driver-NNN
    apt-mark manual nvidia-driver-NNN
"""

import re
from collections.abc import Collection, Iterator

from dlhealth.api import (
    AptFixBroken,
    AptInstall,
    AptPurgeReinstall,
    DriverLibraries,
    DriverPackage,
    DriverPackages,
    DriverUse,
    Evidence,
    Finding,
    Gpus,
    Kernel,
    KernelModules,
    Machine,
    PackageLocks,
    Packages,
    Plan,
    Risk,
    Rule,
    Runfile,
    Scenario,
    Series,
    Severity,
    Stage,
    Unknown,
    classify,
)

PARTS = {
    "module": "the kernel module",
    "compute": "libcuda (the library that every CUDA program needs)",
    "gl": "the GL libraries",
    "x": "the X driver",
    "utils": "nvidia-smi",
}
SOURCE = r"-dkms|-kernel-source"
"""Packages with the source of a module."""


class PartialDriverInstall(Rule):
    id = "partial-driver-install"
    title = "Only part of the driver is installed"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    explains = ("glx-alternatives-wrong", "libcuda-missing-from-loader", "dkms-module-missing-for-running-kernel")

    def detect(
        self,
        packages: Packages,
        driver: DriverPackages,
        libraries: DriverLibraries,
        modules: KernelModules | None,
        kernel: Kernel | None,
        gpus: Gpus | None,
        runfile: Runfile,
        use: DriverUse | None,
        locks: PackageLocks | None,
    ) -> Iterator[Finding | Unknown]:
        if not driver.members or runfile.installed:
            return
        if use and use.elsewhere:
            yield Unknown(use.elsewhere)
            return
        roles = {m.role for m in driver.members}
        if any(m.family == "ubuntu-old" and m.role == "driver" for m in driver.members):
            roles |= {"module", "utils", "gl", "x"}  # nvidia-NNN contains all of these
        module = bool(roles & {"module", "prebuilt"}) or bool(modules and modules.files)
        if not module and modules and modules.loaded_version:
            yield Unknown(
                "the loaded module is neither in a package nor on this disk: it may belong to a container's host"
            )
            return
        compute = "compute" in roles or libraries.find("libcuda.so.1") is not None
        # A module can be installed without its packages.
        unmet = [(p, name) for p, name in packages.unmet() if not (module and re.search(SOURCE, name))]
        named = dict.fromkeys(name for _, name in unmet)
        removed = [m for m in _removed(packages, driver) if m.role not in roles and m.package.name not in named]
        lacks = [*(n for n in named if not re.search(SOURCE, n)), *(PARTS[m.role] for m in removed)]
        # A configured metapackage proves the libraries and tools: dpkg checked its dependencies.
        whole = any(m.whole and m.package.state == "installed" for m in driver.members)
        wanted = whole or roles & {"x", "utils"} or (gpus and gpus.gpus)
        if not module and kernel and kernel.installed and wanted:
            lacks.append(PARTS["module"])
        if module and not whole and not compute:
            lacks.append(PARTS["compute"])
        if module and not whole and compute and "utils" not in roles:
            lacks.append(PARTS["utils"])
        lacks = list(dict.fromkeys(lacks))
        if not lacks:
            return
        if locks and locks.busy:
            yield Unknown(locks.busy)
            return
        minor = lacks == [PARTS["utils"]]
        yield self.finding(
            "host",
            f"Driver {driver.version or driver.branch or ''} is installed without {' and '.join(lacks)}",
            *(Evidence("/var/lib/dpkg/status", f"{p.name} depends on {name}: not installed") for p, name in unmet[:4]),
            *(Evidence("/var/lib/dpkg/status", f"{m.package.name} was removed") for m in removed[:4]),
            *(Evidence("/var/lib/dpkg/status", f"{m.package.name} {m.package.version}") for m in driver.members[:4]),
            *(Evidence("package list", f"missing: {what}") for what in lacks if what in PARTS.values()),
            severity=Severity.WARNING if minor else Severity.ERROR,
            module=PARTS["module"] in lacks,
            utils=minor,
            missing=(*named, *(m.package.name for m in removed)),
        )

    def remedies(self, finding: Finding, driver: DriverPackages, packages: Packages) -> Iterator[Plan]:
        # The headless metapackage with "-no-dkms" in its name installs no module; the one without it does.
        complete = tuple(n.replace("-no-dkms", "") for n in driver.complete)
        missing: tuple[str, ...] = finding.detail["missing"]
        built = any(re.search(SOURCE, n) for n in missing)
        names = missing + complete if not missing or (finding.detail["module"] and not built) else missing
        if finding.detail["utils"]:
            names = tuple(n for n in names if "utils" in n or n.endswith("smi")) or names
        if packages.unmet():
            # While dependencies are missing, apt installs nothing else unless all missing packages are named.
            yield Plan(
                "Install the missing dependencies of installed packages", Risk.LOW, (AptFixBroken(),), network=True
            )
        yield Plan(f"Install {', '.join(names)}", Risk.LOW, (AptInstall(names),), network=True)
        yield Plan(
            "Purge the driver and reinstall the same version", Risk.HIGH,
            (AptPurgeReinstall(packages.driver_family), AptInstall(names)), network=True,
        )  # fmt: skip

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def without(machine: Machine, *names: str) -> Machine:
            for name in names:
                machine.without_package(name)
            return machine

        lib = "/usr/lib/x86_64-linux-gnu"
        removed = "deinstall ok config-files"
        yield Scenario(
            "autoremove removed the metapackage, the tools and the libraries",
            without(Machine.ubuntu2404_gpu(), "nvidia-driver-550", "libnvidia-compute-550", "nvidia-utils-550")
            .package("nvidia-compute-utils-550", "550.120-0ubuntu0.24.04.1", status=removed)
            .remove(f"{lib}/libcuda.so.1").remove(f"{lib}/libcuda.so.550.120")
            .remove(f"{lib}/libnvidia-ml.so.1").remove(f"{lib}/libnvidia-ml.so.550.120"),
            finds="host", steps=("apt-install",),
            alone=False, ladder=(('low network', 'apt-install nvidia-driver-550 nvidia-utils-550'), ('high network', 'apt-purge-reinstall libnvidia-cfg1-550..xserver-xorg-video-nvidia-550(14)', 'apt-install nvidia-driver-550 nvidia-utils-550')),
        )  # fmt: skip
        yield Scenario(
            "libraries without a module",
            Machine.ubuntu2404().gpu(driver="nouveau")
            .package("libnvidia-compute-550", "550.120-0ubuntu0.24.04.1", multi_arch="same")
            .package("nvidia-utils-550", "550.120-0ubuntu0.24.04.1"),
            finds="host",
            alone=False, ladder=(('low network', 'apt-install nvidia-driver-550 nvidia-utils-550'), ('high network', 'apt-purge-reinstall libnvidia-compute-550 nvidia-utils-550', 'apt-install nvidia-driver-550 nvidia-utils-550')),
        )  # fmt: skip
        yield Scenario(
            "the metapackage and nvidia-smi were removed",
            without(Machine.ubuntu2404_gpu(), "nvidia-driver-550", "nvidia-utils-550"),
            finds="host",
            ladder=(
                ("low network", "apt-install nvidia-utils-550"),
                (
                    "high network",
                    "apt-purge-reinstall libnvidia-cfg1-550..xserver-xorg-video-nvidia-550(16)",
                    "apt-install nvidia-utils-550",
                ),
            ),
        )
        yield Scenario(
            "the X driver was removed by force",
            Machine.debian12_gpu().package("xserver-xorg-video-nvidia", "535.261.03-1", status=removed),
            finds="host",
            steps=("apt-fix-broken",),
            alone=False,
            ladder=(
                ("low network", "apt-fix-broken"),
                ("low network", "apt-install xserver-xorg-video-nvidia"),
                (
                    "high network",
                    "apt-purge-reinstall firmware-nvidia-gsp..update-glx(32)",
                    "apt-install xserver-xorg-video-nvidia",
                ),
            ),
        )
        yield Scenario(
            "a library was removed by force",
            Machine.debian12_gpu().package(
                "nvidia-driver-libs", "535.261.03-1", depends="libnvidia-glcore2 (= 535.261.03-1), libgl1"
            ),
            finds="host",
            ladder=(
                ("low network", "apt-fix-broken"),
                ("low network", "apt-install libnvidia-glcore2"),
                (
                    "high network",
                    "apt-purge-reinstall firmware-nvidia-gsp..xserver-xorg-video-nvidia(33)",
                    "apt-install libnvidia-glcore2",
                ),
            ),
        )
        yield Scenario(
            "another package provides a dependency",
            Machine.debian12_gpu()
            .package("nvidia-driver-libs", "535.261.03-1", depends="libnvidia-y--v1, libnvidia-x (= 1) | libgl1")
            .package("libnvidia-y", "1", provides="libnvidia-y--v1 (= 1), other"),
        )
        yield Scenario(
            "Debian's metapackage and module were removed, programs and libraries stayed",
            without(
                Machine.debian12().gpu(driver="nouveau").debian_driver(kernels=(), loaded=False),
                "nvidia-driver", "nvidia-kernel-dkms",
            )
            .remove("/var/lib/dkms/nvidia-current/535.261.03/source")
            .package("nvidia-driver-bin", "535.261.03-1"),
            finds="host",
            alone=False, ladder=(('low network', 'apt-install nvidia-driver nvidia-smi libcuda1 libnvidia-ml1'), ('high network', 'apt-purge-reinstall firmware-nvidia-gsp..xserver-xorg-video-nvidia(31)', 'apt-install nvidia-driver nvidia-smi libcuda1 libnvidia-ml1')),  # so nouveau holds the GPU
        )  # fmt: skip
        yield Scenario(
            "the package with the links was removed by force",
            Machine.debian12_gpu()
            .package("libnvidia-ml1", "535.261.03-1", depends="nvidia-alternative (= 535.261.03-1)", multi_arch="same")
            .without_package("nvidia-alternative"),
            finds="host",
            ladder=(
                ("low network", "apt-fix-broken"),
                ("low network", "apt-install nvidia-alternative"),
                (
                    "high network",
                    "apt-purge-reinstall firmware-nvidia-gsp..xserver-xorg-video-nvidia(32)",
                    "apt-install nvidia-alternative",
                ),
            ),
        )
        yield Scenario(
            "a headless driver without DKMS and without a prebuilt module",
            without(
                Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False),
                "nvidia-driver-550", "nvidia-dkms-550", "nvidia-kernel-source-550", "libnvidia-gl-550",
                "xserver-xorg-video-nvidia-550",
            )
            .remove("/var/lib/dkms/nvidia/550.120/source")
            .package("nvidia-headless-no-dkms-550", "550.120-0ubuntu0.24.04.1"),
            finds="host",
            alone=False,
            ladder=(('low network', 'apt-install nvidia-headless-550 nvidia-utils-550'), ('high network', 'apt-purge-reinstall libnvidia-cfg1-550..nvidia-utils-550(14)', 'apt-install nvidia-headless-550 nvidia-utils-550')),  # another rule reports the missing module too
        )  # fmt: skip
        yield Scenario("complete", Machine.ubuntu2404_gpu())
        yield Scenario(
            "a desktop turned into a server: the metapackage and the GL and X parts were removed",
            without(Machine.debian12_gpu(), "nvidia-driver", "xserver-xorg-core")
            .package("nvidia-smi", "535.261.03-1")
            .package("xserver-xorg-video-nvidia", "535.261.03-1", status=removed),
        )
        yield Scenario(
            "an administrator's own package replaces a dependency",
            Machine.debian12_gpu()
            .package(
                "nvidia-driver", "535.261.03-1", depends="nvidia-alternative (= 535.261.03-1), nvidia-vdpau-driver"
            )
            .package("local-stand-in", "1", provides="nvidia-vdpau-driver"),
        )
        yield Scenario(
            "a compute server without the GL and X parts",
            without(
                Machine.ubuntu2404_gpu(), "nvidia-driver-550", "libnvidia-gl-550", "xserver-xorg-video-nvidia-550"
            ).package("nvidia-headless-550", "550.120-0ubuntu0.24.04.1"),
        )
        yield Scenario(
            "Ubuntu's prebuilt modules instead of DKMS",
            without(Machine.ubuntu2404_gpu(), "nvidia-dkms-550", "nvidia-kernel-source-550").package(
                "linux-modules-nvidia-550-6.8.0-50-generic", "6.8.0-50.51"
            ),
        )
        yield Scenario(
            "a library that a program depends on, without a GPU",
            Machine.ubuntu2404()
            .folder("/sys/bus/pci/devices")
            .package("libnvidia-compute-535", "535.183.01-0ubuntu0.24.04.1", multi_arch="same"),
        )
        yield Scenario("a driver from a .run file", Machine.ubuntu1604_runfile())
        yield Scenario(
            "a container whose marks can't be seen",
            without(
                Machine.ubuntu2404_gpu(),
                "nvidia-driver-550", "nvidia-dkms-550", "nvidia-kernel-source-550", "nvidia-utils-550",
            ).remove("/usr/lib/modules"),
            unknown=True,
        )  # fmt: skip
        yield Scenario("no package records", Machine().file("/etc/hostname", "disk"), unknown=True)


def _removed(packages: Packages, driver: DriverPackages) -> list[DriverPackage]:
    """Removed parts of this branch that left only configuration files. Without an X server and a metapackage that needs
    them, the GL and X parts were removed on purpose."""
    gone = (classify(p) for p in packages.all() if p.state == "config-files")
    desktop = packages.installed("xserver-xorg-core") or any(
        m.whole and "-headless-" not in m.package.name for m in driver.members
    )
    roles = PARTS if desktop else PARTS.keys() - {"gl", "x"}
    ours = {m.series for m in driver.members if m.package.upstream == driver.version}
    return [m for m in gone if m and m.branch == driver.branch and m.role in roles and _of(m, ours)]


def _of(member: DriverPackage, series: Collection[Series]) -> bool:
    return any(member.series.belongs_to(one) for one in series)
