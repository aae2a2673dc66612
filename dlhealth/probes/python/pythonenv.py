"""The Python environments of a machine, and the deep learning frameworks in them; without running any of them."""

import posixpath
import re
from collections.abc import Iterable, Mapping
from time import monotonic

from dlhealth.host import Host, Stat, Unreadable
from dlhealth.host.account import Account, may_read
from dlhealth.host.remote import MOUNTS, may_hang, mounts_in
from dlhealth.lazy import regex
from dlhealth.probes import Options
from dlhealth.probes.login.users import Users
from dlhealth.records import NamedTuple

_DEPTH = 4
"""Levels below a home. The search of a home ends there, or when its share of _FOLDERS is used up."""
_FOLDERS = 1200
"""Directories of all homes together that are searched; some 40 ms."""
_OUTSIDE_DEPTH = 6
_OUTSIDE_FOLDERS = 600
"""The same for /opt, /srv and the data directories at the top level."""
_SECONDS = 3.0
"""A disk that is slower than this ends the search."""
_VISITED_DOT_FOLDERS = (".venv", ".virtualenvs", ".conda", ".local", ".pyenv", ".venvs")
_UNVISITED_DOT_FOLDERS = frozenset(
    (".cache", ".cargo", ".config", ".docker", ".git", ".gnupg", ".gradle", ".java", ".m2", ".mozilla", ".npm", ".nv",
     ".nvm", ".ollama", ".rustup", ".ssh", ".steam", ".themes", ".thunderbird", ".var", ".vscode", ".vscode-server",
     ".wine")
)  # fmt: skip
"""Hidden directories at the top of a home that hold much and no environments. All others are searched: programs keep
their environments there."""
_SYSTEM_TOP_FOLDERS = frozenset(
    ("bin", "boot", "cdrom", "dev", "etc", "home", "lost+found", "proc", "root", "run", "sbin", "snap", "sys", "tmp",
     "usr", "var")
)  # fmt: skip
_MANAGED = (
    ".cache/pypoetry/virtualenvs",
    ".local/pipx/venvs",
    ".local/share/mamba/envs",
    ".local/share/pdm/venvs",
    ".local/share/pipx/venvs",
    ".local/share/uv/tools",
)
"""Where poetry, pipx, micromamba, PDM and uv put environments, below a home: too deep for the search."""
_UNVISITED = frozenset(
    ("node_modules", "site-packages", "dist-packages", "__pycache__", "snap", "lib", "lib64", "bin", "include", "pkgs")
)
_CONDA_NAMES = ("anaconda3", "anaconda2", "anaconda", "miniconda3", "miniconda", "miniforge3", "mambaforge", "conda")
_SYSTEM_FOLDERS = ("/", "/bin", "/dev", "/etc", "/proc", "/run", "/sbin", "/sys", "/usr", "/var")
CUDA_LIBRARY = regex(
    r"lib(?:cudart|cublas|cublasLt|cufft|curand|cusolver|cusolverMg|cusparse|cusparseLt|cudnn(?:_[a-z_]+)?|cupti"
    r"|nvrtc|nvJitLink|nvToolsExt|nccl|npp[a-z]+)\.so(?:\.[0-9.]+)?"
)
"""Names of the libraries of CUDA, cuDNN and NCCL that programs open."""
_CUDNN_PACKAGE = regex(r"^Requires-Dist: (nvidia-cudnn-cu\d+) ?\(?==(\d[0-9.]*)", re.MULTILINE)
_TEXT_LIMIT = 256 << 10


class Torch(NamedTuple):
    """PyTorch in an environment. `cuda` is the CUDA that it was built with: "12.1", "" for a build without, None if
    unknown. `backend` is "cuda", "cpu", "rocm", "xpu" or "" (unknown). `source` is the file that says so, and `shows`
    its words. `targets` are the compute capabilities that PyTorch's own wheels of this version are built for, which
    PyTorch itself names since 2.9: "7.5 8.0 9.0", "" if it does not. `cudnn` is the package with cuDNN that it
    requires, in pip's form ("nvidia-cudnn-cu12==9.1.0.70"; "" if it contains cuDNN)."""

    version: str
    cuda: str | None
    backend: str
    source: str
    shows: str
    targets: str = ""
    cudnn: str = ""


class TensorFlow(NamedTuple):
    """TensorFlow in an environment. `distribution` is the package that brought it. `gpu` says whether it is built with
    CUDA (None: not known); `cuda` and `cudnn` are what the build says of itself, "" if it does not. `source` and
    `shows` as for Torch."""

    distribution: str
    version: str
    gpu: bool | None
    cuda: str
    cudnn: str
    source: str
    shows: str


class PythonEnvironment(NamedTuple):
    """One environment. `path` is its directory (a virtual or conda environment, ~/.local, /usr, /usr/local); `kind` is
    venv, uv (a virtual environment without pip, which uv made), conda, pyenv, user, system or other (a directory with a
    Python of its own); `version` like "3.11" ("" unknown); `python` its interpreter; `account` whose home it lies in
    (None: nobody's); `site` the directory with the packages.

    `packages` are the installed distributions by normalised name ("nvidia-cudnn-cu12"), with versions; `conda` the
    conda packages by name with "version build". `libraries` are the CUDA and cuDNN libraries that the environment
    brings along, by soname: "libcudnn.so.9" -> its path. `activation` are the files of it that set LD_LIBRARY_PATH when
    it is activated.
    """

    path: str
    kind: str
    version: str
    python: str
    account: Account | None
    site: str
    packages: Mapping[str, str]
    conda: Mapping[str, str]
    libraries: Mapping[str, str]
    activation: tuple[str, ...]
    torch: Torch | None
    tensorflow: TensorFlow | None

    @property
    def subject(self) -> str:
        """How findings name it."""
        return f"python:{self.path}"

    @property
    def manager(self) -> str:
        """Who may change PyTorch in it: "conda", "uv", "pip", or "" if it must be left to the system's packages."""
        if self.kind == "conda" and any(name in self.conda for name in ("pytorch", "pytorch-cpu", "pytorch-gpu")):
            return "conda"
        if self.kind == "uv":
            return "uv"
        return "pip" if self.kind in ("venv", "conda", "pyenv") else ""

    @property
    def about(self) -> tuple[str, ...]:
        """Whom a finding on it concerns."""
        return (f"user:{self.account.name}",) if self.account else ()


class PythonEnvironments(NamedTuple):
    """All environments that have packages. `problems` says what could not be read. `bounds` says in one sentence where
    the search looked and where it did not; it is "" if the caller named the environments."""

    environments: tuple[PythonEnvironment, ...]
    problems: tuple[str, ...]
    bounds: str = ""

    def at(self, site: str) -> PythonEnvironment | None:
        """The environment whose packages lie in this directory."""
        return next((e for e in self.environments if e.site == site), None)

    @classmethod
    def probe(cls, host: Host, options: Options, users: Users | None) -> "PythonEnvironments":
        search = _Search(host, users.people if users else ())
        if named := options.pythons or host.pythons:
            for python in named:
                search.named(python)
            return cls(tuple(search.found), tuple(dict.fromkeys(search.problems)))
        bounds = search.everywhere(with_root=not options.users)
        return cls(tuple(search.found), tuple(dict.fromkeys(search.problems)), bounds)


class _Search:
    """The state of one search: what was found so far, and what could not be checked."""

    def __init__(self, host: Host, people: Iterable[Account]) -> None:
        self.host = host
        self.people = tuple(people)
        self.found: list[PythonEnvironment] = []
        self.problems: list[str] = []
        self._seen: set[str] = set()
        self._deadline = monotonic() + _SECONDS

    def named(self, python: str) -> None:
        """An environment that the caller asked for, by its directory or its interpreter, which may be a broken link."""
        try:
            status = self.host.stat(python)
        except Unreadable as problem:
            self.problems.append(str(problem))
            return
        above = posixpath.dirname(posixpath.dirname(python))
        folder = python.rstrip("/") if status and status.kind == "dir" else above
        before = len(self.found)
        self._prefix(folder, self._owner(folder))
        if len(self.found) == before:
            self.problems.append(f"{python} is not a Python environment")

    def everywhere(self, *, with_root: bool) -> str:
        """The environments of the system, of every person and of root, and those outside homes. Returns the sentence
        that says where environments were not searched."""
        self._prefix("/usr", None)
        self._prefix("/usr/local", None)
        for name in _CONDA_NAMES:
            self._prefix(f"/usr/local/{name}", None)
        people = self.people
        if with_root and not any(a.uid == 0 for a in people):
            people = (*people, Account("root", 0, 0, (0,), "/root", "/bin/bash"))
        for account in people:
            self._home(account)
        return self._outside()

    def _outside(self) -> str:
        """The environments below /opt, /srv and the data directories at the top level. Returns what was left out."""
        homes = {posixpath.dirname(account.home) for account in self.people} | {a.home for a in self.people}
        system = {f"/{name}" for name in _SYSTEM_TOP_FOLDERS} | homes
        tops = [f"/{name}" for name in self._names("/") if not name.startswith((".", "lib"))]
        remote = self._remote_mounts()
        searched = [top for top in tops if top not in system and top not in remote]
        left = self._breadth_first(searched, _OUTSIDE_FOLDERS, _OUTSIDE_DEPTH, None, remote)
        afar = sorted(
            m for m in remote if any(m == top or m.startswith(f"{top}/") for top in tops if top not in system)
        )
        places = ["other places", *(f"the network file system at {mount}" for mount in afar)]
        if left:
            places.append(f"the directories from {left} on, because there are many")
        return (
            f"Python environments in homes, {', '.join([*searched, '/usr/local'])} were searched, but not "
            f"{'; '.join(places)}. To search one: --python DIRECTORY"
        )

    def _home(self, account: Account) -> None:
        home = account.home
        if home in _SYSTEM_FOLDERS or home in self._seen:
            return
        self._seen.add(home)
        for site in self._sites(f"{home}/.local"):
            self._site(f"{home}/.local", "user", _version_in(site), "/usr/bin/python3", account, site)
        for name in _CONDA_NAMES:
            self._prefix(f"{home}/{name}", account)
        for line in (self._text(f"{home}/.conda/environments.txt", account) or "").splitlines()[:200]:
            if line.startswith("/"):
                self._prefix(line.strip().rstrip("/"), account)
        for folder in self._children(f"{home}/.pyenv/versions", account):
            self._prefix(folder, account, "pyenv")
        for place in _MANAGED:
            for folder in self._children(f"{home}/{place}", account):
                self._prefix(folder, account)
        self._search_home(home, account)

    def _search_home(self, home: str, account: Account) -> None:
        try:
            self.host.folders(home)
        except Unreadable as problem:
            self.problems.append(str(problem))
            return
        budget = max(20, _FOLDERS // (len(self.people) or 1))
        if self._breadth_first([home], budget, _DEPTH, account, self._remote_mounts()):
            self.problems.append(f"{home} has many directories: not all were searched for Python environments")

    def _breadth_first(
        self, tops: list[str], budget: int, depth: int, account: Account | None, remote: set[str]
    ) -> str:
        """Look for environments near the top of directories. Links are not followed, so that nothing outside them is
        read, nor another machine's disk, which may not answer. Returns the first directory that was left out, or ""."""
        frontier = tops
        for _ in range(depth + 1):
            below: list[str] = []
            for folder in frontier:
                budget -= 1
                if budget < 0 or monotonic() > self._deadline:
                    return folder
                names = self._names(folder)
                owner = account or self._owner(folder)
                for pixi in self._children(f"{folder}/.pixi/envs", owner) if ".pixi" in names else ():
                    self._prefix(pixi, owner)
                home = account is not None and folder == account.home
                own = (account.home, f"{account.home}/.local") if account else ()
                if "lib" in names and folder not in own and self._is_environment(folder):
                    self._prefix(folder, owner)
                    continue
                wanted = [name for name in names if _is_visited(name, in_home=home)]
                wanted.sort(key=lambda name: name.startswith("."))
                below += [path for name in wanted if (path := f"{folder}/{name}") not in remote]
            frontier = below
        return ""

    def _remote_mounts(self) -> set[str]:
        """Where a search would be slow, or never end."""
        try:
            mounts = mounts_in(self.host.text(MOUNTS) or "")
        except Unreadable:
            return set()
        return {path for path, mount in mounts.items() if may_hang(mount.kind)}

    def _prefix(self, folder: str, account: Account | None, kind: str = "") -> None:
        """An environment by its directory, and for the base of a conda also those below it."""
        if folder in self._seen or not self._may_enter(folder, account):
            return
        self._seen.add(folder)
        config = self._text(f"{folder}/pyvenv.cfg", account)
        conda = config is None and "conda-meta" in self._names(folder)
        system = folder in ("/usr", "/usr/local")
        if config is not None:
            kind = "uv" if re.search(r"^uv *=", config, re.MULTILINE) else "venv"
        else:
            kind = "conda" if conda else "system" if system else kind or "other"
        python = f"{folder}/bin/python3" if system else f"{folder}/bin/python"
        for site in self._sites(folder):
            self._site(folder, kind, _version_in(site), python, account, site)
        for child in self._children(f"{folder}/envs", account):
            self._prefix(child, account)

    def _sites(self, prefix: str) -> list[str]:
        folders = [f"{prefix}/lib/{name}" for name in self._names(f"{prefix}/lib") if name.startswith("python")]
        return [f"{folder}/{name}-packages" for folder in folders for name in ("site", "dist")]

    def _is_environment(self, folder: str) -> bool:
        marks = (f"{folder}/pyvenv.cfg", f"{folder}/conda-meta")
        return any(map(self._exists, marks)) or any(n.startswith("python3") for n in self._names(f"{folder}/lib"))

    def _site(self, path: str, kind: str, version: str, python: str, account: Account | None, site: str) -> None:
        """One environment, by the directory with its packages."""
        real = self._realpath(site)
        if real is None or real in self._seen or not self._may_enter(site, account):
            return
        self._seen.add(real)
        try:
            names = self.host.listdir(site)
        except Unreadable as problem:
            self.problems.append(str(problem))
            return
        packages = distributions(names)
        if kind == "uv" and "pip" in packages:
            kind = "venv"
        conda = self._conda_packages(path) if kind == "conda" else {}
        if not packages and not conda and not {"torch", "tensorflow"} & set(names):
            return
        cuda_users = "nvidia" in names or bool({"torch", *TENSORFLOW_DISTRIBUTIONS} & packages.keys())
        self.found.append(
            PythonEnvironment(
                path,
                kind,
                version,
                python,
                account,
                site,
                packages,
                conda,
                self._libraries(path, kind, site) if cuda_users else {},
                self._activation(path, kind, account) if cuda_users else (),
                self._torch(path, site, names, packages, conda, account),
                self._tensorflow(path, site, names, packages, conda, account),
            )
        )

    def _conda_packages(self, path: str) -> dict[str, str]:
        result = {}
        for name in self._listdir(f"{path}/conda-meta"):
            if name.endswith(".json") and name.count("-") >= 2:
                package, version, build = name.removesuffix(".json").rsplit("-", 2)
                result[package] = f"{version} {build}"
        return result

    def _libraries(self, path: str, kind: str, site: str) -> dict[str, str]:
        folders = [f"{site}/nvidia/{name}/lib" for name in self._names(f"{site}/nvidia")]
        if kind == "conda":
            folders.append(f"{path}/lib")
        return {
            name: f"{folder}/{name}"
            for folder in folders
            for name in self._listdir(folder)
            if CUDA_LIBRARY.fullmatch(name)
        }

    def _activation(self, path: str, kind: str, account: Account | None) -> tuple[str, ...]:
        files = [f"{path}/bin/activate"]
        if kind == "conda":
            files = [f"{path}/etc/conda/activate.d/{name}" for name in self._listdir(f"{path}/etc/conda/activate.d")]
            files.append(f"{path}/conda-meta/state")
        return tuple(file for file in files if "LD_LIBRARY_PATH" in (self._text(file, account) or ""))

    def _torch(
        self,
        path: str,
        site: str,
        names: tuple[str, ...],
        packages: Mapping[str, str],
        conda: Mapping[str, str],
        account: Account | None,
    ) -> Torch | None:
        if "torch" not in packages and "torch" not in names:
            return None
        file = f"{site}/torch/version.py"
        text = self._text(file, account)
        if text is not None and (told := parse_torch_version(text)):
            code = self._text(f"{site}/torch/cuda/__init__.py", account) if told.cuda else None
            targets = parse_torch_targets(code, told.cuda) if code and told.cuda else ""
            metadata = f"{site}/torch-{packages.get('torch', '')}.dist-info/METADATA"
            wheel = told.cuda and "pytorch" not in conda
            required = _CUDNN_PACKAGE.search(self._text(metadata, account) or "") if wheel else None
            cudnn = f"{required[1]}=={required[2]}" if required else ""
            return told._replace(source=f"{file}:{told.source}", targets=targets, cudnn=cudnn)
        if "torch" not in packages:
            return None  # a directory of that name, nothing that says it is PyTorch
        version = packages["torch"]
        runtime = next((name for name in _CUDA_RUNTIMES if name in packages), "")
        build = conda.get("pytorch", "").partition(" ")[2]
        if build:
            return _torch_from_tag(
                version, build, f"{path}/conda-meta/pytorch-{conda['pytorch'].replace(' ', '-')}.json"
            )
        told = _torch_from_tag(version, version.partition("+")[2], f"{site}/torch-{version}.dist-info")
        if told.cuda is None and runtime:
            # A wheel of PyPI does not say in its name what it requires: exactly the runtime that it was built with.
            cuda = ".".join(packages[runtime].split(".")[:2])
            return Torch(version, cuda, "cuda", told.source, f"{version}, with {runtime} {packages[runtime]}")
        return told

    def _tensorflow(
        self,
        path: str,
        site: str,
        names: tuple[str, ...],
        packages: Mapping[str, str],
        conda: Mapping[str, str],
        account: Account | None,
    ) -> TensorFlow | None:
        distribution = next((name for name in TENSORFLOW_DISTRIBUTIONS if name in packages), "")
        if not distribution and not ("tensorflow" in names and "tensorflow" in conda):
            return None
        version = packages.get(distribution) or conda["tensorflow"].partition(" ")[0]
        file = f"{site}/tensorflow/python/platform/build_info.py"
        text = self._text(file, account)
        if text is not None and (told := parse_build_info(text)):
            gpu, cuda, cudnn, line, shows = told
            return TensorFlow(distribution or "tensorflow", version, gpu, cuda, cudnn, f"{file}:{line}", shows)
        base = "tensorflow-base" if "tensorflow-base" in conda else "tensorflow"
        build = conda.get(base, "").partition(" ")[2]
        if build:
            source = f"{path}/conda-meta/{base}-{conda[base].replace(' ', '-')}.json"
            return TensorFlow("tensorflow", version, _gpu_by_conda_build(build), "", "", source, f"conda build {build}")
        folder = f"{site}/{distribution.replace('-', '_')}-{version}.dist-info"
        shows = f"{distribution} {version}"
        return TensorFlow(distribution, version, _gpu_by_name(distribution, version), "", "", folder, shows)

    # Reading on behalf of somebody.
    def _owner(self, folder: str) -> Account | None:
        """In whose home a directory lies; outside homes whose directory it is (None: root's)."""
        at_home = next((a for a in self.people if folder == a.home or folder.startswith(a.home + "/")), None)
        status = None if at_home else self._status(folder)
        if status is None or status.uid == 0:
            return at_home
        unnamed = Account(f"#{status.uid}", status.uid, status.gid, (status.gid,), "/nonexistent", "")
        return next((a for a in self.people if a.uid == status.uid), unnamed)

    def _status(self, path: str) -> Stat | None:
        try:
            return self.host.stat(path)
        except Unreadable:
            return None

    def _may_enter(self, path: str, account: Account | None) -> bool:
        """A person's environments are read with the rights of that person only: what a link in a home leads to may be
        a secret of somebody else."""
        try:
            return account is None or may_read(self.host, account, path)
        except Unreadable as problem:
            self.problems.append(str(problem))
            return False

    def _text(self, path: str, account: Account | None) -> str | None:
        try:
            return self.host.text(path, _TEXT_LIMIT) if self._may_enter(path, account) else None
        except Unreadable as problem:
            self.problems.append(str(problem))
            return None

    def _names(self, folder: str) -> tuple[str, ...]:
        try:
            return self.host.folders(folder)
        except Unreadable:
            return ()  # a heap of data, or of somebody else: no environment that matters here

    def _listdir(self, folder: str) -> tuple[str, ...]:
        try:
            return self.host.listdir(folder)
        except Unreadable as problem:
            self.problems.append(str(problem))
            return ()

    def _children(self, folder: str, account: Account | None) -> list[str]:
        if not self._may_enter(folder, account):
            return []
        return [f"{folder}/{name}" for name in self._names(folder)]

    def _exists(self, path: str) -> bool:
        try:
            return self.host.lstat(path) is not None
        except Unreadable:
            return False

    def _realpath(self, path: str) -> str | None:
        try:
            return self.host.realpath(path)
        except Unreadable:
            return path


def metadata_folder(host: Host, environment: PythonEnvironment, package: str) -> str:
    """Where an installed package is described, as evidence of its version: its .dist-info, or the directory of all
    packages where it is called differently."""
    for name in (package.replace("-", "_"), package):
        path = f"{environment.site}/{name}-{environment.packages.get(package, '')}.dist-info"
        try:
            if host.exists(path):
                return path
        except Unreadable:
            return path
    return environment.site


_CUDA_RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime-cu11")
TENSORFLOW_DISTRIBUTIONS = (
    "tensorflow",
    "tensorflow-gpu",
    "tensorflow-cpu",
    "tf-nightly",
    "tf-nightly-gpu",
    "tf-nightly-cpu",
    "intel-tensorflow",
    "intel-tensorflow-avx512",
    "tensorflow-rocm",
)


def parse_torch_version(text: str) -> Torch | None:
    """PyTorch's generated version.py, which is not run; `source` of the result is the line that decides."""
    values: dict[str, tuple[str | None, int, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(
            r"(__version__|cuda|hip|rocm|xpu)\s*(?::[^=]*)?=\s*(?:(['\"])([^'\"]*)\2|None)\s*(?:#.*)?$", line
        )
        if match:
            values[match[1]] = (match[3], number, line.strip())
    version = values.get("__version__", (None, 0, ""))[0]
    if not version:
        return None
    for name, backend in (("cuda", "cuda"), ("hip", "rocm"), ("rocm", "rocm"), ("xpu", "xpu")):
        value, number, line = values.get(name, (None, 0, ""))
        if value:
            return Torch(version, value if backend == "cuda" else "", backend, str(number), line)
    if "cuda" in values:
        _, number, line = values["cuda"]
        return Torch(version, "", "cpu", str(number), f"{line}, version {version}")
    told = _torch_from_tag(version, version.partition("+")[2], "")
    return told._replace(source=str(values["__version__"][1]))


def parse_torch_targets(text: str, cuda: str) -> str:
    """What torch/cuda/__init__.py, which is not run, says of the wheels of its version: a table from CUDA to compute
    capabilities, since 2.11 by processor."""
    match = re.search(r"^PYTORCH_RELEASES_CODE_CC\b[^=\n]*= (\{[^=]{1,8000}?\n\})$", text, re.MULTILINE)
    if not match:
        return ""
    from ast import literal_eval  # few machines have the file

    try:
        table = literal_eval(match[1])
        codes = table.get(cuda, ())
        codes = codes.get("x86_64", ()) if isinstance(codes, dict) else codes
        return " ".join(f"{code // 10}.{code % 10}" for code in sorted(codes))
    except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError):
        return ""


def _torch_from_tag(version: str, tag: str, source: str) -> Torch:
    """From how the version ends ("cu121", "cpu", "rocm6.0"), or from a conda build ("py3.11_cuda12.1_cudnn8.9.2_0",
    "cuda118py310h1234_300", "cpu_mkl_py310h1234_100")."""
    shows = f"{version}, build {tag}" if tag and not version.endswith(tag) else version
    if match := re.search(r"(?:^|_)cuda_?(\d+)\.(\d+)", tag):
        return Torch(version, f"{match[1]}.{match[2]}", "cuda", source, shows)
    if match := re.search(r"(?:^|_)cu(?:da)?_?(\d{1,2})(\d)(?!\d)", tag):
        return Torch(version, f"{match[1]}.{match[2]}", "cuda", source, shows)
    if re.match(r"rocm|xpu", tag):
        return Torch(version, "", tag[:4] if tag.startswith("rocm") else "xpu", source, shows)
    if re.search(r"(?:^|_)cpu(?:_|$|\.)", tag):
        return Torch(version, "", "cpu", source, shows)
    return Torch(version, None, "", source, shows)


def parse_build_info(text: str) -> tuple[bool, str, str, int, str] | None:
    """TensorFlow's generated build_info.py, which is not run: whether it has CUDA, its CUDA, its cuDNN, and the line
    that says so. It was a list of assignments, then a dictionary, then pairs."""
    flag = re.search(r"""is_cuda_build['"]?\s*[,:=]\s*(True|False)""", text)
    rocm = re.search(r"""is_rocm_build['"]?\s*[,:=]\s*True""", text)
    if flag is None or rocm:
        return None
    cuda, cudnn = (
        match[1] if (match := re.search(rf"""{name}['"]?\s*[,:=]\s*['"]([0-9.]+)['"]""", text)) else ""
        for name in ("cuda_version", "cudnn_version")
    )
    number = text.count("\n", 0, flag.start()) + 1
    details = "".join(f", {name} {value}" for name, value in (("CUDA", cuda), ("cuDNN", cudnn)) if value)
    return flag[1] == "True", cuda, cudnn, number, f"is_cuda_build {flag[1]}{details}"


def _gpu_by_name(distribution: str, version: str) -> bool | None:
    """By what the Linux wheels are: "tensorflow" has CUDA since 2.1, and had none from 0.12 to 1.15. Before 0.12 the
    wheels with CUDA had that name, too."""
    if distribution.endswith("-gpu"):
        return True
    if distribution.endswith("-cpu") or distribution.startswith("intel-"):
        return False
    if distribution == "tensorflow":
        number = tuple(int(part[:9]) for part in re.findall(r"\d+", version)[:2])
        return True if number >= (2, 1) else False if (0, 12) <= number < (2, 0) else None
    return None


def _gpu_by_conda_build(build: str) -> bool | None:
    if re.match(r"gpu|cuda", build):
        return True
    return False if re.match(r"mkl|eigen|cpu", build) else None


def distributions(names: Iterable[str]) -> dict[str, str]:
    """Installed distributions, from the names of their metadata: torch-2.3.0+cu121.dist-info. What pip left behind when
    it was interrupted begins with a tilde."""
    result = {}
    for name in names:
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*?)-([0-9][^-]*)(?:-[^/]*)?\.(?:dist|egg)-info", name)
        if match:
            result[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return result


def _version_in(site: str) -> str:
    match = re.search(r"/python(\d\.\d+)/", site)
    return match[1] if match else ""


def _is_visited(name: str, *, in_home: bool) -> bool:
    """Whether a directory may hold environments; `in_home` says that it lies at the top of a home."""
    if name.startswith("."):
        return name not in _UNVISITED_DOT_FOLDERS if in_home else name in _VISITED_DOT_FOLDERS
    return name not in _UNVISITED
