"""What a machine is: the versions and values that decide whether its GPU and its logins work."""

from collections.abc import Callable, Iterator, Mapping

from dlhealth.probes.cuda.cudnn import Cudnn
from dlhealth.probes.cuda.toolkits import CudaToolkits
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.driver.libraries import DriverLibraries
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.login.environment import Environments
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.packaging.packages import Packages
from dlhealth.probes.python.pythonenv import PythonEnvironments

_FRAMEWORKS = ("torch", "tensorflow", "jax", "jaxlib", "numpy", "cupy", "onnxruntime-gpu")
_LIBRARIES = ("nvidia-cudnn-cu11", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
Pairs = Iterator[tuple[str, str]]


def kernels(kernel: Kernel) -> Pairs:
    """The kernels that run and that start next."""
    yield "running", kernel.running or ""
    yield "next", kernel.next_boot or ""


def driver(modules: KernelModules, libraries: DriverLibraries | None) -> Pairs:
    """The driver: loaded, on disk for each kernel, and its libraries."""
    yield "loaded", modules.loaded_version or ""
    yield "libraries", (libraries.version if libraries else "") or ""
    for file in modules.files:
        if file.name == "nvidia":
            yield f"module for kernel {file.kernel}", file.version or "unknown version"


def gpus(gpus: Gpus) -> Pairs:
    """The GPUs by address."""
    for gpu in gpus.gpus:
        yield gpu.address, f"{gpu.name}, {gpu.driver or 'no driver'}"


def packages(packages: Packages) -> Pairs:
    """The packages of driver, CUDA, cuDNN and kernels."""
    for package in packages.all():
        if package.unpacked and (package.gpu or package.name.startswith(("linux-image-", "linux-headers-"))):
            yield f"{package.name}:{package.architecture}", package.version


def cuda(toolkits: CudaToolkits) -> Pairs:
    """The CUDA toolkits by directory, and the default."""
    for toolkit in toolkits.toolkits:
        yield toolkit.path, toolkit.release or toolkit.version
    if toolkits.default:
        yield "default", toolkits.default.path


def cudnn(cudnn: Cudnn) -> Pairs:
    """The cuDNN libraries by directory."""
    for folder in cudnn.folders:
        versions = [folder.version(major) or str(major) for major in sorted(folder.majors)]
        if versions:
            yield folder.path, ", ".join(versions)


def environments(environments: PythonEnvironments) -> Pairs:
    """The Python environments with a framework."""
    for environment in environments.environments:
        found = [f"{n} {environment.packages[n]}" for n in (*_FRAMEWORKS, *_LIBRARIES) if n in environment.packages]
        if environment.torch or environment.tensorflow or found:
            yield environment.path, ", ".join([f"Python {environment.version}".strip(), *found])


def logins(environments: Environments) -> Pairs:
    """What each kind of login sets of the variables that matter here."""
    for login in environments.logins:
        for variable, value in sorted(login.values.items()):
            if value is not None:
                yield f"{login.account.name}, {login.kind}: {variable}", value


SECTIONS: Mapping[str, Callable[..., Pairs]] = {
    "kernel": kernels,
    "driver": driver,
    "GPUs": gpus,
    "packages": packages,
    "CUDA": cuda,
    "cuDNN": cudnn,
    "Python environments": environments,
    "logins": logins,
}
"""The sections of an inventory. The annotations of each function name the facts that it needs."""
