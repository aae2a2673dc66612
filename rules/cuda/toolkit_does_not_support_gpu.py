"""The installed CUDA toolkit cannot compile for this GPU.

What you see
    nvcc fatal : Unsupported gpu architecture 'compute_89'

    The error appears while an extension of PyTorch, tiny-cuda-nn, llama.cpp or a program of your own is compiled.
Why
    Each release of nvcc knows the GPUs of its time. A toolkit that is older than the GPU does not know it: the
    nvidia-cuda-toolkit of Ubuntu 22.04 is CUDA 11.5, and an RTX 4090 needs 11.8. New releases also drop old GPUs:
    CUDA 13 no longer compiles for Maxwell, Pascal and Volta.

    Wheels of PyTorch and TensorFlow bring their own CUDA and are not affected.
Repair
    Install a toolkit that knows the GPU. Several toolkits can be installed beside each other.
What the repair risks
    Low. Do not install a package that brings a driver ("cuda"): "cuda-toolkit-12-8" brings only the toolkit.
By hand
    nvcc --version
    nvcc --list-gpu-arch
    TORCH_CUDA_ARCH_LIST="8.6+PTX" pip install --no-build-isolation PACKAGE
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    UncompiledGpu,
    UncompiledGpus,
    Unknown,
)


class ToolkitDoesNotSupportGpu(Rule):
    id = "toolkit-does-not-support-gpu"
    title = "The installed CUDA toolkit cannot compile for this GPU"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(self, uncompiled: UncompiledGpus) -> Iterator[Finding | Unknown]:
        yield from uncompiled.doubts
        for found in uncompiled.found:
            gpu, toolkit = found.gpu, found.toolkit
            needs = f"CUDA {found.first} or newer" if found.too_old else f"a CUDA before {found.without}"
            yield self.finding(
                f"gpu:{gpu.address}",
                f"{toolkit.nvcc} is CUDA {toolkit.version}, which cannot compile for {gpu.name or gpu.address} (compute "
                f"capability {gpu.capability}): it needs {needs}",
                Evidence(toolkit.source, f"CUDA {toolkit.version}"),
                Evidence(f"GPU {gpu.address}", f"{gpu.name}, compute capability {gpu.capability}"),
                found=found,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        found: UncompiledGpu = finding.detail["found"]
        if found.too_old:
            package = f"cuda-toolkit-{found.first.replace('.', '-')}"
            text = f"install {package} or newer from NVIDIA's repository, but not newer than the CUDA that nvidia-smi shows"
        else:
            text = f"install a toolkit before CUDA {found.without} from NVIDIA's repository, beside this one"
        yield Plan("Install a toolkit that knows this GPU", Risk.LOW, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(device: str, *toolkits: str) -> Machine:
            machine = Machine.ubuntu2404().gpu(device).ubuntu_driver("575.57.08", open_flavour=True)
            for version in toolkits:
                machine.cuda_toolkit(version)
            return machine

        yield Scenario(
            "CUDA 11.5 on an RTX 4090",
            machine("2684", "11.5"),
            finds="gpu:0000:01:00.0",
            ladder=(("low network", "by-hand cuda-toolkit-11-8"),),
        )
        yield Scenario("CUDA 12.4 on an RTX 5090", machine("2b85", "12.4"), finds="gpu:0000:01:00.0")
        yield Scenario(
            "CUDA 13 on a GTX 1080 Ti",
            Machine.debian12_gpu().cuda_toolkit("13.0"),
            finds="gpu:0000:01:00.0",
            alone=False,
            ladder=(("low network", "by-hand 13.0"),),
        )
        yield Scenario("CUDA 12.8 on an RTX 5090", machine("2b85", "12.8"))
        yield Scenario("one of two toolkits knows the GPU", machine("2b85", "11.8", "12.8"))
        yield Scenario("no toolkit", machine("2b85"))
        yield Scenario(
            "a toolkit without a version",
            machine("2b85", "12.8")
            .remove("/usr/local/cuda-12.8/version.json")
            .remove("/usr/local/cuda-12.8/targets/x86_64-linux/include/cuda.h")
            .link("/usr/local/cuda-x", "cuda-12.8"),
            alone=False,
        )
        yield Scenario(
            "the toolkit is not readable",
            machine("2b85", "12.8").fifo("/usr/local/cuda-12.8/version.json"),
            unknown=True,
        )
