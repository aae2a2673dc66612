"""This build of PyTorch is too old for the GPU.

What you see
    "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation",
    then "CUDA error: no kernel image is available for execution on the device". torch.cuda.is_available() is True.
Why
    A build of PyTorch contains machine code only for the GPUs that were known when it was built. NVIDIA numbers GPU
    generations by "compute capability". Code runs on GPUs of the same major version with the same or a higher minor
    version: code for 8.6 runs on 8.9, but not on 9.0. Only a build with PTX can be compiled for later generations.

    Here a project pins an old PyTorch, and the GPU is newer. The driver is not the cause.
Repair
    Install the first newer PyTorch that supports this GPU, into this environment.
What the repair risks
    Packages that pin the old PyTorch may break and need an update. Your own CUDA extensions (flash-attn, custom
    operators) must be rebuilt with TORCH_CUDA_ARCH_LIST set for this GPU. Everything outside the environment stays
    unchanged.
By hand
    cd /path/to/venv
    bin/python -c 'import torch.cuda as c; print(c.get_arch_list())'
    index=https://download.pytorch.org/whl/cu128
    bin/python -m pip install torch==2.8.0+cu128 --index-url $index
"""

from collections.abc import Iterator

from dlhealth.api import (
    CudaDriver,
    Evidence,
    Finding,
    Gpus,
    Machine,
    Plan,
    PythonEnvironments,
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


class TorchNoKernelImageNewGpu(Rule):
    id = "torch-no-kernel-image-new-gpu"
    title = "This build of PyTorch is too old for the GPU"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True

    def detect(self, coverage: WheelCoverage) -> Iterator[Finding | Unknown]:
        yield from coverage.doubts
        for environment, torch, wheel in coverage.wheels:
            oldest = version_key(wheel.oldest())
            known = [gpu for gpu in coverage.gpus if gpu.capability]
            newer = [g for g in known if not wheel.runs_on(g.capability) and version_key(g.capability) > oldest]
            if newer:
                gpu = newer[0]
                yield self.finding(
                    environment.subject,
                    f"PyTorch {torch.version} in {environment.path} does not support {gpu.name or gpu.address} (compute "
                    f"capability {gpu.capability}): it was built for {wheel.targets.replace(' ', ', ')}",
                    Evidence(torch.source, torch.shows),
                    Evidence(f"PyTorch {wheel.version} for CUDA {wheel.cuda}", f"{wheel.targets} ({wheel.source})"),
                    *(Evidence(f"GPU {g.address}", f"{g.name}, compute capability {g.capability}") for g in newer),
                    # PyTorch can still use another GPU.
                    severity=Severity.ERROR if len(newer) == len(coverage.gpus) else Severity.WARNING,
                    about=(*environment.about, *(f"gpu:{g.address}" for g in newer)),
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
        def blackwell() -> Machine:
            return Machine.ubuntu2404().gpu("2b85").ubuntu_driver("570.133.07", open_flavour=True)

        yield Scenario(
            "a project pins PyTorch 2.5 on an RTX 5090",
            blackwell().python_environment(packages=["torchvision-0.20.1"], torch="2.5.1+cu121", cuda="12.1"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python torch==2.7.1+cu128 torchvision --index-url https://download.pytorch.org/whl/cu128",
                ),
            ),
        )
        yield Scenario(
            "PyTorch 1.7 on an RTX 3090",
            Machine.debian12_gpu().gpu("2204").python_environment(torch="1.7.1", cuda="10.2", python="3.8"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python torch==1.7.1+cu110 --index-url https://download.pytorch.org/whl/cu110",
                ),
            ),
        )
        yield Scenario(
            "a second GPU works",
            blackwell().gpu("2204", "0000:02:00.0").python_environment(torch="2.6.0+cu124", cuda="12.4"),
            finds="python:/home/alice/venv",
            alone=False,
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python torch==2.7.1+cu128 --index-url https://download.pytorch.org/whl/cu128",
                ),
            ),  # only a warning
        )
        yield Scenario("a build for this GPU", blackwell().python_environment(torch="2.8.0+cu128", cuda="12.8"))
        yield Scenario(
            "code for 8.6 runs on 8.9",
            Machine.debian12_gpu().gpu("2684").python_environment(torch="2.3.1+cu121", cuda="12.1"),
        )
        yield Scenario(
            "PTX is compiled for newer GPUs",
            Machine.debian12_gpu().gpu("2204").python_environment(torch="1.4.0", cuda="10.1", python="3.8"),
        )
        yield Scenario(
            "not built by the PyTorch project",
            blackwell().python_environment(torch="2.6.0a0+git1234567", cuda="12.4"),
            unknown=True,
        )
