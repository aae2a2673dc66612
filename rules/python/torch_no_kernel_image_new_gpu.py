"""PyTorch has no code for a GPU that is newer than the wheel.

What you see
    "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation", then
    "CUDA error: no kernel image is available for execution on the device". torch.cuda.is_available() is True.
Why
    A wheel holds machine code for the compute capabilities that were known when it was built. Code runs on its own
    major version up to the device's minor one (8.6 runs on 8.9, not on 9.0); only a wheel with PTX can compile for
    later ones. A project pins an old PyTorch, the GPU is newer. The driver is right.
Repair
    Install the nearest newer PyTorch that has code for this GPU, into this environment.
What the repair risks
    Packages that pin the old PyTorch may break and have to be updated; own CUDA extensions (flash-attn, custom
    operators) must be built again with TORCH_CUDA_ARCH_LIST of this GPU. Everything outside the environment stays.
By hand
    python -c 'import torch; print(torch.cuda.get_arch_list(), torch.cuda.get_device_capability())'
    /path/to/venv/bin/python -m pip install torch==2.8.0+cu128 --index-url https://download.pytorch.org/whl/cu128
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
    title = "PyTorch has no code for a GPU that is newer than the wheel"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR

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
                    f"PyTorch {torch.version} in {environment.path} has no code for {gpu.name or gpu.address} (compute "
                    f"capability {gpu.capability}): it was built for {wheel.targets.replace(' ', ', ')}",
                    Evidence(torch.source, torch.shows),
                    Evidence(f"PyTorch {wheel.version} for CUDA {wheel.cuda}", f"{wheel.targets} ({wheel.source})"),
                    *(Evidence(f"GPU {g.address}", f"{g.name}, compute capability {g.capability}") for g in newer),
                    # With another GPU that works, PyTorch is of use all the same.
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
        )
        yield Scenario(
            "PyTorch 1.7 on an RTX 3090",
            Machine.debian12_gpu().gpu("2204").python_environment(torch="1.7.1", cuda="10.2", python="3.8"),
            finds="python:/home/alice/venv",
        )
        yield Scenario(
            "a second GPU works",
            blackwell().gpu("2204", "0000:02:00.0").python_environment(torch="2.6.0+cu124", cuda="12.4"),
            finds="python:/home/alice/venv",
            alone=False,  # it is a warning only
        )
        yield Scenario("a wheel for it", blackwell().python_environment(torch="2.8.0+cu128", cuda="12.8"))
        yield Scenario(
            "code for 8.6 runs on 8.9",
            Machine.debian12_gpu().gpu("2684").python_environment(torch="2.3.1+cu121", cuda="12.1"),
        )
        yield Scenario(
            "PTX is compiled for what is newer",
            Machine.debian12_gpu().gpu("2204").python_environment(torch="1.4.0", cuda="10.1", python="3.8"),
        )
        yield Scenario(
            "built by somebody else",
            blackwell().python_environment(torch="2.6.0a0+git1234567", cuda="12.4"),
            unknown=True,
        )
