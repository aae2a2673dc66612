"""Only a part of the driver is installed.

What you see
    Command 'nvidia-smi' not found
    The module is there, but no program finds libcuda; or the libraries are there, and no module for them.
Why
    A metapackage was removed, apt's autoremove took what it had pulled in, or single packages were chosen by hand. The
    driver needs a kernel module, the libraries for programs on the GPU, its tools, and for a desktop also the parts for
    GL and X, all of one version. A computing server without the parts for GL and X is complete.
Repair
    Install the metapackage of the branch that is there. Where installed packages lack something they depend on, apt
    first installs just that, and only if it removes nothing for it.
What the repair risks
    Little. On a server look at the list of what comes with it, or take nvidia-headless-NNN and nvidia-utils-NNN.
By hand
    apt-get -s -f install; the same without -s if it removes nothing
    apt-get install nvidia-driver-NNN; apt-mark manual nvidia-driver-NNN
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
    "compute": "libcuda (the library of every program on the GPU)",
    "gl": "the GL libraries",
    "x": "the X driver",
    "utils": "nvidia-smi",
}
SOURCE = r"-dkms|-kernel-source"
"""Packages that a module is built from."""


class PartialDriverInstall(Rule):
    id = "partial-driver-install"
    title = "Only a part of the driver is installed"
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
            roles |= {"module", "utils", "gl", "x"}  # nvidia-NNN holds all of these
        on_disk = bool(modules and (modules.files or modules.loaded_version))
        module = bool(roles & {"module", "prebuilt"}) or on_disk
        compute = "compute" in roles or libraries.find("libcuda.so.1") is not None
        # A module may come in ways that no dependency tells.
        unmet = [(p, name) for p, name in packages.unmet() if not (module and re.search(SOURCE, name))]
        named = dict.fromkeys(name for _, name in unmet)
        removed = [m for m in _removed(packages, driver) if m.role not in roles and m.package.name not in named]
        lacks = [*(n for n in named if not re.search(SOURCE, n)), *(PARTS[m.role] for m in removed)]
        # A metapackage that is configured vouches for the libraries and tools: dpkg saw all that it depends on.
        whole = any(m.whole and m.package.state == "installed" for m in driver.members)
        wanted = whole or roles & {"x", "utils"} or (gpus and gpus.gpus)
        if not module and (kernel is None or kernel.installed) and wanted:
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
            f"The driver {driver.version or driver.branch or ''} is installed without {' and '.join(lacks)}",
            *(Evidence("/var/lib/dpkg/status", f"{p.name} depends on {name}: not installed") for p, name in unmet[:4]),
            *(Evidence("/var/lib/dpkg/status", f"{m.package.name} was removed") for m in removed[:4]),
            *(Evidence("/var/lib/dpkg/status", f"{m.package.name} {m.package.version}") for m in driver.members[:4]),
            *(Evidence("package list", f"without {what}") for what in lacks if what in PARTS.values()),
            severity=Severity.WARNING if minor else Severity.ERROR,
            module=PARTS["module"] in lacks,
            utils=minor,
            missing=(*named, *(m.package.name for m in removed)),
        )

    def remedies(self, finding: Finding, driver: DriverPackages, packages: Packages) -> Iterator[Plan]:
        # The metapackage for computing without DKMS brings no module; the one with DKMS has no "-no-dkms" in its name.
        complete = tuple(n.replace("-no-dkms", "") for n in driver.complete)
        missing: tuple[str, ...] = finding.detail["missing"]
        built = any(re.search(SOURCE, n) for n in missing)
        names = missing + complete if not missing or (finding.detail["module"] and not built) else missing
        if finding.detail["utils"]:
            names = tuple(n for n in names if "utils" in n or n.endswith("smi")) or names
        if packages.unmet():
            # apt installs nothing else while a dependency is missing, unless all that is missing is named.
            yield Plan("Install what installed packages depend on", Risk.LOW, (AptFixBroken(),), network=True)
        yield Plan(f"Install {', '.join(names)}", Risk.LOW, (AptInstall(names),), network=True)
        yield Plan(
            "Purge the driver and install the same version again", Risk.HIGH,
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
            "autoremove took the metapackage, the tools and the libraries",
            without(Machine.ubuntu2404_gpu(), "nvidia-driver-550", "libnvidia-compute-550", "nvidia-utils-550")
            .package("nvidia-compute-utils-550", "550.120-0ubuntu0.24.04.1", status=removed)
            .remove(f"{lib}/libcuda.so.1").remove(f"{lib}/libcuda.so.550.120")
            .remove(f"{lib}/libnvidia-ml.so.1").remove(f"{lib}/libnvidia-ml.so.550.120"),
            finds="host", steps=("apt-install",),
            alone=False,
        )  # fmt: skip
        yield Scenario(
            "the libraries without a module",
            Machine.ubuntu2404().gpu(driver="nouveau")
            .package("libnvidia-compute-550", "550.120-0ubuntu0.24.04.1", multi_arch="same")
            .package("nvidia-utils-550", "550.120-0ubuntu0.24.04.1"),
            finds="host",
            alone=False,
        )  # fmt: skip
        yield Scenario(
            "the metapackage and nvidia-smi were removed",
            without(Machine.ubuntu2404_gpu(), "nvidia-driver-550", "nvidia-utils-550"),
            finds="host",
        )
        yield Scenario(
            "the X driver was removed by force",
            Machine.debian12_gpu().package("xserver-xorg-video-nvidia", "535.261.03-1", status=removed),
            finds="host",
            steps=("apt-fix-broken",),
            alone=False,
        )
        yield Scenario(
            "a library was removed by force",
            Machine.debian12_gpu().package(
                "nvidia-driver-libs", "535.261.03-1", depends="libnvidia-glcore2 (= 535.261.03-1), libgl1"
            ),
            finds="host",
        )
        yield Scenario(
            "a dependency that another package provides",
            Machine.debian12_gpu()
            .package("nvidia-driver-libs", "535.261.03-1", depends="libnvidia-y--v1, libnvidia-x (= 1) | libgl1")
            .package("libnvidia-y", "1", provides="libnvidia-y--v1 (= 1), other"),
        )
        yield Scenario(
            "Debian's metapackage went with its module, its programs and libraries stayed",
            without(
                Machine.debian12().gpu(driver="nouveau").debian_driver(kernels=(), loaded=False),
                "nvidia-driver", "nvidia-kernel-dkms",
            )
            .remove("/var/lib/dkms/nvidia-current/535.261.03/source")
            .package("nvidia-driver-bin", "535.261.03-1"),
            finds="host",
            alone=False,  # nouveau holds the GPU, which follows
        )  # fmt: skip
        yield Scenario(
            "the package with the links was removed by force",
            Machine.debian12_gpu()
            .package("libnvidia-ml1", "535.261.03-1", depends="nvidia-alternative (= 535.261.03-1)", multi_arch="same")
            .without_package("nvidia-alternative"),
            finds="host",
        )
        yield Scenario(
            "for computing, without DKMS and without a built module",
            without(
                Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False),
                "nvidia-driver-550", "nvidia-dkms-550", "nvidia-kernel-source-550", "libnvidia-gl-550",
                "xserver-xorg-video-nvidia-550",
            )
            .remove("/var/lib/dkms/nvidia/550.120/source")
            .package("nvidia-headless-no-dkms-550", "550.120-0ubuntu0.24.04.1"),
            finds="host",
            alone=False,  # that no module is there is found from the other side as well
        )  # fmt: skip
        yield Scenario("complete", Machine.ubuntu2404_gpu())
        yield Scenario(
            "made a server of a desktop: the metapackage and the parts for GL and X were removed",
            without(Machine.debian12_gpu(), "nvidia-driver", "xserver-xorg-core")
            .package("nvidia-smi", "535.261.03-1")
            .package("xserver-xorg-video-nvidia", "535.261.03-1", status=removed),
        )
        yield Scenario(
            "a package of the administrator's own stands in for one",
            Machine.debian12_gpu()
            .package(
                "nvidia-driver", "535.261.03-1", depends="nvidia-alternative (= 535.261.03-1), nvidia-vdpau-driver"
            )
            .package("local-stand-in", "1", provides="nvidia-vdpau-driver"),
        )
        yield Scenario(
            "a computing server without the parts for GL and X",
            without(
                Machine.ubuntu2404_gpu(), "nvidia-driver-550", "libnvidia-gl-550", "xserver-xorg-video-nvidia-550"
            ).package("nvidia-headless-550", "550.120-0ubuntu0.24.04.1"),
        )
        yield Scenario(
            "built modules of Ubuntu in the place of DKMS",
            without(Machine.ubuntu2404_gpu(), "nvidia-dkms-550", "nvidia-kernel-source-550").package(
                "linux-modules-nvidia-550-6.8.0-50-generic", "6.8.0-50.51"
            ),
        )
        yield Scenario(
            "a library that some program pulled in, without a GPU",
            Machine.ubuntu2404()
            .folder("/sys/bus/pci/devices")
            .package("libnvidia-compute-535", "535.183.01-0ubuntu0.24.04.1", multi_arch="same"),
        )
        yield Scenario("a driver from a .run file", Machine.ubuntu1604_runfile())
        yield Scenario("no packages in sight", Machine().file("/etc/hostname", "disk"), unknown=True)


def _removed(packages: Packages, driver: DriverPackages) -> list[DriverPackage]:
    """Parts of this branch of which only configuration files are left. Without an X server and a metapackage that wants
    them, the parts for GL and X were taken away on purpose."""
    gone = (classify(p) for p in packages.all() if p.state == "config-files")
    desktop = packages.installed("xserver-xorg-core") or any(
        m.whole and "-headless-" not in m.package.name for m in driver.members
    )
    roles = PARTS if desktop else PARTS.keys() - {"gl", "x"}
    ours = {m.series for m in driver.members if m.package.upstream == driver.version}
    return [m for m in gone if m and m.branch == driver.branch and m.role in roles and _of(m, ours)]


def _of(member: DriverPackage, series: Collection[Series]) -> bool:
    return any(member.series.belongs_to(one) for one in series)
