"""File systems that depend on a server or a program, and whether it answers.

A file system of the kernel answers, or fails. NFS, sshfs, autofs and similar ones may wait for ever for a server that
is down, and only SIGKILL ends a waiting process. Standard library only (rescue core).
"""

import os
import posixpath
import select
import signal
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from dlhealth.lazy import regex
from dlhealth.records import NamedTuple

MOUNTS = "/proc/self/mounts"

_NETWORK = frozenset(
    (
        "9p",
        "acfs",
        "afs",
        "autofs",
        "beegfs",
        "beegfs_nodev",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb3",
        "smbfs",
        "virtiofs",
        "wekafs",
    )
)
_NETWORK_FUSE = ("afp", "ceph", "curlftpfs", "gcsfuse", "glusterfs", "juicefs", "rclone", "s3fs", "sshfs", "smbnetfs")
_SYSTEM = ("/dev/", "/proc/", "/run/", "/sys/")
_OCTAL = regex(r"\\([0-7]{3})")
_LINKS = 40  # the kernel's own limit, path_resolution(7)

_PATIENCE = 0.5
"""After so many seconds without an answer, a file system counts as not answering."""
_BUDGET = 1.5
"""Seconds for all questions of one diagnosis together: each autofs is asked separately."""
_START = 2.0
"""Seconds until the child that asks has begun: a busy machine does not count as a file system that does not answer."""
_THREADS = 64
_STACK = 1 << 18


class Mounted(NamedTuple):
    """One line of /proc/self/mounts."""

    path: str
    kind: str
    options: tuple[str, ...] = ()

    @property
    def automatic(self) -> bool:
        """Whether a question about the first path below it mounts that path (an indirect map of autofs)."""
        return self.kind == "autofs" and "indirect" in self.options


def may_hang(kind: str) -> bool:
    """Whether a file system of this type waits for a server or a program."""
    return kind in _NETWORK or kind in ("fuse", "fuseblk") or kind.startswith("fuse.")


def on_server(kind: str) -> bool:
    """Whether another machine answers, and decides by its own rules who may read and write."""
    return kind in _NETWORK or (kind.startswith("fuse.") and kind.removeprefix("fuse.") in _NETWORK_FUSE)


def mounts_in(text: str) -> dict[str, Mounted]:
    """The content of /proc/self/mounts, by mount point: of several at one place the last, which hides the others and
    everything that was mounted below."""
    found: dict[str, Mounted] = {}
    for line in text.splitlines():
        words = [_OCTAL.sub(lambda m: chr(int(m[1], 8)), word) for word in line.split(" ")]
        if len(words) < 4 or not words[1].startswith("/"):
            continue
        path = words[1]
        # The root follows the file systems that were mounted before the machine switched to it, and hides none of them.
        for covered in [p for p in found if p.startswith(f"{path}/")]:
            del found[covered]
        found[path] = Mounted(path, words[2], tuple(words[3].split(",")))
    return found


class Silent(NamedTuple):
    """A file system that does not answer. `why` is the text for a person after its path and type."""

    mount: Mounted
    place: str
    why: str

    def told(self) -> str:
        return f"({self.mount.kind}) {self.why}"


class Remote:
    """The file systems of this machine that may hang, read at the first question."""

    def __init__(
        self, mounts: Iterable[Mounted], asks: Callable[[tuple[str, str]], None] = lambda question: None
    ) -> None:
        self._asks = asks
        self._mounts = {m.path: m for m in mounts}
        self._answers: dict[str, bool] = {}
        self._folders = {"/": "/"}
        self._spent = 0.0
        self._stuck: dict[str, Silent] = {}

    def give_up(self, path: str, mount: Mounted) -> None:
        """A question about this path got no answer. Its file system is not asked again if it does not answer either, or
        at the second time."""
        whole = mount.path != "/" and (
            any(stuck.mount.path == mount.path for stuck in self._stuck.values()) or not _answering([mount.path])
        )
        place = mount.path if whole else path
        self._stuck[place] = Silent(mount, place, "does not answer")

    def silent(self, path: str, *, follow: bool) -> Silent | None:
        """The first file system on the way to a path that does not answer. Nothing below it is touched."""
        for place, silent in self._stuck.items():
            if path == place or path.startswith(f"{place}/"):
                return silent
        try:
            self._resolve(path, follow)
        except _NoAnswer as found:
            return found.silent
        return None

    def _resolve(self, path: str, follow: bool) -> str:
        """The path without links, resolved like the kernel does."""
        at, links = "/", 0
        pending = path.split("/")[::-1]
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                at = posixpath.dirname(at)
                continue
            place = f"{at.rstrip('/')}/{part}"
            if place in self._folders:
                at = self._folders[place]
                continue
            self._ask(at, place)
            if not pending and not follow:
                return place
            try:
                is_link = stat.S_ISLNK(os.lstat(place).st_mode)
                target = os.readlink(place) if is_link else ""
            except (OSError, ValueError):
                return place  # opening it will show the error
            if not target:
                at = self._folders[place] = place
                continue
            links += 1
            if links > _LINKS:
                return place
            at = "/" if target.startswith("/") else at
            pending += target.split("/")[::-1]
        return at

    def _ask(self, above: str, place: str) -> None:
        """Raises _NoAnswer at the mount point of a file system that does not answer."""
        mount = self._mounts.get(place)
        if mount is None and (parent := self._mounts.get(above)) and parent.automatic:
            mount = parent
        if mount is None or (mount.automatic and place == mount.path):
            return  # an autofs lists its maps without asking anybody
        if place not in self._answers:
            if self._spent > _BUDGET:
                why = "was not checked: waiting for others that do not answer took too long"
                raise _NoAnswer(Silent(mount, place, why))
            self._ask_with_others(place)
        if not self._answers[place]:
            raise _NoAnswer(Silent(mount, place, "does not answer"))

    def _ask_with_others(self, place: str) -> None:
        """All at once, so that ten hanging ones take no longer than one. A question that would mount something is asked
        alone."""
        others = {
            m.path
            for m in self._mounts.values()
            if m.kind != "autofs" and not m.path.startswith(_SYSTEM) and m.path not in self._answers
        }
        places = [place, *sorted(others - {place})]
        started = time.monotonic()
        self._asks(("answers", place))
        answering = _answering(places)
        self._asks(("stat", place))
        self._answers.update({p: p in answering for p in places})
        self._spent += time.monotonic() - started


class _NoAnswer(Exception):
    def __init__(self, silent: Silent) -> None:
        super().__init__(silent)
        self.silent = silent


def remote_of(
    mounts: Iterable[Mounted], asks: Callable[[tuple[str, str]], None] = lambda question: None
) -> Remote | None:
    """The file systems that may hang; None if they are all in the system's own directories: each desktop mounts one
    below /run."""
    risky = [m for m in mounts if may_hang(m.kind)]
    return Remote(risky, asks) if any(not m.path.startswith(_SYSTEM) for m in risky) else None


def mounts_here() -> dict[str, Mounted]:
    """Of the machine that runs this."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            return mounts_in(file.read())
    except OSError:
        return {}


def silence_at(path: str) -> str:
    """Which file system of this machine does not answer on the way to a path, for a person; "" if each answers."""
    remote = remote_of(mounts_here().values())
    silent = remote.silent(os.path.abspath(path), follow=True) if remote else None
    return f"{silent.place} {silent.told()}" if silent else ""


def mount_of(path: str, mounts: Mapping[str, Mounted]) -> Mounted:
    """The file system of a path, judged by its name."""
    while path not in mounts and path.strip("/"):
        path = posixpath.dirname(path)
    return mounts.get(path) or Mounted("/", "unknown")


def _answering(places: Sequence[str]) -> set[str]:
    """The ones that answer. A child asks, because the question may never end; a child that cannot be killed is left
    behind."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _ask_all(places, writer)
    os.close(writer)
    try:
        return {places[number] for number in _numbers(reader, len(places))}
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        _bury(child)


def _numbers(reader: int, wanted: int) -> set[int]:
    """The output of the child, until it ends or nothing more comes."""
    said, patience = bytearray(), _START
    while said.count(b"\n") <= wanted:
        if not select.select([reader], [], [], patience)[0]:
            break
        chunk = os.read(reader, 1 << 12)
        if not chunk:
            break
        said += chunk
        patience = _PATIENCE
    return {int(line) for line in bytes(said).split(b"\n")[:-1] if line}


def _ask_all(places: Sequence[str], writer: int) -> None:
    """Runs in a child, and ends it. Prints an empty line, then a line for each place that answers."""
    from _thread import stack_size, start_new_thread

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        numbers = iter(range(len(places)))
        stack_size(_STACK)
        os.write(writer, b"\n")
        for _ in range(min(_THREADS, len(places))):
            with suppress(RuntimeError):  # no more tasks are allowed: the existing ones do it
                start_new_thread(_ask_some, (places, numbers, writer))
        time.sleep(_START + _PATIENCE * len(places))  # until it is killed
    finally:
        os._exit(0)


def _ask_some(places: Sequence[str], numbers: Iterator[int], writer: int) -> None:
    for number in numbers:
        # An error is an answer. The kernel may remember the attributes of the top directory, but not the free space and
        # the names in it.
        with suppress(OSError, StopIteration):
            os.stat(places[number])
            os.statvfs(places[number])
            with os.scandir(places[number]) as entries:
                next(entries)
        with suppress(OSError):
            os.write(writer, b"%d\n" % number)


def _bury(child: int) -> None:
    deadline = time.monotonic() + 0.1
    while not os.waitpid(child, os.WNOHANG)[0] and time.monotonic() < deadline:
        time.sleep(0.002)
