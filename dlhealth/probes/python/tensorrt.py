"""Python packages that need TensorRT's library, and whether it is found."""

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import may_read
from dlhealth.lazy import regex
from dlhealth.probes.machine.loader import LoaderConfig, UserPaths
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments
from dlhealth.records import NamedTuple

_FILES = (
    ("tensorrt", "tensorrt/tensorrt.so"),
    ("tensorrt", "tensorrt_bindings/tensorrt.so"),
    ("torch-tensorrt", "torch_tensorrt/lib/libtorchtrt.so"),
)
"""Packages, by how their names begin, and the file of theirs that needs the library."""
_LIBRARY = regex(r"libnvinfer\.so\.\d+")
_INSIDE = ("tensorrt_libs", "tensorrt_lean_libs", "tensorrt")


class TensorRtNeed(NamedTuple):
    """A package (`name`, `version`) whose file (`path`) needs `library`; `found` is where that is, "" for nowhere.
    `other` are TensorRT's libraries of another major version that are there."""

    environment: PythonEnvironment
    name: str
    version: str
    path: str
    library: str
    found: str
    other: tuple[str, ...]


class TensorRtNeeds(NamedTuple):
    """Those of all environments. `doubts` are environments whose LD_LIBRARY_PATH is not known. `problems` could not be
    read."""

    needs: tuple[TensorRtNeed, ...]
    doubts: frozenset[str]
    problems: tuple[str, ...]

    @classmethod
    def probe(
        cls, host: Host, environments: PythonEnvironments, loader: LoaderConfig, paths: UserPaths | None
    ) -> "TensorRtNeeds":
        needs: list[TensorRtNeed] = []
        doubts: set[str] = set()
        problems = list(environments.problems)
        for environment in environments.environments:
            packages = [n for n in environment.packages if n.startswith(("tensorrt", "torch-tensorrt"))]
            try:
                found = [x for name in packages for x in _of(host, environment, name, loader, paths)]
            except Unreadable as problem:
                problems.append(str(problem))
                continue
            needs += {x.path: x for x in found}.values()
            if found and (paths is None or environment.activation or _unclear(environment, paths)):
                doubts.add(environment.site)
        return cls(tuple(needs), frozenset(doubts), tuple(dict.fromkeys(problems)))


def _unclear(environment: PythonEnvironment, paths: UserPaths) -> bool:
    user = environment.account.name if environment.account else None
    return any(variable == "LD_LIBRARY_PATH" and user in (None, u) for u, variable in paths.unclear)


def _of(
    host: Host, environment: PythonEnvironment, name: str, loader: LoaderConfig, paths: UserPaths | None
) -> list[TensorRtNeed]:
    user = environment.account.name if environment.account else None
    folders = {d.path: d.names for d in paths.libraries() if user in (None, d.user)} if paths else {}
    inside = {
        n: f"{environment.site}/{folder}/{n}"
        for folder in _INSIDE
        for n in host.listdir(f"{environment.site}/{folder}")
    }
    found = []
    for begin, file in _FILES:
        path = f"{environment.site}/{file}"
        if not name.startswith(begin) or (environment.account and not may_read(host, environment.account, path)):
            continue
        elf = host.elf(path)
        for library in elf.needed if elf else ():
            if _LIBRARY.fullmatch(library):
                where = inside.get(library) or loader.find(library, folders) or ""
                others = [p for n, p in inside.items() if _LIBRARY.fullmatch(n) and n != library]
                others += [e.path for e in loader.cache or () if _LIBRARY.fullmatch(e.soname) and e.soname != library]
                version = environment.packages[name]
                found.append(TensorRtNeed(environment, name, version, path, library, where, tuple(others)))
    return found
