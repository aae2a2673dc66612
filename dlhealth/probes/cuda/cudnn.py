"""cuDNN on the machine: its libraries, headers and packages, and the programs that need it."""

import posixpath
import re
from collections.abc import Iterable, Iterator

from dlhealth.data import load
from dlhealth.data.compat import version_key
from dlhealth.host import Host, Unreadable
from dlhealth.host.account import Account, may_read
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes.cuda.toolkits import CudaToolkits
from dlhealth.probes.login.users import Users
from dlhealth.probes.machine.loader import LoaderConfig, UserPaths, library_names
from dlhealth.probes.packaging.packages import Owner, Package, Packages, owner_of
from dlhealth.probes.python.frameworks import TensorFlowLibraries, tensorflow_needs
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments, metadata_folder
from dlhealth.records import NamedTuple

_NAME = regex(r"(libcudnn(?:_[a-z0-9_]+)?)\.so(?:\.(\d+(?:\.\d+)*))?", re.ASCII)
_PACKAGE = regex(
    r"(?:libcudnn(?P<major>\d+)(?P<dev>-dev|-headers|-static|-samples)?(?:-cuda-(?P<cuda>\d+))?|nvidia-cudnn)", re.ASCII
)
_INCLUDE = regex(r'^[ \t]*#[ \t]*include[ \t]*[<"](cudnn[A-Za-z0-9_]*\.h)[>"]', re.MULTILINE | re.ASCII)
_MACRO = regex(r"^[ \t]*#[ \t]*define[ \t]+CUDNN_(MAJOR|MINOR|PATCHLEVEL)[ \t]+(\d{1,4})\b", re.MULTILINE | re.ASCII)
_TREES = ("/usr/local/cuda", "/usr/local/cuda-*", "/opt/cuda", "/opt/cuda-*", "/usr/local/cudnn*", "/opt/cudnn*")
_SYSTEM = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_SYSTEM_INCLUDES = (
    "/usr/local/include", "/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu", "/usr/include",
)  # fmt: skip
_PROGRAMS_LIMIT = 150


_BY_CUDA = {"libcudnn.so.7.0": "3.0", "libcudnn.so.6.5": "2.0"}
"""The versions of cuDNN whose names tell the CUDA that they were made for: libcudnn.so.7.0.64 is cuDNN 3."""


class CudnnLibrary(NamedTuple):
    """One name of a library: `path` in its real directory, `stem` like "libcudnn_ops_infer", `suffix` what follows
    ".so." ("" for libcudnn.so). `target` is what a link says (None for a file), `real` the file behind it ("" if the
    link leads nowhere).

    `version` is that of the real file's name, or of the package that owns it ("" if neither tells); `soname`, `needed`
    and `size` are the file's, `digest` its SHA-256 where another file could be a copy of it. `owner` is its package.
    `problem` says why the file could not be read as a library, `special` that it is no file or may not be read at
    all."""

    path: str
    stem: str
    suffix: str
    target: str | None
    real: str
    version: str
    soname: str
    needed: tuple[str, ...]
    size: int
    digest: str
    owner: Owner
    problem: str
    special: bool

    @property
    def package(self) -> str | None:
        """The name of its package, where it is known to have one."""
        return self.owner if isinstance(self.owner, str) else None

    @property
    def name(self) -> str:
        """The name without the directory."""
        return posixpath.basename(self.path)

    @property
    def major(self) -> int | None:
        """8 of libcudnn.so.8.9.7; for a name without a number that of the file behind it. None if unknown."""
        soname = self.soname.rpartition(".so.")[2]
        told = _BY_CUDA.get(self.soname) or self.suffix or self.version or soname
        return next(iter(version_key(told)), None)


class CudnnFolder(NamedTuple):
    """A directory with cuDNN libraries. `path` is its real one. `sources` say why the loader looks there for every
    program (a line, the cache, or the built-in list; none: it does not), `order` where it comes among those;
    `users` have it in their LD_LIBRARY_PATH. `toolkit` is the real path of the CUDA tree that it lies in ("" none);
    `includes` are the directories with the headers that belong to it."""

    path: str
    libraries: tuple[CudnnLibrary, ...]
    sources: tuple[str, ...]
    order: int
    users: tuple[str, ...]
    toolkit: str
    includes: tuple[str, ...]

    def get(self, name: str) -> CudnnLibrary | None:
        """By its name."""
        return next((x for x in self.libraries if x.name == name), None)

    def active(self, stem: str, major: int) -> CudnnLibrary | None:
        """What the loader takes here for "stem.so.major"; where that link was not made, the file for it."""
        names = [x for x in self.libraries if x.stem == stem and x.real and x.major == major and x.suffix]
        return min(names, key=lambda x: (x.suffix != str(major), x.suffix), default=None)

    @property
    def majors(self) -> set[int]:
        """Of what a program can load here as the main library."""
        return {x.major for x in self.libraries if x.stem == "libcudnn" and x.suffix and x.real and x.major}

    @property
    def all_majors(self) -> set[int]:
        """Of any library here."""
        return {x.major for x in self.libraries if x.real and x.suffix and x.major}

    def version(self, major: int) -> str:
        """Of the main library of a major version; "" if there is none, or its version is not known."""
        main = self.active("libcudnn", major)
        return main.version if main else ""

    @property
    def for_development(self) -> bool:
        """Whether a linker finds cuDNN here: libcudnn.so without a number."""
        return any(x.stem == "libcudnn" and not x.suffix for x in self.libraries)


class CudnnHeaders(NamedTuple):
    """The cuDNN headers of one include directory. `main` is its cudnn.h ("" if it has none), `real` the file behind it
    ("" if that is a broken link); `others` are its further cudnn*.h. `version` as the macros have it, read through
    the headers that cudnn.h includes, `source` where. `missing` are (file with its line, the header that
    it includes and that does not exist). `owner` is cudnn.h's package."""

    folder: str
    main: str
    real: str
    others: tuple[str, ...]
    version: str
    source: str
    missing: tuple[tuple[str, str], ...]
    owner: Owner
    problem: str


class CudnnPackage(NamedTuple):
    """A cuDNN package with files. `major` is cuDNN's, `cuda` the CUDA that it is built for ("12.2", "12", "" not
    known), `role` runtime, dev, headers, static or samples. `absent` are libraries that dpkg lists and are not there."""

    package: Package
    major: int | None
    cuda: str
    role: str
    absent: tuple[str, ...]


class Cudnn(NamedTuple):
    """`folders` in the loader's order, those that it does not look into last. `headers` by include directory, in the
    order in which nvcc looks. `problems` could not be checked."""

    folders: tuple[CudnnFolder, ...]
    headers: tuple[CudnnHeaders, ...]
    packages: tuple[CudnnPackage, ...]
    problems: tuple[str, ...]

    def libraries(self) -> Iterator[CudnnLibrary]:
        """Every name in every directory."""
        for folder in self.folders:
            yield from folder.libraries

    def majors(self, user: str | None = None) -> set[int]:
        """The major versions that the loader finds for every program, or for those of one person."""
        return {m for f in self.folders if f.sources or (user and user in f.users) for m in f.majors}

    def search_path(self, user: str | None = None) -> list[CudnnFolder]:
        """The directories that the loader looks into, in its order."""
        own = [f for f in self.folders if user and user in f.users]
        return own + [f for f in self.folders if f.sources and f not in own]

    def headers_in(self, folder: str) -> CudnnHeaders | None:
        """By the include directory."""
        return next((h for h in self.headers if h.folder == folder), None)

    def runtime_package(self, major: int) -> CudnnPackage | None:
        """The package with the libraries of a major version."""
        return next((p for p in self.packages if p.major == major and p.role == "runtime"), None)

    @classmethod
    def probe(
        cls,
        host: Host,
        loader: LoaderConfig,
        toolkits: CudaToolkits,
        packages: Packages | None,
        paths: UserPaths | None,
    ) -> "Cudnn":
        problems: list[str] = []
        folders = []
        for real in _places(host, loader, toolkits, paths, problems):
            names = sorted(n for n in library_names(host, real) if _NAME.fullmatch(n))
            if names:
                folders.append(_folder(host, real, names, loader, toolkits, packages, paths))
        folders.sort(key=lambda f: (not f.sources, f.order))
        return cls(
            tuple(folders),
            tuple(_all_headers(host, toolkits, folders, packages, problems)),
            tuple(_packages(host, packages)),
            tuple(dict.fromkeys(problems)),
        )


def _places(
    host: Host, loader: LoaderConfig, toolkits: CudaToolkits, paths: UserPaths | None, problems: list[str]
) -> Iterable[str]:
    """Real directories where cuDNN may lie. What lies in a Python environment belongs to that alone."""
    written = [d.path for d in loader.directories]
    written += [folder for t in toolkits.toolkits for folder in t.libraries]
    for tree in (path for pattern in _TREES for path in host.glob(pattern)):
        written += [f"{tree}/lib64", f"{tree}/lib", *host.glob(f"{tree}/targets/*/lib")]
        written += host.glob(f"{tree}/lib/*-linux-gnu")
    written += _SYSTEM
    written += [d.path for d in paths.libraries()] if paths else []
    reals: dict[str, None] = {}
    for path in dict.fromkeys(written):
        try:
            real = host.realpath(path)
        except Unreadable as problem:
            problems.append(str(problem))
            continue
        if real and not re.search(r"/(?:site|dist)-packages/|/envs/|conda|/pkgs/", real):
            reals[real] = None
    return reals


def _folder(
    host: Host,
    real: str,
    names: Iterable[str],
    loader: LoaderConfig,
    toolkits: CudaToolkits,
    packages: Packages | None,
    paths: UserPaths | None,
) -> CudnnFolder:
    libraries = _with_digests(host, [_library(host, f"{real}/{name}", packages) for name in names])
    sources, order = _searched(real, loader, libraries)
    users = tuple(dict.fromkeys(d.user for d in paths.libraries() if d.real == real)) if paths else ()
    tree = re.match(r"(/usr/local/cuda[^/]*|/opt/cuda[^/]*)/", real)
    toolkit = toolkits.holding(real)
    root = toolkit.path if toolkit else tree[1] if tree else ""
    return CudnnFolder(real, libraries, sources, order, users, root, _includes_of(host, real, root))


def _searched(real: str, loader: LoaderConfig, libraries: tuple[CudnnLibrary, ...]) -> tuple[tuple[str, ...], int]:
    sources, order = [], len(loader.directories)
    for number, directory in enumerate(loader.directories):
        if directory.real == real:
            sources.append(directory.source or "the loader's built-in directories")
            order = min(order, number)
    reals = {x.real for x in libraries}
    if not sources and any(x.path in reals for x in loader.cache or ()):
        sources.append("/etc/ld.so.cache")
    return tuple(sources), order


def _library(host: Host, path: str, packages: Packages | None) -> CudnnLibrary:
    match = _NAME.fullmatch(posixpath.basename(path))
    stem, suffix = (match[1], match[2] or "") if match else ("", "")
    target: str | None = None
    needed: tuple[str, ...] = ()
    real, soname, size, problem, special = "", "", 0, "", False
    owner = owner_of(packages, path)
    try:
        target = host.readlink(path)
        real = host.realpath(path) or ""
        status = host.stat(real) if real else None
        size = status.size if status else 0
        special = status is not None and status.kind != "file"
        owner = owner_of(packages, *filter(None, (real, path)))
        elf = host.elf(real) if real else None
        if elf:
            soname, needed = elf.soname, elf.needed
    except Unreadable as unreadable:
        problem = str(unreadable)
        special = special or not real or "not a sound ELF" not in problem
    return CudnnLibrary(
        path,
        stem,
        suffix,
        target,
        real,
        _BY_CUDA.get(soname) or _version(real, owner, packages),
        soname,
        needed,
        size,
        "",
        owner,
        problem,
        special,
    )


def _version(real: str, owner: Owner, packages: Packages | None) -> str:
    match = _NAME.fullmatch(posixpath.basename(real))
    if match and match[2] and "." in match[2]:
        return match[2]
    package = packages.get(owner) if packages and isinstance(owner, str) else None
    return ".".join(str(n) for n in version_key(package.version)[:3]) if match and package else ""


def _with_digests(host: Host, libraries: list[CudnnLibrary]) -> tuple[CudnnLibrary, ...]:
    """Only regular files of the same library and size can be copies of each other; hashing them is slow."""
    files: dict[tuple[str, int], list[int]] = {}
    for number, library in enumerate(libraries):
        if library.real == library.path and library.size:
            files.setdefault((library.stem, library.size), []).append(number)
    for numbers in files.values():
        for number in numbers if len(numbers) > 1 else ():
            try:
                libraries[number] = libraries[number]._replace(digest=host.sha256(libraries[number].real) or "")
            except Unreadable as problem:
                libraries[number] = libraries[number]._replace(problem=str(problem))
    return tuple(libraries)


def _includes_of(host: Host, folder: str, tree: str) -> tuple[str, ...]:
    """The include directories that belong to a directory of libraries."""
    if tree:
        candidates = [f"{tree}/include", f"{posixpath.dirname(folder)}/include"]
    elif folder.startswith("/usr/lib"):
        candidates = list(_SYSTEM_INCLUDES[1:])
    else:
        candidates = [f"{posixpath.dirname(folder)}/include"]
    return tuple(dict.fromkeys(host.realpath(c) or c for c in candidates))


def _all_headers(
    host: Host, toolkits: CudaToolkits, folders: list[CudnnFolder], packages: Packages | None, problems: list[str]
) -> Iterator[CudnnHeaders]:
    """Of each include directory, the default toolkit's first, as nvcc has it."""
    first = toolkits.default
    trees = [f"{t.path}/include" for t in ([first] if first else []) + list(toolkits.toolkits) if not t.distribution]
    trees += [f"{path}/include" for pattern in _TREES for path in host.glob(pattern)]
    trees += [folder for f in folders for folder in f.includes]
    written = dict.fromkeys([*trees, *_SYSTEM_INCLUDES])
    reals: dict[str, None] = {}
    for folder in written:
        try:
            real = host.realpath(folder)
            if real and real not in reals:
                reals[real] = None
                yield from _headers(host, real, packages)
        except Unreadable as problem:
            problems.append(str(problem))


def _headers(host: Host, folder: str, packages: Packages | None) -> Iterator[CudnnHeaders]:
    names = [n for n in host.listdir(folder) if re.fullmatch(r"cudnn[A-Za-z0-9_]*\.h", n)]
    if not names:
        return
    main = f"{folder}/cudnn.h" if "cudnn.h" in names else ""
    real, version, source, problem = "", "", "", ""
    owner = owner_of(packages, main or folder)
    missing: list[tuple[str, str]] = []
    try:
        real = (host.realpath(main) or "") if main else ""
        owner = owner_of(packages, *filter(None, (real, main or folder)))
        start = main if real else next((f"{folder}/{n}" for n in names if n.startswith("cudnn_version")), "")
        if start:
            version, source = _read_headers(host, start, folder, missing)
        if real and not version:
            # An older cudnn.h that somebody put beside headers of another version does not include their version.
            fallback: list[tuple[str, str]] = []
            beside = next((f"{folder}/{n}" for n in names if n.startswith("cudnn_version")), "")
            version, source = _read_headers(host, beside, folder, fallback) if beside else ("", "")
    except Unreadable as unreadable:
        problem = str(unreadable)
    others = tuple(n for n in names if n != "cudnn.h")
    yield CudnnHeaders(folder, main, real, others, version, source, tuple(missing) if main else (), owner, problem)


def _read_headers(host: Host, start: str, folder: str, missing: list[tuple[str, str]]) -> tuple[str, str]:
    """The version by the macros of a header or of what it includes; a missing header that it includes goes to
    `missing`. Headers include each other, so each is read once."""
    pending, seen = [start], set[str]()
    macros: dict[str, str] = {}
    source = ""
    while pending:
        path = pending.pop(0)
        if path in seen or len(seen) > 64:
            continue
        seen.add(path)
        text = host.text(path)
        if text is None:
            continue
        for macro in _MACRO.finditer(text):
            if macro[1] not in macros:
                macros[macro[1]] = macro[2]
                source = source or Place(path, _line(text, macro.start(1)))
        for include in _INCLUDE.finditer(text):
            found = _resolve(host, include[1], path, folder)
            if found:
                pending.append(found)
            else:
                missing.append((Place(path, _line(text, include.start(1))), include[1]))
    if "MAJOR" not in macros:
        return "", ""
    return ".".join(macros[k] for k in ("MAJOR", "MINOR", "PATCHLEVEL") if k in macros), source


def _resolve(host: Host, name: str, includer: str, folder: str) -> str | None:
    """Where a compiler finds an included header: beside the one that includes it, then in its list of directories."""
    real = host.realpath(includer)
    beside = [posixpath.dirname(includer), *([posixpath.dirname(real)] if real else []), folder]
    for place in dict.fromkeys([*beside, "/usr/local/cuda/include", *_SYSTEM_INCLUDES]):
        if host.exists(f"{place}/{name}"):
            return f"{place}/{name}"
    # NVIDIA's packages have cudnn_v8.h and cudnn_version_v8.h; the plain names are links of the alternatives system.
    versioned = re.search(r"_v\d+\.h$", real or "")
    sibling = f"{posixpath.dirname(real or '')}/{name.removesuffix('.h')}{versioned[0]}" if versioned else ""
    return sibling if sibling and host.exists(sibling) else None


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _packages(host: Host, packages: Packages | None) -> Iterator[CudnnPackage]:
    for package in packages.all() if packages else ():
        match = _PACKAGE.fullmatch(package.name)
        if not match or not package.unpacked:
            continue
        suffix = re.search(r"[+~]cuda(\d+(?:\.\d+)?)", package.version)
        major = match["major"] or next((str(n) for n in version_key(package.version)), "")
        absent = []
        for path, owner in packages.files.items() if packages else ():
            if owner == package.name and _NAME.fullmatch(posixpath.basename(path)) and not _there(host, path):
                absent.append(path)
        cuda = suffix[1] if suffix else match["cuda"] or ""
        role = (match["dev"] or "-runtime").lstrip("-")
        yield CudnnPackage(package, int(major[:9]) if major else None, cuda, role, tuple(sorted(absent)))


def _there(host: Host, path: str) -> bool:
    try:
        # Without a merged /usr, dpkg's own name of the file may begin with /lib.
        return any(host.lstat(p) for p in dict.fromkeys((path, path.removeprefix("/usr"))))
    except Unreadable:
        return True


class HeaderCopy(NamedTuple):
    """All headers of one version of cuDNN: `files` are name and path of each. `roots` is whether nobody but root could
    have put them there."""

    folder: str
    version: str
    files: tuple[tuple[str, str], ...]
    roots: bool


class CudnnHeaderCopies(NamedTuple):
    """Complete sets of headers on the machine, also those of wheels in Python environments."""

    copies: tuple[HeaderCopy, ...]

    def of(self, version: str) -> tuple[HeaderCopy, ...]:
        """Those of a version, the ones of root first."""
        return tuple(sorted((c for c in self.copies if c.version == version), key=lambda c: not c.roots))

    @classmethod
    def probe(cls, host: Host, cudnn: Cudnn, environments: PythonEnvironments | None) -> "CudnnHeaderCopies":
        found = list(cudnn.headers)
        for environment in environments.environments if environments else ():
            found += _headers(host, f"{environment.site}/nvidia/cudnn/include", None)
        whole = [h for h in found if h.real and h.version and not h.missing and not h.problem]
        return cls(tuple(_copy(host, h) for h in whole))


def _copy(host: Host, headers: CudnnHeaders) -> HeaderCopy:
    names = ("cudnn.h", *headers.others)
    files = tuple((name, real) for name in names if (real := host.realpath(f"{headers.folder}/{name}")))
    return HeaderCopy(headers.folder, headers.version, files, all(_only_roots(host, path) for _, path in files))


def _only_roots(host: Host, path: str) -> bool:
    """Whether neither the file nor a directory above it could be changed by anybody else."""
    while True:
        status = host.stat(path)
        if status is None or status.uid != 0 or status.mode & 0o022:
            return False
        if path == "/":
            return True
        path = posixpath.dirname(path)


class UnpackedCudnn(NamedTuple):
    """An archive of cuDNN that somebody unpacked at home: its directory of libraries, the major version and the name
    that tells it."""

    folder: str
    major: int
    name: str
    user: str


class UnpackedCudnns(NamedTuple):
    """Those in homes and their download directories, where no loader looks."""

    found: tuple[UnpackedCudnn, ...]

    @classmethod
    def probe(cls, host: Host, users: Users, cudnn: Cudnn) -> "UnpackedCudnns":
        searched = {f.path for f in cudnn.folders}
        places = ((a, place) for a in users.people for place in (a.home, f"{a.home}/Downloads"))
        return cls(tuple(u for account, place in places for u in _unpacked(host, account, place, searched)))


def _unpacked(host: Host, account: Account, place: str, searched: set[str]) -> Iterator[UnpackedCudnn]:
    try:
        names = host.folders(place) if may_read(host, account, place) else ()
    except Unreadable:
        return  # a home that can't be read is reported by the rules about homes
    for name in names:
        if not re.match(r"cuda|cudnn", name):
            continue
        for folder in (f"{place}/{name}/{tail}" for tail in ("lib64", "lib", "cuda/lib64")):
            found = [
                (n, m) for n in library_names(host, folder) if (m := _NAME.fullmatch(n)) and m[1] == "libcudnn" and m[2]
            ]
            if found and folder not in searched:
                longest, match = max(found, key=lambda x: len(x[0]))
                yield UnpackedCudnn(folder, version_key(match[2])[0], longest, account.name)
                break


class SplitWheel(NamedTuple):
    """A part of cuDNN that the package in a Python environment lacks and the loader takes from the system, in another
    version. `package` is the package with its `version`, `main` its libcudnn, `part` the system's library. `reinstall`
    says that this version of the package should have the part."""

    environment: PythonEnvironment
    package: str
    version: str
    main: str
    part: CudnnLibrary
    reinstall: bool


class SplitWheels(NamedTuple):
    """Of all environments."""

    parts: tuple[SplitWheel, ...]

    @classmethod
    def probe(cls, environments: PythonEnvironments, cudnn: Cudnn) -> "SplitWheels":
        return cls(tuple(part for e in environments.environments for part in _split(e, cudnn)))


def _split(environment: PythonEnvironment, cudnn: Cudnn) -> Iterator[SplitWheel]:
    package = next((n for n in environment.packages if n.startswith("nvidia-cudnn-cu")), "")
    version = environment.packages.get(package, "")
    key = version_key(version)
    main = environment.libraries.get(f"libcudnn.so.{key[0]}" if key else "")
    if not main:
        return
    for row in load("cudnn")["parts"]:
        if row["major"] != key[0] or version_key(row["from"]) > key:
            continue
        for stem in row["stems"]:
            if f"{stem}.so.{key[0]}" in environment.libraries:
                continue
            path = cudnn.search_path(environment.account.name if environment.account else None)
            part = next((x for f in path if (x := f.active(stem, key[0]))), None)
            if part and part.version and version_key(part.version)[:3] != key[:3]:
                yield SplitWheel(environment, package, version, main, part, row["from"].endswith(".0"))


class CudnnNeed(NamedTuple):
    """A program that opens a cuDNN of one major version which is not part of it. `what` names it with its
    version, `source` is the file that shows the need, `shows` its words; `bundled` are the other majors that it
    brings along, `path` is its environment with the packages in `site`, `python` the interpreter ("" all three for a
    program that is not Python's), `manager` what installs for that (PythonEnvironment.manager), `requirement` the
    package of PyPI that brings its cuDNN ("" if none is known, or something else in the environment needs another
    major); `user` is whose program it is ("" for everybody's), `subject` and `about` are for the finding."""

    what: str
    major: int
    bundled: frozenset[int]
    path: str
    site: str
    python: str
    manager: str
    requirement: str
    source: str
    shows: str
    user: str
    subject: str
    about: tuple[str, ...]


class CudnnNeeds(NamedTuple):
    """Programs that need a cuDNN of the system. PyTorch is among them only where the package that brings its own is gone
    from its environment, or is there for another major."""

    needs: tuple[CudnnNeed, ...]

    @classmethod
    def probe(
        cls, host: Host, environments: PythonEnvironments | None, tensorflow: TensorFlowLibraries | None, cudnn: Cudnn
    ) -> "CudnnNeeds":
        # Where more than cuDNN is missing, TensorFlow's own rule says so.
        lacking = {o.environment.site for o in tensorflow.opened if o.lacks_only_cudnn} if tensorflow else set()
        found = environments.environments if environments else ()
        needs = [n for e in found for n in _python_needs(host, e, e.site in lacking)]
        # Without any cuDNN nobody built programs here that need one.
        native = list(_native_needs(host)) if cudnn.folders else []
        return cls((*needs, *native))


def _python_needs(host: Host, environment: PythonEnvironment, with_tensorflow: bool) -> Iterator[CudnnNeed]:
    wanted: list[tuple[str, str, int]] = []
    bundled = {version_key(name.rpartition(".so.")[2])[0] for name in environment.libraries if "libcudnn.so." in name}
    torch = environment.torch
    if torch and torch.cudnn:
        wanted.append(("torch", torch.version, version_key(torch.cudnn.rpartition("=")[2])[0]))
    for program in {p["package"] for p in load("cudnn")["programs"]}:
        version = environment.packages.get(program)
        major = needed_major(program, version) if version else None
        if version and major:
            wanted.append((program, version, major))
    tensorflow = environment.tensorflow
    needs = tensorflow_needs(tensorflow.version, tensorflow.cuda, tensorflow.cudnn) if tensorflow else None
    if tensorflow and needs and with_tensorflow:
        wanted.append((tensorflow.distribution, tensorflow.version, version_key(needs.cudnn)[0]))
    if torch and torch.backend == "cuda" and not torch.cudnn and not bundled:
        return  # some of its wheels have cuDNN inside, where other programs of the environment find it, too
    shared = bool(tensorflow and tensorflow.gpu and needs and version_key(needs.cudnn)[0] in bundled)
    for program, version, major in sorted(wanted):
        if major not in bundled:
            yield CudnnNeed(
                what=f"{program} {version}",
                major=major,
                bundled=frozenset(bundled),
                path=environment.path,
                site=environment.site,
                python=environment.python,
                manager=environment.manager,
                requirement=torch.cudnn if torch and program == "torch" and not shared else "",
                source=metadata_folder(host, environment, program),
                shows=f"version {version} opens libcudnn.so.{major}",
                user=environment.account.name if environment.account else "",
                subject=environment.subject,
                about=environment.about,
            )


def needed_major(program: str, version: str) -> int | None:
    """The cuDNN major version that a Python package's wheels open; None if unknown."""
    rows = [r for r in load("cudnn")["programs"] if r["package"] == program]
    fit = [r for r in rows if version_key(r["from"]) <= version_key(version)]
    return max(fit, key=lambda r: version_key(r["from"]))["major"] if fit else None


def _native_needs(host: Host) -> Iterator[CudnnNeed]:
    """What somebody built and installed below /usr/local: OpenCV, Caffe, Darknet, dlib."""
    names = [
        f"/usr/local/lib/{n}" for n in sorted(library_names(host, "/usr/local/lib")) if not n.startswith("libcudnn")
    ]
    names += [f"/usr/local/bin/{n}" for n in host.listdir("/usr/local/bin")]
    for path in names[:_PROGRAMS_LIMIT]:
        try:
            status = host.lstat(path)
            if not status or status.kind != "file" or host.head(path, 4) != b"\x7fELF":
                continue
            elf = host.elf(path)
        except Unreadable:
            continue
        for name in elf.needed if elf else ():
            match = _NAME.fullmatch(name)
            if match and match[2]:
                yield CudnnNeed(
                    what=posixpath.basename(path),
                    major=version_key(match[2])[0],
                    bundled=frozenset(),
                    path="",
                    site="",
                    python="",
                    manager="",
                    requirement="",
                    source=path,
                    shows=f"NEEDED {name}",
                    user="",
                    subject=f"file:{path}",
                    about=(),
                )
                break


def package_names(major: int, cuda: int | str | None, *, development: bool) -> tuple[str, ...]:
    """The packages of NVIDIA's repository for a cuDNN major version and a CUDA ("10.0"), as apt takes them; none where
    none is known for that CUDA. From 9 on the name tells the CUDA; before, only the version does, and apt would take the
    highest for whatever CUDA that is."""
    release = str(cuda or "")
    cuda_major = release.partition(".")[0]
    if major >= 9:
        names = [f"libcudnn{major}-cuda-{cuda_major or 12}", f"libcudnn{major}-dev-cuda-{cuda_major or 12}"]
    else:
        rows = [r for r in load("cudnn")["packages"] if r["major"] == major]
        fitting = [r for r in rows if r["cuda"] in (release, cuda_major)]
        # cuDNN 5 and 6 are not in the table: they were built for CUDA 7.5 and 8.0.
        if release and not fitting and (rows or int(cuda_major) > 8):
            return ()
        version = f"={fitting[0]['version']}" if fitting else ""
        names = [f"libcudnn{major}{version}", f"libcudnn{major}-dev{version}"]
    return tuple(names if development else names[:1])


class Restricted(NamedTuple):
    """A file or directory of CUDA or cuDNN that not everybody may read (a directory: read and enter; a program: start).
    `wanted` is the mode that it should have."""

    path: str
    kind: str
    mode: int
    wanted: int


class CudaPermissions(NamedTuple):
    """What users may not read of CUDA and cuDNN. `problems` could not be checked."""

    restricted: tuple[Restricted, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, toolkits: CudaToolkits, cudnn: Cudnn) -> "CudaPermissions":
        found: list[Restricted] = []
        problems: list[str] = []
        folders: dict[str, re.Pattern[str]] = {}
        for toolkit in toolkits.toolkits:
            if not toolkit.distribution:
                folders |= {toolkit.path: _NOTHING, f"{toolkit.path}/bin": _PROGRAM}
                folders |= dict.fromkeys(toolkit.libraries, _CUDA_FILE)
                folders |= {host.realpath(f"{toolkit.path}/include") or "": _CUDA_FILE}
        for place in (*(f.path for f in cudnn.folders), *(h.folder for h in cudnn.headers)):
            own = toolkits.holding(place) or place.startswith(("/usr/local/", "/opt/"))
            folders.setdefault(place, _CUDA_FILE if own else _CUDNN_FILE)
        for folder, wanted in folders.items():
            try:
                found += _restricted(host, folder, wanted) if folder else ()
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(tuple(found), tuple(problems))


_NOTHING = regex(r"(?!)")
_PROGRAM = regex(r"nvcc|ptxas|cudafe\+\+|fatbinary|nvlink")
_CUDNN_FILE = regex(r"libcudnn.*|cudnn.*\.h")
_CUDA_FILE = regex(r"lib(?:cu|nv)[A-Za-z0-9_]*\.so.*|cudnn.*\.h|cu(?:da|blas)[a-z_]*\.h")


def _restricted(host: Host, folder: str, wanted: re.Pattern[str]) -> Iterator[Restricted]:
    paths = [folder, *(f"{folder}/{n}" for n in host.listdir(folder) if wanted.fullmatch(n))]
    for path in paths:
        status = host.lstat(path)
        if not status or status.kind not in ("file", "dir"):
            continue
        bits = 0o5 if status.kind == "dir" or wanted is _PROGRAM else 0o4
        others = status.mode & bits == bits
        # A group that may not read shuts its members out although everybody else may; the group root has none.
        group = status.gid == 0 or status.mode >> 3 & bits == bits
        if not (others and group):
            yield Restricted(path, status.kind, status.mode, status.mode | bits * 0o111)
