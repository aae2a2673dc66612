"""A machine that is known only from posted pieces."""

import posixpath
import re

from dlhealth.host.base import (
    READ_LIMIT,
    Host,
    Post,
    PostedEnvironment,
    PostedSymptom,
    Space,
    Stat,
    Symptom,
    Unreadable,
)
from dlhealth.host.base import Output as ProgramOutput
from dlhealth.host.elf import Elf
from dlhealth.lazy import regex
from dlhealth.records import NamedTuple

STATUS = "/var/lib/dpkg/status"
_WHOLE_LIST = 200
"""Packages. A list with fewer, or without dpkg itself, is a part that somebody cut out."""
_FIRST_USER = 1000
_LOG_SIZE = 200_000
"""Bytes of a log that are kept whole; of a longer one, the lines that matter for a GPU."""
_OF_THE_DRIVER = regex(
    rb"(?i)nvrm|nvidia|nouveau|\bs?xid\b|linux version|secure ?boot|lock(?:ed )?down|\bmodule\b|command line|pcieport"
    rb"|out of memory|\bdrm\b|vga|session (?:opened|closed)|gdm|lightdm|sddm|gnome-s"
)
_MAX_LINKS = 40
_NOT_A_CONTAINER = (
    "/.dockerenv",
    "/.singularity.d",
    "/run/.containerenv",
    "/run/host/container-manager",
    "/run/systemd/container",
)


class Output(NamedTuple):
    """A text that somebody posted, and the name of the file that holds it."""

    text: str
    name: str

    def source(self, command: str) -> str:
        """For people: the command whose output this is, and where it lies."""
        return f"{command}, {self.name}"


class Pieces:
    """What is known about a machine, collected piece by piece. The first piece about a path counts.

    `files` are contents by path, `links` targets by path, `whole` the directories whose names are all known except
    those in `unknown`, `absent` paths that are known not to exist, `elves` facts about ELF files from a program,
    `partial` the files with only some lines known, `every_line_with` words whose lines are all known, `outputs`
    the outputs of commands, by command, `spaces` the space on file systems by mount point, and `sources` the output
    that a path is known from ("" if the path itself was posted). `environment` is that of the person who posted it,
    `pythons` are the Python environments whose packages are known, `symptoms` messages of programs, `posts` the
    texts that hold errors.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.whole: set[str] = set()
        self.absent: set[str] = set(_NOT_A_CONTAINER)
        self.elves: dict[str, Elf] = {}
        self.directories: set[str] = set()
        self.partial: set[str] = set()
        self.outputs: dict[str, str] = {}
        self.spaces: dict[str, Space] = {}
        self.every_line_with: dict[str, set[str]] = {}
        self.environment: PostedEnvironment | None = None
        self.unknown: set[str] = set()
        self.pythons: list[str] = []
        self.symptoms: list[PostedSymptom] = []
        self.posts: list[Post] = []
        self.hostname = "localhost"
        self._guesses: dict[str, tuple[str, str]] = {}
        self.sources: dict[str, str] = {}
        self._packages: dict[tuple[str, str], str] = {}
        self._at_home: dict[str, tuple[str, str]] = {}
        self._without_module: dict[str, str] = {}
        self._with_module = ""
        self._built: tuple[str, str] = ("", "")

    def file(self, path: str, content: str | bytes, source: str = "") -> None:
        """A file with its content."""
        if self._is_new(path, source):
            self.files[path] = content if isinstance(content, bytes) else content.encode(errors="surrogateescape")

    def guess(self, path: str, content: str, source: str) -> None:
        """A file from another piece, unless a piece with more of it follows."""
        self._guesses.setdefault(path, (content, source))

    def package(self, name: str, architecture: str, status: str, version: str, source: str) -> None:
        """A package, as dpkg records it."""
        number = f"Version: {version}\n" if version[:1].isdigit() else ""
        stanza = f"Package: {name}\nStatus: {status}\nArchitecture: {architecture}\n{number}"
        self._packages.setdefault((name, architecture), stanza)
        self.sources.setdefault(STATUS, source)

    def container(self, manager: str, source: str) -> None:
        """This is a container."""
        self.absent.discard("/run/systemd/container")
        self.file("/run/systemd/container", f"{manager}\n", source)

    def at_home(self, name: str, content: str, source: str) -> None:
        """A file in the home directory of who posted this."""
        self._at_home.setdefault(name, (content, source))

    def built_last(self, release: str, source: str) -> None:
        """DKMS builds for the running kernel, unless told otherwise: that is the best guess where no driver runs and
        nothing else names the kernel."""
        if not self._built[0]:
            self._built = (release, source)

    def not_loaded(self, source: str) -> None:
        """The nvidia module is not loaded."""
        self.missing("/sys/module/nvidia", source)
        self.missing("/proc/driver/nvidia", source)

    def no_module(self, release: str, source: str) -> None:
        """A kernel has no nvidia module on the disk; "" is the running one."""
        self._without_module.setdefault(release, source)

    def has_module(self, source: str) -> None:
        """The running kernel has an nvidia module on the disk, of an unknown version."""
        self._with_module = self._with_module or source

    def finish(self) -> None:
        """Add what follows from several pieces together."""
        for path, (content, source) in self._guesses.items():
            self.file(path, content, source)
        if self._built[0] and any(s.symptom is Symptom.NO_DRIVER for s in self.symptoms):
            self.file("/proc/sys/kernel/osrelease", f"{self._built[0]}\n", self._built[1])
        self._finish_packages()
        self._finish_session()
        release = self.files.get("/proc/sys/kernel/osrelease", b"").decode(errors="replace").strip()
        if release and self._with_module and "/var/lib/dkms" not in self.whole:
            updates = f"/lib/modules/{release}/updates/dkms"
            told = (("vermagic", f"{release} "),)
            self.elf(f"{updates}/nvidia.ko", Elf(64, 62, "", (), "", told, "", 0), self._with_module)
            self.listed(updates, self._with_module)
            self._no_other_modules(release, self._with_module)
        for without, source in self._without_module.items():
            self._no_other_modules(without or release, source)
        self._finish_gpus()
        builds = any(re.match(r"/var/lib/dkms/nvidia[^/]*/", path) for path in self.links)
        if builds and "/proc/driver/nvidia" in self.absent:
            # The driver is not loaded, and DKMS, which builds it here, lists the kernels that it was built for.
            self._no_other_modules(release, "")
        for path in ("/var/log/dmesg", "/var/log/kern.log"):
            if len(self.files.get(path, b"")) > _LOG_SIZE:
                lines = self.files[path].splitlines(keepends=True)
                self.files[path] = b"".join(line for line in lines if _OF_THE_DRIVER.search(line))[-_LOG_SIZE:]

    def _finish_gpus(self) -> None:
        """A list without drivers says nothing of who holds a GPU; that the driver is loaded does."""
        source = next((p for p in ("/proc/driver/nvidia/version", "/sys/module/nvidia/version") if p in self.files), "")
        for path in list(self.files) if source else ():
            device = path.removesuffix("/vendor")
            display = self.files.get(f"{device}/class", b"").startswith(b"0x03")
            if path.endswith("/vendor") and display and self.files[path] == b"0x10de\n":
                self.directory("/sys/bus/pci/drivers/nvidia", self.sources[source])
                self.link(f"{device}/driver", "/sys/bus/pci/drivers/nvidia", self.sources[source])

    def _no_other_modules(self, release: str, source: str) -> None:
        """A kernel has no other modules than those that are known."""
        if release:
            for directory in (f"/lib/modules/{release}", f"/lib/modules/{release}/updates"):
                self.listed(directory, source)
            links = {f"/lib/modules/{release}/build", f"/lib/modules/{release}/source"}
            self.unknown.update(links - self.absent)

    def _finish_packages(self) -> None:
        if self._packages and self._is_new(STATUS, self.sources[STATUS]):
            self.files[STATUS] = "\n".join(self._packages.values()).encode(errors="surrogateescape")
            names = {name for name, _ in self._packages}
            if len(names) < _WHOLE_LIST or "dpkg" not in names:
                self.partial.add(STATUS)

    def _finish_session(self) -> None:
        """Who posted this has an account."""
        who = self.environment
        if who is None and self._at_home:
            who = self.environment = PostedEnvironment("user", "/home/user", "/bin/bash", {}, "", False)
        if who:
            number = 0 if who.user == "root" else _FIRST_USER
            self.file("/etc/passwd", f"{who.user}:x:{number}:{number}::{who.home}:{who.shell}\n", who.source)
            for name, (content, source) in self._at_home.items():
                self.file(f"{who.home}/{name}", content, source)

    def link(self, path: str, target: str, source: str = "") -> None:
        """A symbolic link."""
        if self._is_new(path, source):
            self.links[path] = target

    def elf(self, path: str, elf: Elf, source: str = "") -> None:
        """A shared library or module with only a known name and some facts from a program."""
        if self._is_new(path, source):
            self.elves[path] = elf

    def log(self, path: str, text: str, source: str = "") -> None:
        """Lines of a log, which may come from several pieces."""
        lines = dict.fromkeys(
            [*self.files.get(path, b"").splitlines(), *text.encode(errors="surrogateescape").splitlines()]
        )
        self.files[path] = b"\n".join(lines) + b"\n"
        self.sources.setdefault(path, source)

    def directory(self, path: str, source: str = "") -> None:
        """A directory without any known content."""
        self.directories.add(path)
        self.sources.setdefault(path, source)

    def listed(self, directory: str, source: str = "") -> None:
        """A directory with all names known: those of the known paths in it, and no others."""
        self.whole.add(directory)
        self.sources.setdefault(directory, source)

    def missing(self, path: str, source: str = "") -> None:
        """A path that was searched and does not exist."""
        if not self._has(path):
            self.absent.add(path)
            self.sources.setdefault(path, source)

    @property
    def paths(self) -> set[str]:
        """Everything that exists."""
        return {*self.files, *self.links, *self.elves}

    def _has(self, path: str) -> bool:
        return path in self.files or path in self.links or path in self.elves

    def _is_new(self, path: str, source: str) -> bool:
        if self._has(path) or path in self.absent or posixpath.normpath(path) != path or not path.startswith("/"):
            return False
        self.sources[path] = source
        return True


class PostedHost(Host):
    """Answers from pieces. What they do not show is Unreadable, never absent. `written` is their time, in seconds since
    the epoch."""

    def __init__(self, name: str, pieces: Pieces, written: float) -> None:
        super().__init__()
        self.name = name
        self._written = written
        self._pieces = pieces
        self._directories: dict[str, set[str]] = {}
        for path in (*pieces.directories, *pieces.whole):
            self._directories.setdefault(path, set())
        for path in (*pieces.paths, *pieces.directories, *pieces.whole):
            self._add_parents(path)

    @property
    def ran(self) -> bool:
        return True  # its owner typed commands on it

    @property
    def environment(self) -> PostedEnvironment | None:
        return self._pieces.environment

    @property
    def symptoms(self) -> tuple[PostedSymptom, ...]:
        return tuple(self._pieces.symptoms)

    @property
    def posts(self) -> tuple[Post, ...]:
        return tuple(self._pieces.posts)

    @property
    def pythons(self) -> tuple[str, ...]:
        return tuple(self._pieces.pythons)

    def is_partial(self, path: str) -> bool:
        return path in self._pieces.partial

    def posted(self, command: str) -> str | None:
        return self._pieces.outputs.get(command)

    def some_names(self, folder: str) -> tuple[str, ...]:
        return tuple(sorted(self._directories.get(folder, ())))

    def every_line_with(self, path: str) -> tuple[str, ...]:
        return tuple(sorted(self._pieces.every_line_with.get(path, ())))

    def cited(self, source: str) -> str:
        """With the output that a path is known from: that is what people have."""
        at = source.partition(":")[0] if source.startswith("/") and source not in self._pieces.sources else source
        while at not in ("", "/"):
            if told := self._pieces.sources.get(at):
                return f"{source} (from {told})"
            at = posixpath.dirname(at)
        return source

    def _add_parents(self, path: str) -> None:
        while path != "/":
            parent, name = posixpath.split(path)
            names = self._directories.setdefault(parent, set())
            if name in names:
                return
            names.add(name)
            path = parent

    def _resolve(self, path: str, *, follow: bool) -> str | None:
        """The path without links in it; None if it is known not to exist. Raises Unreadable."""
        pending = [part for part in path.split("/") if part not in ("", ".")][::-1]
        at, links = "/", 0
        while pending:
            part = pending.pop()
            if part == "..":
                at = posixpath.dirname(at)
                continue
            at = posixpath.join(at, part)
            if self._is_absent(at):
                return None
            target = self._pieces.links.get(at)
            if target is not None and (pending or follow):
                links += 1
                if links > _MAX_LINKS:
                    return None
                at = "/" if target.startswith("/") else posixpath.dirname(at)
                pending += [p for p in target.split("/") if p not in ("", ".")][::-1]
        if at in self._directories or at in self._pieces.links or self._is_file(at):
            return at
        raise self._unseen(path)

    def _is_absent(self, path: str) -> bool:
        if path in self._pieces.absent:
            return True
        if path in self._pieces.unknown:
            return False
        parent, name = posixpath.split(path)
        if parent in self._pieces.whole and name not in self._directories.get(parent, ()):
            return True
        return self._is_file(parent)

    def _is_file(self, path: str) -> bool:
        return path in self._pieces.files or path in self._pieces.elves

    def _lstat(self, path: str) -> Stat | None:
        return self._status(path, follow=False)

    def _stat(self, path: str) -> Stat | None:
        return self._status(path, follow=True)

    def _status(self, path: str, *, follow: bool) -> Stat | None:
        real = self._resolve(path, follow=follow)
        if real is None:
            return None
        owner = self._owner(real)
        if real in self._pieces.links:
            return Stat("link", 0o777, owner, owner, len(self._pieces.links[real]), self._written, 0)
        if self._is_file(real):
            return Stat("file", 0o644, owner, owner, len(self._pieces.files.get(real, b"\0")), self._written, 0)
        return Stat("dir", 0o755, owner, owner, 0, self._written, 0)

    def _owner(self, path: str) -> int:
        """Homes belong to their people: nobody posts the owners of files."""
        who = self.environment
        at_home = who is not None and who.user != "root" and f"{path}/".startswith(f"{who.home}/")
        return _FIRST_USER if at_home else 0

    def _realpath(self, path: str) -> str | None:
        return self._resolve(path, follow=True)

    def _listdir(self, path: str) -> tuple[str, ...] | None:
        return self._names(path)

    def _folders(self, path: str) -> tuple[str, ...] | None:
        names = self._names(path)
        if names is None:
            return None
        return tuple(n for n in names if posixpath.join(path, n) in self._directories)

    def _names(self, path: str) -> tuple[str, ...] | None:
        real = self._resolve(path, follow=True)
        if real is None or real not in self._directories:
            return None
        if real not in self._pieces.whole:
            raise Unreadable(path, "only a part of it is in the posted files")
        return tuple(sorted(self._directories[real]))

    def _readlink(self, path: str) -> str | None:
        real = self._resolve(path, follow=False)
        return None if real is None else self._pieces.links.get(real)

    def _read(self, path: str, limit: int = READ_LIMIT) -> bytes | None:
        content = self._content(path)
        if content is not None and len(content) > limit:
            raise Unreadable(path, f"larger than {limit >> 10} KiB")
        return content

    def _head(self, path: str, size: int) -> bytes | None:
        content = self._content(path)
        return None if content is None else content[:size]

    def _tail(self, path: str, size: int) -> bytes | None:
        content = self._content(path)
        return None if content is None else content[-size:]

    def _content(self, path: str) -> bytes | None:
        real = self._resolve(path, follow=True)
        if real is None:
            return None
        if real not in self._pieces.files:
            raise self._unseen(path)
        return self._pieces.files[real]

    def _elf(self, path: str) -> Elf | None:
        real = self._resolve(path, follow=True)
        if real is None:
            return None
        if real not in self._pieces.elves:
            raise self._unseen(path)
        return self._pieces.elves[real]

    def _initramfs(self, path: str) -> dict[str, str] | None:
        raise self._unseen(path)

    def _sha256(self, path: str) -> str | None:
        raise self._unseen(path)

    def _space(self, path: str) -> Space | None:
        at = path
        while at not in self._pieces.spaces:
            if at == "/":
                raise self._unseen(path)
            at = posixpath.dirname(at)
        return self._pieces.spaces[at]

    def _unseen(self, path: str) -> Unreadable:
        return Unreadable(path, "not in the posted files")

    def _run(self, program: str, arguments: tuple[str, ...], timeout: float) -> ProgramOutput:
        return ProgramOutput(None, "", problem=f"{program} was not run on that machine")

    def _now(self) -> float | None:
        return None
