"""The loaded kernel module and the driver's libraries have different versions.

What you see
    Failed to initialize NVML: Driver/library version mismatch

    NVRM: API mismatch: the client has the version 550.120, but this kernel module has the version 550.90.07.

    Programs that already use the GPU continue, new ones fail. X and the login screen may fail too.
Why
    An upgrade (often an automatic one at night) replaced the libraries. The old module stays loaded until it is
    reloaded or the machine reboots.

    Two other causes print the same message. If the libraries belong to another driver than the installed module, a
    reboot does not help. If the initramfs contains an old module, the problem returns after each reboot. If dlhealth
    finds traces of one of them, it reports that as the cause.
Repair
    If no program uses the GPU, unload the modules and load them again. Otherwise reboot the machine.
What the repair risks
    If a program does use the GPU, the reload fails without harm. A reboot ends running jobs.

    Nothing is installed or removed. For most people a reboot alone solves this problem.
By hand
    modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia
    modprobe nvidia
    # If that fails:
    systemctl reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverFit,
    DriverLibraries,
    DriverPackages,
    DriverUse,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    Machine,
    PackageLocks,
    Plan,
    PostedMismatch,
    Reboot,
    ReloadModules,
    Risk,
    Rule,
    Runfile,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class DriverLibraryVersionMismatchAfterUpgrade(Rule):
    id = "driver-library-version-mismatch-after-upgrade"
    title = "The loaded kernel module and the driver's libraries have different versions"
    stage = Stage.REBOOT
    severity = Severity.ERROR
    explains = ("fabricmanager-missing-or-mismatched", "login-loop-glx-broken-driver-mismatch")

    def detect(
        self,
        use: DriverUse | None,
        modules: KernelModules | None,
        libraries: DriverLibraries | None,
        driver: DriverPackages | None,
        kernel: Kernel | None,
        fit: DriverFit | None,
        locks: PackageLocks | None,
        posted: PostedMismatch,
        runfile: Runfile | None,
    ) -> Iterator[Finding | Unknown]:
        library, where = _library(libraries, driver)
        if use is None or not use.version or where is None:
            yield from self._as_posted(use, library, where, posted)
            return
        loaded = use.version
        if library == loaded:
            return
        if use.elsewhere:
            yield Unknown(use.elsewhere)
            return
        if libraries is None and runfile and runfile.installed:
            yield Unknown("the libraries cannot be read; a .run file may have replaced those of the packages")
            return
        file = modules.seen(kernel.running) if modules and kernel else None
        disk = file.version if file else ""
        if disk != library and locks and locks.busy:
            yield Unknown(locks.busy)  # the update has unpacked the libraries but not built the module yet
            return
        after = {
            library: "reboot, or reload the module",
            loaded: "the libraries do not belong to the installed module",
        }.get(disk, f"the module on the disk is {disk}" if disk else "programs that use the GPU fail")
        evidence = [Evidence("/proc/driver/nvidia/version", loaded), where]
        if file:
            evidence.append(Evidence(file.path, f"version {file.version}"))
        yield self.finding(
            "host",
            f"The loaded NVIDIA module has version {loaded}, but the libraries have {library}: {after}",
            *evidence,
            loaded=loaded,
            library=library,
            disk=disk,
            unfit=next((m.who for m in fit.misfits if m.later and not m.others), "") if fit else "",
        )

    def _as_posted(
        self, use: DriverUse | None, library: str, where: Evidence | None, posted: PostedMismatch
    ) -> Iterator[Finding | Unknown]:
        """Where only what a program or the module itself said shows the versions."""
        if posted.evidence is None:
            if use is None:
                yield Unknown("cannot see which driver is loaded")
            return
        loaded, library = posted.module or (use.version if use else ""), library or posted.library
        versions = f" ({loaded or 'not known'} and {library or 'not known'})" if loaded or library else ""
        yield self.finding(
            "host",
            f"The loaded NVIDIA module and the driver's libraries have different versions{versions}: programs that use the GPU fail",
            posted.evidence,
            *([where] if where else []),
            loaded=loaded,
            library=library or "the libraries",
            disk="",
            unfit="",
        )

    def remedies(self, finding: Finding, use: DriverUse | None, driver: DriverPackages | None) -> Iterator[Plan]:
        library, disk = finding.detail["library"], finding.detail["disk"]
        if unfit := finding.detail["unfit"]:
            text = f"do not reboot yet: the loaded driver supports {unfit}, but {library} does not. Install a branch that supports it, then reboot"
            yield Plan("First install a driver that supports the GPU", Risk.MEDIUM, (ByHand(text),))
            return
        if disk in ("", library):
            if use and use.modules and not use.busy:
                yield Plan(
                    f"Load the module of {library} (no program uses the GPU)", Risk.LOW, (ReloadModules(use.modules),)
                )
            yield Plan(f"Reboot to load the module of {library}", Risk.MEDIUM, (Reboot(),), reboot=True)
        elif driver and driver.complete:
            yield Plan(
                f"Install module and libraries in one version ({', '.join(driver.complete)})",
                Risk.MEDIUM,
                (AptInstall(driver.complete, reinstall=True), Reboot()),
                reboot=True,
                network=True,
            )
        else:
            yield Plan(
                "Install module and libraries in one version",
                Risk.HIGH,
                (ByHand(f"install the complete driver {library} the same way as before, then reboot"),),
                reboot=True,
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        upgraded = Machine.ubuntu2404().gpu().ubuntu_driver("550.120", loaded=False).loaded_driver("550.90.07")
        yield Scenario(
            "upgraded, but not rebooted",
            upgraded,
            finds="host",
            steps=("reboot",),
            ladder=(("medium reboot", "reboot"),),
        )
        lib = "/usr/lib/x86_64-linux-gnu"
        yield Scenario(
            "no packages: a module from a .run file and newer libraries",
            Machine.ubuntu1604_runfile()
            .file(
                "/proc/driver/nvidia/version",
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  375.66  Mon May  1 2017\n",
            )
            .file("/sys/module/nvidia/version", "375.66\n"),
            finds="host",
        )
        yield Scenario(
            "only a few files of a machine",
            Machine()
            .file(
                "/proc/driver/nvidia/version",
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 2024\n",
            )
            .file("/proc/modules", "nvidia 1 0 - Live 0x0\n")
            .library(f"{lib}/libnvidia-ml.so.535.216.01", "libnvidia-ml.so.1")
            .link(f"{lib}/libnvidia-ml.so.1", "libnvidia-ml.so.535.216.01"),
            finds="host",
            alone=False,
            ladder=(
                ("low", "by-hand 535.216.01"),
                ("medium reboot", "by-hand 535.216.01", "reboot"),
            ),  # the other rules need more files
        )
        yield Scenario(
            "only the packages show the version of the libraries",
            Machine()
            .file(
                "/proc/driver/nvidia/version",
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31 2024\n",
            )
            .file("/proc/modules", "nvidia 1 0 - Live 0x0\n")
            .package("libnvidia-compute-550", "550.120-0ubuntu0.24.04.1"),
            finds="host",
            steps=("reload-modules",),
            alone=False,
            ladder=(("low", "reload-modules nvidia"), ("medium reboot", "reboot")),  # the other rules need more files
        )
        yield Scenario(
            "a metapackage moved a Kepler to a branch that ignores it",
            Machine.ubuntu2404().gpu("128b").ubuntu_driver("535.183.01", loaded=False).loaded_driver("470.256.02"),
            finds="host",
            alone=False,
            ladder=(("medium", "by-hand 710 0000:01:00.0 535.183.01"),),
        )
        yield Scenario("all have one version", Machine.ubuntu2404_gpu())
        yield Scenario(
            "nvidia-settings has its own version",
            Machine.debian12_gpu()
            .package("nvidia-settings", "525.125.06-1~deb12u1")
            .library(f"{lib}/libnvidia-gtk3.so.525.125.06"),
        )
        yield Scenario(
            "only the 32-bit library differs",
            Machine.debian12_gpu().file("/usr/lib32/libcuda.so.1", b"\x7fELF\x01"),
        )
        yield Scenario(
            "an update is running: the libraries are unpacked, the module is not built yet",
            Machine.ubuntu2404_gpu()
            .library(f"{lib}/libcuda.so.550.144.03", "libcuda.so.1")
            .link(f"{lib}/libcuda.so.1", "libcuda.so.550.144.03")
            .locked("/var/lib/dpkg/lock-frontend", 1595, "unattended-upgr"),
            unknown=True,
        )
        yield Scenario("in a container", Machine().file("/.dockerenv").file("/proc/modules", "nvidia 1 0 - Live 0x0\n")
            .file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 2024\n")
            .library(f"{lib}/libcuda.so.470.256.02", "libcuda.so.1")
            .link(f"{lib}/libcuda.so.1", "libcuda.so.470.256.02"), unknown=True)  # fmt: skip
        yield Scenario(
            "a mounted disk",
            Machine().os_release("debian", "12").kernel("6.1.0-50-amd64", running=False).debian_driver(loaded=False),
            unknown=True,
        )


def _library(libraries: DriverLibraries | None, driver: DriverPackages | None) -> tuple[str, Evidence | None]:
    """The version of the libraries and its source: their files, otherwise the one package that should contain them."""
    if libraries and libraries.version:
        found = next(
            x for x in libraries.libraries if x.version == libraries.version and not x.problem and x.bits == 64
        )
        owner = f" (package {found.package})" if found.package else ""
        return libraries.version, Evidence(found.path, f"-> {found.real_path}{owner}")
    packages = [m.package for m in driver.role("compute")] if driver and not (libraries and libraries.libraries) else []
    if len({p.upstream for p in packages}) == 1:
        return packages[0].upstream, Evidence("/var/lib/dpkg/status", f"{packages[0].name} {packages[0].version}")
    return "", None
