"""Packages whose compiled code was built for another PyTorch than the one in their environment."""

from dlhealth.data import load
from dlhealth.lazy import regex
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments, Torch
from dlhealth.records import NamedTuple

_RELEASE = regex(r"(\d+)\.(\d+)(?:\.\d+)*(?:\.post\d+)?(?:\+[\w.]+)?")
_BUILT_WITH = regex(r"(?:^|[^a-z])(?:pt(\d)\.?(\d+)|torch(\d)\.(\d+))")
"""In the local part of a version: "pt24cu121" (PyTorch Geometric), "cu122torch2.3cxx11abifalse" (flash-attn)."""
_CUDA = regex(r"cu(\d+)\d(?!\d)")


class Companion(NamedTuple):
    """A package that does not fit its PyTorch. `built_for` is like "PyTorch 2.3", "CUDA 11" or "the CPU"; `fitting` is
    the series of the package for the installed PyTorch, like "0.19" ("" if it is not known)."""

    environment: PythonEnvironment
    torch: Torch
    name: str
    version: str
    built_for: str
    fitting: str


class Companions(NamedTuple):
    """All that do not fit. `problems` could not be read."""

    found: tuple[Companion, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, environments: PythonEnvironments) -> "Companions":
        found = []
        for environment in environments.environments:
            torch = environment.torch
            # A distribution compiles the packages in /usr for its own PyTorch.
            if torch and environment.path != "/usr" and _RELEASE.fullmatch(torch.version):
                found += _unfit(environment, torch)
        return cls(tuple(found), environments.problems)


def _unfit(environment: PythonEnvironment, torch: Torch) -> list[Companion]:
    found = []
    for name, version in environment.packages.items():
        series = load("torch_companions").get(name) if name in ("torchvision", "torchaudio") else None
        built_for = _built_for(version, series or {}, torch) if series or "+" in version else ""
        if built_for:
            fitting = next((s for s, built in (series or {}).items() if built == _minor(torch.version)), "")
            found.append(Companion(environment, torch, name, version, built_for, fitting))
    return found


def _built_for(version: str, series: dict[str, str], torch: Torch) -> str:
    """What a package was built for, if that is not the PyTorch of its environment; otherwise ""."""
    local = version.partition("+")[2].lower()
    with_torch = _BUILT_WITH.search(local)
    built = series.get(_minor(version), "")
    if with_torch:
        built = f"{with_torch[1] or with_torch[3]}.{with_torch[2] or with_torch[4]}"
    if built and built != _minor(torch.version):
        return f"PyTorch {built}"
    cuda = _CUDA.search(local)
    if not torch.cuda or not (series or with_torch):
        return ""
    if local == "cpu":
        return "the CPU"
    return f"CUDA {cuda[1]}" if cuda and cuda[1] != torch.cuda.partition(".")[0] else ""


def _minor(version: str) -> str:
    """The first two numbers of a release, "" of any other version."""
    match = _RELEASE.fullmatch(version)
    return f"{match[1]}.{match[2]}" if match else ""
