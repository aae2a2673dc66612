"""The machine has an NVIDIA GPU but no NVIDIA driver.

What you see
    nvidia-smi: command not found

    nouveau or the processor's integrated graphics draws the screen.
Why
    The driver was never installed, or it was removed. A desktop works without it. CUDA does not.
Repair
    Install the newest driver of the distribution that supports all GPUs and kernels of this machine, and reboot. With
    Secure Boot, and where the distribution has no such driver, this is left to you.
What the repair risks
    After the next reboot, another graphics driver draws the screen. An undo removes the NVIDIA driver.
By hand
    # Debian (enable contrib and non-free first):
    apt-get install nvidia-detect
    nvidia-detect
    apt-get install nvidia-driver
    # Ubuntu:
    ubuntu-drivers install
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    CudaToolkits,
    Docker,
    DriverLibraries,
    DriverPackages,
    Evidence,
    Finding,
    FirstDriver,
    Gpu,
    Gpus,
    Kernel,
    KernelModules,
    Machine,
    Plan,
    PythonEnvironments,
    Reboot,
    RefreshModuleIndex,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
)


class GpuWithoutDriver(Rule):
    id = "gpu-without-driver"
    title = "An NVIDIA GPU has no NVIDIA driver"
    stage = Stage.PACKAGE_SET
    severity = Severity.NOTE
    risk = Risk.HIGH
    explains = ("cuda-runtime-newer-than-driver", "libcuda-missing-from-loader", "stale-xorg-conf-nvidia")

    def detect(
        self,
        gpus: Gpus,
        modules: KernelModules | None,
        packages: DriverPackages | None,
        libraries: DriverLibraries | None,
        toolkits: CudaToolkits | None,
        environments: PythonEnvironments | None,
        docker: Docker | None,
    ) -> Iterator[Finding | Unknown]:
        for problem in gpus.problems:
            yield Unknown(problem)
        if gpus.container:
            yield Unknown("skipped in a container: the driver belongs to the host")
            return
        if modules and (modules.loaded_version or modules.for_any_kernel()):
            return
        if (packages and packages.version) or (libraries and libraries.version):
            return
        if modules is None or libraries is None:
            yield Unknown("cannot read the kernel modules or the libraries of this machine")
            return
        wants = [Evidence(t.path, f"CUDA toolkit {t.version}") for t in (toolkits.toolkits if toolkits else ())]
        wants += [
            Evidence(e.path, f"torch {e.torch.version} built for CUDA {e.torch.cuda}")
            for e in (environments.environments if environments else ())
            if e.torch and e.torch.cuda
        ]
        wants += [Evidence(docker.toolkit, "NVIDIA's container toolkit")] if docker and docker.toolkit else []
        for gpu in gpus.gpus:
            if gpu.passed_through:
                continue
            yield self.finding(
                f"gpu:{gpu.address}",
                f"The {gpu.name} at {gpu.address} has no NVIDIA driver"
                + (f", but {wants[0].shows} needs one" if wants else f" (driver in use: {gpu.driver or 'none'})"),
                Evidence(f"/sys/bus/pci/devices/{gpu.address}", f"10de:{gpu.device}, driver: {gpu.driver or 'none'}"),
                Evidence("/lib/modules", "no NVIDIA module for any kernel"),
                *wants[:3],
                severity=Severity.WARNING if wants else Severity.NOTE,
                limits=_limits(gpu),
            )

    def remedies(self, finding: Finding, driver: FirstDriver | None, kernel: Kernel | None) -> Iterator[Plan]:
        if driver and kernel and driver.packages:
            # Usually the packages do both; without them, nouveau takes the GPU again.
            index = [RefreshModuleIndex(release) for release in kernel.starting]
            yield Plan(
                f"Install driver {driver.branch} from the distribution",
                Risk.HIGH,
                (AptInstall(driver.packages), *index, UpdateInitramfs("all"), Reboot()),
                reboot=True,
                network=True,
            )
        text = (
            "Debian: enable contrib and non-free, and install the package that nvidia-detect recommends (nvidia-driver);"
            f" Ubuntu: ubuntu-drivers install; then reboot.{finding.detail['limits']}"
        )
        yield Plan("Install the NVIDIA driver (needed for CUDA)", Risk.HIGH, (ByHand(text),), reboot=True, network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "the container toolkit needs a driver",
            Machine.debian12().gpu(driver="").file("/usr/bin/nvidia-ctk", "", 0o755),
            finds="gpu:0000:01:00.0",
        )
        yield Scenario(
            "nouveau draws a desktop",
            Machine.debian12().gpu(driver="nouveau"),
            finds=gpu,
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver",
                    "refresh-module-index 6.1.0-50-amd64",
                    "update-initramfs all",
                    "reboot",
                ),
                ("high reboot network", "by-hand 580"),
            ),
        )
        yield Scenario(
            "a CUDA toolkit needs it",
            Machine.ubuntu2404().gpu("2204", driver="nouveau").cuda_toolkit(),
            finds=gpu,
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-595",
                    "refresh-module-index 6.8.0-50-generic",
                    "update-initramfs all",
                    "reboot",
                ),
                ("high reboot network", "by-hand ubuntu-drivers"),
            ),
            steps=("apt-install", "refresh-module-index", "update-initramfs", "reboot"),
        )
        yield Scenario(
            "a PyTorch for CUDA needs it",
            Machine.debian12().gpu("0de1", driver="").python_environment(torch="2.3.0+cu121", cuda="12.1"),
            finds=gpu,
            alone=False,
            ladder=(("high reboot network", "by-hand 390"),),  # this PyTorch is not built for a Fermi GPU
        )
        yield Scenario(
            "a Blackwell GPU, and a kernel without headers",
            Machine.ubuntu2404()
            .kernel("6.11.0-9-generic", running=False, headers=False)
            .gpu("2b85", driver="")
            .cuda_toolkit("12.8", "12.8.93"),
            finds=gpu,
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-595-open linux-headers-6.11.0-9-generic",
                    "refresh-module-index 6.8.0-50-generic",
                    "refresh-module-index 6.11.0-9-generic",
                    "update-initramfs all",
                    "reboot",
                ),
                ("high reboot network", "by-hand open kernel"),
            ),
        )
        yield Scenario(
            "Secure Boot, where a person must confirm the module's key",
            Machine.ubuntu2404().gpu("2204", driver="nouveau").cuda_toolkit().secure_boot(),
            finds=gpu,
            ladder=(("high reboot network", "by-hand ubuntu-drivers"),),
        )
        yield Scenario("with its driver", Machine.debian12_gpu())
        yield Scenario("reserved for a virtual machine", Machine.debian12().gpu(driver="vfio-pci"))
        yield Scenario("no GPU", Machine.debian12().file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n"))
        yield Scenario(
            "a container, which uses the host's driver",
            Machine.ubuntu2404().gpu().cuda_toolkit().file("/.dockerenv"),
            unknown=True,
        )
        yield Scenario("no PCI bus to read", Machine().os_release("debian", "12"), unknown=True)


def _limits(gpu: Gpu) -> str:
    """Which drivers support the GPU, as sentences to append."""
    flavour = " It must have the open kernel module." if gpu.needs_open else ""
    if gpu.last_branch is not None:
        return f" The last branch for this GPU is {gpu.last_branch}.{flavour}"
    return f" It needs branch {gpu.needed} or newer.{flavour}" if gpu.needed else flavour
