"""TensorFlow is built without CUDA, although the machine has an NVIDIA GPU.

What you see
    tf.config.list_physical_devices('GPU') returns [] and tf.test.is_built_with_cuda() is False, although nvidia-smi
    shows the GPU.

    The line "This TensorFlow binary is optimized to use available CPU instructions" means nothing here: builds with
    CUDA print it too.
Why
    The package is tensorflow-cpu or intel-tensorflow, or a "tensorflow" from before 2.0, when the build with CUDA
    was named tensorflow-gpu.

    Or conda chose an mkl or eigen build, as it does when it resolves the environment on a machine without a GPU.

    The driver is not the cause.
Repair
    Replace the package with the CUDA build, in this environment.
What the repair risks
    A download of several gigabytes into this environment. Both packages own the same files, so the CPU build must
    be uninstalled first. Packages that depend on the old name may complain.
By hand
    cd /path/to/venv
    bin/python -m pip uninstall tensorflow-cpu
    bin/python -m pip install 'tensorflow[and-cuda]==2.15.1'
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaDriver,
    Evidence,
    Finding,
    Machine,
    Plan,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UsableGpu,
    max_cuda,
    tensorflow_needs,
    version_key,
)


class TfCpuOnlyBuild(Rule):
    id = "tf-cpu-only-build"
    title = "TensorFlow is built without CUDA, although the machine has an NVIDIA GPU"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    gpu_wheels = True

    def detect(self, environments: PythonEnvironments, gpu: UsableGpu) -> Iterator[Finding | Unknown]:
        if not gpu.source:
            return
        for problem in environments.problems:
            yield Unknown(problem)
        for environment in environments.environments:
            tensorflow = environment.tensorflow
            if tensorflow is None:
                continue
            if tensorflow.gpu is None:
                yield Unknown(
                    f"{environment.path}: cannot find out whether {tensorflow.distribution} {tensorflow.version} is built "
                    "with CUDA",
                    environment.subject,
                )
            elif not tensorflow.gpu:
                yield self.finding(
                    environment.subject,
                    f"{tensorflow.distribution} {tensorflow.version} in {environment.path} is built without CUDA: it "
                    "cannot use the GPU",
                    Evidence(tensorflow.source, tensorflow.shows),
                    Evidence(gpu.source, gpu.shows),
                    # Perhaps the system's package is only a dependency of another package.
                    severity=Severity.NOTE if environment.kind == "system" else Severity.WARNING,
                    about=environment.about,
                    site=environment.site,
                )

    def remedies(self, finding: Finding, environments: PythonEnvironments, driver: CudaDriver) -> Iterator[Plan]:
        environment = environments.at(finding.detail["site"])
        if environment is None or environment.tensorflow is None:
            return
        tensorflow = environment.tensorflow
        needs = tensorflow_needs(tensorflow.version)
        if environment.kind == "conda" and "tensorflow" in environment.conda:
            cuda = ".".join(map(str, max_cuda(driver.numbers[0]) or ())) or "12.0"
            text = f"CONDA_OVERRIDE_CUDA={cuda} conda install --prefix {environment.path} 'tensorflow=*=cuda*'"
        elif needs and needs.finds_wheels:
            text = f"pip install 'tensorflow[and-cuda]=={tensorflow.version}'"
        elif needs:
            name = "tensorflow" if version_key(tensorflow.version) >= (2, 1) else "tensorflow-gpu"
            text = (
                f"pip install {name}=={tensorflow.version}; also install CUDA {needs.cuda} and cuDNN {needs.cudnn} where "
                "the loader finds them"
            )
        else:
            text = "pip install 'tensorflow[and-cuda]'"
        if text.startswith("pip"):
            tool, where = f"{environment.python} -m pip", ""
            if environment.manager == "uv":
                tool, where = "uv pip", f" --python {environment.python}"
            if environment.manager:
                install = text.removeprefix("pip install")
                text = (
                    f"Run: {tool} uninstall{where} {tensorflow.distribution}; then run: {tool} install{where}{install}"
                )
            else:
                text = f"In a new virtual environment, run: {text}"
        yield Plan("Replace TensorFlow with a CUDA build", Risk.LOW, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        build = "/home/alice/venv/lib/python3.11/site-packages/tensorflow/python/platform/build_info.py"
        conda = "/opt/miniconda3/envs/keras"
        yield Scenario(
            "tensorflow-cpu",
            Machine.debian12_gpu().python_environment(packages=["tensorflow_cpu-2.15.1"]),
            finds="python:/home/alice/venv",
            ladder=(("low network", "by-hand /home/alice/venv/bin/python -m tensorflow[and-cuda]==2.15.1"),),
        )
        yield Scenario(
            "conda chose an eigen build",
            Machine.debian12_gpu()
            .file(f"{conda}/conda-meta/history")
            .file(f"{conda}/conda-meta/tensorflow-2.10.0-eigen_py39h9c8d6f4_0.json", "{}")
            .file(f"{conda}/conda-meta/tensorflow-base-2.10.0-eigen_py39h9c8d6f4_0.json", "{}")
            .file(f"{conda}/lib/python3.9/site-packages/tensorflow-2.10.0.dist-info/METADATA"),
            finds=f"python:{conda}",
            ladder=(
                (
                    "low network",
                    "by-hand CONDA_OVERRIDE_CUDA=12.2 --prefix /opt/miniconda3/envs/keras tensorflow=*=cuda*",
                ),
            ),
        )
        yield Scenario(
            "built from source without CUDA",
            Machine.debian12_gpu()
            .python_environment(packages=["tensorflow-2.15.1"])
            .file(
                build,
                "import collections\n\nbuild_info = collections.OrderedDict([('is_cuda_build', False), "
                "('is_rocm_build', False)])\n",
                uid=1000,
            ),
            finds="python:/home/alice/venv",
        )
        yield Scenario(
            "no NVIDIA GPU",
            Machine.debian12().folder("/sys/bus/pci/devices").python_environment(packages=["tensorflow_cpu-2.15.1"]),
        )
        yield Scenario(
            "the usual wheel is built with CUDA",
            Machine.debian12_gpu().python_environment(packages=["tensorflow-2.15.1", "tensorflow_estimator-2.15.0"]),
        )
        yield Scenario(
            "2.0 without a sign of its build",
            Machine.debian12_gpu().python_environment(packages=["tensorflow-2.0.0"], python="3.7"),
            unknown=True,
        )
