"""A program needs cuDNN 8 and only 9 is installed, or the reverse.

What you see
    "Could not load library libcudnn_ops_infer.so.8", "Unable to load any of {libcudnn_ops.so.9.1.0, …}", or
    "Invalid handle. Cannot load symbol cudnnCreateTensorDescriptor", although cuDNN is installed.
Why
    Version 9 renamed the libraries (libcudnn_ops_infer became libcudnn_ops), and a program needs the names that it
    was built with. CTranslate2 before 4.5 and ONNX Runtime before 1.19 need cuDNN 8. NVIDIA's download page and
    newer PyTorch install 9.
Repair
    Upgrade the program if a release for the installed cuDNN exists. Or also install the other major version: the
    libraries of both can be installed side by side.
What the repair risks
    Code that uses the program may have to be adapted to a newer release. A link from one version's name to the
    other version does not work.
By hand
    ldconfig -p | grep libcudnn; pip show ctranslate2
    pip install 'ctranslate2>=4.5'
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    CudaToolkits,
    Cudnn,
    CudnnNeeds,
    Evidence,
    Finding,
    Machine,
    PipInstall,
    Plan,
    Programs,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    cudnn_package_names,
    cudnn_requirement,
    pip_cudnn,
    pip_install,
)


class CudnnMajor8Vs9(Rule):
    id = "cudnn-major-8-vs-9"
    title = "A program needs cuDNN 8 and only 9 is installed, or the reverse"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True
    explains = ("tf-cannot-dlopen-gpu-libraries",)

    def detect(self, cudnn: Cudnn, needs: CudnnNeeds) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in cudnn.problems)
        yield from (Unknown(x.problem) for x in cudnn.libraries() if x.special)
        for need in needs.needs:
            have = cudnn.majors(need.user or None)
            if need.major not in (8, 9) or need.major in have or not {8, 9} & (have | need.bundled):
                continue
            other = 17 - need.major
            libraries = [x for f in cudnn.search_path(need.user or None) for x in f.libraries if x.suffix == str(other)]
            yield self.finding(
                need.subject,
                f"{need.what} needs cuDNN {need.major}; installed: cuDNN {other}",
                Evidence(need.source, need.shows),
                *(Evidence(x.path, f"cuDNN {x.version or other}") for x in libraries if x.stem == "libcudnn"),
                *([] if libraries else [Evidence(need.source, f"the same environment has cuDNN {other}")]),
                about=need.about,
                major=need.major,
                program=need.what.partition(" ")[0],
                python=need.python,
                manager=need.manager,
                requirement=need.requirement,
                path=need.path,
                site=need.site,
            )

    def remedies(self, finding: Finding, toolkits: CudaToolkits, programs: Programs | None) -> Iterator[Plan]:
        major = finding.detail["major"]
        if finding.detail["program"] == "ctranslate2":
            wanted = "ctranslate2>=4.5" if major == 8 else "ctranslate2==4.4.0"
            yield Plan(
                f"Install {wanted}, which uses the installed cuDNN",
                Risk.LOW,
                (PipInstall(finding.detail["python"], (wanted,), uv=finding.detail["manager"] == "uv"),),
                network=True,
            )
        if finding.detail["program"] == "onnxruntime-gpu" and major == 8:
            summary = "Install onnxruntime-gpu 1.21 or newer, which uses cuDNN 9"
            yield _into(finding, "onnxruntime-gpu[cuda,cudnn]>=1.21", summary)
        detail = finding.detail
        program = programs.of(detail["site"], detail["program"]) if programs and detail["site"] else None
        requirement = cudnn_requirement(program, major) if program and major == 9 else ""
        if requirement and program:
            yield _into(finding, requirement, f"Install cuDNN {major} for {program.name} into {detail['path']}")
        if finding.detail["program"] == "torch":
            yield pip_cudnn(*(finding.detail[key] for key in ("python", "manager", "requirement")))
            return
        cuda = toolkits.default.version if toolkits.default else ""
        names = cudnn_package_names(major, cuda or 12, development=False)
        if not names:
            text = (
                f"NVIDIA has no package of cuDNN {major} for CUDA {cuda}. Run {finding.detail['program']} with another CUDA "
                "version in its own environment or container, or install a release of it that uses the installed cuDNN"
            )
            yield Plan(f"Choose where cuDNN {major} comes from", Risk.LOW, (ByHand(text),))
        else:
            yield Plan(
                f"Also install cuDNN {major}",
                Risk.LOW,
                (AptInstall(names), RefreshLoaderCache()),
                network=True,
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def environment(program: str) -> Machine:
            cublas = "/usr/local/cuda-12.2/targets/x86_64-linux/lib/libcublas.so.12"
            machine = Machine.ubuntu2404_gpu().cuda_toolkit("12.2").library(cublas, "libcublas.so.12")
            return machine.python_environment("/home/alice/whisper", [program])

        subject = "python:/home/alice/whisper"
        site = "/home/alice/whisper/lib/python3.11/site-packages"
        yield Scenario(
            "CTranslate2 4.4 and cuDNN 9",
            environment("ctranslate2-4.4.0").cudnn("9.1.0"),
            finds=subject,
            ladder=(
                ("low network", "pip-install /home/alice/whisper/bin/python ctranslate2>=4.5"),
                ("low network", "apt-install libcudnn8=8.9.7.29-1+cuda12.2", "refresh-loader-cache"),
            ),
        )
        yield Scenario(
            "CTranslate2 4.5 and cuDNN 8",
            environment("ctranslate2-4.5.0").cudnn_packages(),
            finds=subject,
            ladder=(
                ("low network", "pip-install /home/alice/whisper/bin/python ctranslate2==4.4.0"),
                ("low network", "pip-install /home/alice/whisper/bin/python nvidia-cudnn-cu12==9.*"),
                ("low network", "apt-install libcudnn9-cuda-12", "refresh-loader-cache"),
            ),
        )
        yield Scenario(
            "CTranslate2 4.4 and cuDNN 9 in the same environment",
            environment("ctranslate2-4.4.0").library(
                "/home/alice/whisper/lib/python3.11/site-packages/nvidia/cudnn/lib/libcudnn.so.9", "libcudnn.so.9"
            ),
            finds=subject,
        )
        torch = (
            Machine.ubuntu2404_gpu()
            .python_environment("/home/alice/whisper", torch="2.4.0", cuda="12.1")
            .file(f"{site}/torch-2.4.0.dist-info/METADATA", "Requires-Dist: nvidia-cudnn-cu12 (==9.1.0.70)\n", uid=1000)
        )
        yield Scenario(
            "another package replaced PyTorch's cuDNN by cuDNN 8",
            torch.library(f"{site}/nvidia/cudnn/lib/libcudnn.so.8", "libcudnn.so.8"),
            finds=subject,
            ladder=(("low network", "pip-install /home/alice/whisper/bin/python nvidia-cudnn-cu12==9.1.0.70"),),
        )
        yield Scenario(
            "OpenCV was built with cuDNN 8, then 9 was installed",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .cudnn("9.1.0")
            .library("/usr/local/lib/libopencv_dnn.so.4.8.0", "libopencv_dnn.so.408", ["libcudnn.so.8"]),
            finds="file:/usr/local/lib/libopencv_dnn.so.4.8.0",
            steps=("apt-install", "refresh-loader-cache"),
            ladder=(("low network", "apt-install libcudnn8=8.9.7.29-1+cuda12.2", "refresh-loader-cache"),),
        )
        yield Scenario("CTranslate2 4.5 and cuDNN 9", environment("ctranslate2-4.5.0").cudnn("9.1.0"))
        yield Scenario("both are installed", environment("ctranslate2-4.4.0").cudnn("9.1.0").cudnn_packages())
        yield Scenario("PyTorch brings its own", environment("torch-2.4.0").cudnn_packages())
        yield Scenario(
            "a library is not readable",
            environment("ctranslate2-4.5.0").cudnn("9.1.0").fifo("/usr/local/cuda/lib64/libcudnn.so.9.1.0"),
            unknown=True,
        )


def _into(finding: Finding, requirement: str, summary: str) -> Plan:
    path, python, manager = (finding.detail[key] for key in ("path", "python", "manager"))
    return pip_install(path, python, manager, (requirement,), summary)
