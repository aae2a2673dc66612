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
    Debian: apt-get install nvidia-driver (contrib, non-free); Ubuntu: ubuntu-drivers install
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaToolkits,
    DriverLibraries,
    DriverPackages,
    Evidence,
    Finding,
    Gpus,
    KernelModules,
    Layer,
    Machine,
    Plan,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)


class GpuWithoutDriver(Rule):
    id = "gpu-without-driver"
    title = "An NVIDIA GPU has no NVIDIA driver"
    layer = Layer.KERNEL_MODULE
    stage = Stage.PACKAGE_SET
    severity = Severity.NOTE
    risk = Risk.MEDIUM
    explains = (
        "libcuda-missing-from-loader",
        "login-loop-glx-broken-driver-mismatch",
        "cuda-runtime-newer-than-driver",
    )

    def detect(
        self,
        gpus: Gpus,
        modules: KernelModules,
        packages: DriverPackages | None,
        libraries: DriverLibraries | None,
        toolkits: CudaToolkits | None,
        environments: PythonEnvironments | None,
    ) -> Iterator[Finding]:
        if (
            modules.files
            or modules.loaded_version
            or (packages and packages.version)
            or (libraries and libraries.version)
        ):
            return
        wants = [Evidence(t.path, f"CUDA toolkit {t.version}") for t in (toolkits.toolkits if toolkits else ())]
        wants += [
            Evidence(e.path, f"torch {e.torch.version} built for CUDA {e.torch.cuda}")
            for e in (environments.environments if environments else ())
            if e.torch and e.torch.cuda
        ]
        for gpu in gpus.gpus:
            if gpu.driver == "vfio-pci":
                continue
            yield self.finding(
                f"gpu:{gpu.address}",
                f"The {gpu.name} at {gpu.address} has no NVIDIA driver"
                + (f", which {wants[0].shows} needs" if wants else f" ({gpu.driver or 'nothing'} holds it)"),
                Evidence(f"/sys/bus/pci/devices/{gpu.address}", f"10de:{gpu.device}, driver: {gpu.driver or 'none'}"),
                Evidence("/lib/modules", "no NVIDIA module for any kernel"),
                *wants[:3],
                severity=Severity.WARNING if wants else Severity.NOTE,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Install the driver, if the GPU shall compute",
            Risk.MEDIUM,
            (
                ByHand(
                    "Debian: enable contrib and non-free, apt-get install nvidia-driver; Ubuntu: ubuntu-drivers install; then restart"
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
        yield Scenario("with its driver", Machine.debian12_gpu())
        yield Scenario("no GPU", Machine.debian12().file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n"))
        yield Scenario("no bus in sight", Machine().os_release("debian", "12"), unknown=True)
