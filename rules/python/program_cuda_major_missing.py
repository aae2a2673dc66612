"""A Python program needs CUDA libraries that are not installed.

What you see
    "libcublasLt.so.12: cannot open shared object file", "libnvrtc.so.11.2: cannot open shared object file", or a
    program that silently uses the CPU ("Failed to create CUDAExecutionProvider").
Why
    Packages such as onnxruntime-gpu, CuPy, CTranslate2 or bitsandbytes are built for one major version of CUDA and
    open only the libraries of that version.

    The driver can run several versions side by side, but the machine's toolkit may be another one: CUDA 13 has
    libcublas.so.13, not libcublas.so.12.
Repair
    Install the libraries of that CUDA version into the same Python environment, or a release of the program for the
    installed CUDA version. No other toolkit or driver is needed.
What the repair risks
    Low: only this environment changes. A newer release of a program may need changes in the code that uses it.
By hand
    ldd FILE | grep 'not found'
    pip list | grep -i -e nvidia -e cuda
    pip install 'onnxruntime-gpu[cuda,cudnn]'
    # and in the program: onnxruntime.preload_dlls()
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaToolkits,
    Evidence,
    Finding,
    Machine,
    Plan,
    Program,
    Programs,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UsableGpu,
    count,
    cudnn_major_of,
    pip_install,
    version_key,
    wheel_of,
)


class ProgramCudaMajorMissing(Rule):
    id = "program-cuda-major-missing"
    title = "A Python program needs CUDA libraries that are not installed"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True
    explains = ("cudnn-runtime-missing", "cudnn-major-8-vs-9")

    def detect(self, programs: Programs, gpu: UsableGpu, toolkits: CudaToolkits | None) -> Iterator[Finding | Unknown]:
        if not gpu.source:
            return
        yield from (Unknown(problem) for problem in programs.problems)
        for program in programs.programs:
            environment = program.environment
            if not program.missing:
                continue
            if program.doubt:
                text = f"{program.name} in {environment.path}: {program.doubt}"
                yield Unknown(text, environment.subject)
                continue
            built = f"is built for CUDA {program.cuda}" if program.cuda else "needs CUDA"
            others = len(program.missing) - 1
            more = f" and {count(others, 'more library', 'more libraries')} are" if others else " is"
            yield self.finding(
                environment.subject,
                f"{program.name} {program.version}".rstrip()
                + f" in {environment.path} {built}: {program.missing[0]}{more} not installed",
                *(
                    Evidence(
                        program.needs[name],
                        f"needs {name}, which is neither in the environment nor in the loader's directories",
                    )
                    for name in program.missing
                ),
                *(Evidence(t.path, f"CUDA {t.version}") for t in (toolkits.toolkits if toolkits else ())),
                about=environment.about,
                site=environment.site,
                program=program.name,
            )

    def remedies(self, finding: Finding, programs: Programs, toolkits: CudaToolkits | None) -> Iterator[Plan]:
        site, name = finding.detail["site"], finding.detail["program"]
        program = programs.of(site, name)
        if program is None:
            return
        environment = program.environment
        other = next((n for n in environment.packages if _is_other_cudnn(n, program.cuda)), "")
        major = cudnn_major_of(program.name, program.version)
        if other and major:
            text = (
                f"Create a second environment for {name}: {environment.path} has {other}, whose files would be "
                f"overwritten by those of cuDNN for CUDA {program.cuda}. Run in the new environment: "
                f"pip install {' '.join(_quoted(_requirements(program, toolkits)))}"
            )
            yield Plan(f"Use a separate environment for {name}", Risk.LOW, (ByHand(text),), network=True)
            return
        requirements = _requirements(program, toolkits)
        if not requirements:
            text = (
                f"Install a release of {name} for the installed CUDA version, or the CUDA libraries that {name} needs"
            )
            yield Plan(f"Use another release of {name}", Risk.LOW, (ByHand(text),), network=True)
            return
        summary = f"Install the CUDA libraries that {name} needs into {environment.path}"
        if name.startswith("cupy-"):
            summary = f"Use the CuPy build for the installed CUDA version in {environment.path}"
        command = f"pip install {' '.join(_quoted(requirements))}"
        if name.startswith("cupy-") and re.split(r"[\[=]", requirements[0])[0] != name:
            text = f"run {environment.python} -m pip uninstall {name}; then {environment.python} -m {command}"
            yield Plan(summary, Risk.LOW, (ByHand(text),), network=True)
        else:
            yield pip_install(environment.path, environment.python, environment.manager, requirements, summary)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        site = "/home/alice/venv/lib/python3.11/site-packages"
        provider = f"{site}/onnxruntime/capi/libonnxruntime_providers_cuda.so"
        cuda12 = ["libcublasLt.so.12", "libcufft.so.11", "libcudart.so.12", "libcudnn.so.9"]

        def onnxruntime(version: str, needed: list[str], toolkit: str = "") -> Machine:
            machine = Machine.ubuntu2404_gpu()
            machine = machine.cuda_toolkit(toolkit) if toolkit else machine
            return machine.python_environment(packages=[f"onnxruntime_gpu-{version}"]).library(provider, "", needed)

        def wheels(machine: Machine, *names: str) -> Machine:
            for name in names:
                machine.library(f"{site}/nvidia/all/lib/{name}", name)
            return machine

        yield Scenario(
            "built for CUDA 12, toolkit of CUDA 11",
            onnxruntime("1.23.2", cuda12, "11.8"),
            finds="python:/home/alice/venv",
            ladder=(("low network", "pip-install /home/alice/venv/bin/python onnxruntime-gpu[cuda,cudnn]==1.23.2"),),
        )
        yield Scenario(
            "built for CUDA 11, PyTorch for CUDA 12",
            wheels(
                onnxruntime("1.17.0", ["libcublasLt.so.11", "libcudart.so.11.0"]),
                "libcublasLt.so.12",
                "libcudart.so.12",
            ),
            finds="python:/home/alice/venv",
            ladder=(("low network", "pip-install /home/alice/venv/bin/python onnxruntime-gpu[cuda,cudnn]>=1.21"),),
        )
        yield Scenario(
            "CuPy for CUDA 11",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .python_environment(packages=["cupy_cuda11x-12.0.0"])
            .library(f"{site}/cupy_backends/cuda/libs/cublas.cpython-311-x86_64-linux-gnu.so", "", ["libcublas.so.11"])
            .library(f"{site}/cupy_backends/cuda/libs/cudnn.cpython-311-x86_64-linux-gnu.so", "", ["libcudnn.so.8"]),
            finds="python:/home/alice/venv",
            ladder=(("low network", "by-hand /home/alice/venv/bin/python -m cupy-cuda11x cupy-cuda12x"),),
        )
        yield Scenario(
            "an extension of PyTorch for another CUDA version",
            Machine.ubuntu2404_gpu()
            .python_environment(torch="2.5.1+cu124", cuda="12.4")
            .library(f"{site}/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so", "", ["libcudart.so.11.0"]),
            finds="python:/home/alice/venv",
            ladder=(("low network", "pip-install /home/alice/venv/bin/python nvidia-cuda-runtime-cu11"),),
        )
        yield Scenario(
            "an unknown package, found by its list of files",
            Machine.ubuntu2404_gpu()
            .python_environment(packages=["solver_cuda12x-1.0"])
            .file(f"{site}/solver_cuda12x-1.0.dist-info/RECORD", "solver/core.so,sha256=x,1\n", uid=1000)
            .library(f"{site}/solver/core.so", "", ["libcusparse.so.12", "libcublas.so.12"]),
            finds="python:/home/alice/venv",
            ladder=(
                ("low network", "pip-install /home/alice/venv/bin/python nvidia-cublas-cu12 nvidia-cusparse-cu12"),
            ),
        )
        yield Scenario(
            "NVIDIA's wheels are in the same environment",
            wheels(onnxruntime("1.23.2", cuda12, "11.8"), *cuda12),
        )
        yield Scenario(
            "the loader finds the libraries",
            onnxruntime("1.23.2", ["libcudart.so.12"], "12.2"),
        )
        yield Scenario(
            "its RUNPATH finds them",
            Machine.ubuntu2404_gpu()
            .python_environment(packages=["faiss_gpu_cu12-1.8.0"])
            .library(f"{site}/faiss/_swigfaiss.so", "", ["libcublas.so.12"], "$ORIGIN/../own")
            .library(f"{site}/own/libcublas.so.12", "libcublas.so.12"),
        )
        yield Scenario(
            "cuDNN is optional for CuPy",
            Machine.ubuntu2404_gpu()
            .python_environment(packages=["cupy_cuda12x-12.0.0"])
            .library(f"{site}/cupy_backends/cuda/libs/cudnn.cpython-311-x86_64-linux-gnu.so", "", ["libcudnn.so.8"]),
        )
        yield Scenario(
            "no GPU", Machine.debian12().folder("/sys/bus/pci/devices").python_environment(packages=["onnxruntime_gpu-1.23.2"]).library(provider, "", cuda12)
        )  # fmt: skip
        yield Scenario(
            "a script sets LD_LIBRARY_PATH",
            onnxruntime("1.23.2", cuda12).append("/home/alice/.bashrc", 'export LD_LIBRARY_PATH="$(find-my-cuda)"\n'),
            unknown=True,
        )


def _is_other_cudnn(package: str, cuda: str) -> bool:
    return package.startswith("nvidia-cudnn-cu") and package != f"nvidia-cudnn-cu{cuda}"


def _requirements(program: Program, toolkits: CudaToolkits | None) -> tuple[str, ...]:
    """What pip must install for the program to work; empty if that is not known."""
    name, version, packages = program.name, program.version, program.environment.packages
    if name == "onnxruntime-gpu":
        # The extras, and preload_dlls() that finds them, came with 1.21; PyPI's releases before 1.19 need CUDA 11.
        same = version_key(version) >= (1, 21)
        return (f"onnxruntime-gpu[cuda,cudnn]{f'=={version}' if same else '>=1.21'}",)
    if name.startswith("jax-cuda"):
        return (f"jax[cuda{program.cuda}]=={packages['jax']}" if "jax" in packages else f"jax[cuda{program.cuda}]",)
    if name.startswith("cupy-"):
        torch = program.environment.torch
        here = (torch.cuda if torch else "") or (toolkits.toolkits[0].version if toolkits and toolkits.toolkits else "")
        wanted = here.partition(".")[0]
        return (
            (f"cupy-cuda{wanted}x",) if wanted and int(wanted) >= 11 and wanted != program.cuda else (f"{name}[ctk]",)
        )
    if name == "bitsandbytes":
        return ("bitsandbytes", "--upgrade")
    wheels = [wheel for n in program.missing if (wheel := wheel_of(n, program.cuda))]
    major = cudnn_major_of(name, version)
    if wheels and major and not any(n.startswith("nvidia-cudnn-cu") for n in packages):
        wheels.append(f"nvidia-cudnn-cu{program.cuda}=={major}.*")
    return tuple(dict.fromkeys(wheels))


def _quoted(requirements: tuple[str, ...]) -> list[str]:
    return [f"'{r}'" if any(c in r for c in "[]<>*=") else r for r in requirements]
