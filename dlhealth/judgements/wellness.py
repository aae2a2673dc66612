"""What was seen to be well, area by area, from facts that the rules already built.

WELL means that the named things were seen and fit together, never that no rule found a problem. ABSENT means that there
is nothing of the kind, and UNKNOWN that something is there and could not be seen to work.
"""

from collections.abc import Callable, Iterable, Iterator

from dlhealth.data.compat import version_key
from dlhealth.judgements.cudadriver import CudaDriver
from dlhealth.model import DRIVER, GPU, LIBRARIES, Area, Layer, State
from dlhealth.probes import Unavailable
from dlhealth.probes.cuda.cudnn import Cudnn, CudnnFolder
from dlhealth.probes.cuda.toolkits import CudaToolkits, Toolkit
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.driver.libraries import DriverLibraries
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.driver.nvml import Nvml
from dlhealth.probes.login.environment import Environments, LoginEnvironment
from dlhealth.probes.login.sessions import Sessions
from dlhealth.probes.login.users import Users
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.machine.platform import Platform
from dlhealth.probes.packaging.packages import DriverPackages
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments


def gpus(gpus: Gpus) -> Iterator[Area]:
    """The GPUs on the PCI bus, and what holds them."""
    if not gpus.gpus:
        yield Area(GPU, State.ABSENT, "no NVIDIA GPU on the PCI bus")
        return
    names = [g.name for g in gpus.gpus]
    listed = ", ".join(n if names.count(n) == 1 else f"{names.count(n)} x {n}" for n in dict.fromkeys(names))
    holders = {g.driver for g in gpus.gpus}
    if holders == {"nvidia"}:
        yield Area(GPU, State.WELL, f"{listed}: held by the nvidia driver")
    else:
        held = ", ".join(sorted(h or "no driver" for h in holders))
        yield Area(GPU, State.UNKNOWN, f"{listed}: held by {held}")


def driver(
    platform: Platform,
    modules: KernelModules,
    kernel: Kernel | None,
    libraries: DriverLibraries | None,
    packages: DriverPackages | None,
    nvml: Nvml | None,
) -> Iterator[Area]:
    """The driver in the running kernel, compared with the libraries."""
    if platform.driver_elsewhere:
        raise Unavailable(platform.driver_elsewhere)
    loaded, used = modules.loaded_version, libraries.version if libraries else None
    disk = modules.seen(kernel.target) if kernel else None
    there = used or (disk and disk.version) or (packages and packages.version)
    if loaded is None and not there:
        if modules.unseen or libraries is None or packages is None:
            raise Unavailable(modules.unseen or "the driver's libraries or packages cannot be read")
        yield Area(DRIVER, State.ABSENT, "no NVIDIA driver is installed")
    elif loaded is None:
        why = "this system is not running" if modules.loaded is None else "it is not loaded"
        yield Area(DRIVER, State.UNKNOWN, f"{there} is installed; {why}")
    elif used is None:
        yield Area(DRIVER, State.UNKNOWN, f"{loaded} is loaded; no library was seen to compare with")
    elif used != loaded:
        yield Area(DRIVER, State.UNKNOWN, f"{loaded} is loaded, the libraries are {used}")
    else:
        answers = " and answers" if nvml and nvml.outcome == "ok" else ""
        yield Area(DRIVER, State.WELL, f"{loaded} is loaded{answers}; the libraries are the same version")


def module(platform: Platform, kernel: Kernel, modules: KernelModules) -> Iterator[Area]:
    """The module on disk, for the kernel that runs and the one that starts next."""
    if platform.driver_elsewhere:
        raise Unavailable(platform.driver_elsewhere)
    releases = kernel.starting
    if not modules.for_any_kernel():
        yield Area("module", State.ABSENT, "no NVIDIA kernel module is installed")
        return
    able, unable = [], []
    for release in releases:
        file = modules.on_disk(release)
        when = " and ".join(["running"] * (release == kernel.running) + ["next"] * (release == kernel.next_boot))
        named = f"{release}{f' ({when})' * bool(when)}"
        if file and not file.unfit and file.indexed:
            able.append(f"{file.version or 'a module'} for kernel {named}")
        else:
            why = (file.unfit or "depmod does not list it") if file else "none"
            unable.append(f"{named}: {why}")
    state = State.UNKNOWN if unable or not able else State.WELL
    yield Area("module", state, "; ".join([*unable, *able]) or "no kernel to check")


def libraries(
    platform: Platform, libraries: DriverLibraries, kernel: Kernel | None, modules: KernelModules | None
) -> Iterator[Area]:
    """The driver's libraries that programs find, compared with the module."""
    wanted = {"libcuda": "libcuda.so.1", "NVML": "libnvidia-ml.so.1"}
    found = {name: x for name, soname in wanted.items() if (x := libraries.find(soname))}
    if not found:
        if unread := libraries.unread(*wanted.values()):
            raise Unavailable(unread)
        if libraries.problems:
            raise Unavailable(libraries.problems[0])
        yield Area(LIBRARIES, State.ABSENT, "programs find no NVIDIA driver libraries")
        return
    versions = {x.version for x in found.values()}
    listed = ", ".join(f"{name} {x.version}" for name, x in found.items())
    file = modules.seen(kernel.target) if modules and kernel else None
    expected = {v for v in (modules.loaded_version if modules else None, file.version if file else None) if v}
    if len(versions) == 1 and "" not in versions:
        listed = f"{' and '.join(found)} {versions.pop()}"
        if expected and all(x.version in expected for x in found.values()):
            yield Area(LIBRARIES, State.WELL, f"{listed}: the version of the module")
            return
        if expected:
            compared = f"the module is {' or '.join(sorted(expected))}"
        else:
            compared = (
                "the module belongs to another system" if platform.driver_elsewhere else "no module to compare with"
            )
        listed = f"{listed}; {compared}"
    yield Area(LIBRARIES, State.UNKNOWN, listed)


def packages(packages: DriverPackages) -> Iterator[Area]:
    """The driver's packages, as dpkg records them."""
    if not packages.members:
        yield Area("packages", State.ABSENT, "no package of an NVIDIA driver")
        return
    unfinished = [m.package.name for m in packages.members if m.package.state != "installed"]
    versions = list(packages.versions())
    listed = f"{len(packages.members)} of driver {' and '.join(versions)}"
    if unfinished:
        yield Area("packages", State.UNKNOWN, f"{listed}; not configured: {', '.join(unfinished)}")
    else:
        state = State.WELL if len(versions) == 1 else State.UNKNOWN
        yield Area("packages", state, f"{listed}, all configured")


def cuda(toolkits: CudaToolkits, driver: CudaDriver | None) -> Iterator[Area]:
    """The CUDA toolkits, compared with the driver."""
    if not toolkits.toolkits:
        if toolkits.problems:
            raise Unavailable(toolkits.problems[0])
        yield Area("CUDA", State.ABSENT, "no toolkit is installed (frameworks bring their own CUDA)")
    for toolkit in toolkits.toolkits:
        yield _toolkit(toolkit, driver)


def _toolkit(toolkit: Toolkit, driver: CudaDriver | None) -> Area:
    named = f"{toolkit.version or 'unknown version'} in {toolkit.path}"
    return Area("CUDA", *_beside_driver(named, toolkit.version, driver, "; the driver runs it"))


def _beside_driver(named: str, cuda: str, driver: CudaDriver | None, well: str) -> tuple[State, str]:
    """Whether the driver runs programs of this CUDA version."""
    runs = driver.runs(cuda) if driver and cuda else None
    if runs is None:
        return State.UNKNOWN, f"{named}; no driver to compare with"
    if not runs:
        return State.UNKNOWN, f"{named}; the driver is too old for it"
    return State.WELL, f"{named}{well}"


def cudnn(cudnn: Cudnn) -> Iterator[Area]:
    """The cuDNN libraries that all programs find, and their headers."""
    searched = [f for f in cudnn.folders if f.sources and f.majors]
    if not searched:
        if cudnn.problems:
            raise Unavailable(cudnn.problems[0])
        yield Area("cuDNN", State.ABSENT, "not installed for all programs (frameworks bring their own)")
    for folder in searched:
        for major in sorted(folder.majors):
            yield _cudnn(cudnn, folder, major)


def _cudnn(cudnn: Cudnn, folder: CudnnFolder, major: int) -> Area:
    version = folder.version(major)
    named = f"{version or major} in {folder.path}"
    broken = next((x for x in folder.libraries if x.major == major and (x.problem or x.special or not x.real)), None)
    if broken:
        return Area("cuDNN", State.UNKNOWN, f"{named}; {broken.name}: {broken.problem or 'not usable'}")
    headers = [h for i in folder.includes if (h := cudnn.headers_in(i)) and h.main]
    wrong = next((h for h in headers if h.missing or version_key(h.version)[:3] != version_key(version)[:3]), None)
    if wrong or not version:
        other = f"; the headers are {wrong.version or 'incomplete'}" if wrong else ""
        return Area("cuDNN", State.UNKNOWN, f"{named}{other}")
    return Area("cuDNN", State.WELL, f"{named}{', with its headers' if headers else ', no headers'}")


def logins(users: Users, environments: Environments, sessions: Sessions | None) -> Iterator[Area]:
    """The login of each person, from the start-up files and the log."""
    for account in users.people:
        subject = f"user:{account.name}"
        own = environments.of(account.name)
        doubt = next(filter(None, (_doubt(login, environments) for login in own)), "")
        if doubt or not own:
            yield Area("login", State.UNKNOWN, doubt or "no start-up file could be read", subject)
        else:
            lasted = bool(sessions and sessions.got_in(account.name))
            seen = "; the last graphical session lasted" if lasted else ""
            yield Area(
                "login", State.WELL, f"start-up files set a usable PATH and do not end the session{seen}", subject
            )


def _doubt(login: LoginEnvironment, environments: Environments) -> str:
    """Why a kind of login was not seen to work; "" if it was."""
    path = login.values.get("PATH", "")
    if login.ending:
        return f"a start-up file ends the {login.kind} session"
    if login.lost or path is None:
        return next(iter((*login.doubts, *login.stops)), "PATH is not known")
    if login.stops:
        return login.stops[0]
    return "" if not path or environments.usable(path) else f"PATH of the {login.kind} session lacks /usr/bin"


def pythons(environments: PythonEnvironments, driver: CudaDriver | None) -> Iterator[Area]:
    """The Python environments with a framework, compared with the driver."""
    found = [e for e in environments.environments if e.torch or e.tensorflow]
    if not found:
        if environments.problems:
            raise Unavailable(environments.problems[0])
        yield Area("Python", State.ABSENT, "no environment with PyTorch or TensorFlow was found")
    for environment in found:
        parts = list(_frameworks(environment, driver))
        states = {state for state, _ in parts}
        state = State.UNKNOWN if State.UNKNOWN in states else State.WELL if State.WELL in states else State.ABSENT
        yield Area("Python", state, f"{environment.path}: {'; '.join(text for _, text in parts)}", environment.subject)


def _frameworks(environment: PythonEnvironment, driver: CudaDriver | None) -> Iterator[tuple[State, str]]:
    torch, tensorflow = environment.torch, environment.tensorflow
    if torch:
        yield _framework(f"PyTorch {torch.version}", torch.cuda, torch.backend == "cuda", driver)
    if tensorflow:
        cuda = tensorflow.cuda or (None if tensorflow.gpu is None or tensorflow.gpu else "")
        yield _framework(f"TensorFlow {tensorflow.version}", cuda, bool(tensorflow.gpu), driver)


def _framework(name: str, cuda: str | None, built: bool, driver: CudaDriver | None) -> tuple[State, str]:
    if cuda == "":
        return State.ABSENT, f"{name}, built without CUDA"
    if cuda is None or not built:
        return State.UNKNOWN, f"{name}; its CUDA is not known"
    return _beside_driver(f"{name} for CUDA {cuda}", cuda, driver, ", which the driver runs")


AREAS: dict[str, tuple[tuple[Layer, ...], Callable[..., Iterable[Area]]]] = {
    GPU: ((Layer.HARDWARE,), gpus),
    DRIVER: ((Layer.KERNEL_MODULE, Layer.RUNTIME), driver),
    "module": ((Layer.KERNEL_MODULE,), module),
    LIBRARIES: ((Layer.DRIVER_LIBRARIES,), libraries),
    "packages": ((Layer.PACKAGING,), packages),
    "CUDA": ((Layer.CUDA,), cuda),
    "cuDNN": ((Layer.CUDNN,), cudnn),
    "login": ((Layer.LOGIN, Layer.ENVIRONMENT), logins),
    "Python": ((Layer.PYTHON,), pythons),
}
"""The areas in the order of a report: the layers whose problems concern an area, and the function that judges it. The
annotations of the function name the facts that it needs."""
