"""There is an NVIDIA GPU and no NVIDIA driver at all.

What you see
    nvidia-smi: command not found; the screen is drawn by nouveau or by the processor's graphics.
Why
    Nobody installed the driver, or it was removed. For a machine that only shows a desktop that is a valid choice; for
    CUDA programs it is not.
Repair
    Install the driver that the distribution recommends for the GPU.
What the repair risks
    The graphics stack changes with the next start.
By hand
    Debian: nvidia-detect names the package, apt-get install nvidia-driver (contrib, non-free); Ubuntu: ubuntu-drivers
    install
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaToolkits,
    DriverLibraries,
    DriverPackages,
    Evidence,
    Finding,
    Gpu,
    Gpus,
    KernelModules,
    Machine,
    Plan,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class GpuWithoutDriver(Rule):
    id = "gpu-without-driver"
    title = "An NVIDIA GPU has no NVIDIA driver"
    stage = Stage.PACKAGE_SET
    severity = Severity.NOTE
    risk = Risk.MEDIUM
    explains = ("cuda-runtime-newer-than-driver", "libcuda-missing-from-loader", "stale-xorg-conf-nvidia")

    def detect(
        self,
        gpus: Gpus,
        modules: KernelModules | None,
        packages: DriverPackages | None,
        libraries: DriverLibraries | None,
        toolkits: CudaToolkits | None,
        environments: PythonEnvironments | None,
    ) -> Iterator[Finding | Unknown]:
        for problem in gpus.problems:
            yield Unknown(problem)
        if gpus.container:
            yield Unknown("in a container the driver is that of the host")
            return
        if modules and (modules.loaded_version or modules.for_any_kernel()):
            return
        if (packages and packages.version) or (libraries and libraries.version):
            return
        if modules is None or libraries is None:
            yield Unknown("the modules, or the libraries of this machine can't be looked at")
            return
        wants = [Evidence(t.path, f"CUDA toolkit {t.version}") for t in (toolkits.toolkits if toolkits else ())]
        wants += [
            Evidence(e.path, f"torch {e.torch.version} built for CUDA {e.torch.cuda}")
            for e in (environments.environments if environments else ())
            if e.torch and e.torch.cuda
        ]
        for gpu in gpus.gpus:
            if gpu.passed_through:
                continue
            yield self.finding(
                f"gpu:{gpu.address}",
                f"The {gpu.name} at {gpu.address} has no NVIDIA driver"
                + (f", which {wants[0].shows} needs" if wants else f" ({gpu.driver or 'nothing'} holds it)"),
                Evidence(f"/sys/bus/pci/devices/{gpu.address}", f"10de:{gpu.device}, driver: {gpu.driver or 'none'}"),
                Evidence("/lib/modules", "no NVIDIA module for any kernel"),
                *wants[:3],
                severity=Severity.WARNING if wants else Severity.NOTE,
                limits=_limits(gpu),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Install the driver, if the GPU shall compute",
            Risk.MEDIUM,
            (
                ByHand(
                    "Debian: enable contrib and non-free, nvidia-detect names the package (nvidia-driver); Ubuntu: ubuntu-drivers install;"
                    f" then restart.{finding.detail['limits']}"
                ),
            ),
            reboot=True,
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario("nouveau draws a desktop", Machine.debian12().gpu(driver="nouveau"), finds=gpu)
        yield Scenario("a toolkit wants it", Machine.ubuntu2404().gpu(driver="nouveau").cuda_toolkit(), finds=gpu)
        yield Scenario(
            "a PyTorch for CUDA wants it",
            Machine.debian12().gpu("0de1", driver="").python_environment(torch="2.3.0+cu121", cuda="12.1"),
            finds=gpu,
            alone=False,  # that PyTorch is not built for a Fermi
        )
        yield Scenario("with its driver", Machine.debian12_gpu())
        yield Scenario("kept for a virtual machine", Machine.debian12().gpu(driver="vfio-pci"))
        yield Scenario("no GPU", Machine.debian12().file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n"))
        yield Scenario(
            "a container, whose driver is the host's",
            Machine.ubuntu2404().gpu().cuda_toolkit().file("/.dockerenv"),
            unknown=True,
        )
        yield Scenario("no bus in sight", Machine().os_release("debian", "12"), unknown=True)


def _limits(gpu: Gpu) -> str:
    """What a driver for the GPU must be."""
    flavour = " It must be one with the open kernel module." if gpu.needs_open else ""
    if gpu.last_branch is not None:
        return f" The last branch for this GPU is {gpu.last_branch}.{flavour}"
    return f" It needs branch {gpu.needed} or newer.{flavour}" if gpu.needed else flavour
