"""Programs cannot load the driver's libraries libcuda or libnvidia-ml.

What you see
    Could not find cuda drivers on your machine, GPU will not be used.

    libnvidia-ml.so.1: cannot open shared object file: no such file or directory
Why
    Only the CUDA toolkit was installed, not the driver's libraries. Or a link in the library directory is broken. Or
    the library is in a directory that is not in the loader's cache yet.
Repair
    Install the libraries with the version of the kernel module, or rebuild the loader's cache.
What the repair risks
    Nothing.
By hand
    ldconfig -p | grep -E 'libcuda.so.1|libnvidia-ml'
    # Ubuntu:
    apt-get install libnvidia-compute-NNN
    # Debian:
    apt-get install libcuda1
    ldconfig
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    AptPurgeReinstall,
    ByHand,
    CudaToolkits,
    DriverLibraries,
    DriverPackages,
    DriverUse,
    Evidence,
    Finding,
    Gpus,
    KernelModules,
    LoaderConfig,
    Machine,
    Packages,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Runfile,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

NAMES = ("libcuda.so.1", "libnvidia-ml.so.1")


class LibcudaMissingFromLoader(Rule):
    id = "libcuda-missing-from-loader"
    title = "Programs cannot load the driver's libraries"
    stage = Stage.LOADER
    severity = Severity.ERROR
    explains = ("tf-cannot-dlopen-gpu-libraries",)

    def detect(
        self,
        libraries: DriverLibraries,
        modules: KernelModules | None,
        gpus: Gpus | None,
        toolkits: CudaToolkits | None,
        loader: LoaderConfig | None,
        driver: DriverPackages | None,
        use: DriverUse | None,
    ) -> Iterator[Finding | Unknown]:
        missing = [n for n in NAMES if libraries.find(n) is None]
        uncached = _uncached(libraries, loader) if not missing else []
        if not missing and not uncached:
            return
        reason = _expected(use, modules, gpus, toolkits)
        if reason is None:
            return
        if use and use.elsewhere:
            yield Unknown(use.elsewhere)
            return
        if libraries.problems:
            yield Unknown(libraries.problems[0])
            return
        compute = driver.role("compute") if driver else ()
        if not libraries.libraries and (driver is None or compute):
            known = f"{compute[0].package.name} is installed" if compute else "the installed packages are unknown"
            yield Unknown(
                f"{known}, but no library of the driver is visible here; probably a part of the disk is missing"
            )
            return
        if uncached:
            name, path = uncached[0]
            yield self.finding(
                "host",
                f"{name} is in {path}, but not in the loader's cache",
                Evidence(path, f"contains {name}"),
                Evidence("/etc/ld.so.cache", f"does not contain {name}"),
                cache=True,
            )
            return
        broken = [x for x in libraries.libraries if x.name in missing and x.bits == 64 and x.problem]
        if unread := libraries.unread(*missing):
            yield Unknown(unread)
            return
        evidence = [Evidence(x.path, x.problem) for x in broken] or [
            Evidence("the loader's directories", f"do not contain {n}") for n in missing
        ]
        shown = f"{broken[0].path} is {broken[0].problem}" if broken else f"{' and '.join(missing)} cannot be found"
        yield self.finding(
            "host",
            f"{shown}: no program can use the GPU, although {reason.shows}",
            *evidence,
            reason,
            severity=Severity.ERROR if "libcuda.so.1" in missing else Severity.WARNING,
            cache=False,
        )

    def remedies(
        self, finding: Finding, driver: DriverPackages | None, packages: Packages | None, runfile: Runfile
    ) -> Iterator[Plan]:
        if finding.detail["cache"]:
            yield Plan("Rebuild the loader's cache", Risk.LOW, (RefreshLoaderCache(),))
            return
        if runfile.installed:
            yield Plan(
                "Run NVIDIA's .run installer of the same version again", Risk.MEDIUM,
                (ByHand(f"run NVIDIA-Linux-x86_64-{runfile.version or 'VERSION'}.run again; it reinstalls all its libraries"),),
            )  # fmt: skip
            return
        names = driver.compute_packages if driver else ()
        if names:
            yield Plan(
                f"Reinstall {', '.join(names)}", Risk.LOW, (AptInstall(names, reinstall=True), RefreshLoaderCache()),
                network=True,
            )  # fmt: skip
            if packages:
                yield Plan(
                    "Purge the driver and reinstall the same version", Risk.HIGH,
                    (AptPurgeReinstall(packages.driver_family), RefreshLoaderCache()), network=True,
                )  # fmt: skip
            return
        yield Plan(
            "Install the driver's libraries", Risk.MEDIUM,
            (ByHand("install the driver with its libraries (Ubuntu: ubuntu-drivers install; Debian: nvidia-driver libcuda1)"),),
            network=True,
        )  # fmt: skip

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/x86_64-linux-gnu"
        yield Scenario(
            "the link is broken",
            Machine.ubuntu2404_gpu()
            .link(f"{lib}/libcuda.so.1", "libcuda.so.550.90.07")
            .remove(f"{lib}/libcuda.so.550.120"),
            finds="host",
            steps=("apt-install", "refresh-loader-cache"),
            ladder=(
                ("low network", "apt-install libnvidia-compute-550 reinstall", "refresh-loader-cache"),
                (
                    "high network",
                    "apt-purge-reinstall libnvidia-cfg1-550..xserver-xorg-video-nvidia-550(18)",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "the alternative's target is missing",
            Machine.debian12_gpu().remove(f"{lib}/nvidia/current/libcuda.so.535.261.03"),
            finds="host",
            ladder=(
                ("low network", "apt-install libcuda1 libnvidia-ml1 reinstall", "refresh-loader-cache"),
                (
                    "high network",
                    "apt-purge-reinstall firmware-nvidia-gsp..xserver-xorg-video-nvidia(33)",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "only the toolkit was installed",
            Machine.ubuntu2404().gpu(driver="").cuda_toolkit("12.4", "12.4.131"),
            finds="host",
            alone=False,
            ladder=(("medium network", "by-hand libcuda1"),),  # the missing driver is also a note
        )
        yield Scenario("a complete driver", Machine.ubuntu2404_gpu())
        yield Scenario("a driver from a .run file", Machine.ubuntu1604_runfile())
        yield Scenario(
            "a machine without a GPU that compiles CUDA",
            Machine.ubuntu2404().folder("/sys/bus/pci/devices").cuda_toolkit("12.4", "12.4.131"),
        )
        yield Scenario(
            "in a container",
            Machine().file("/.dockerenv").file("/proc/modules", "nvidia 1 0 - Live 0x0\n")
            .file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 2024\n"),
            unknown=True,
        )  # fmt: skip


def _expected(
    use: DriverUse | None, modules: KernelModules | None, gpus: Gpus | None, toolkits: CudaToolkits | None
) -> Evidence | None:
    """The reason why the machine needs the libraries, or None if it does not."""
    if use and use.version:
        return Evidence("/proc/driver/nvidia/version", f"the module {use.version} is loaded")
    file = next((f for f in modules.files if f.name == "nvidia"), None) if modules else None
    if file:
        return Evidence(file.path, f"the module {file.version} is installed")
    if gpus and gpus.gpus and toolkits and toolkits.toolkits:
        return Evidence(toolkits.toolkits[0].path, f"the machine has a GPU and CUDA {toolkits.toolkits[0].version}")
    return None


def _uncached(libraries: DriverLibraries, loader: LoaderConfig | None) -> list[tuple[str, str]]:
    """Libraries that need the loader's cache but are not in it, as (name, directory)."""
    found = []
    for name in NAMES:
        library = libraries.find(name)
        if library and loader is not None and loader.find(name) is None:
            found.append((name, library.path.rpartition("/")[0]))
    return found
