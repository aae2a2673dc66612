"""TensorFlow does not find the CUDA or cuDNN libraries that it opens.

What you see
    "Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned above are installed properly
    if you would like to use GPU. … Skipping registering GPU devices...".

    tf.config.list_physical_devices('GPU') returns [].
Why
    At start, TensorFlow opens libcudart, libcublas, libcudnn and others by exact names. If one is missing, it uses
    the CPU.

    `pip install tensorflow` installs none of them. From 2.14 on, tensorflow[and-cuda] does. Before 2.14, exactly the
    CUDA and cuDNN versions that it was built with must be installed where the loader finds them: another version
    has other file names.

    Messages about libnvinfer, libcupti, NUMA node -1 and "factory already registered" are harmless.
Repair
    Install the libraries into the environment, if this TensorFlow finds them there. Otherwise install exactly its
    CUDA and cuDNN versions, or set LD_LIBRARY_PATH for this environment only.
What the repair risks
    A download of several gigabytes into this environment. Never link a library of another version to the missing
    name: it opens, and the program crashes later.
By hand
    cd /path/to/venv; export TF_CPP_MAX_VLOG_LEVEL=3
    bin/python -c 'import tensorflow as t; t.test.gpu_device_name()'
    bin/python -m pip install 'tensorflow[and-cuda]==2.15.1'
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    PipInstall,
    Plan,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    TensorFlowLibraries,
    Unknown,
    UsableGpu,
    count,
    pip_cudnn,
    tensorflow_needs,
    version_key,
)


class TfCannotDlopenGpuLibraries(Rule):
    id = "tf-cannot-dlopen-gpu-libraries"
    title = "TensorFlow does not find the CUDA or cuDNN libraries that it opens"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True

    def detect(
        self, environments: PythonEnvironments, gpu: UsableGpu, libraries: TensorFlowLibraries
    ) -> Iterator[Finding | Unknown]:
        if not gpu.source:
            return
        for problem in environments.problems:
            yield Unknown(problem)
        for opened in libraries.opened:
            environment, needs, missing = opened.environment, opened.needs, opened.missing
            tensorflow = environment.tensorflow
            if tensorflow is None or opened.lacks_only_cudnn:
                continue  # other rules check the system's cuDNN
            name = f"TensorFlow {tensorflow.version} in {environment.path}"
            if needs is None:
                yield Unknown(f"dlhealth does not know which libraries {name} opens", environment.subject)
            elif missing and opened.doubt:
                reason = f"{name}: {opened.doubt} sets LD_LIBRARY_PATH to a value that dlhealth cannot find out"
                yield Unknown(reason, environment.subject)
            elif missing:
                hidden = [environment.libraries[soname] for soname in missing if soname in environment.libraries]
                others = len(missing) - 1
                more = f" and {count(others, 'more library', 'more libraries')}" if others else ""
                yield self.finding(
                    environment.subject,
                    f"{name} needs CUDA {needs.cuda} and cuDNN {needs.cudnn}, but does not find {missing[0]}{more}: it uses "
                    "the CPU",
                    Evidence(tensorflow.source, tensorflow.shows),
                    *(Evidence(path, "installed here, where this TensorFlow does not search") for path in hidden),
                    *(
                        Evidence(
                            soname,
                            "neither in the environment, nor in LD_LIBRARY_PATH, nor in the loader's directories",
                        )
                        for soname in missing
                        if soname not in environment.libraries
                    ),
                    # If all are missing, nobody tried to use the GPU, perhaps on purpose.
                    severity=Severity.WARNING if len(missing) == len(needs.sonames) and not hidden else Severity.ERROR,
                    about=environment.about,
                    site=environment.site,
                )

    def remedies(self, finding: Finding, environments: PythonEnvironments) -> Iterator[Plan]:
        environment = environments.at(finding.detail["site"])
        if environment is None or environment.tensorflow is None:
            return
        tensorflow = environment.tensorflow
        needs = tensorflow_needs(tensorflow.version, tensorflow.cuda, tensorflow.cudnn)
        if needs is None:
            return
        beside = environment.torch.cudnn.rpartition("=")[2] if environment.torch else ""
        if beside and version_key(beside)[:1] != version_key(needs.cudnn)[:1]:
            yield pip_cudnn(environment.python, environment.manager, "")
            return
        if needs.finds_wheels:
            requirement = f"tensorflow[and-cuda]=={tensorflow.version}"
            summary = f"Install the libraries of TensorFlow {tensorflow.version} into {environment.path}"
            if environment.manager in ("pip", "uv") and tensorflow.distribution == "tensorflow":
                install = PipInstall(environment.python, (requirement,), uv=environment.manager == "uv")
                yield Plan(summary, Risk.LOW, (install,), network=True)
            else:
                text = f"In a new virtual environment, run: pip install '{requirement}'"
                yield Plan(summary, Risk.LOW, (ByHand(text),), network=True)
            return
        folder = f"{environment.site}/nvidia/*/lib"
        if environment.libraries:
            text = f"Add the directories {folder} to LD_LIBRARY_PATH, but only in {environment.path}/bin/activate"
            yield Plan("Make TensorFlow find the libraries of this environment", Risk.LOW, (ByHand(text),))
        text = (
            f"Install CUDA {needs.cuda} and cuDNN {needs.cudnn} too, and add their directories to LD_LIBRARY_PATH for "
            f"{environment.path} only. Or upgrade to TensorFlow 2.17 or newer with tensorflow[and-cuda]"
        )
        yield Plan(
            f"Install CUDA {needs.cuda} and cuDNN {needs.cudnn} for this TensorFlow",
            Risk.LOW,
            (ByHand(text),),
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        site = "/home/alice/venv/lib/python3.11/site-packages"
        cuda11 = "/usr/local/cuda-11.2/targets/x86_64-linux/lib"
        sonames = {
            "cublas": ["libcublas.so.12", "libcublasLt.so.12"],
            "cuda_runtime": ["libcudart.so.12"],
            "cudnn": ["libcudnn.so.8"],
            "cufft": ["libcufft.so.11"],
            "cusolver": ["libcusolver.so.11"],
            "cusparse": ["libcusparse.so.12"],
        }
        old = [
            "libcudart.so.11.0", "libcublas.so.11", "libcublasLt.so.11", "libcufft.so.10", "libcurand.so.10",
            "libcusolver.so.11", "libcusparse.so.11", "libcudnn.so.8",
        ]  # fmt: skip

        def wheels(version: str, without: str = "") -> Machine:
            machine = Machine.debian12_gpu().python_environment(packages=[f"tensorflow-{version}"])
            for folder, names in sonames.items():
                for name in names if folder != without else ():
                    machine.library(f"{site}/nvidia/{folder}/lib/{name}", name)
            return machine

        def system() -> Machine:
            machine = Machine.debian12_gpu().python_environment(packages=["tensorflow-2.10.1"])
            for name in old:
                machine.library(f"{cuda11}/{name}", name)
            return machine

        yield Scenario(
            "installed without [and-cuda]",
            Machine.debian12_gpu().python_environment(packages=["tensorflow-2.15.1"]),
            finds="python:/home/alice/venv",
            ladder=(("low network", "pip-install /home/alice/venv/bin/python tensorflow[and-cuda]==2.15.1"),),
        )
        yield Scenario("one package is missing", wheels("2.15.1", "cudnn"), finds="python:/home/alice/venv")
        yield Scenario(
            "PyTorch installed cuDNN 9 in the same environment",
            wheels("2.15.1", "cudnn")
            .python_environment(torch="2.4.0", cuda="12.1")
            .file(f"{site}/torch-2.4.0.dist-info/METADATA", "Requires-Dist: nvidia-cudnn-cu12==9.1.0.70\n", uid=1000)
            .library(f"{site}/nvidia/cudnn/lib/libcudnn.so.9", "libcudnn.so.9"),
            finds="python:/home/alice/venv",
            ladder=(("low network", "by-hand Create second virtual environment install into"),),
        )
        yield Scenario(
            "2.16.1 does not find its packages",
            wheels("2.16.1"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low",
                    "by-hand /home/alice/venv/bin/activate /home/alice/venv/lib/python3.11/site-packages/nvidia/*/lib LD_LIBRARY_PATH",
                ),
                ("low network", "by-hand 12.3 8.9 LD_LIBRARY_PATH /home/alice/venv 2.17"),
            ),
        )
        yield Scenario(
            "an old TensorFlow beside a new CUDA",
            Machine.debian12_gpu()
            .cuda_toolkit()
            .python_environment(packages=["tensorflow-2.10.1", "nvidia_cudnn_cu11-8.6.0.163"]),
            finds="python:/home/alice/venv",
            ladder=(("low network", "by-hand 11.2 8.1 LD_LIBRARY_PATH /home/alice/venv 2.17"),),
        )
        yield Scenario("with [and-cuda]", wheels("2.15.1"))
        yield Scenario("found by the loader", system().file("/etc/ld.so.conf.d/cuda-11-2.conf", f"{cuda11}\n"))
        yield Scenario(
            "found by LD_LIBRARY_PATH",
            system().append("/home/alice/.bashrc", f"export LD_LIBRARY_PATH={cuda11}\n"),
        )
        yield Scenario(
            "no NVIDIA GPU",
            Machine.debian12().folder("/sys/bus/pci/devices").python_environment(packages=["tensorflow-2.15.1"]),
        )
        yield Scenario(
            "only the system's cuDNN is missing, which is another problem",
            system().remove(f"{cuda11}/libcudnn.so.8").file("/etc/ld.so.conf.d/cuda-11-2.conf", f"{cuda11}\n"),
        )
        yield Scenario(
            "the environment's activate script sets the path",
            system().file("/home/alice/venv/bin/activate", f"export LD_LIBRARY_PATH={cuda11}\n", uid=1000),
            unknown=True,
        )
