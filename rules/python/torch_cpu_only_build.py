"""PyTorch is built without CUDA, although the machine has an NVIDIA GPU.

What you see
    torch.cuda.is_available() is False although nvidia-smi shows the GPU. Moving a model to the GPU fails with
    "AssertionError: Torch not compiled with CUDA enabled".
Why
    pip or conda chose the CPU build. Possible reasons: the index https://download.pytorch.org/whl/cpu, conda's
    package "cpuonly", conda's CPU variant (chosen when the environment is resolved on a machine without a GPU), a
    mirror without the CUDA wheels, or another package that reinstalled torch.

    The driver is not the cause.
Repair
    Install the same version of PyTorch for the newest CUDA version that fits the driver and the GPU, into this
    environment.
What the repair risks
    A download of several gigabytes. torchvision and torchaudio are replaced too, because their builds must match.
    The driver and everything outside the environment stay unchanged.
By hand
    cd /path/to/venv
    index=https://download.pytorch.org/whl/cu121
    bin/python -m pip install torch==2.3.0+cu121 --index-url $index
"""

from collections.abc import Iterator

from dlhealth.api import (
    CudaDriver,
    Evidence,
    Finding,
    Machine,
    Plan,
    PythonEnvironments,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UsableGpu,
    fitting_wheel,
    replace_torch,
)


class TorchCpuOnlyBuild(Rule):
    id = "torch-cpu-only-build"
    title = "PyTorch is built without CUDA, although the machine has an NVIDIA GPU"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    gpu_wheels = True

    def detect(self, environments: PythonEnvironments, gpu: UsableGpu) -> Iterator[Finding | Unknown]:
        if not gpu.source:
            return
        for problem in environments.problems:
            yield Unknown(problem)
        for environment in environments.environments:
            torch = environment.torch
            if torch and torch.backend == "cpu":
                yield self.finding(
                    environment.subject,
                    f"PyTorch {torch.version} in {environment.path} is built without CUDA: it cannot use the GPU",
                    Evidence(torch.source, torch.shows),
                    Evidence(gpu.source, gpu.shows),
                    # Perhaps the system's package is only a dependency of another package.
                    severity=Severity.NOTE if environment.kind == "system" else Severity.WARNING,
                    about=environment.about,
                    site=environment.site,
                )

    def remedies(
        self, finding: Finding, environments: PythonEnvironments, gpu: UsableGpu, driver: CudaDriver
    ) -> Iterator[Plan]:
        environment = environments.at(finding.detail["site"])
        if environment is None or environment.torch is None:
            return
        installed = environment.torch.version
        wheel = fitting_wheel(installed, driver.numbers, gpu.capabilities)
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
        conda = "/home/alice/miniconda3/envs/train"
        yield Scenario(
            "from the CPU index",
            Machine.debian12_gpu().python_environment(packages=["torchvision-0.18.0+cpu"], torch="2.3.0+cpu"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python torch==2.3.0+cu121 torchvision==0.18.0+cu121 --index-url https://download.pytorch.org/whl/cu121",
                ),
            ),
        )
        yield Scenario(
            "conda chose the CPU variant",
            Machine.debian12_gpu()
            .file(f"{conda}/conda-meta/history", uid=1000)
            .file(f"{conda}/conda-meta/pytorch-2.1.0-py3.11_cpu_0.json", "{}", uid=1000)
            .file(f"{conda}/conda-meta/cpuonly-2.0-0.json", "{}", uid=1000)
            .file(f"{conda}/lib/python3.11/site-packages/torch-2.1.0-py3.11.egg-info/PKG-INFO", uid=1000),
            finds=f"python:{conda}",
            ladder=(
                (
                    "low network",
                    "by-hand /home/alice/miniconda3/envs/train torch==2.1.0+cu121 --index-url https://download.pytorch.org/whl/cu121",
                ),
            ),
        )
        yield Scenario(
            "an environment deep inside a project",
            Machine.ubuntu2404_gpu().python_environment("/home/alice/code/mnist/.venv", torch="2.13.0+cpu"),
            finds="python:/home/alice/code/mnist/.venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/code/mnist/.venv/bin/python torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126",
                ),
            ),
        )
        yield Scenario(
            "the disk of a machine with the driver",
            Machine.debian12().debian_driver().python_environment(torch="2.3.0+cpu"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python torch==2.3.0+cu121 --index-url https://download.pytorch.org/whl/cu121",
                ),
            ),
        )
        yield Scenario(
            "the disk of a machine without a driver",
            Machine.debian12().python_environment(torch="2.3.0+cpu"),
            unknown=True,
        )
        yield Scenario(
            "no NVIDIA GPU", Machine.debian12().folder("/sys/bus/pci/devices").python_environment(torch="2.3.0+cpu")
        )
        yield Scenario(
            "the GPU is passed to a virtual machine",
            Machine.debian12().gpu(driver="vfio-pci").python_environment(torch="2.3.0+cpu"),
        )
        yield Scenario("built with CUDA", Machine.debian12_gpu().python_environment(torch="2.3.0+cu121", cuda="12.1"))
        yield Scenario(
            "built for AMD",
            Machine.debian12_gpu()
            .python_environment(torch="2.3.0+rocm6.0")
            .file(
                "/home/alice/venv/lib/python3.11/site-packages/torch/version.py",
                "__version__ = '2.3.0+rocm6.0'\ncuda: Optional[str] = None\nhip: Optional[str] = '6.0.32830-d62f6a171'\n",
                uid=1000,
            ),
        )
        yield Scenario(
            "a link to a file that the user does not own",
            Machine.debian12_gpu()
            .file("/etc/shadow", "__version__ = '2.3.0+cpu'\ncuda = None\n", 0o600)
            .python_environment(torch="2.3.0")
            .link("/home/alice/venv/lib/python3.11/site-packages/torch/version.py", "/etc/shadow"),
        )
        yield Scenario(
            "the environment is not readable",
            Machine.debian12_gpu()
            .python_environment(torch="2.3.0")
            .fifo("/home/alice/venv/lib/python3.11/site-packages/torch/version.py"),
            unknown=True,
        )
