"""The libstdc++ of conda environments, and extensions in them that need a newer one."""

import re

from dlhealth.data.compat import version_key
from dlhealth.host import Host, Unreadable
from dlhealth.host.account import may_read
from dlhealth.lazy import regex
from dlhealth.probes.python.programs import Programs
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments
from dlhealth.records import NamedTuple

_FILE = regex(r"libstdc\+\+\.so\.6\.0\.(\d{1,3})$")
_SYMBOLS = "GLIBCXX_"
_EXTENSIONS = ".cache/torch_extensions"
"""Where PyTorch puts the extensions that it compiles when they are first used, below a home."""


class TooNew(NamedTuple):
    """An extension (`path`) that needs `needs` ("GLIBCXX_3.4.30"), in an environment whose libstdc++ (`library`) goes up
    to `has`."""

    environment: PythonEnvironment
    path: str
    needs: str
    library: str
    has: str


class StdcxxNeeds(NamedTuple):
    """One entry for each environment: the extension that needs most. `problems` could not be read."""

    too_new: tuple[TooNew, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, environments: PythonEnvironments, programs: Programs) -> "StdcxxNeeds":
        found: list[TooNew] = []
        conda = [environment for environment in environments.environments if environment.kind == "conda"]
        problems = [*environments.problems, *(programs.problems if conda else ())]
        for environment in conda:
            try:
                if worst := _worst(host, environment, programs):
                    found.append(worst)
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(tuple(found), tuple(dict.fromkeys(problems)))


def _worst(host: Host, environment: PythonEnvironment, programs: Programs) -> TooNew | None:
    """A conda's Python finds the libstdc++ of its environment before the system's, by its own run path."""
    library = host.realpath(f"{environment.path}/lib/libstdc++.so.6") or ""
    number = _FILE.search(library)
    if number is None:
        return None
    has = f"{_SYMBOLS}3.4.{number[1]}"  # libstdc++.so.6.0.N goes up to GLIBCXX_3.4.N
    paths = [c.path for c in programs.consumers.get(environment.site, ())] + _compiled(host, environment)
    needs = [(need, path) for path in paths if (need := _needs(host, environment, path))]
    need, path = max(needs, key=lambda n: _key(n[0]), default=("", ""))
    return TooNew(environment, path, need, library, has) if _key(need) > _key(has) else None


def _compiled(host: Host, environment: PythonEnvironment) -> list[str]:
    """Extensions that PyTorch compiled for this Python and this CUDA: py311_cu121/NAME/NAME.so."""
    if environment.account is None or environment.torch is None or not environment.torch.cuda:
        return []
    build = f"py{environment.version.replace('.', '')}_cu{environment.torch.cuda.replace('.', '')}"
    folder = f"{environment.account.home}/{_EXTENSIONS}/{build}"
    return [path for path in host.glob(f"{folder}/*/*.so") if may_read(host, environment.account, path)]


def _needs(host: Host, environment: PythonEnvironment, path: str) -> str:
    """The newest GLIBCXX version that a library requires, "" for none."""
    if environment.account is not None and not may_read(host, environment.account, path):
        return ""
    elf = host.elf(path)
    required = [v for v in (elf.versions if elf else ()) if re.fullmatch(rf"{_SYMBOLS}[0-9.]+", v)]
    return max(required, key=_key, default="")


def _key(version: str) -> tuple[int, ...]:
    return version_key(version.removeprefix(_SYMBOLS))
