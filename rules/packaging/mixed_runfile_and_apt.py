"""The driver was installed twice: by NVIDIA's .run file and by packages.

What you see
    WARNING: Your driver installation has been altered since it was initially installed

    Failed to initialize NVML: Driver/library version mismatch

    The driver works until the next update of the packages or the kernel.
Why
    The two installers overwrite each other's files. The last one wins, until the other one updates.

    A CUDA toolkit from a .run file, without its driver, is not a problem.
Repair
    Keep one of the two.

    If the .run file's driver is complete and in use, and packages only added a library or two (often with a tool such
    as nvtop), remove those packages and the packages that need them.

    Otherwise keep the packages: move the files of the .run installer out of the way, reinstall all packages of the
    driver, and reboot.
What the repair risks
    Removing the added packages also removes the tool that needed them.

    Switching to the packages puts the driver itself at risk: until it finishes, the desktop cannot start.
    nvidia-uninstall may delete files that now belong to packages, so the packages are reinstalled afterwards.
By hand
    # Either keep the driver of the .run file:
    apt-get remove libnvidia-compute-NNN
    ldconfig
    # or keep the packages (stop the desktop first):
    nvidia-uninstall --silent
    apt-get install --reinstall nvidia-driver-NNN
    ldconfig
    update-initramfs -u -k all
    systemctl reboot
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    Action,
    AptInstall,
    AptRemove,
    ByHand,
    DkmsRemove,
    DriverLibraries,
    DriverLibrary,
    DriverPackages,
    DriverUse,
    Evidence,
    Finding,
    InstalledFiles,
    Kernel,
    KernelModules,
    Machine,
    MoveAside,
    Packages,
    Plan,
    Reboot,
    RefreshLoaderCache,
    RefreshModuleIndex,
    Risk,
    Rule,
    Runfile,
    Scenario,
    Severity,
    Stage,
    Unowned,
    UpdateInitramfs,
    owner_of,
)


class MixedRunfileAndApt(Rule):
    id = "mixed-runfile-and-apt"
    title = "The driver was installed twice: by a .run file and by packages"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.HIGH
    explains = (
        "initramfs-old-nvidia-module",
        "third-party-package-pulls-other-libnvidia",
        "runfile-uninstall-leftovers",
    )

    def detect(self, runfile: Runfile, driver: DriverPackages, libraries: DriverLibraries) -> Iterator[Finding]:
        parts = driver.role("driver", "module", "compute", "gl", "x")
        if not parts:
            return
        # If the installer's programs are gone, its log alone proves nothing: its libraries must exist too.
        unowned = [x for x in libraries.libraries if x.owner is Unowned.NOBODY and x.version and not x.problem]
        foreign = [x for x in unowned if x.version not in driver.versions()]
        if not runfile.installed and not (runfile.log and foreign):
            return
        version = runfile.version or (foreign[0].version if foreign else "")
        evidence = [Evidence(path, "NVIDIA's .run installer") for path in runfile.programs]
        if runfile.manifest:
            evidence.append(Evidence(runfile.manifest, "the .run installer's list of installed files"))
        if runfile.log:
            evidence.append(Evidence(runfile.log, f"version {runfile.version}" if runfile.version else "its log"))
        evidence += [Evidence("/var/lib/dpkg/status", f"{m.package.name} {m.package.version}") for m in parts[:4]]
        evidence += [Evidence(x.real_path, "belongs to no package") for x in unowned[:4]]
        others = [t for t in runfile.trees if t.module == "nvidia" and t.version not in driver.versions()]
        evidence += [Evidence(t.path, f"DKMS lists version {t.version}") for t in others[:2]]
        yield self.finding(
            "host",
            f"{f'Driver {version}' if version else 'A driver'} was installed by a .run file, and {driver.version} by packages "
            f"({parts[0].package.name} ...): each overwrites the other's files",
            *evidence,
            severity=Severity.WARNING if version and set(driver.versions()) == {version} else Severity.ERROR,
            version=version,
        )

    def remedies(
        self,
        finding: Finding,
        runfile: Runfile,
        installed: InstalledFiles,
        driver: DriverPackages,
        libraries: DriverLibraries,
        packages: Packages | None,
        modules: KernelModules,
        kernel: Kernel | None,
        use: DriverUse | None,
    ) -> Iterator[Plan]:
        version = finding.detail["version"]
        in_use = (use.version if use else "") or _on_disk(modules, kernel)
        if packages and runfile.installed and version == in_use and _only_strays(driver, libraries, version):
            strays = sorted({m.package.name for m in driver.members})
            removed = (*strays, *packages.dependents(strays))
            yield Plan(
                f"Keep driver {version}, which is in use: remove {', '.join(removed)}",
                Risk.MEDIUM,
                (AptRemove(removed), RefreshLoaderCache()),  # ldconfig restores the links to the driver's libraries
                network=True,
            )
        # The files in the installer's list, or, without a list, files of a driver that belong to no package.
        stray = [
            f
            for f in modules.files
            if "/kernel/drivers/video/" in f.path and owner_of(packages, f.path) is Unowned.NOBODY
        ]
        moved = tuple(
            sorted(
                {
                    *runfile.programs,
                    *(f.path for f in installed.files),
                    *(x.path for x in libraries.libraries if _of_a_driver(x)),
                    *(path for f in stray for path in (f.path, *f.parts)),
                    *([runfile.manifest] if runfile.manifest else []),
                    *runfile.blacklists,
                }
            )
        )
        foreign = [
            t
            for t in runfile.trees
            if t.version not in driver.versions() and owner_of(packages, f"{t.source}/dkms.conf") is Unowned.NOBODY
        ]
        steps: list[Action] = [DkmsRemove(t.module, t.version) for t in foreign if t.sound]  # dkms needs the source
        steps += [MoveAside(path) for path in (*moved, *(t.path for t in foreign if not t.sound))]
        names = (*driver.complete, *(m.package.name for m in driver.members), *(f.owner for f in installed.files))
        kernels = dict.fromkeys(
            found[1] for path in moved if (found := re.match(r"(?:/usr)?/lib/modules/([^/]+)/", path))
        )
        install: tuple[Action, ...] = (
            AptInstall(tuple(dict.fromkeys(filter(None, names))), reinstall=True, instead_of=moved),
            RefreshLoaderCache(),
            *map(RefreshModuleIndex, kernels),
            UpdateInitramfs("all"),
            Reboot(),
        )
        yield Plan(
            "Move the .run installer's files out of the way and reinstall the driver's packages",
            Risk.HIGH,
            (*steps, *install),
            reboot=True,
            network=True,
        )
        if runfile.programs:
            yield Plan(
                "Let the .run installer remove its driver, then reinstall the packages",
                Risk.HIGH,
                (ByHand(f"stop the desktop, then run {runfile.programs[0]} --silent"), *install),
                reboot=True,
                network=True,
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/x86_64-linux-gnu"
        yield Scenario(
            "a .run file on top of Ubuntu's packages",
            Machine.ubuntu2404()
            .gpu()
            .ubuntu_driver("550.120", loaded=False)
            .runfile_driver("570.86.10", ("6.8.0-50-generic",)),
            finds="host",
            steps=(
                "dkms-remove",
                "move-aside",
                "apt-install",
                "refresh-loader-cache",
                "refresh-module-index",
                "update-initramfs",
                "reboot",
            ),
            alone=False,
            ladder=(
                (
                    "high reboot network",
                    "dkms-remove nvidia 570.86.10",
                    "move-aside /etc/modprobe.d/nvidia-installer-disable-nouveau.conf ... move-aside /var/lib/nvidia/log (60)",
                    "apt-install nvidia-driver-550..nvidia-modprobe(17) reinstall instead_of=/etc/modprobe.d/nvidia-installer-disable-nouveau.conf../var/lib/nvidia/log(60)",
                    "refresh-loader-cache",
                    "refresh-module-index 6.8.0-50-generic",
                    "update-initramfs all",
                    "reboot",
                ),
                (
                    "high reboot network",
                    "by-hand /usr/bin/nvidia-uninstall --silent",
                    "apt-install nvidia-driver-550..nvidia-modprobe(17) reinstall instead_of=/etc/modprobe.d/nvidia-installer-disable-nouveau.conf../var/lib/nvidia/log(60)",
                    "refresh-loader-cache",
                    "refresh-module-index 6.8.0-50-generic",
                    "update-initramfs all",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "Debian's packages, and the log and libraries of a .run installer",
            Machine.debian12_gpu()
            .file("/var/log/nvidia-installer.log", "nvidia-installer log file\ninstaller version: 470.57.02\n")
            .library(f"{lib}/libcuda.so.470.57.02", "libcuda.so.1")
            .library(f"{lib}/libnvidia-ml.so.470.57.02", "libnvidia-ml.so.1"),
            finds="host",
            steps=("move-aside", "apt-install", "refresh-loader-cache", "update-initramfs", "reboot"),
            ladder=(
                (
                    "high reboot network",
                    "move-aside /usr/lib/x86_64-linux-gnu/libcuda.so.470.57.02",
                    "move-aside /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.470.57.02",
                    "apt-install nvidia-driver..nvidia-kernel-dkms(22) reinstall instead_of=/usr/lib/x86_64-linux-gnu/libcuda.so.470.57.02,/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.470.57.02",
                    "refresh-loader-cache",
                    "update-initramfs all",
                    "reboot",
                ),
            ),
        )
        stray = "470.103.01"
        yield Scenario(
            "a tool added a packaged library beside the driver of a .run file",
            Machine.ubuntu2404()
            .gpu()
            .runfile_driver("570.86.10", ("6.8.0-50-generic",))
            .loaded_driver("570.86.10")
            .package(
                "libnvidia-compute-470",
                f"{stray}-0ubuntu1",
                [f"{lib}/libcuda.so.{stray}", f"{lib}/libcuda.so.1"],
                multi_arch="same",
            )
            .package("nvtop", "3.0.2-1", depends="libc6, libnvidia-compute-418 | libnvidia-compute-470")
            .library(f"{lib}/libcuda.so.{stray}", "libcuda.so.1")
            .link(f"{lib}/libcuda.so.1", f"libcuda.so.{stray}"),
            finds="host",
            steps=("apt-remove", "refresh-loader-cache"),
            alone=False,
            ladder=(
                ("medium network", "apt-remove libnvidia-compute-470 nvtop", "refresh-loader-cache"),
                (
                    "high reboot network",
                    "dkms-remove nvidia 570.86.10",
                    "move-aside /etc/modprobe.d/nvidia-installer-disable-nouveau.conf ... move-aside /var/lib/nvidia/log (60)",
                    "apt-install nvidia-driver-470 nvidia-utils-470 libnvidia-compute-470 reinstall instead_of=/etc/modprobe.d/nvidia-installer-disable-nouveau.conf../var/lib/nvidia/log(60)",
                    "refresh-loader-cache",
                    "refresh-module-index 6.8.0-50-generic",
                    "update-initramfs all",
                    "reboot",
                ),
                (
                    "high reboot network",
                    "by-hand /usr/bin/nvidia-uninstall --silent",
                    "apt-install nvidia-driver-470 nvidia-utils-470 libnvidia-compute-470 reinstall instead_of=/etc/modprobe.d/nvidia-installer-disable-nouveau.conf../var/lib/nvidia/log(60)",
                    "refresh-loader-cache",
                    "refresh-module-index 6.8.0-50-generic",
                    "update-initramfs all",
                    "reboot",
                ),
            ),
        )
        yield Scenario("only the .run file", Machine.ubuntu1604_runfile())
        yield Scenario("only packages", Machine.ubuntu2404_gpu())
        yield Scenario(
            "the CUDA toolkit from a .run file, the driver from packages",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.4", "12.4.131")
            .file("/var/log/cuda-installer.log", "[INFO]: Driver not installed.\n")
            .file("/usr/local/cuda-12.4/bin/cuda-uninstaller", "", 0o755),
        )
        yield Scenario(
            "the .run file's driver was uninstalled properly",
            Machine.debian12_gpu().file("/var/log/nvidia-installer.log", "installer version: 470.57.02\n"),
        )
        yield Scenario("no package records", Machine().file("/usr/bin/nvidia-uninstall"), unknown=True)


def _on_disk(modules: KernelModules, kernel: Kernel | None) -> str:
    """The driver version that the checked kernel loads."""
    file = modules.usable(kernel.target if kernel else None)
    return (file and file.version) or ""


def _only_strays(driver: DriverPackages, libraries: DriverLibraries, version: str) -> bool:
    """Whether the .run file's driver is complete, and packages added only libraries."""
    own = {
        x.name.partition(".so")[0] for x in libraries.libraries if x.version == version and x.owner is Unowned.NOBODY
    }
    return {"libcuda", "libnvidia-ml"} <= own and not driver.role("driver", "meta", "module", "prebuilt")


def _of_a_driver(library: DriverLibrary) -> bool:
    """Whether no package owns it, and it belongs to the driver: libvdpau.so.1 and libGL.so.1 are Debian's, from packages
    that are not NVIDIA's."""
    return library.owner is Unowned.NOBODY and bool(library.version or not library.real_path)
