"""CUDA toolkits of the machine, the link /usr/local/cuda, and the libcuda files that the loader could take."""

import json
import posixpath
import re
from collections.abc import Iterator

from dlhealth.data.compat import lowest_driver, version_key
from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.probes.login.environment import Environments
from dlhealth.probes.machine.loader import LoaderConfig, UserPaths, library_names, plain_assignment
from dlhealth.probes.packaging.packages import Packages
from dlhealth.records import NamedTuple

LINK = "/usr/local/cuda"
DISTRIBUTION = "nvidia-cuda-toolkit"
"""Debian's and Ubuntu's own package; it lies in /usr itself."""

HOME_VARIABLES = ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")
COMPILER_VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "NVCC_CCBIN", "CUDAHOSTCXX")

_PLACES = ("/usr/local/cuda", "/usr/local/cuda-*", "/usr/local/cuda[0-9]*", "/opt/cuda", "/opt/cuda-*")
_MULTIARCH = "/usr/lib/x86_64-linux-gnu"


class Toolkit(NamedTuple):
    """One toolkit. `path` is its real directory ("/usr" for the distribution's own package), `version` as in "12.2" and
    `release` as exact as `source` has it ("" if nothing tells them). `nvcc` is the compiler ("" without one).

    `libraries` are its real directories of libraries; `runtime` is the SONAME of its libcudart and `runtime_path` a
    file of that name ("" both if it has none). `cupti` is its libcupti in extras/CUPTI ("" if it lies with the other
    libraries, or there is none). `host_compiler` is the compiler that its own nvcc.profile or bin directory names.
    `provides` are the names of its shared libraries. `needs_driver` is the lowest driver that runs what it builds (""
    not known).
    """

    path: str
    version: str
    release: str
    source: str
    nvcc: str
    libraries: tuple[str, ...]
    runtime: str
    runtime_path: str
    cupti: str
    host_compiler: str
    distribution: bool
    needs_driver: str
    provides: frozenset[str]

    @property
    def major(self) -> int | None:
        """12 of "12.2"; None if the version is not known."""
        return next(iter(version_key(self.version)), None)


class CudaLink(NamedTuple):
    """A link that names a toolkit. `target` is what it says, `real` where it leads in the end ("" if nowhere),
    `removed` the directory that it would need to be there, `alternative` whether it goes through /etc/alternatives."""

    path: str
    target: str
    real: str
    removed: str
    alternative: bool


class CudaToolkits(NamedTuple):
    """`toolkits` newest first. `default` is what /usr/local/cuda leads to; where there is no such path, the only
    toolkit of /usr/local or /opt. `leftovers` are directories named like a toolkit with neither nvcc nor libcudart."""

    toolkits: tuple[Toolkit, ...]
    default: Toolkit | None
    links: tuple[CudaLink, ...]
    leftovers: tuple[str, ...]
    problems: tuple[str, ...]

    def at(self, real: str) -> Toolkit | None:
        """The toolkit in a real directory."""
        return next((t for t in self.toolkits if t.path == real), None)

    def holding(self, real: str) -> Toolkit | None:
        """The toolkit that a real path lies in; never the distribution's own, which lies in /usr."""
        return next((t for t in self.toolkits if not t.distribution and f"{real}/".startswith(f"{t.path}/")), None)

    @property
    def distribution(self) -> Toolkit | None:
        """Debian's or Ubuntu's own package."""
        return next((t for t in self.toolkits if t.distribution), None)

    @property
    def versions(self) -> tuple[str, ...]:
        """Of all, newest first; for the report."""
        return tuple(t.version for t in self.toolkits if t.version)

    @classmethod
    def probe(cls, host: Host, packages: Packages | None) -> "CudaToolkits":
        problems: list[str] = []
        found: dict[str, Toolkit] = {}
        links, leftovers = [], []
        for path in dict.fromkeys(p for place in _PLACES for p in host.glob(place)):
            try:
                target = host.readlink(path)
                real = host.realpath(path) or ""
                if target is not None:
                    links.append(_link(host, path, target, real))
                status = host.stat(real) if real else None
                if not status or status.kind != "dir" or real in found or real in leftovers:
                    continue
                toolkit = _toolkit(host, real, problems)
                if toolkit:
                    found[real] = toolkit
                else:
                    leftovers.append(real)
            except Unreadable as problem:
                problems.append(str(problem))
        own = _distribution(host, packages, found, problems)
        toolkits = sorted(found.values(), key=lambda t: version_key(t.release or t.version), reverse=True)
        return cls(
            tuple([*toolkits, own] if own else toolkits),
            _default(host, toolkits),
            tuple(links),
            tuple(leftovers),
            tuple(dict.fromkeys(problems)),
        )


def _default(host: Host, toolkits: list[Toolkit]) -> Toolkit | None:
    real = host.realpath(LINK)
    if real or host.lstat(LINK):
        return next((t for t in toolkits if t.path == real), None)
    return toolkits[0] if len(toolkits) == 1 else None


def _link(host: Host, path: str, target: str, real: str) -> CudaLink:
    alternative, step = False, path
    for _ in range(8):  # longer chains than link, alternative, major link, directory do not occur
        says = host.readlink(step)
        if says is None:
            break
        step = posixpath.normpath(posixpath.join(posixpath.dirname(step), says))
        alternative = alternative or step.startswith("/etc/alternatives/")
    return CudaLink(path, target, real, "" if real else step, alternative)


def _toolkit(host: Host, path: str, problems: list[str]) -> Toolkit | None:
    libraries = _library_folders(host, path)
    nvcc = f"{path}/bin/nvcc"
    has_nvcc = host.exists(nvcc)
    runtime, runtime_path = _runtime(host, libraries)
    if not (has_nvcc or runtime):
        return None
    release, source = _release(host, path, f"{path}/include/cuda.h", runtime_path, problems)
    return Toolkit(
        path=path,
        version=_two(release),
        release=release,
        source=source,
        nvcc=nvcc if has_nvcc else "",
        libraries=libraries,
        runtime=runtime,
        runtime_path=runtime_path,
        cupti=_cupti(host, path, libraries),
        host_compiler=_host_compiler(host, f"{path}/bin", problems),
        distribution=False,
        needs_driver=lowest_driver(release) or "",
        provides=frozenset(name for folder in libraries for name in library_names(host, folder)),
    )


def _two(release: str) -> str:
    return ".".join(str(n) for n in version_key(release)[:2])


def _library_folders(host: Host, path: str) -> tuple[str, ...]:
    """lib64 is a link into targets/ since CUDA 8's packages, a directory of its own before and in run files."""
    places = [f"{path}/lib64", *host.glob(f"{path}/targets/*/lib")]
    folders = dict.fromkeys(r for p in places if (r := host.realpath(p)))
    if not folders and (real := host.realpath(f"{path}/lib")):
        folders[real] = None
    return tuple(folders)


def _runtime(host: Host, folders: tuple[str, ...]) -> tuple[str, str]:
    """SONAME and path of libcudart. It is "libcudart.so.12", before CUDA 12 "libcudart.so.11.0", before 11 with the
    minor version: the shortest name of those with a number, where the links are there."""
    for folder in folders:
        names = [n for n in library_names(host, folder) if re.match(r"libcudart\.so\.\d", n)]
        if names:
            name = min(names, key=len)
            if name.count(".") < 4:
                return name, f"{folder}/{name}"
            try:
                library = host.elf(f"{folder}/{name}")
            except Unreadable:
                library = None
            return library.soname if library and library.soname else name, f"{folder}/{name}"
    return "", ""


def _release(host: Host, path: str, header: str, runtime: str, problems: list[str]) -> tuple[str, str]:
    """The version and where it is written: what the toolkit says of itself counts before the names of files."""
    try:
        text = host.text(f"{path}/version.json")
        version = text and _version_json(text)
        if version:
            return version, f"{path}/version.json"
        text = host.text(f"{path}/version.txt")
        match = re.search(r"CUDA Version (\d+\.\d+(?:\.\d+)?)", text or "", re.ASCII)
        if match:
            return match[1], f"{path}/version.txt"
    except Unreadable as problem:
        problems.append(str(problem))
    try:
        head = host.head(header, 1 << 17)
        define = re.search(rb"^#define CUDA_VERSION (\d{4,6})\b", head or b"", re.MULTILINE)
        if define:
            number = int(define[1])
            return f"{number // 1000}.{number % 1000 // 10}", header
    except Unreadable as problem:
        problems.append(str(problem))
    match = re.search(r"\.so\.(\d+\.\d+\.\d+)$", host.realpath(runtime) or "" if runtime else "", re.ASCII)
    if match:
        return match[1], runtime
    match = re.search(r"cuda-?(\d+\.\d+)$", path, re.ASCII)
    return (match[1], path) if match else ("", "")


def _version_json(text: str) -> str:
    try:
        version = json.loads(text)["cuda"]["version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return version if isinstance(version, str) and re.match(r"\d+\.\d+", version, re.ASCII) else ""


def _cupti(host: Host, path: str, libraries: tuple[str, ...]) -> str:
    """Old toolkits have CUPTI in a directory of its own; newer ones have links from there to the other libraries."""
    beside = {n for folder in libraries for n in library_names(host, folder) if n.startswith("libcupti.so.")}
    for folder in (f"{path}/extras/CUPTI/lib64", f"{path}/extras/CUPTI/lib"):
        names = [n for n in library_names(host, folder) if n.startswith("libcupti.so.")]
        if names and not beside & set(names):
            return f"{folder}/{min(names, key=len)}"
    return ""


def _host_compiler(host: Host, folder: str, problems: list[str]) -> str:
    for name in ("gcc", "g++"):
        real = host.realpath(f"{folder}/{name}")
        if real:
            return real
    try:
        text = host.text(f"{folder}/nvcc.profile") or ""
    except Unreadable as problem:
        problems.append(str(problem))
        return ""
    match = re.search(r"^\s*compiler-bindir\s*\+?=\s*(\S+)", text, re.MULTILINE)
    return match[1] if match else ""


def _distribution(
    host: Host, packages: Packages | None, others: dict[str, Toolkit], problems: list[str]
) -> Toolkit | None:
    package = packages.get(DISTRIBUTION) if packages else None
    real = host.realpath("/usr/bin/nvcc") or ""
    elsewhere = any(real.startswith(f"{path}/") for path in others)
    has_nvcc = bool(real) and not elsewhere
    if not (has_nvcc or (package and package.unpacked) or host.exists("/usr/lib/nvidia-cuda-toolkit/bin/nvcc")):
        return None
    runtime, runtime_path = _runtime(host, (_MULTIARCH,))
    release, source = "", ""
    if package and package.unpacked:
        release, source = ".".join(str(n) for n in version_key(package.version)), f"package {DISTRIBUTION}"
    if not release:
        release, source = _release(host, "/usr/lib/cuda", "/usr/include/cuda.h", runtime_path, problems)
    return Toolkit(
        path="/usr",
        version=_two(release),
        release=release,
        source=source,
        nvcc="/usr/bin/nvcc" if has_nvcc else "",
        libraries=(_MULTIARCH,),
        runtime=runtime,
        runtime_path=runtime_path,
        cupti="",
        host_compiler=_host_compiler(host, "/usr/lib/nvidia-cuda-toolkit/bin", problems),
        distribution=True,
        needs_driver=lowest_driver(release) or "",
        provides=library_names(host, _MULTIARCH),
    )


class CudaVariable(NamedTuple):
    """One variable of one person; `real` is where the value leads, for those that name a directory ("" if nowhere).
    `line` is the line of `source` where it is nothing but a plain assignment (else "")."""

    user: str
    name: str
    value: str
    source: Place
    real: str
    line: str


class CudaVariables(NamedTuple):
    """What the logins of people set of the variables that name a toolkit or nvcc's host compiler."""

    variables: tuple[CudaVariable, ...]

    def of(self, user: str, *names: str) -> tuple[CudaVariable, ...]:
        """Those of one person."""
        return tuple(v for v in self.variables if v.user == user and v.name in names)

    @classmethod
    def probe(cls, host: Host, environments: Environments) -> "CudaVariables":
        found: dict[tuple[str, str], CudaVariable] = {}
        for login in sorted(environments.logins, key=lambda e: e.kind != "interactive"):
            for name in (*HOME_VARIABLES, *COMPILER_VARIABLES):
                value = login.values.get(name)
                if value and (login.account.name, name) not in found:
                    lines = [s.source for s in login.settings if s.variable == name]
                    real = ""
                    if name in HOME_VARIABLES and value.startswith("/"):
                        try:
                            real = host.realpath(value) or ""
                        except Unreadable:
                            real = value  # it is there, only not for us
                    source = lines[-1] if lines else Place(f"the login of {login.account.name}")
                    line = plain_assignment(host, source, name)
                    found[login.account.name, name] = CudaVariable(login.account.name, name, value, source, real, line)
        return cls(tuple(found.values()))


class Libcuda(NamedTuple):
    """One libcuda that the loader could take. `path` is the name under which it finds it, `place` the same name in the
    directory without links, `real` the file; `kind` is stub, compat or driver. `source` is the line that makes the
    loader look there, or the cache. `user` is whose LD_LIBRARY_PATH that is, "" if it holds for everybody. `runtime` is
    False for a directory that has only libcuda.so, without the 1: programs take it by that name, and ldconfig makes the
    other."""

    path: str
    place: str
    real: str
    kind: str
    version: str
    source: str
    user: str
    runtime: bool


class LibcudaChoice(NamedTuple):
    """Every libcuda in the order in which the loader looks: `common` for all programs, `personal` in the
    LD_LIBRARY_PATH of a user, which comes before."""

    common: tuple[Libcuda, ...]
    personal: tuple[Libcuda, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, loader: LoaderConfig, paths: UserPaths | None) -> "LibcudaChoice":
        problems: list[str] = []
        stubs = _stubs(host)
        personal: list[Libcuda] = []
        for d in paths.libraries() if paths else ():
            personal += _libcudas(host, d.path, d.names, d.source, d.user, stubs, problems)
        cached = loader.cached("libcuda.so.1")
        common = [c for e in cached for c in _libcuda(host, e.path, "/etc/ld.so.cache", "", stubs, problems)]
        in_cache = {c.real for c in common}
        visited = set()
        for place in loader.directories:
            if place.real and place.real not in visited:
                visited.add(place.real)
                more = _libcudas(host, place.path, place.names, place.source or place.path, "", stubs, problems)
                common += [c for c in more if c.real not in in_cache]
        return cls(tuple(common), tuple(personal), tuple(dict.fromkeys(problems)))


def _stubs(host: Host) -> dict[int, str]:
    """The toolkits' stub libraries by size, to know a copy of one again."""
    patterns = (
        f"{p}{tail}" for p in ("/usr/local/cuda*", "/opt/cuda*") for tail in ("/lib64/stubs", "/targets/*/lib/stubs")
    )
    found = {}
    for path in (p for pattern in patterns for p in host.glob(f"{pattern}/libcuda.so")):
        status = host.stat(path)
        if status and status.kind == "file":
            found[status.size] = path
    return found


def _libcudas(
    host: Host,
    folder: str,
    names: frozenset[str],
    source: str,
    user: str,
    stubs: dict[int, str],
    problems: list[str],
) -> Iterator[Libcuda]:
    for name in ("libcuda.so.1", "libcuda.so"):
        if name in names:
            yield from _libcuda(host, f"{folder}/{name}", source, user, stubs, problems)
            return


def _libcuda(
    host: Host, path: str, source: str, user: str, stubs: dict[int, str], problems: list[str]
) -> Iterator[Libcuda]:
    try:
        real = host.realpath(path)
        status = host.stat(real) if real else None
        if not real or not status:
            return
        folder, name = posixpath.split(path)
        place = f"{host.realpath(folder)}/{name}"
        if path.startswith("/lib"):
            path = place  # with a merged /usr, /lib is only another name
        if status.kind != "file":
            problems.append(f"{path} is a {status.named}, not a file")
            return
        match = re.search(r"libcuda\.so\.(\d{3}\.\d+(?:\.\d+)?)$", real, re.ASCII)
        if "/stubs/" in real:
            kind = "stub"
        elif posixpath.basename(posixpath.dirname(real)) == "compat":
            kind = "compat"
        # A driver's library has its version in its name; a copy of the stub has not.
        elif match is None and status.size in stubs and host.sha256(real) == host.sha256(stubs[status.size]):
            kind = "stub"
        else:
            kind = "driver"
    except Unreadable as problem:
        problems.append(str(problem))
        return
    yield Libcuda(path, place, real, kind, match[1] if match else "", source, user, path.endswith(".so.1"))
