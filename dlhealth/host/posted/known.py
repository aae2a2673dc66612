"""A machine of which only pieces are known: what somebody posted of it."""

import posixpath
import re

from dlhealth.host.base import READ_LIMIT, Host, Output, Space, Stat, Unreadable
from dlhealth.host.elf import Elf

_MAX_LINKS = 40
_NOT_A_CONTAINER = (
    "/.dockerenv",
    "/.singularity.d",
    "/run/.containerenv",
    "/run/host/container-manager",
    "/run/systemd/container",
)


class Pieces:
    """What is known of a machine, collected piece by piece. The first that tells of a path is believed.

    `files` are contents by path, `links` targets by path, `whole` the directories of which every name is known,
    `absent` what was said not to be there, `elves` what a program told of an ELF file, `partial` the files of which only
    some lines are known, `outputs` what commands printed, by command, `spaces` the space on file systems by mount
    point, and `sources` the output that told of a path ("" where the path itself is in what was posted).
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
        self.hostname = "localhost"
        self._guesses: dict[str, tuple[str, str]] = {}
        self.sources: dict[str, str] = {}

    def file(self, path: str, content: str | bytes, source: str = "") -> None:
        """A file with its content."""
        if self._is_new(path, source):
            self.files[path] = content if isinstance(content, bytes) else content.encode(errors="surrogateescape")

    def guess(self, path: str, content: str, source: str) -> None:
        """A file that another piece tells of, unless one tells more of it."""
        self._guesses.setdefault(path, (content, source))

    def finish(self) -> None:
        """Add what follows from several pieces together."""
        for path, (content, source) in self._guesses.items():
            self.file(path, content, source)
        release = self.files.get("/proc/sys/kernel/osrelease", b"").decode(errors="replace").strip()
        builds = any(re.match(r"/var/lib/dkms/nvidia[^/]*/", path) for path in self.links)
        if release and builds and "/proc/driver/nvidia" in self.absent:
            # The driver is not loaded, and DKMS, which builds it here, lists the kernels that it was built for.
            self.whole.update({f"/lib/modules/{release}", f"/lib/modules/{release}/updates"})

    def link(self, path: str, target: str, source: str = "") -> None:
        """A symbolic link."""
        if self._is_new(path, source):
            self.links[path] = target

    def elf(self, path: str, elf: Elf, source: str = "") -> None:
        """A shared library or module, of which only its name and what a program told of it are known."""
        if self._is_new(path, source):
            self.elves[path] = elf

    def log(self, path: str, text: str, source: str = "") -> None:
        """Lines of a log, of which there may be some in several pieces."""
        lines = dict.fromkeys(
            [*self.files.get(path, b"").splitlines(), *text.encode(errors="surrogateescape").splitlines()]
        )
        self.files[path] = b"\n".join(lines) + b"\n"
        self.sources.setdefault(path, source)

    def directory(self, path: str, source: str = "") -> None:
        """A directory of which nothing else is known."""
        self.directories.add(path)
        self.sources.setdefault(path, source)

    def listed(self, directory: str, source: str = "") -> None:
        """A directory of which all names are known: what was told of paths in it, and no others."""
        self.whole.add(directory)
        self.sources.setdefault(directory, source)

    def missing(self, path: str, source: str = "") -> None:
        """What was looked for, and was not there."""
        if not self._has(path):
            self.absent.add(path)
            self.sources.setdefault(path, source)

    @property
    def paths(self) -> set[str]:
        """All that is there."""
        return {*self.files, *self.links, *self.elves}

    def _has(self, path: str) -> bool:
        return path in self.files or path in self.links or path in self.elves

    def _is_new(self, path: str, source: str) -> bool:
        if self._has(path) or path in self.absent or posixpath.normpath(path) != path or not path.startswith("/"):
            return False
        self.sources[path] = source
        return True


class PostedHost(Host):
    """Answers from pieces. What they do not show is Unreadable, never absent. `written` is when they were, in seconds
    since the epoch."""

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

    def is_partial(self, path: str) -> bool:
        return path in self._pieces.partial

    def posted(self, command: str) -> str | None:
        return self._pieces.outputs.get(command)

    def cited(self, source: str) -> str:
        """With the output that told of a path: that is what people have before them."""
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
        """The path without links in it; None where it is known that nothing is there. Raises Unreadable."""
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
        if real in self._pieces.links:
            return Stat("link", 0o777, 0, 0, len(self._pieces.links[real]), self._written, 0)
        if self._is_file(real):
            return Stat("file", 0o644, 0, 0, len(self._pieces.files.get(real, b"\0")), self._written, 0)
        return Stat("dir", 0o755, 0, 0, 0, self._written, 0)

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
            raise Unreadable(path, "not all of it is in what was posted")
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
        return Unreadable(path, "not in what was posted")

    def _run(self, program: str, arguments: tuple[str, ...], timeout: float) -> Output:
        return Output(None, "", problem=f"{program} was not asked on that machine")

    def _now(self) -> float | None:
        return None
