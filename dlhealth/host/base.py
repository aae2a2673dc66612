"""The questions that every kind of host can answer, and the record of them."""

import posixpath
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, TypeVar

from dlhealth.host.elf import Elf
from dlhealth.lazy import fits
from dlhealth.records import NamedTuple

READ_LIMIT = 4 << 20
"""In bytes. No configuration file is larger; a probe that expects more says so."""

NOT_MOUNTED = "not mounted: "
"""How the reason of Unreadable begins if a file system of the machine is missing; the command that mounts it
follows."""

Question = tuple[str, ...]
"""What is asked, and about which path or program."""

T = TypeVar("T")


class Unreadable(Exception):
    """Something exists, but could not be read; that is not the same as absent."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class NoAnswer(Unreadable):
    """It is on a file system whose server or program does not answer. `path` is the mount point; `reason` begins with
    the type in parentheses."""

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class OutOfTime(Unreadable):
    """It was not read, because the time for the diagnosis was used up."""


class NotAMachine(Exception):
    """The input is not a machine that can be diagnosed; the message says why."""


class Stat(NamedTuple):
    """The status of one file. `kind` is file, dir, link, fifo, char, block or socket; `mode` the permission bits
    only."""

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
    """The space of one file system, in bytes and inodes, that an unprivileged user may use."""

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
    MISMATCH = "NVML has a different version than the loaded driver"
    REFUSED = "modprobe could not load the module"
    OTHER_REFUSED = "modprobe could not load another driver's module"
    NO_LIBRARY = "TensorFlow could not load a library"
    NO_DEVICES = "nvidia-smi finds no GPU"
    FAILED = "a program failed"


class PostedSymptom(NamedTuple):
    """`text` is the line that says it, `source` the output that holds it, `version` one that the line names ("" for
    none)."""

    symptom: Symptom
    text: str
    source: str
    version: str = ""


class Post(NamedTuple):
    """A posted text with an error of a program, without lines of the kernel, and the name of its file. `errors` are the
    lines that may be errors, with those that follow each; of a long text, `text` is the same."""

    text: str
    errors: str
    source: str


class Output(NamedTuple):
    """The result of one program. `status` is None if it was killed or could not start; `problem` then says why. `left` is
    the number of a process that hangs in the kernel and survived SIGKILL."""

    status: int | None
    stdout: str
    stderr: str = ""
    problem: str = ""
    left: int = 0


class Watch:
    """Follows a diagnosis: which fact is being built, and which questions it asks the machine. This one does
    nothing."""

    def begins(self, fact: str) -> str:
        """Called before a fact is built, also while another fact that needs it is being built. Why it must not be
        built, "" if it may."""
        return ""

    def ends(self) -> None:
        """Called after the fact that began last."""

    def asks(self, question: Question) -> None:
        """Called before a question to the machine, and with () after the answer. Raises Unreadable if it must not be
        asked."""


class Host:
    """A machine with one way to read it.

    Paths are the machine's own absolute paths. For something absent the answer is None (or an empty listing); something
    that exists but cannot be read raises `Unreadable`. Every answer is kept: a file is read once, and an archive is
    made of `seen`.
    """

    name = "/"
    live = False
    """Whether the running kernel, its devices and its programs may be asked."""

    def __init__(self) -> None:
        self.seen: dict[Question, Any] = {}
        self.asks: Callable[[Question], None] = lambda question: None
        """`Watch.asks` of the follower, for each question that has no answer yet."""

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
        """The status of the path itself, without following a link at its end."""
        return self._ask(("lstat", path), lambda: self._lstat(path))

    def stat(self, path: str) -> Stat | None:
        """The status of the path's target."""
        return self._ask(("stat", path), lambda: self._stat(path))

    def exists(self, path: str) -> bool:
        """Whether the path leads to something."""
        return self.stat(path) is not None

    def realpath(self, path: str) -> str | None:
        """The machine's own path of the same thing without links; None if the path leads nowhere."""
        return self._ask(("realpath", path), lambda: self._realpath(path))

    def readlink(self, path: str) -> str | None:
        """The target of a link; None if there is no link."""
        return self._ask(("readlink", path), lambda: self._readlink(path))

    def listdir(self, path: str) -> tuple[str, ...]:
        """Sorted names in a directory; none if there is no directory."""
        return self._ask(("listdir", path), lambda: self._listdir(path)) or ()

    def folders(self, path: str) -> tuple[str, ...]:
        """Sorted names of the directories in a directory, without links to directories. A directory with thousands of
        entries contains data that need not be searched: Unreadable."""
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
        """The whole regular file. Also raises Unreadable if it is larger than `limit` bytes."""
        return self._ask(("read", path), lambda: self._read(path, limit))

    def text(self, path: str, limit: int = READ_LIMIT) -> str | None:
        """The same as text; bytes that are not UTF-8 become surrogates."""
        content = self.read(path, limit)
        return None if content is None else content.decode(errors="surrogateescape")

    def head(self, path: str, size: int) -> bytes | None:
        """The first `size` bytes of a regular file."""
        return self._ask(("head", path, str(size)), lambda: self._head(path, size))

    def tail(self, path: str, size: int) -> bytes | None:
        """The last `size` bytes of a regular file: the newest lines of a log."""
        return self._ask(("tail", path, str(size)), lambda: self._tail(path, size))

    def elf(self, path: str) -> Elf | None:
        """The content of the headers of an ELF file (also a kernel module, also compressed). Unreadable if it is not
        one."""
        return self._ask(("elf", path), lambda: self._elf(path))

    def initramfs(self, path: str) -> dict[str, str] | None:
        """The files of an initramfs image below lib/modules, etc/modprobe.d and similar directories, with the text of
        modprobe.d files. Slow: some hundred milliseconds."""
        return self._ask(("initramfs", path), lambda: self._initramfs(path))

    def offers(self, path: str, names: tuple[str, ...]) -> dict[str, str] | None:
        """The entries of these packages in one of apt's package indexes, one for each version
        (`host.packages.read_offers`)."""
        return self._ask(("offers", path, *names), lambda: self._offers(path, names))

    def sha256(self, path: str) -> str | None:
        """The digest of a regular file, as hexadecimal digits. Slow for large files."""
        return self._ask(("sha256", path), lambda: self._sha256(path))

    def space(self, path: str) -> Space | None:
        """The space of the file system that contains the path."""
        return self._ask(("space", path), lambda: self._space(path))

    def run(self, program: str, *arguments: str, timeout: float) -> Output:
        """The output of a program of *this* machine; `timeout` in seconds. In an argument, a leading `root:` stands for
        the root directory (`--directory=root:/var/log/journal` is written as "--directory",
        "root:/var/log/journal")."""
        return self._ask(("run", program, *arguments), lambda: self._run(program, arguments, timeout))

    def now(self) -> float | None:
        """The time of its clock at the first question, in seconds since the epoch; None for a machine that does not
        run."""
        return self._ask(("now", ""), self._now)

    @property
    def ran(self) -> bool:
        """Whether the machine was running at the time: then the end of its kernel log describes the diagnosed state."""
        return self.live

    def is_partial(self, path: str) -> bool:
        """Whether only some lines of a file are known: other lines may exist."""
        return False

    def posted(self, command: str) -> str | None:
        """What a command printed on a machine that is known from posted outputs alone; None if it was not posted,
        and of every machine whose files can be read."""
        return None

    def some_names(self, folder: str) -> tuple[str, ...]:
        """The names in a directory that are known of a posted machine, where there may be others."""
        return ()

    def every_line_with(self, path: str) -> tuple[str, ...]:
        """For a file with only some known lines: words whose lines are all known."""
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
    def posts(self) -> tuple[Post, ...]:
        """What programs may have reported as errors, of each posted text."""
        return ()

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Python environments whose packages were posted."""
        return ()

    def cited(self, source: str) -> str:
        """The name of a source of evidence as people find it who have this machine's files or logs."""
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
