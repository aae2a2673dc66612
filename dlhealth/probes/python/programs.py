"""Programs in Python environments and the CUDA libraries that they need; without running any of them.

The dynamic loader takes a library from RPATH, LD_LIBRARY_PATH, RUNPATH, its cache and its built-in directories, in this
order (ld.so(8)). Many programs also take what another module of the same process, or NVIDIA's wheels, have loaded
before. So a library counts as missing only where neither the environment nor the loader has it.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from dlhealth.data import load
from dlhealth.data.compat import version_key
from dlhealth.host import Host, Unreadable
from dlhealth.host.account import may_read
from dlhealth.host.elf import Elf
from dlhealth.lazy import fits, regex
from dlhealth.probes.machine.loader import LoaderConfig, UserPaths, library_names
from dlhealth.probes.python.pythonenv import CUDA_LIBRARY, PythonEnvironment, PythonEnvironments, metadata_folder
from dlhealth.records import NamedTuple

_FILES_LIMIT = 24
"""Files of one program that are read."""
_OWN_NAME = regex(r"(?:^|-)(?:gpu|cuda\d*x?|cu\d{2,3})(?:-|$)")
"""Names of packages that say themselves that they are built for CUDA."""
_EXTENSION = regex(r"[^/]*cuda[^/]*\.so")
_SITE_LIBRARY = regex(r"(?!\.\.|/|nvidia/).+\.so(?:\.[0-9.]+)?")
_OTHERS = ("nvidia-", "tensorflow", "tf-nightly")
"""Beginnings of the names of packages that are libraries themselves, or that have a probe of their own."""

_Row = Mapping[str, Any]


class Program(NamedTuple):
    """One program with code for CUDA. `name` and `version` are those of its package. `files` are its files that need
    CUDA libraries, `needs` maps each of those libraries to the file that shows the need, and `missing` are those that
    are found nowhere, sorted. `cuda` is the CUDA major version of its libraries ("12"; "" if they do not tell).
    `doubt` says why a library may still be found ("" for no doubt)."""

    environment: PythonEnvironment
    name: str
    version: str
    needs: Mapping[str, str]
    missing: tuple[str, ...]
    cuda: str
    doubt: str


class Consumer(NamedTuple):
    """One file of an environment that needs CUDA libraries. `fixed` says that it finds them by an RPATH, which comes
    before LD_LIBRARY_PATH."""

    path: str
    needed: tuple[str, ...]
    fixed: bool


class Programs(NamedTuple):
    """`programs` of all environments. `consumers` are, by the directory with the packages, the files that need CUDA
    libraries, those of NVIDIA's wheels included. `damaged` are libraries that are no sound ELF files, with what is
    wrong; `problems` could not be read."""

    programs: tuple[Program, ...]
    consumers: Mapping[str, tuple[Consumer, ...]]
    damaged: tuple[tuple[PythonEnvironment, str, str], ...]
    problems: tuple[str, ...]

    def of(self, site: str, name: str) -> Program | None:
        """By the directory with the packages and the package's name."""
        return next((p for p in self.programs if p.environment.site == site and p.name == name), None)

    @classmethod
    def probe(
        cls, host: Host, environments: PythonEnvironments, loader: LoaderConfig, paths: UserPaths | None
    ) -> "Programs":
        look = _Look(host, environments, loader, paths)
        programs = [p for e in environments.environments for p in look.programs(e)]
        return cls(tuple(programs), look.consumers, tuple(look.damaged), tuple(dict.fromkeys(look.problems)))


class TorchLibraries(NamedTuple):
    """`inside` are the environments with PyTorch, each with the directory of PyTorch's own libraries and their
    names."""

    inside: tuple[tuple[PythonEnvironment, str, frozenset[str]], ...]

    @classmethod
    def probe(cls, host: Host, environments: PythonEnvironments) -> "TorchLibraries":
        found = []
        for environment in environments.environments:
            folder = f"{environment.site}/torch/lib"
            if environment.torch and (names := library_names(host, folder)):
                found.append((environment, folder, names))
        return cls(tuple(found))


class _Look:
    def __init__(
        self, host: Host, environments: PythonEnvironments, loader: LoaderConfig, paths: UserPaths | None
    ) -> None:
        self.host = host
        self.environments = environments
        self.loader = loader
        self.paths = paths
        self.consumers: dict[str, tuple[Consumer, ...]] = {}
        self.damaged: list[tuple[PythonEnvironment, str, str]] = []
        self.problems: list[str] = []

    def programs(self, environment: PythonEnvironment) -> Iterator[Program]:
        """The programs of one environment; also notes its consumers and damaged libraries."""
        rows = dict(_rows(environment))
        files = {name: self._files(environment, name, row) for name, row in rows.items()}
        if environment.torch and environment.torch.cuda:
            # Extensions of PyTorch lie beside the packages: flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so
            modules = [n for n in self._listdir(environment.site) if _EXTENSION.fullmatch(n)]
            files |= {n.partition(".")[0]: [f"{environment.site}/{n}"] for n in modules}
            files |= self._bitsandbytes(environment, environment.torch.cuda)
        if not files and not environment.libraries:
            return
        wheels = [(path, self._elf(environment, path)) for path in dict.fromkeys(environment.libraries.values())]
        consumers = [_consumer(path, elf) for path, elf in wheels if elf]
        inside = self._inside(environment)
        for name, paths in sorted(files.items()):
            read = [(path, elf) for path in paths[:_FILES_LIMIT] if (elf := self._elf(environment, path))]
            consumers += [_consumer(path, elf) for path, elf in read]
            row = rows.get(name, {})
            version = environment.packages.get(name, "")
            needs = {n: path for path, elf in read for n in elf.needed if _counts(n, row)}
            shows = read[0][0] if read else metadata_folder(self.host, environment, name)
            needs |= {n: shows for n in _opens(row, version) if n not in needs}
            found = {n for n in needs if n in inside or self._own(n, needs[n], dict(read))}
            lacking = sorted(n for n in needs if n not in found and not self._loader_finds(environment, n))
            if needs:
                doubt = self._doubt(environment) if lacking else ""
                yield Program(environment, name, version, needs, tuple(lacking), _cuda_of(needs), doubt)
        self.consumers[environment.site] = tuple(c for c in consumers if c.needed)

    def _files(self, environment: PythonEnvironment, name: str, row: _Row) -> list[str]:
        site = environment.site
        if not row:
            return [f"{site}/{p}" for p in self._recorded(environment, name)]
        found: list[str] = []
        for pattern in row["files"]:
            folder, tail = posixpath.split(f"{site}/{pattern}")
            found += [f"{folder}/{n}" for n in self._listdir(folder) if fits(n, tail)]
        return found

    def _bitsandbytes(self, environment: PythonEnvironment, cuda: str) -> dict[str, list[str]]:
        """bitsandbytes has a library for each CUDA, and opens the one of PyTorch's."""
        if "bitsandbytes" not in environment.packages:
            return {}
        folder = f"{environment.site}/bitsandbytes"
        tag = "".join(cuda.split(".")[:2])
        built = [n for n in self._listdir(folder) if fits(n, f"libbitsandbytes_cuda{cuda.partition('.')[0]}*.so")]
        return {"bitsandbytes": [f"{folder}/{n}" for n in sorted(built, key=lambda n: f"cuda{tag}." not in n)[:1]]}

    def _recorded(self, environment: PythonEnvironment, name: str) -> list[str]:
        """The shared libraries of a package that no table knows, by its own list of files."""
        version = environment.packages[name]
        for spelled in dict.fromkeys((name.replace("-", "_"), name)):
            path = f"{environment.site}/{spelled}-{version}.dist-info/RECORD"
            try:
                text = (self.host.text(path) or "") if self._may_read(environment, path) else ""
            except Unreadable:
                return []  # a list of many thousands of files
            if text:
                paths = (line.partition(",")[0] for line in text.splitlines() if ".so" in line)
                return [path for path in paths if _SITE_LIBRARY.fullmatch(path)]
        return []

    def _inside(self, environment: PythonEnvironment) -> set[str]:
        """What a process of this environment can have loaded: the libraries of NVIDIA's wheels, those that PyTorch
        brings along, and those of the environments that this one shares packages with."""
        names = set(environment.libraries)
        if "torch" in environment.packages:
            names |= {n for n in self._listdir(f"{environment.site}/torch/lib") if CUDA_LIBRARY.fullmatch(n)}
        if environment.kind in ("user", "system", "venv", "uv"):
            others = (e for e in self.environments.environments if e.kind in ("user", "system"))
            for other in others:
                mine = other.account is None or other.account == environment.account
                if mine and other.version in ("", environment.version) and self._shares(environment):
                    names |= set(other.libraries)
        return names

    def _shares(self, environment: PythonEnvironment) -> bool:
        if environment.kind in ("user", "system"):
            return True
        path = f"{environment.path}/pyvenv.cfg"
        try:
            text = (self.host.text(path) or "") if self._may_read(environment, path) else ""
        except Unreadable:
            return True
        return re.search(r"^include-system-site-packages\s*=\s*true", text, re.MULTILINE | re.IGNORECASE) is not None

    def _own(self, soname: str, path: str, read: Mapping[str, Elf]) -> bool:
        """Whether the file that needs a library finds it beside itself, or where its RPATH or RUNPATH leads."""
        here = posixpath.dirname(path)
        elf = read.get(path)
        paths = (elf.runpath or elf.rpath).split(":") if elf else []
        written = [p.replace("$ORIGIN", here).replace("${ORIGIN}", here) for p in paths]
        folders = dict.fromkeys(posixpath.normpath(p) for p in (here, *written) if p.startswith("/"))
        return any(self._exists(f"{folder}/{soname}") for folder in folders)

    def _loader_finds(self, environment: PythonEnvironment, soname: str) -> bool:
        user = environment.account.name if environment.account else None
        directories = self.paths.libraries() if self.paths else ()
        folders = {d.path: d.names for d in directories if user in (None, d.user)}
        return self.loader.find(soname, folders) is not None

    def _doubt(self, environment: PythonEnvironment) -> str:
        """What may name further directories for the loader."""
        if environment.activation:
            return f"{environment.activation[0]} sets LD_LIBRARY_PATH"
        user = environment.account.name if environment.account else None
        if self.paths is None or (user is not None and user not in self.paths.users):
            return f"the LD_LIBRARY_PATH of {user or 'the users'} is not known"
        unclear = next((u for u, v in self.paths.unclear if v == "LD_LIBRARY_PATH" and user in (None, u)), "")
        return f"the LD_LIBRARY_PATH of {unclear} is set by a program that dlhealth does not run" if unclear else ""

    def _elf(self, environment: PythonEnvironment, path: str) -> Elf | None:
        try:
            if not self._may_read(environment, path):
                return None
            return self.host.elf(path)
        except Unreadable as problem:
            status = self._status_kind(path)
            if status == "file" and "ELF" in problem.reason:
                self.damaged.append((environment, path, problem.reason))
            else:
                self.problems.append(str(problem))
            return None

    def _status_kind(self, path: str) -> str:
        try:
            status = self.host.stat(path)
        except Unreadable:
            return ""
        return status.kind if status else ""

    def _may_read(self, environment: PythonEnvironment, path: str) -> bool:
        return environment.account is None or may_read(self.host, environment.account, path)

    def _listdir(self, folder: str) -> tuple[str, ...]:
        try:
            return self.host.listdir(folder)
        except Unreadable:
            return ()

    def _exists(self, path: str) -> bool:
        try:
            return self.host.exists(path)
        except Unreadable:
            return True


def _rows(environment: PythonEnvironment) -> Iterator[tuple[str, _Row]]:
    """The packages of an environment that may have code for CUDA, each with its row of the table, which is empty for
    one that is not known."""
    table = load("cuda_programs")["programs"]
    known = _known()
    for name in environment.packages:
        if known.fullmatch(name):
            yield name, next(row for row in table if re.fullmatch(row["package"], name))
        elif _OWN_NAME.search(name) and not name.startswith(_OTHERS):
            yield name, {}


@cache
def _known() -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{row['package']})" for row in load("cuda_programs")["programs"]))


def _consumer(path: str, elf: Elf) -> Consumer:
    return Consumer(path, tuple(n for n in elf.needed if CUDA_LIBRARY.fullmatch(n)), bool(elf.rpath))


def _counts(soname: str, row: _Row) -> bool:
    """Whether a program can't do without a library. cuDNN has rules of its own."""
    stem = soname.partition(".so")[0]
    return (
        CUDA_LIBRARY.fullmatch(soname) is not None
        and not stem.startswith("libcudnn")
        and stem not in row.get("optional", ())
    )


def _opens(row: _Row, version: str) -> tuple[str, ...]:
    fit = [r for r in row.get("opens", ()) if version_key(r["from"]) <= version_key(version)]
    return tuple(max(fit, key=lambda r: version_key(r["from"]))["sonames"]) if fit else ()


def cuda_release(soname: str) -> str:
    """The major version of CUDA that a library is part of: "12" of libcublas.so.12; "" if several have it."""
    for row in load("cuda_programs")["release"]:
        if match := re.fullmatch(row["pattern"], soname):
            return row["cuda"] or match[1]
    return ""


def _cuda_of(needs: Mapping[str, str]) -> str:
    return next((release for n in sorted(needs) if (release := cuda_release(n))), "")


def cudnn_requirement(program: Program, major: int) -> str:
    """What pip installs so that a program finds cuDNN inside its environment; "" if no package fits."""
    if program.name == "onnxruntime-gpu" and version_key(program.version) >= (1, 21):
        return f"onnxruntime-gpu[cuda,cudnn]=={program.version}"
    known = program.cuda and any(row["major"] == major for row in load("cudnn")["parts"])
    return f"nvidia-cudnn-cu{program.cuda}=={major}.*" if known else ""


def wheel_name(soname: str) -> str:
    """NVIDIA's package of PyPI that brings a library, without the suffix that tells the CUDA: "nvidia-cublas"; "" where
    none is known."""
    return load("cuda_programs")["wheels"].get(soname.partition(".so")[0], "")  # type: ignore[no-any-return]


def wheel_of(soname: str, cuda: str) -> str:
    """NVIDIA's package of PyPI that brings a library of a CUDA major version, as pip takes it: "nvidia-cublas-cu12";
    "" if none is known."""
    name = wheel_name(soname)
    return f"{name}-cu{cuda}" if name and cuda and int(cuda) < 13 else name
