"""The driver's libraries, where the loader finds them, and their versions; and the users of the driver."""

import posixpath
import re
from collections.abc import Iterator, Sequence

from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.kernel import running_text
from dlhealth.probes.machine.loader import LoaderConfig
from dlhealth.probes.machine.platform import Platform
from dlhealth.probes.packaging.packages import Owner, Packages, Unowned, owner_of, owners
from dlhealth.records import NamedTuple

_TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu", "powerpc64le-linux-gnu")
_FOLDERS_64 = (*(f"/usr/lib/{t}" for t in _TRIPLETS), *(f"/lib/{t}" for t in _TRIPLETS), "/usr/lib64", "/lib64",
               "/usr/lib", "/lib")  # fmt: skip
_FOLDERS_32 = ("/usr/lib/i386-linux-gnu", "/lib/i386-linux-gnu", "/usr/lib32", "/lib32")
_NAME = regex(
    r"(?:libcuda|libcudadebugger|libnvidia-[a-z0-9-]+|libnvcuvid|libnvoptix"
    r"|libvdpau_nvidia|lib(?:GLX|EGL|GLESv1_CM|GLESv2|GL|OpenGL)(?P<nvidia>_nvidia)?)\.so\.\d+(?:\.\d+)*",
    re.ASCII,
)
"""Without libvdpau itself: every desktop has it from a package of its own, whose list would have to be searched for."""
_OTHERS = regex(r"libnvidia-(?:container|egl-|gtk|wayland-client|nscq|sandbox|vaapi)")
"""Named like the driver's, but of other packages with versions of their own."""
_VERSION = regex(r"\.so\.(\d{2,4}\.\d+(?:\.\d+)?)$", re.ASCII)
_NOT_THE_DRIVER = regex(r"/stubs(/|$)|/compat(/|$)|^/usr/local/cuda|^/opt/|^/home/|^/usr/lib/wsl")
_LIBRARIES_LIMIT = 1000


class DriverLibrary(NamedTuple):
    """`name` is what the loader is asked for ("libcuda.so.1"), or the file's own name where no such link leads to it.
    `path` is where the loader looks, `real_path` the file behind the links ("" if a link leads nowhere), `version` that
    of the file's name ("" if it tells none), `owner` its package, `bits` 64 or 32. `problem` says why the loader can't
    use it ("a broken link to …", "a broken alternative for …", "empty", "not an ELF file", …); "" if it can. `unread` says
    that the only problem is that the file could not be checked."""

    name: str
    path: str
    real_path: str
    version: str
    owner: Owner
    bits: int
    problem: str
    unread: bool = False

    @property
    def package(self) -> str | None:
        """The name of its package, where it is known to have one."""
        return self.owner if isinstance(self.owner, str) else None

    @property
    def asked_for(self) -> bool:
        """Whether a program can ask for it by this name, which is the same in every version."""
        return _VERSION.search(self.name) is None


class DriverLibraries(NamedTuple):
    """In the loader's order. `version` is that of the libcuda or NVML library that a 64 bit program gets; None when it
    gets none. `problems` are directories that could not be checked. The toolkit's stubs and cuda-compat are left
    out."""

    libraries: tuple[DriverLibrary, ...]
    version: str | None
    problems: tuple[str, ...]

    def find(self, name: str, bits: int = 64) -> DriverLibrary | None:
        """What a program gets that asks for this name; None if there is nothing usable."""
        return next((x for x in self.libraries if x.name == name and x.bits == bits and not x.problem), None)

    def unread(self, *names: str) -> str | None:
        """Why one of these 64 bit libraries could not be checked; None where all could."""
        return next(
            (f"{x.path}: {x.problem}" for x in self.libraries if x.name in names and x.bits == 64 and x.unread), None
        )

    def versions(self) -> set[str]:
        """Of all 64 bit libraries that a program can ask for and use."""
        return {x.version for x in self.libraries if x.bits == 64 and x.version and x.asked_for and not x.problem}

    @classmethod
    def probe(cls, host: Host, packages: Packages | None, loader: LoaderConfig | None) -> "DriverLibraries":
        libraries: list[DriverLibrary] = []
        problems: list[str] = []
        seen: set[str] = set()
        configured = [d.path for d in loader.directories] if loader else []
        for folder in (*configured, *_FOLDERS_64, *_FOLDERS_32):
            bits = 32 if re.search(r"i[36]86|lib32", folder) else 64
            try:
                real = host.realpath(folder)
                if real and real not in seen and not _NOT_THE_DRIVER.search(real):
                    libraries += _in_folder(host, real, bits, packages)
                    seen.add(real)
            except Unreadable as problem:
                problems.append(str(problem))
        if problems and not seen:
            raise Unavailable(problems[0])
        found = cls(_with_any_owner(host, libraries[:_LIBRARIES_LIMIT]), None, tuple(problems))
        first = next((x for n in ("libcuda.so.1", "libnvidia-ml.so.1") if (x := found.find(n)) and x.version), None)
        return found._replace(version=first.version if first else None)


def _with_any_owner(host: Host, libraries: Sequence[DriverLibrary]) -> tuple[DriverLibrary, ...]:
    """Packages of any name may hold a library of the driver: what belongs to none of NVIDIA's is looked for in all lists."""
    strays = {p: x for x in libraries if x.owner is Unowned.NOBODY for p in (x.path, x.real_path) if p}
    found = owners(host, list(strays)) if strays else {}
    named = {id(strays[path]): package for path, package in found.items()}
    return tuple(x._replace(owner=named[id(x)]) if id(x) in named else x for x in libraries)


def _in_folder(host: Host, folder: str, bits: int, packages: Packages | None) -> Iterator[DriverLibrary]:
    reached = set()
    candidates = []
    for name in host.listdir(folder):
        match = _NAME.fullmatch(name)
        if match is None or _OTHERS.match(name):
            continue
        versioned = _VERSION.search(name) is not None
        if name.startswith(("libGL.", "libEGL.", "libGLES", "libOpenGL.", "libGLX.")) and not (
            match["nvidia"] or (versioned and re.search(r"\.so\.\d{3}\.", name))
        ):
            continue  # Mesa's or libglvnd's
        candidates.append((versioned, name))
    for versioned, name in sorted(candidates):
        library = _library(host, folder, name, bits, packages)
        if library is None or (versioned and library.real_path in reached):
            continue
        reached.add(library.real_path)
        yield library


def _library(host: Host, folder: str, name: str, bits: int, packages: Packages | None) -> DriverLibrary | None:
    path = f"{folder}/{name}"
    real, problem, last, unread = "", "", "", False
    try:
        real = host.realpath(path) or ""
        head = host.head(path, 5) if real else None
        if not real:
            last = _last_link(host, path)
            chosen = (host.readlink(path) or "").startswith("/etc/alternatives/")
            problem = f"a broken alternative for {last}" if chosen else f"a broken link to {last}"
        elif not head:
            problem = "empty"
        elif head[:4] != b"\x7fELF":
            problem = "not an ELF file"
        elif len(head) == 5 and head[4] in (1, 2):
            bits = 32 * head[4]
    except Unreadable as error:
        problem, unread = f"unreadable: {error.reason}", True
    if real and _NOT_THE_DRIVER.search(real):
        return None
    version = _VERSION.search(real) or _VERSION.search(name)
    owner = owner_of(packages, *filter(None, (real, path, last)))
    return DriverLibrary(name, path, real, version[1] if version else "", owner, bits, problem, unread)


def _last_link(host: Host, path: str) -> str:
    """Where a chain of links ends in nothing."""
    for _ in range(16):
        target = host.readlink(path)
        if target is None:
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return path


class DriverUse(NamedTuple):
    """The driver in the running kernel. `version` is the loaded one ("" if none is loaded); `modules` are the loaded
    NVIDIA modules in the order in which they can be unloaded, `busy` those of them that something else than another of
    them uses: a display, a program on the GPU. `elsewhere` says why neither the module nor, mostly, the libraries
    are this system's; None if they are."""

    version: str
    modules: tuple[str, ...]
    busy: tuple[str, ...]
    elsewhere: str | None

    @classmethod
    def probe(cls, host: Host, platform: Platform) -> "DriverUse":
        listed = running_text(host, "/proc/modules")
        version = running_text(host, "/proc/driver/nvidia/version") or running_text(host, "/sys/module/nvidia/version")
        if listed is None and version is None:
            raise Unavailable(platform.driver_elsewhere or "/proc/modules does not exist")
        used = module_use(listed or "")
        order = [m for m in ("nvidia_peermem", "nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia") if m in used]
        busy = tuple(m for m in order if used[m])
        return cls(loaded_version(version or ""), tuple(order), busy, platform.driver_elsewhere)


def loaded_version(text: str) -> str:
    """The driver version in /proc/driver/nvidia/version (or in a module's own version file); "" for none."""
    match = re.search(r"(?:Kernel Module(?: for \S+)?\s+|\A)(\d{2,4}\.\d+(?:\.\d+)?)(?:\s|$)", text, re.ASCII)
    return match[1] if match else ""


def module_use(text: str) -> dict[str, bool]:
    """Of each NVIDIA module in /proc/modules, whether more uses it than other modules do."""
    used = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0].startswith("nvidia") and re.fullmatch(r"\d{1,9}", words[2], re.ASCII):
            used[words[0]] = int(words[2]) > sum(bool(u.strip("-")) for u in words[3].split(","))
    return used
