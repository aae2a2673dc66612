"""Wheels of one Python environment that unpack the same library, and which of them is on the disk."""

import re
from collections.abc import Iterator, Mapping

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import may_read
from dlhealth.lazy import regex
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments
from dlhealth.records import NamedTuple

_LIMIT = 16 << 20
"""Bytes of a list of files: TensorFlow's has some 3 MB."""
_ROW = regex(r"^([^,\n]+\.so(?:\.[0-9.]+)?),(sha256=[^,\n]+),(\d{1,18})$", re.MULTILINE)
_BUILD = regex(r"-(?:gpu|cpu|rocm\d*|openvino|training|cu\d{2,3}|cuda\d{2,3}x?)$")
"""How the name of a package ends that says for what it is built."""


class Overwritten(NamedTuple):
    """A library that two packages of an environment own with different contents. `path` is the file, `size` its size;
    `owners` maps each package to the size that it recorded. `present` is the package whose size the file has, "" where
    that does not tell."""

    environment: PythonEnvironment
    path: str
    size: int
    owners: Mapping[str, int]
    present: str


class OverwrittenWheels(NamedTuple):
    """One entry for each group of packages, by its first such library. `problems` could not be read."""

    found: tuple[Overwritten, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, environments: PythonEnvironments) -> "OverwrittenWheels":
        problems: list[str] = list(environments.problems)
        found = []
        for environment in environments.environments:
            for group in _groups(environment):
                try:
                    found += list(_first_overwritten(host, environment, group))
                except Unreadable as problem:
                    problems.append(str(problem))
        return cls(tuple(found), tuple(dict.fromkeys(problems)))


def build_of(name: str) -> str:
    """For what a package says that it is built: "gpu", "cpu", "cu12"; "" if its name does not tell."""
    match = _BUILD.search(name)
    return match[0][1:] if match else ""


def _groups(environment: PythonEnvironment) -> Iterator[list[str]]:
    """Packages whose names differ only in what they are built for."""
    groups: dict[str, list[str]] = {}
    for name in environment.packages:
        groups.setdefault(_BUILD.sub("", _BUILD.sub("", name)), []).append(name)
    return (sorted(names) for names in groups.values() if len(names) > 1)


def _first_overwritten(host: Host, environment: PythonEnvironment, names: list[str]) -> Iterator[Overwritten]:
    recorded = {name: _recorded(host, environment, name) for name in names}
    paths = sorted({path for files in recorded.values() for path in files})
    for path in paths:
        owners = {name: files[path] for name, files in recorded.items() if path in files}
        if len({hash_ for hash_, _ in owners.values()}) < 2:
            continue
        full = f"{environment.site}/{path}"
        status = host.stat(full)
        if status is None:
            continue
        sizes = {name: size for name, (_, size) in owners.items()}
        fitting = [name for name, size in sizes.items() if size == status.size]
        present = fitting[0] if len(fitting) == 1 else ""
        yield Overwritten(environment, full, status.size, sizes, present)
        return


def _recorded(host: Host, environment: PythonEnvironment, name: str) -> dict[str, tuple[str, int]]:
    """The shared libraries that a package's own list of files names, each with its hash and its size."""
    for spelled in dict.fromkeys((name.replace("-", "_"), name)):
        path = f"{environment.site}/{spelled}-{environment.packages[name]}.dist-info/RECORD"
        if environment.account is not None and not may_read(host, environment.account, path):
            continue
        if text := host.text(path, _LIMIT):
            return {m[1]: (m[2], int(m[3])) for m in _ROW.finditer(text)}
    return {}
