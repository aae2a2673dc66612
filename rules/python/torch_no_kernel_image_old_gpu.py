"""This build of PyTorch no longer supports the GPU.

What you see
    "Found GPU0 NVIDIA GeForce GTX 1080 Ti which is of cuda capability 6.1. Minimum and Maximum cuda capability
    supported by this version of PyTorch is (7.0) - (12.0)", then "CUDA error: no kernel image is available for
    execution on the device". torch.cuda.is_available() is True.
Why
    New builds of PyTorch drop old GPUs long before the driver does, and differently for each CUDA version. PyTorch
    2.8 for CUDA 12.6 still supports compute capability 5.0; PyTorch 2.8 for CUDA 12.8 starts at 7.0.

    Neither the driver nor the GPU is the cause.
Repair
    Install the same PyTorch for an older CUDA version if there is one, otherwise an older PyTorch, into this
    environment.
What the repair risks
    A download of a few gigabytes. An older PyTorch may be too old for packages that need the new one. Everything
    outside the environment stays unchanged.
By hand
    cd /path/to/venv
    bin/python -c 'import torch.cuda as c; print(c.get_arch_list())'
    index=https://download.pytorch.org/whl/cu126
    bin/python -m pip install torch==2.8.0+cu126 --index-url $index
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaDriver,
    Evidence,
    Finding,
    Gpus,
    Machine,
    Plan,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    WheelCoverage,
    fitting_wheel,
    replace_torch,
    version_key,
)


class TorchNoKernelImageOldGpu(Rule):
    id = "torch-no-kernel-image-old-gpu"
    title = "This build of PyTorch no longer supports the GPU"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True

    def detect(self, coverage: WheelCoverage) -> Iterator[Finding | Unknown]:
        yield from coverage.doubts
        for environment, torch, wheel in coverage.wheels:
            oldest = version_key(wheel.oldest())
            older = [g for g in coverage.gpus if g.capability and version_key(g.capability) < oldest]
            if older:
                gpu = older[0]
                yield self.finding(
                    environment.subject,
                    f"PyTorch {torch.version} in {environment.path} does not support {gpu.name or gpu.address} (compute "
                    f"capability {gpu.capability}): it needs {wheel.oldest()} or newer",
                    Evidence(torch.source, torch.shows),
                    Evidence(f"PyTorch {wheel.version} for CUDA {wheel.cuda}", f"{wheel.targets} ({wheel.source})"),
                    *(Evidence(f"GPU {g.address}", f"{g.name}, compute capability {g.capability}") for g in older),
                    # An old card that only drives the monitor, beside a card that computes, is not a problem.
                    severity=Severity.ERROR if len(older) == len(coverage.gpus) else Severity.NOTE,
                    about=(*environment.about, *(f"gpu:{g.address}" for g in older)),
                    site=environment.site,
                )

    def remedies(
        self, finding: Finding, environments: PythonEnvironments, gpus: Gpus, driver: CudaDriver | None
    ) -> Iterator[Plan]:
        environment = environments.at(finding.detail["site"])
        if environment is None or environment.torch is None:
            return
        installed = environment.torch.version
        capabilities = [g.capability for g in gpus.gpus if g.capability and g.driver != "vfio-pci"]
        wheel = fitting_wheel(installed, driver.numbers if driver else (), capabilities)
        old = [g for g in gpus.gpus if f"gpu:{g.address}" in finding.about]
        if finding.severity == Severity.NOTE and not (wheel and wheel.runs_on(old[0].capability)):
            text = "Start programs with CUDA_VISIBLE_DEVICES set to the UUIDs of the other GPUs; to list them, run: nvidia-smi -L"
            yield Plan(f"Use the {old[0].name} only for the monitor", Risk.LOW, (ByHand(text),))
            return
        yield replace_torch(
            environment.path,
            environment.python,
            environment.manager,
            installed,
            environment.packages,
            (wheel.version, wheel.tag) if wheel else None,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "PyPI's PyTorch 2.8 on a GTX 1080 Ti",
            Machine.debian12_gpu().python_environment(packages=["torchaudio-2.8.0"], torch="2.8.0", cuda="12.8"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python torch==2.8.0+cu126 torchaudio==2.8.0+cu126 --index-url https://download.pytorch.org/whl/cu126",
                ),
            ),
        )
        yield Scenario(
            "PyTorch 1.13 on a Kepler card",
            Machine.ubuntu2404()
            .gpu("1004")
            .ubuntu_driver("470.256.02")
            .python_environment(torch="1.13.1+cu117", cuda="11.7", python="3.10"),
            finds="python:/home/alice/venv",
            ladder=(
                ("low network", "by-hand 1.3.0 torch==1.3.0+cu101 --index-url https://download.pytorch.org/whl/cu101"),
            ),
        )
        yield Scenario(
            "also too new for the driver",
            Machine.debian12_gpu().python_environment(torch="2.11.0+cu130", cuda="13.0"),
            finds="python:/home/alice/venv",
            causes=("torch-wheel-newer-than-driver",),
        )
        yield Scenario(
            "only the card of the monitor is old",
            Machine.debian12_gpu()
            .gpu("2204")
            .gpu("1b06", "0000:02:00.0")
            .python_environment(torch="2.8.0+cu128", cuda="12.8"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python torch==2.8.0+cu126 --index-url https://download.pytorch.org/whl/cu126",
                ),
            ),
        )
        yield Scenario(
            "no build supports both cards",
            Machine.ubuntu2404()
            .gpu("2b85")
            .gpu("1b06", "0000:02:00.0")
            .ubuntu_driver("570.133.07", open_flavour=True)
            .python_environment(torch="2.8.0+cu128", cuda="12.8"),
            finds="python:/home/alice/venv",
            alone=False,
            ladder=(("low", "by-hand CUDA_VISIBLE_DEVICES -L"),),  # no driver supports both cards
        )
        yield Scenario(
            "the build for CUDA 12.6", Machine.debian12_gpu().python_environment(torch="2.8.0+cu126", cuda="12.6")
        )
        yield Scenario(
            "the GPU is passed to a virtual machine",
            Machine.debian12().gpu(driver="vfio-pci").python_environment(torch="2.8.0+cu128", cuda="12.8"),
        )
        yield Scenario(
            "conda's build supports other GPUs than the wheels",
            Machine.debian12_gpu()
            .python_environment("/home/alice/conda", torch="2.1.0", cuda="12.1")
            .remove("/home/alice/conda/pyvenv.cfg")
            .file("/home/alice/conda/conda-meta/pytorch-2.1.0-py3.11_cuda12.1_cudnn8.9.2_0.json", "{}", uid=1000),
            unknown=True,
        )
