"""A Python package needs TensorRT's library, which is not installed or has another major version.

What you see
    ImportError: libnvinfer.so.10: cannot open shared object file: No such file or directory

    TensorFlow's "TF-TRT Warning: Could not find TensorRT" is harmless: TensorFlow uses the GPU without it.
Why
    The packages tensorrt and torch-tensorrt only contain the Python part. The library libnvinfer comes with the wheel
    of the libraries (tensorrt-cu12-libs) or with apt's libnvinfer10. It was left out or removed, or only another major
    version is installed; each program needs exactly one.
Repair
    Install the libraries in the version of the Python package into the same environment.
What the repair risks
    Low: only this environment changes. The download has several gigabytes.
By hand
    pip list | grep -i tensorrt
    ldconfig -p | grep nvinfer
    pip install tensorrt-cu12-libs==10.7.0
"""

import re
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
    TensorRtNeed,
    TensorRtNeeds,
    Unknown,
    UsableGpu,
    pip_install,
    version_key,
)


class TensorrtLibraryMissing(Rule):
    id = "tensorrt-library-missing"
    title = "A Python package needs TensorRT's library, which is not found"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True

    def detect(self, tensorrt: TensorRtNeeds, gpu: UsableGpu) -> Iterator[Finding | Unknown]:
        if not gpu.source:
            return
        yield from (Unknown(problem) for problem in tensorrt.problems)
        for need in tensorrt.needs:
            environment = need.environment
            if need.found:
                continue
            if environment.site in tensorrt.doubts:
                yield Unknown(f"cannot tell whether an LD_LIBRARY_PATH leads to {need.library}", environment.subject)
                continue
            yield self.finding(
                environment.subject,
                f"{need.name} {need.version} in {environment.path} needs {need.library}, which is not found",
                Evidence(need.path, f"needs {need.library}"),
                *(Evidence(path, "another major version") for path in need.other[:2]),
                about=environment.about,
                need=need,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        need: TensorRtNeed = finding.detail["need"]
        environment = need.environment
        if need.name.startswith("torch-"):
            requirements: tuple[str, ...] = ("--force-reinstall", f"{need.name}=={need.version}")
        elif version_key(need.version) < (10,):
            requirements = (f"tensorrt-libs=={need.version}",)
        else:
            cuda = re.search(r"cu\d+", need.name) or re.search(r"cu\d+", " ".join(environment.packages))
            if cuda is None:
                text = f"With the pip of {environment.path}, run: pip install tensorrt-cu12-libs=={need.version} (cu13 for CUDA 13)"
                yield Plan(f"Install {need.library}", Risk.LOW, (ByHand(text),), network=True)
                return
            requirements = (f"tensorrt-{cuda[0]}-libs=={need.version}",)
        summary = f"Install {need.library} into {environment.path}"
        yield pip_install(environment.path, environment.python, environment.manager, requirements, summary)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        site = "/home/alice/venv/lib/python3.11/site-packages"
        subject = "python:/home/alice/venv"

        def machine(
            *packages: str, file: str = "tensorrt_bindings/tensorrt.so", soname: str = "libnvinfer.so.10"
        ) -> Machine:
            return (
                Machine.ubuntu2404_gpu().python_environment(packages=packages).library(f"{site}/{file}", "", (soname,))
            )

        bindings = "tensorrt_cu12_bindings-10.7.0"
        yield Scenario(
            "only the Python part",
            machine(bindings),
            finds=subject,
            ladder=(("low network", "pip-install /home/alice/venv/bin/python tensorrt-cu12-libs==10.7.0"),),
        )
        yield Scenario(
            "only another major version",
            machine("tensorrt-8.6.1", file="tensorrt/tensorrt.so", soname="libnvinfer.so.8").library(
                f"{site}/tensorrt_libs/libnvinfer.so.10", "libnvinfer.so.10"
            ),
            finds=subject,
            ladder=(("low network", "pip-install /home/alice/venv/bin/python tensorrt-libs==8.6.1"),),
        )
        yield Scenario(
            "the libraries are in the environment",
            machine(bindings, "tensorrt_cu12_libs-10.7.0").library(
                f"{site}/tensorrt_libs/libnvinfer.so.10", "libnvinfer.so.10"
            ),
        )
        yield Scenario(
            "the libraries are apt's",
            machine(bindings).library("/usr/lib/x86_64-linux-gnu/libnvinfer.so.10", "libnvinfer.so.10"),
        )
        yield Scenario(
            "TensorFlow without TensorRT",
            Machine.ubuntu2404_gpu().python_environment(packages=["tensorflow_cpu-2.15.0"]),
        )
        yield Scenario(
            "LD_LIBRARY_PATH is not known",
            machine(bindings).append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=$(find-libraries)\n"),
            unknown=True,
        )
