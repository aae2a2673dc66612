"""What every kind of host can be asked, and the record of what was asked."""

import posixpath
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, TypeVar

from dlhealth.host.elf import Elf
from dlhealth.lazy import fits
from dlhealth.records import NamedTuple

READ_LIMIT = 4 << 20
"""Bytes. No configuration file is larger; a probe that expects more says so."""

NOT_MOUNTED = "not mounted: "
"""How the reason of Unreadable begins where a file system of the machine is missing; the command that mounts it follows."""

Question = tuple[str, ...]
"""What is asked, and of which path or program."""

T = TypeVar("T")


class Unreadable(Exception):
    """Something is there, but it could not be looked at; not the same as absent."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class NoAnswer(Unreadable):
    """It lies on a file system whose server or program does not answer. `path` is where that is mounted; `reason`
    begins with its type in parentheses."""

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class OutOfTime(Unreadable):
    """It was not asked for, as the time for the diagnosis was used up."""


class NotAMachine(Exception):
    """What was named is no machine that can be looked at; the message says why."""


class Stat(NamedTuple):
    """Of one file. `kind` is file, dir, link, fifo, char, block or socket; `mode` the permission bits only."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: float
    device: int
    rdev: int = 0
    inode: int = 0

    @property
    def named(self) -> str:
        """The kind in words: "directory", "named pipe"."""
        return _KINDS.get(self.kind, self.kind)

    @property
    def shown(self) -> str:
        """Kind, mode and owner in words: "directory, mode 0700, owner root"."""
        return f"{self.named}, mode {self.mode:04o}, owner {f'UID {self.uid}' if self.uid else 'root'}"


_KINDS = {"dir": "directory", "fifo": "named pipe", "char": "character device", "block": "block device"}


class Space(NamedTuple):
    """Of one file system, in bytes and inodes, as an unprivileged user may use them."""

    total: int
    free: int
    inodes: int
    inodes_free: int


class PostedEnvironment(NamedTuple):
    """The environment that somebody had, and posted: `variables` by name, `source` the output that shows them. `whole`
    says that a variable that is not in it was not set."""

    user: str
    home: str
    shell: str
    variables: dict[str, str]
    source: str
    whole: bool


class Symptom(Enum):
    """What a program said in a posted output, where no file or log holds that."""

    NO_DRIVER = "nvidia-smi cannot communicate with the driver"
    MISMATCH = "NVML has another version than the loaded driver"
    REFUSED = "modprobe could not load the module"
    NO_DEVICES = "nvidia-smi finds no GPU"


class PostedSymptom(NamedTuple):
    """`text` is the line that says it, `source` the output that holds it, `version` one that the line names ("" for
    none)."""

    symptom: Symptom
    text: str
    source: str
    version: str = ""


class Output(NamedTuple):
    """Of one program. `status` is None when it was killed or could not be started; `problem` then says why."""

    status: int | None
    stdout: str
    stderr: str = ""
    problem: str = ""


class Watch:
    """Follows a diagnosis: which fact is being built, and what the machine is asked for it. This one does nothing."""

    def begins(self, fact: str) -> str:
        """Before a fact is built, also in the middle of another that needs it. Why it must not be, "" where it may."""
        return ""

    def ends(self) -> None:
        """After the fact that began last."""

    def asks(self, question: Question) -> None:
        """Before the machine is asked, and with () after its answer. Raises Unreadable for what must not be asked."""


class Host:
    """A machine seen through one door.

    Paths are the machine's own absolute paths. What is absent is answered with None (or an empty listing); what is
    there but can't be looked at raises `Unreadable`. Every answer is kept: a file is read once, and `seen` is what a
    bundle is made of.
    """

    name = "/"
    live = False
    """Whether the running kernel, its devices and its programs may be asked."""

    def __init__(self) -> None:
        self.seen: dict[Question, Any] = {}
        self.asks: Callable[[Question], None] = lambda question: None
        """`Watch.asks` of who follows, for each question that is not answered yet."""

    # What a kind of host implements.
    def _lstat(self, path: str) -> Stat | None:
        raise NotImplementedError

    def _stat(self, path: str) -> Stat | None:
        raise NotImplementedError

    def _realpath(self, path: str) -> str | None:
        raise NotImplementedError

    def _listdir(self, path: str) -> tuple[str, ...] | None:
        raise NotImplementedError

    def _folders(self, path: str) -> tuple[str, ...] | None:
        raise NotImplementedError

    def _readlink(self, path: str) -> str | None:
        raise NotImplementedError

    def _read(self, path: str, limit: int) -> bytes | None:
        raise NotImplementedError

    def _head(self, path: str, size: int) -> bytes | None:
        raise NotImplementedError

    def _tail(self, path: str, size: int) -> bytes | None:
        raise NotImplementedError

    def _elf(self, path: str) -> Elf | None:
        raise NotImplementedError

    def _initramfs(self, path: str) -> dict[str, str] | None:
        raise NotImplementedError

    def _offers(self, path: str, names: tuple[str, ...]) -> dict[str, str] | None:
        raise NotImplementedError

    def _sha256(self, path: str) -> str | None:
        raise NotImplementedError

    def _space(self, path: str) -> Space | None:
        raise NotImplementedError

    def _run(self, program: str, arguments: tuple[str, ...], timeout: float) -> Output:
        raise NotImplementedError

    def _now(self) -> float | None:
        raise NotImplementedError

    # What probes ask.
    def lstat(self, path: str) -> Stat | None:
        """Of the path itself, without following a link at its end."""
        return self._ask(("lstat", path), lambda: self._lstat(path))

    def stat(self, path: str) -> Stat | None:
        """Of what the path leads to."""
        return self._ask(("stat", path), lambda: self._stat(path))

    def exists(self, path: str) -> bool:
        """Whether the path leads to something."""
        return self.stat(path) is not None

    def realpath(self, path: str) -> str | None:
        """The machine's own path of the same thing without any link in it; None where it leads nowhere."""
        return self._ask(("realpath", path), lambda: self._realpath(path))

    def readlink(self, path: str) -> str | None:
        """What a link says; None where there is no link."""
        return self._ask(("readlink", path), lambda: self._readlink(path))

    def listdir(self, path: str) -> tuple[str, ...]:
        """Sorted names in a folder; none where there is no folder."""
        return self._ask(("listdir", path), lambda: self._listdir(path)) or ()

    def folders(self, path: str) -> tuple[str, ...]:
        """Sorted names of the folders in a folder, without links to folders. What holds thousands of entries is data
        that nobody wants searched: Unreadable."""
        return self._ask(("folders", path), lambda: self._folders(path)) or ()

    def glob(self, pattern: str) -> Iterator[str]:
        """Sorted existing paths that match an absolute pattern; `*` and `?` stay within one component."""
        head, tail = posixpath.split(pattern)
        if not any(c in pattern for c in "*?["):
            if self.lstat(pattern):
                yield pattern
            return
        folders = self.glob(head) if any(c in head for c in "*?[") else [head]
        for folder in folders:
            if any(c in tail for c in "*?["):
                for name in self.listdir(folder):
                    if fits(name, tail) and (not name.startswith(".") or tail.startswith(".")):
                        yield posixpath.join(folder, name)
            elif self.lstat(posixpath.join(folder, tail)):
                yield posixpath.join(folder, tail)

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes | None:
        """The whole of a regular file. Raises Unreadable also when it is larger than `limit` bytes."""
        return self._ask(("read", path), lambda: self._read(path, limit))

    def text(self, path: str, limit: int = READ_LIMIT) -> str | None:
        """The same as text; bytes that are not UTF-8 survive as surrogates."""
        content = self.read(path, limit)
        return None if content is None else content.decode(errors="surrogateescape")

    def head(self, path: str, size: int) -> bytes | None:
        """The first `size` bytes of a regular file."""
        return self._ask(("head", path, str(size)), lambda: self._head(path, size))

    def tail(self, path: str, size: int) -> bytes | None:
        """The last `size` bytes of a regular file: the newest lines of a log."""
        return self._ask(("tail", path, str(size)), lambda: self._tail(path, size))

    def elf(self, path: str) -> Elf | None:
        """What an ELF file (also a kernel module, also compressed) says of itself. Unreadable where it is none."""
        return self._ask(("elf", path), lambda: self._elf(path))

    def initramfs(self, path: str) -> dict[str, str] | None:
        """Of an initramfs image: each file name below lib/modules, etc/modprobe.d and the like, and for modprobe.d
        files their text. Slow: some hundred milliseconds."""
        return self._ask(("initramfs", path), lambda: self._initramfs(path))

    def offers(self, path: str, names: tuple[str, ...]) -> dict[str, str] | None:
        """Of an index of packages, as apt has them: what it says of each of these packages that it offers, one entry
        for each version (`host.packages.read_offers`)."""
        return self._ask(("offers", path, *names), lambda: self._offers(path, names))

    def sha256(self, path: str) -> str | None:
        """Of a regular file, as hexadecimal digits. Slow for large files."""
        return self._ask(("sha256", path), lambda: self._sha256(path))

    def space(self, path: str) -> Space | None:
        """Of the file system that holds the path."""
        return self._ask(("space", path), lambda: self._space(path))

    def run(self, program: str, *arguments: str, timeout: float) -> Output:
        """What a program of *this* machine says; `timeout` in seconds. In an argument, a leading `root:` stands for
        the root folder (`--directory=root:/var/log/journal` is written as "--directory", "root:/var/log/journal")."""
        return self._ask(("run", program, *arguments), lambda: self._run(program, arguments, timeout))

    def now(self) -> float | None:
        """What its clock said when it was asked first, in seconds since the epoch; None of a machine that does not
        run."""
        return self._ask(("now", ""), self._now)

    @property
    def ran(self) -> bool:
        """Whether the machine ran when it was looked at: the end of its kernel log is about the state that is judged."""
        return self.live

    def is_partial(self, path: str) -> bool:
        """Whether only some lines of a file are known: what is not in them may be there all the same."""
        return False

    def posted(self, command: str) -> str | None:
        """What a command printed on a machine that is known from posted outputs alone; None where it was not posted,
        and of every machine whose files can be read."""
        return None

    def every_line_with(self, path: str) -> tuple[str, ...]:
        """Of a file of which only some lines are known: words of which every line is known that has them."""
        return ()

    @property
    def environment(self) -> PostedEnvironment | None:
        """The environment of somebody's session, where that was posted; None on all machines with files of their own."""
        return None

    @property
    def symptoms(self) -> tuple[PostedSymptom, ...]:
        """What programs said in posted outputs."""
        return ()

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Python environments of which the packages were posted."""
        return ()

    def cited(self, source: str) -> str:
        """A source of evidence, as people who have this machine's files or logs before them find it."""
        return source

    def _ask(self, question: Question, answer: Callable[[], T]) -> T:
        if question in self.seen:
            known = self.seen[question]
            if isinstance(known, Unreadable):
                raise known
            return known  # type: ignore[no-any-return]
        try:
            self.asks(question)
            self.seen[question] = result = answer()
        except Unreadable as problem:
            self.seen[question] = problem
            raise
        finally:
            self.asks(())
        return result
