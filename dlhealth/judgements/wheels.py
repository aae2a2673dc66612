"""Which GPUs and drivers PyTorch's wheels support, and which wheel would fit."""

import re
from collections.abc import Iterable

from dlhealth.data import load
from dlhealth.data.compat import max_cuda, runs_cuda, version_key
from dlhealth.model import Unknown
from dlhealth.probes.driver.gpu import Gpu, Gpus
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments, Torch
from dlhealth.records import NamedTuple


class Wheel(NamedTuple):
    """A PyTorch wheel and its requirements. `targets` is like "7.0 7.5 12.0+PTX"; `source` says how they are known."""

    version: str
    cuda: str
    targets: str
    source: str

    @property
    def tag(self) -> str:
        """The end of the wheel's version and the name of its index: "cu126"."""
        return "cu" + self.cuda.replace(".", "")

    def has_code_for(self, capability: str) -> bool:
        """Whether it has machine code for a compute capability: code for 8.6 runs on 8.9, not on 9.0."""
        have = version_key(capability)
        built = [version_key(target) for target in self.targets.split()]
        return any(b[:1] == have[:1] and b <= have for b in built)

    def runs_on(self, capability: str) -> bool:
        """The same, or whether it has PTX to compile at the start."""
        portable = [version_key(target) for target in self.targets.split() if target.endswith("+PTX")]
        return self.has_code_for(capability) or any(p <= version_key(capability) for p in portable)

    def oldest(self) -> str:
        """The oldest compute capability that it was built for."""
        return self.targets.split()[0].removesuffix("+PTX")


def wheels() -> list[Wheel]:
    """Every known PyTorch wheel, the newest first; of one version the newest CUDA first."""
    return [
        Wheel(version, wheel["cuda"], wheel["sm"], wheel["source"])
        for row in load("frameworks")["torch"]
        for version in reversed(row["versions"])
        for wheel in row["wheels"]
    ]


def torch_wheel(version: str, cuda: str) -> Wheel | None:
    """The wheel of PyTorch `version` ("2.3.0", "2.3.0+cu121") for `cuda` ("12.1"), if it is one of PyTorch's own.

    A patch release that is not in the table has the values of the other patch releases, if these agree. A build with
    another local version ("2.4.0a0+git1234") was built by somebody else.
    """
    if not _is_release(version, cuda):
        return None
    public = version.partition("+")[0]
    same_cuda = [w for w in wheels() if w.cuda == cuda]
    exact = [w for w in same_cuda if w.version == public]
    if exact:
        return exact[0]
    siblings = [w for w in same_cuda if version_key(w.version)[:2] == version_key(public)[:2]]
    return siblings[0]._replace(version=public) if len({w.targets for w in siblings}) == 1 else None


def _is_release(version: str, cuda: str) -> bool:
    public, _, local = version.partition("+")
    return local in ("", "cu" + cuda.replace(".", "")) and re.fullmatch(r"\d+\.\d+\.\d+", public, re.ASCII) is not None


def known_wheel(environment: PythonEnvironment) -> Wheel | None:
    """The wheel of an environment; None without PyTorch, and for builds of conda or of somebody else, which are made
    for other GPUs than the wheels."""
    torch = environment.torch
    if torch is None or not torch.cuda or environment.manager == "conda":
        return None
    wheel = torch_wheel(torch.version, torch.cuda)
    if wheel is None and torch.targets and _is_release(torch.version, torch.cuda):
        # Its own list does not say whether it has PTX too: assume so, so that no false claim is made.
        return Wheel(torch.version, torch.cuda, f"{torch.targets}+PTX", f"{environment.site}/torch/cuda/__init__.py")
    return wheel


class WheelCoverage(NamedTuple):
    """The PyTorch wheels that do not fit the GPUs of this machine. `gpus` are those that programs may use; `doubts` are
    unknowns, each with its subject."""

    gpus: tuple[Gpu, ...]
    wheels: tuple[tuple[PythonEnvironment, Torch, Wheel], ...]
    doubts: tuple[Unknown, ...]

    @classmethod
    def probe(cls, environments: PythonEnvironments, gpus: Gpus) -> "WheelCoverage":
        usable = tuple(gpu for gpu in gpus.gpus if gpu.driver != "vfio-pci")
        if not usable:
            return cls((), (), ())
        doubts = [Unknown(problem) for problem in environments.problems]
        wheels = []
        for environment in environments.environments:
            torch, wheel = environment.torch, known_wheel(environment)
            if torch is None or torch.backend not in ("cuda", ""):
                continue
            if wheel is None:
                reason = f"{environment.path}: cannot tell for which GPUs PyTorch {torch.version} was built"
                doubts.append(Unknown(reason, environment.subject))
                continue
            doubts += [
                Unknown(f"the compute capability of GPU {gpu.address} is not known")
                for gpu in usable
                if not gpu.capability
            ]
            wheels.append((environment, torch, wheel))
        return cls(usable, tuple(wheels), tuple(doubts))


def fitting_wheel(version: str, drivers: Iterable[str], capabilities: Iterable[str]) -> Wheel | None:
    """The wheel to replace PyTorch `version` with, so that it runs on all these drivers and GPUs: the same version for
    another CUDA if there is one, otherwise the nearest newer version, otherwise the nearest older one. If no wheel runs
    on all the GPUs, the newest of them counts."""
    drivers, capabilities = tuple(drivers), tuple(capabilities)
    wanted = version_key(version)

    def distance(wheel: Wheel) -> tuple[object, ...]:
        key = version_key(wheel.version)
        older = key < wanted
        minor = tuple(-part for part in key[:2]) if older else key[:2]
        limited = any(version_key(wheel.cuda) > (max_cuda(driver) or ()) for driver in drivers)
        return key != wanted, older, minor, [-part for part in key], limited

    fit = [
        wheel
        for wheel in wheels()
        if all(runs_cuda(driver, wheel.cuda) for driver in drivers) and all(wheel.has_code_for(c) for c in capabilities)
    ]
    if not fit and len(capabilities) > 1:
        return fitting_wheel(version, drivers, [max(capabilities, key=version_key)])
    return min(fit, key=distance, default=None)  # the first of equals has the newest CUDA
