"""NVIDIA's kernel modules: loaded, and on the disk for each kernel; and what modprobe is told about modules."""

import io
import re
from collections.abc import Iterator

from dlhealth.host import Host, Unreadable
from dlhealth.host.elf import appended_signature
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.boot import version_order
from dlhealth.probes.machine.kernel import Kernel, running_text
from dlhealth.probes.machine.platform import Platform
from dlhealth.probes.machine.secureboot import enforcement, signer_of
from dlhealth.records import NamedTuple

# Debian's names of the main module have its flavour in them, those of Ubuntu until 17.10 the branch (nvidia_375.ko).
_STEM = r"nvidia(?:-current(?:-open)?|-tesla(?:-\d+)?|-legacy-\d+xx|-srv|-open|[-_]\d{3}(?:[-_]updates)?)?"
_NAME = regex(rf"({_STEM})\.ko(?:\.xz|\.zst|\.gz)?", re.ASCII)
_BRANCH = regex(r"nvidia-\d{3}\S*", re.ASCII)
_VERSION = regex(r"Kernel Module\s+(?:for \S+\s+)?([0-9][0-9.]+)", re.ASCII)
_LICENSE = regex(r'MODULE_LICENSE\(\s*"([^"\n]*)"')
_PART = regex(r"[-_](?:drm|modeset|uvm|peermem)\.ko(?:\.xz|\.zst|\.gz)?", re.ASCII)
_DEP_LIMIT = 16 << 20
_TAIL = (1 << 16) + 64
"""Bytes. A signature and its trailer are shorter."""

FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
"""modprobe.d(5); a file hides those of the same name in the directories behind it."""


class ModprobeLine(NamedTuple):
    """One line of modprobe.d: `arguments` is what follows the module's name."""

    source: Place
    directive: str
    module: str
    arguments: str


class ModprobeConfig(NamedTuple):
    """`files` are those that count, `lines` what they say. `problems` are files that could not be read."""

    lines: tuple[ModprobeLine, ...]
    files: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def blacklists(self, module: str) -> tuple[ModprobeLine, ...]:
        """The lines that keep a module from being loaded for a device, "-" and "_" being the same."""
        return self._of("blacklist", module)

    def options(self, module: str) -> tuple[ModprobeLine, ...]:
        """The lines that give a module its options."""
        return self._of("options", module)

    def disables(self, module: str) -> tuple[ModprobeLine, ...]:
        """The lines that keep a module from being loaded at all."""
        installs = (li for li in self._of("install", module) if li.arguments.split()[:1] in _NOTHING)
        aliases = (li for li in self._of("alias", module) if li.arguments.split()[:1] == ["off"])
        return (*installs, *aliases)

    def chosen(self) -> str:
        """The file name of the module that stands for nvidia, where Debian's alternatives chose one: "nvidia-current";
        "" if nobody chose."""
        found = (re.match(r"modprobe -i (\S+)", li.arguments) for li in self._of("install", "nvidia"))
        return next((m[1] for m in found if m), "")

    def _of(self, directive: str, module: str) -> tuple[ModprobeLine, ...]:
        wanted = module.replace("-", "_")
        return tuple(li for li in self.lines if li.directive == directive and li.module.replace("-", "_") == wanted)

    @classmethod
    def probe(cls, host: Host) -> "ModprobeConfig":
        problems: list[str] = []
        lines: list[ModprobeLine] = []
        files = dict(sorted(_config_files(host, problems)))
        for path in files.values():
            try:
                # A link to /dev/null hides the files of its name.
                status = host.stat(path)
                if status is not None and status.kind != "char":
                    lines += parse_config(host.text(path) or "", path)
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(tuple(lines), tuple(files.values()), tuple(problems))


class ModuleFile(NamedTuple):
    """A main module on the disk. `name` is what it is called when it is loaded ("nvidia"), `path` has no link in front
    of /lib. Its own words are `version`, `license` and `vermagic`; `signature` is its PKCS#7 message in hexadecimal
    digits ("" for none) and `signer` who made it. `problem` says why its words are not known ("" if they are); `parts`
    are the paths of the driver's other modules beside it. `indexed` says whether depmod's index has it (True where
    there is no index); `chosen` is the module that modprobe is told to load in its place, which this kernel lacks."""

    kernel: str
    name: str
    path: str
    version: str
    license: str
    vermagic: str
    signature: str
    signer: str
    open: bool
    problem: str = ""
    parts: tuple[str, ...] = ()
    indexed: bool = True
    chosen: str = ""

    @property
    def stem(self) -> str:
        """The name of the file: "nvidia-current" of nvidia-current.ko.xz."""
        return self.path.rpartition("/")[2].partition(".ko")[0]

    @property
    def unsigned(self) -> bool | None:
        """Whether it has no signature; None if a compressed one can't be unpacked."""
        return None if self.problem and not self.path.endswith(".ko") else not self.signature

    @property
    def unfit(self) -> str:
        """Why its kernel can't load it, whoever signed it; "" if nothing is known to be wrong with it."""
        if self.chosen:
            return f"modprobe is told to load {self.chosen} in its place, which this kernel does not have"
        made_for = self.vermagic.partition(" ")[0]
        if made_for and made_for != self.kernel:
            return f"made for kernel {made_for}"
        # Of a compressed one it may be the tool to unpack it that is missing here.
        return self.problem if "ELF" in self.problem and self.path.endswith(".ko") else ""

    @property
    def prebuilt(self) -> bool:
        """Whether it is of Ubuntu's linux-modules-nvidia packages, which Canonical builds and signs."""
        return "/kernel/nvidia-" in self.path


class KernelModules(NamedTuple):
    """`loaded` are the names in /proc/modules, None on a machine that does not run. `loaded_version` is that of the
    nvidia module in the running kernel, None when there is none; `loaded_open` whether it is the open one. `files` are
    the main modules of all kernels, for each the one first that modprobe would load. `unseen` says why the modules of
    other kernels than those in `searched` are not known ("" if they are)."""

    loaded: tuple[str, ...] | None
    loaded_version: str | None
    loaded_open: bool | None
    files: tuple[ModuleFile, ...]
    unseen: str = ""
    searched: tuple[str, ...] = ()

    def on_disk(self, kernel: str | None) -> ModuleFile | None:
        """What modprobe would load for that kernel. Raises Unavailable where nobody can know."""
        found = self.seen(kernel)
        if found is None and self.unseen and kernel not in self.searched:
            raise Unavailable(self.unseen)
        return found

    def seen(self, kernel: str | None) -> ModuleFile | None:
        """The same; None also where it is not known, for who draws no conclusion from that."""
        return next((f for f in self.files if f.kernel == kernel and f.name == "nvidia"), None)

    def for_any_kernel(self) -> bool:
        """Whether any kernel has one. Raises Unavailable where nobody can know."""
        if not self.files and self.unseen:
            raise Unavailable(self.unseen)
        return bool(self.files)

    def usable(self, kernel: str | None) -> ModuleFile | None:
        """The same, unless that kernel can't load it."""
        file = self.on_disk(kernel)
        return file if file and not file.unfit else None

    def working(self, kernel: Kernel, besides: str) -> tuple[str, ...]:
        """Other installed kernels that can be started and have a module that fits, the newest first."""
        able = [k.release for k in kernel.installed if k.has_image and k.release != besides and self.usable(k.release)]
        return tuple(sorted(able, key=version_order, reverse=True))

    @classmethod
    def probe(cls, host: Host, kernel: Kernel, config: ModprobeConfig | None, platform: Platform) -> "KernelModules":
        # Where the driver is not this system's, this system's files say nothing about what is loaded.
        elsewhere = platform.driver_elsewhere is not None
        unseen = kernel.unseen
        bare = not unseen and kernel.target is not None and not elsewhere and not host.exists("/lib/modules")
        if bare:
            unseen = "/lib/modules does not exist: cannot tell which modules are installed"
        listed = None if elsewhere else running_text(host, "/proc/modules")
        version = "" if elsewhere else running_text(host, "/proc/driver/nvidia/version") or ""
        match = _VERSION.search(version)
        loaded = None if listed is None else tuple(line.split()[0] for line in listed.splitlines() if line.split())
        loaded_version = match[1] if match else None
        if loaded_version is None and not elsewhere:
            loaded_version = (running_text(host, "/sys/module/nvidia/version") or "").strip() or None
        chosen = config.chosen() if config else ""
        # Who signed a module only matters where signatures do; to find a signature all of a module is unpacked.
        unsigned = enforcement(host)[0] is False
        judged = {kernel.running, kernel.target, kernel.next_boot}
        releases = [k.release for k in kernel.installed] or [r for r in (kernel.running,) if r and kernel.unseen]
        files: list[ModuleFile] = []
        searched = []
        for release in () if bare else releases:
            quick = unsigned or release not in judged
            try:
                known = _listed(host, release)
                paths = _paths(host, release, known, chosen)
                lacking = chosen if chosen not in {_stem(p) for p in paths} else ""
                for path in paths:
                    described = _describe(host, release, path, quick=quick)
                    indexed = not known or path in known
                    parts = tuple(_parts(host, path))
                    files.append(described._replace(parts=parts, indexed=indexed, chosen=lacking))
                searched.append(release)
            except Unreadable as problem:
                if not kernel.unseen:
                    raise
                unseen = str(problem)
        opened = "Open Kernel Module" in version if match else None
        return cls(loaded, loaded_version, opened, tuple(files), unseen, tuple(searched))


class ModulePart(NamedTuple):
    """One of the driver's other modules, as modprobe would load it; `version` is "" if it could not be read."""

    kernel: str
    path: str
    version: str


class ModuleVersions(NamedTuple):
    """The other modules of the kernels to judge."""

    parts: tuple[ModulePart, ...]

    @classmethod
    def probe(cls, host: Host, kernel: Kernel, modules: KernelModules) -> "ModuleVersions":
        found = []
        for release in kernel.starting:
            main = modules.on_disk(release)
            if main is None:
                continue
            for path in _chosen_parts(host, release, main):
                # A compressed part beside a compressed main module is DKMS's, or a package's: one build made both.
                if path.endswith(".ko") or path.rpartition("/")[0] != main.path.rpartition("/")[0]:
                    found.append(ModulePart(release, path, _version_of(host, path)))
        return cls(tuple(found))


def _chosen_parts(host: Host, release: str, main: ModuleFile) -> tuple[str, ...]:
    """The paths that depmod chose; those beside the main module where there is no index."""
    base = f"/lib/modules/{release}"
    try:
        known = list(_lines_with(b"nvidia", host.read(f"{base}/modules.dep", _DEP_LIMIT) or b""))
    except Unreadable:
        return ()
    paths = [p if p.startswith("/") else f"{base}/{p}" for p in (line.partition(":")[0] for line in known)]
    listed = tuple(p for p in paths if _PART.fullmatch(p.rpartition("/")[2].removeprefix(main.stem)) and host.exists(p))
    return listed or main.parts


def _version_of(host: Host, path: str) -> str:
    try:
        elf = host.elf(path)
    except Unreadable:
        return ""
    return elf.info("version") if elf else ""


_NOTHING = (["/bin/false"], ["/bin/true"], ["/usr/bin/false"], ["/usr/bin/true"], ["false"], ["true"], [":"])


def _config_files(host: Host, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Name and path of each file that counts."""
    names, folders = set(), set()
    for folder in FOLDERS:
        try:
            real = host.realpath(folder)
            found = host.listdir(folder) if real and real not in folders else ()
        except Unreadable as problem:
            problems.append(str(problem))
            continue
        folders.add(real)
        for name in found:
            if name.endswith(".conf") and name not in names:
                names.add(name)
                yield name, f"{folder}/{name}"


def parse_config(text: str, path: str) -> Iterator[ModprobeLine]:
    """The lines of a modprobe.d file. A backslash at the end continues a line; only a whole line can be a comment."""
    number, pending = 0, ""
    for count, line in enumerate(text.splitlines(), 1):
        number = number if pending else count
        pending += line
        if pending.endswith("\\"):
            pending = f"{pending[:-1]} "
            continue
        words = pending.split(None, 2)
        pending = ""
        if len(words) > 1 and not words[0].startswith("#"):
            yield ModprobeLine(Place(path, number), words[0], words[1], words[2] if len(words) > 2 else "")


def is_main_module(name: str) -> bool:
    """Whether a file name is that of NVIDIA's main module, in any of its forms."""
    return _NAME.fullmatch(name) is not None


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0]


def _listed(host: Host, release: str) -> list[str]:
    """The paths of the main modules that depmod knows. Files may have come or gone since."""
    base = f"/lib/modules/{release}"
    try:
        known = _lines_with(b"nvidia", host.read(f"{base}/modules.dep", _DEP_LIMIT) or b"")
    except Unreadable:
        return []
    paths = [p for line in known if is_main_module((p := line.partition(":")[0]).rpartition("/")[2])]
    return [path if path.startswith("/") else f"{base}/{path}" for path in paths]


def _paths(host: Host, release: str, listed: list[str], chosen: str) -> list[str]:
    """The main modules of a kernel, the one first that modprobe would load."""
    base = f"/lib/modules/{release}"
    # Ubuntu's prebuilt modules (linux-modules-nvidia-*) lie in a directory of their branch.
    branches = [f"kernel/{n}" for n in host.listdir(f"{base}/kernel") if _BRANCH.fullmatch(n)]
    # depmod's search order, depmod.d(5): updates before what came with the kernel.
    places = ("updates/dkms", "updates", "extra", *branches, "kernel/drivers/video", "kernel/drivers/video/nvidia")
    paths = [*listed]
    paths += [f"{base}/{place}/{n}" for place in places for n in host.listdir(f"{base}/{place}") if _NAME.fullmatch(n)]
    found = [p for p in dict.fromkeys(paths) if host.exists(p)]
    return sorted(found, key=lambda p: _stem(p) != chosen) if chosen else found


def _parts(host: Host, path: str) -> Iterator[str]:
    """Modesetting, unified memory and so on, which are of no use without their main module."""
    folder, _, name = path.rpartition("/")
    stem = name.partition(".ko")[0]
    for other in host.listdir(folder):
        if re.fullmatch(r"[-_](?:drm|modeset|uvm|peermem)", other.partition(".ko")[0].removeprefix(stem)):
            yield f"{folder}/{other}"


def _lines_with(word: bytes, content: bytes) -> Iterator[str]:
    """The few of thousands of lines."""
    at = content.find(word)
    while at >= 0:
        start, end = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at)
        end = len(content) if end < 0 else end
        yield content[start:end].decode(errors="surrogateescape")
        at = content.find(word, end)


def _describe(host: Host, release: str, path: str, *, quick: bool) -> ModuleFile:
    known = _built_by_dkms(host, release, path) if quick and not path.endswith(".ko") else None
    if known:
        version, text = known
        return ModuleFile(release, "nvidia", path, version, text, "", "", "", "GPL" in text)
    try:
        elf = host.elf(path)
        problem = "" if elf else "removed during the check"
    except Unreadable as error:
        elf, problem = None, error.reason
    if elf is None:
        signature = _signature_at_the_end(host, path)
        return ModuleFile(release, "nvidia", path, "", "", "", signature, signer_of(signature).name, False, problem)
    text = elf.info("license")
    signer = signer_of(elf.signature).name
    words = elf.info("version"), text, elf.info("vermagic"), elf.signature, signer
    return ModuleFile(release, "nvidia", path, *words, "GPL" in text)


def _signature_at_the_end(host: Host, path: str) -> str:
    """Also of a module whose beginning is damaged."""
    try:
        end = host.tail(path, _TAIL) or b"" if path.endswith(".ko") else b""
    except Unreadable:
        return ""
    return appended_signature(io.BytesIO(end), len(end))


def _built_by_dkms(host: Host, release: str, path: str) -> tuple[str, str] | None:
    """Version and licence of a compressed module that DKMS put there, without the second that unpacking it takes. It is
    the copy of the one that DKMS keeps, which is in a directory of its version, built from a source that lies there."""
    name = path.rpartition("/")[2]
    try:
        size = host.stat(path)
        for module in host.listdir("/var/lib/dkms"):
            for link in host.listdir(f"/var/lib/dkms/{module}") if module.startswith("nvidia") else ():
                target = (
                    host.readlink(f"/var/lib/dkms/{module}/{link}") if link.startswith(f"kernel-{release}-") else None
                )
                kept = host.stat(f"/var/lib/dkms/{module}/{target}/module/{name}") if target else None
                if target is None or kept is None or size is None or kept.size != size.size:
                    continue
                version = target.partition("/")[0]
                source = f"/usr/src/{module}-{version}/nvidia"
                for file in ("nv.c", "nv-frontend.c"):
                    if found := _LICENSE.search(host.text(f"{source}/{file}") or ""):
                        return version, found[1]
    except Unreadable:
        pass
    return None
