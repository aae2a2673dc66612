"""Two packages of one Python environment own the same library, and the wrong one is on the disk.

What you see
    onnxruntime.get_available_providers() does not list CUDAExecutionProvider, although onnxruntime-gpu is installed

    undefined symbol, in a framework that worked before another package was installed

    Or a GPU build silently uses the CPU.
Why
    Packages like onnxruntime and onnxruntime-gpu, or nvidia-cudnn-cu11 and nvidia-cudnn-cu12, unpack files to the same
    path. pip installs both, and the later one replaces the files of the earlier one. A package that depends on the
    CPU build often brings it in.
Repair
    Reinstall the package with the right build, without its dependencies.
What the repair risks
    Low: only this environment changes. The next installation of the other package replaces the files again; uninstall
    both and install only one if nothing else needs the other.
By hand
    pip list | grep -i onnxruntime
    pip install --force-reinstall --no-deps onnxruntime-gpu==1.18.1
"""

from collections.abc import Iterator

from dlhealth.api import (
    Evidence,
    Finding,
    Machine,
    Overwritten,
    OverwrittenWheels,
    Plan,
    PythonEnvironment,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UsableGpu,
    build_of,
    pip_install,
)


class WheelsOverwriteEachOther(Rule):
    id = "wheels-overwrite-each-other"
    title = "Two packages own the same library, and the wrong one is on the disk"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True

    def detect(self, wheels: OverwrittenWheels, gpu: UsableGpu) -> Iterator[Finding | Unknown]:
        if not gpu.source:
            return
        yield from (Unknown(problem) for problem in wheels.problems)
        for found in wheels.found:
            environment = found.environment
            wanted = _wanted(found)
            names = " and ".join(found.owners)
            if not found.present or not wanted:
                which = "which of them is on the disk" if wanted else "which of them should be"
                yield Unknown(
                    f"{names} in {environment.path} own {found.path}; cannot tell {which}", environment.subject
                )
            elif found.present != wanted:
                packages = environment.packages
                yield self.finding(
                    environment.subject,
                    f"{found.present} replaced files of {wanted} in {environment.path}",
                    Evidence(found.path, f"{found.size} bytes, as {found.present} {packages[found.present]} recorded"),
                    Evidence(environment.site, f"{wanted} {packages[wanted]} recorded {found.owners[wanted]} bytes"),
                    about=(*environment.about,),
                    site=environment.site,
                    environment=environment,
                    wanted=wanted,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        environment: PythonEnvironment = finding.detail["environment"]
        wanted = f"{finding.detail['wanted']}=={environment.packages[finding.detail['wanted']]}"
        arguments = ("--force-reinstall", "--no-deps", wanted)
        summary = f"Install {wanted} into {environment.path} again"
        yield pip_install(environment.path, environment.python, environment.manager, arguments, summary)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        site = "/home/alice/venv/lib/python3.11/site-packages"

        def machine(
            path: str, owners: dict[str, int], size: int, torch: str = "", base: Machine | None = None
        ) -> Machine:
            machine = (base or Machine.ubuntu2404_gpu()).python_environment(
                packages=list(owners), torch=torch, cuda="12.1" if torch else ""
            )
            for package, recorded in owners.items():
                text = f"{path},sha256={package.partition('-')[0]},{recorded}\nother/__init__.py,sha256=x,0\n"
                machine.file(f"{site}/{package}.dist-info/RECORD", text, uid=1000)
            return machine.file(f"{site}/{path}", b"\x7fELF" + bytes(size - 4), uid=1000)

        onnx = "onnxruntime/capi/onnxruntime_pybind11_state.so"
        cudnn = "nvidia/cudnn/lib/libcudnn_graph.so.9"
        both = {"onnxruntime-1.18.1": 800, "onnxruntime_gpu-1.18.1": 900}
        subject = "python:/home/alice/venv"
        yield Scenario(
            "the CPU build of ONNX Runtime came later",
            machine(onnx, both, 800),
            finds=subject,
            alone=False,
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python --force-reinstall --no-deps onnxruntime-gpu==1.18.1",
                ),
            ),
        )
        yield Scenario(
            "a library for CUDA 11 beside a PyTorch for CUDA 12",
            machine(
                cudnn,
                {"nvidia_cudnn_cu11-9.1.0.70": 500, "nvidia_cudnn_cu12-9.1.0.70": 600},
                500,
                torch="2.4.0+cu121",
            ),
            finds=subject,
            alone=False,
        )
        yield Scenario("the GPU build came later", machine(onnx, both, 900))
        yield Scenario(
            "identical files",
            machine(onnx, {"onnxruntime-1.18.1": 800}, 800).file(
                f"{site}/onnxruntime_gpu-1.18.1.dist-info/RECORD", f"{onnx},sha256=onnxruntime,800\n", uid=1000
            ),
        )
        yield Scenario("only one package", machine(onnx, {"onnxruntime_gpu-1.18.1": 900}, 900))
        yield Scenario("no GPU", machine(onnx, both, 800, base=Machine.debian12().folder("/sys/bus/pci/devices")))
        yield Scenario("neither size", machine(onnx, both, 850), unknown=True)


def _wanted(found: Overwritten) -> str:
    """The package that an environment with a GPU needs; "" if several could be meant."""
    builds = {name: build_of(name) for name in found.owners}
    for name, build in builds.items():
        if build == "gpu":
            return name
    cuda = _cuda(found.environment)
    for_cuda = [name for name, build in builds.items() if build.startswith("cu")]
    if for_cuda:
        fitting = [name for name in for_cuda if cuda and f"-cu{cuda}" in name.replace("cuda", "cu")]
        return fitting[0] if len(fitting) == 1 else ""
    plain = [name for name, build in builds.items() if not build]
    return plain[0] if len(plain) == 1 and "cpu" in builds.values() and plain[0].startswith("tensorflow") else ""


def _cuda(environment: PythonEnvironment) -> str:
    """The CUDA major version of the environment's framework; "" if it has none, or does not tell."""
    built = (environment.torch and environment.torch.cuda) or (environment.tensorflow and environment.tensorflow.cuda)
    return (built or "").partition(".")[0]
