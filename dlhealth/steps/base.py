"""What every step can do, and the machine it does it to."""

import errno
import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from dlhealth.host import cell
from dlhealth.host.base import Output
from dlhealth.host.change import (
    ABSENT,
    NOWHERE,
    NotChangeable,
    State,
    attributes,
    get_state,
    move,
    parent,
    put_state,
    sweep,
)
from dlhealth.host.exec import run
from dlhealth.host.mounts import Mounts
from dlhealth.host.path import Root, naming, told
from dlhealth.host.private import remove_tree
from dlhealth.model import Action

KEPT = "/var/lib/dlhealth/kept"
"""Where large files lie that an undo needs."""

Observed = dict[str, Any]
"""What an action changes, as it is now: plain JSON, compared as a whole."""


class CommandFailed(Exception):
    """A program that had to succeed did not; the message ends with what it printed last."""


class DiskFull(CommandFailed):
    """It did not, because a disk is full: it may once there is room again."""


class CopyGone(NotChangeable):
    """What `Target.keep` kept is not there; or nothing was kept, because the step was cut off before."""


class Target:
    """The machine to change. `mark` names the transaction in temporary file names."""

    def __init__(self, folder: str, mark: str) -> None:
        self.folder = folder
        self.live = folder == "/"
        self.mark = mark
        self.root = Root(folder)
        status = self.root.stat("/", follow=True)
        self.of_it = f"{mark} {status.st_dev} {status.st_ino}"
        """What the variable MARK says of the programs that it starts, and of those that they start: which transaction's,
        and of which root, that may be mounted at several places, or be / by now."""
        self.mounts = Mounts(self.root)
        self.wanted: dict[int, dict[str, tuple[int, int]]] = {}
        """Bytes and inodes that the steps of a plan count on, by file system and by what they are for (`need_room`)."""
        self.unheld = False
        """Whether a step of the plan takes packages off hold, so that those after it may change them."""

    def command(self, *argv: str, timeout: float, check: bool = True, network: bool = False) -> Output:
        """Run a program on the machine itself, confined to its root when that is another one; `network` then says
        whether it may use this machine's. Seconds; a change that is under way is given its time, so a limit is far beyond
        what the slowest machine needs."""
        words = argv
        environment = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", MARK: self.of_it}
        try:
            inside = argv if self.live else cell.words(self.folder, argv, network)
            output = run(inside, timeout, environment=environment)
        except OSError as error:
            output = Output(None, "", problem=told(error))
        if check and output.status != 0:
            last = " / ".join((output.stderr or output.stdout).strip().splitlines()[-4:])
            full = os.strerror(errno.ENOSPC) in output.stderr + output.stdout
            problem = f"{' '.join(words[-6:])}: {output.problem or f'status {output.status}'}: {last}"
            raise DiskFull(problem) if full else CommandFailed(problem)
        return output

    def state(self, path: str) -> State:
        return get_state(self.root, path)

    def put(self, path: str, state: State) -> None:
        put_state(self.root, path, state, self.mark)

    def remove_tree(self, path: str) -> None:
        """Remove a folder with all that is in it, if it is there."""
        with naming(path), parent(self.root, path) as (folder, name):
            if folder is not None:
                remove_tree(folder, name)

    def names(self, folder: str) -> list[str]:
        """Sorted names in a folder; none where there is none."""
        try:
            fd = self.root.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def make_folder(self, path: str) -> None:
        """Make a folder of root's own below folders that are there."""
        if self.state(path).kind == "absent":
            self.put(path, State("dir", b"", 0o700))

    def large_digest(self, path: str) -> str:
        """Of a file that may be too large to hold."""
        digest = hashlib.sha256()
        with open(self.root.open(path, os.O_RDONLY), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def identity(self, path: str) -> Observed:
        """What tells whether the thing at a path is still the same, without reading it: also after `set_aside` copied
        it to another file system and `bring_back` copied it back. No link is followed."""
        try:
            status = self.root.stat(path, follow=False)
        except OSError as error:
            if error.errno not in NOWHERE:
                raise
            return {}
        found: Observed = {"kind": stat.S_IFMT(status.st_mode), "size": status.st_size}
        if stat.S_ISLNK(status.st_mode):
            return {**found, "target": os.fsdecode(self.state(path).content)}
        return {**found, "mtime": status.st_mtime_ns}

    def keep(self, path: str) -> None:
        """Keep a copy of a large file beside the transaction's store, on disk, unless there is one already."""
        self.make_folder(KEPT)
        if not self.identity(self._kept(path)):
            self._copy(path, self._kept(path))

    def share(self, path: str, folder: str) -> None:
        """Have a file, under the same name, in another folder too: for files that are only ever replaced, never written
        to. They share their bytes where one file system has both."""
        at, name = os.path.split(path)
        source = self.root.open(at, os.O_RDONLY | os.O_DIRECTORY)
        into = self.root.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=into, follow_symlinks=False)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            self._copy(path, f"{folder}/{name}")
        finally:
            os.close(source)
            os.close(into)

    def settle_all(self) -> None:
        """Have on disk what programs have written: dpkg waits for that, dkms and others do not. Also on the partition
        that the firmware reads, where systemd-boot has its copies of kernels and images; one that is not there keeps
        sync from none of the others."""
        self.command("sync", "-f", "/", "/usr", "/var", "/boot", "/boot/efi", "/efi", timeout=600, check=False)

    def settle(self, path: str) -> None:
        """Have a file and its name on disk when this returns."""
        for each in (path, os.path.dirname(path)):
            fd = self.root.open(each, os.O_RDONLY)
            try:
                with naming(each):
                    os.fsync(fd)
            finally:
                os.close(fd)

    def put_back(self, path: str) -> bool:
        """The file that `keep` kept, in its place again; whether one was kept."""
        kept = self._kept(path)
        if self.identity(kept):
            self._copy(kept, path)
            return True
        self.put(kept, ABSENT)  # what is left of a copy that was cut off
        return False

    def set_aside(self, path: str) -> None:
        """Take something out of the way, to where `bring_back` finds it. A file of another file system is copied, so
        that its own has the space."""
        self.make_folder(KEPT)
        try:
            move(self.root, path, self._kept(path))
        except OSError as error:
            kind = self.identity(path).get("kind")
            if error.errno != errno.EXDEV or kind == stat.S_IFDIR:
                raise
            if kind == stat.S_IFLNK:
                self.put(self._kept(path), self.state(path))
            else:
                self.keep(path)
            self.put(path, ABSENT)

    def bring_back(self, path: str) -> None:
        """What `set_aside` took away, in its place again; nothing where it did not."""
        kept = self._kept(path)
        if not self.identity(kept) or self.identity(path):
            self.put(kept, ABSENT)  # cut off while it was copied: the original never went, or is back
            return
        try:
            move(self.root, kept, path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            if self.identity(kept).get("kind") == stat.S_IFLNK:
                self.put(path, self.state(kept))
            else:
                self._copy(kept, path)
            self.put(kept, ABSENT)

    def _kept(self, path: str) -> str:
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
        name = os.fsdecode(os.fsencode(path.rpartition("/")[2])[-100:])
        return f"{KEPT}/{self.mark}-{digest}-{name}"

    def _copy(self, source: str, destination: str) -> None:
        with naming(destination), parent(self.root, destination) as (folder, name):
            if folder is None:
                raise NotChangeable(f"the folder of {destination} is gone")
            temporary = f".{name}.{self.mark}"
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            try:
                self._fill(source, temporary, folder)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):  # half a large file, on a disk that it may have filled
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)

    def _fill(self, source: str, name: str, folder: int) -> None:
        out = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with open(out, "wb") as new, self._read(source) as old:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            status = os.fstat(old.fileno())
            os.fchown(out, status.st_uid, status.st_gid)
            os.fchmod(out, stat.S_IMODE(status.st_mode))
            for key, value in attributes(old.fileno()):
                os.setxattr(out, key, value)
            os.utime(out, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(out)

    @contextmanager
    def _read(self, path: str) -> Iterator[BinaryIO]:
        """A file, to which no link of a user leads."""
        with parent(self.root, path) as (folder, name):
            if folder is None:
                raise NotChangeable(f"the folder of {path} is gone")
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotChangeable(f"{path} was changed meanwhile")
            yield file

    def ids(self, user: str, group: str) -> tuple[int, int]:
        """Numbers of a user and a group by the machine's own files. Raises CommandFailed for unknown names."""
        return self._number("/etc/passwd", user), self._number("/etc/group", group)

    def _number(self, path: str, name: str) -> int:
        if name.isdecimal():
            return int(name)
        for line in self.state(path).content.decode(errors="replace").splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[0] == name and fields[2].isdecimal():
                return int(fields[2])
        if self.live:
            try:  # a directory service
                return pwd.getpwnam(name).pw_uid
            except KeyError:
                pass
        raise CommandFailed(f"{name} is not in {path}")


MARK = "DLHEALTH_TRANSACTION"
"""The variable by which a program is known to be a transaction's."""


A = TypeVar("A", bound=Action)


class Step(Generic[A]):
    """Does one action to a machine, and undoes it. All of it may be repeated."""

    def __init__(self, action: A) -> None:
        self.action = action

    def summary(self) -> str:
        """As its action says it."""
        return self.action.summary()

    def prepare(self, target: Target) -> None:
        """Find out, before anything is changed, whether it can work; it may fetch."""

    def observe(self, target: Target) -> Observed:
        """What is there now."""
        raise NotImplementedError

    def apply(self, target: Target, before: Observed) -> None:
        """Change it."""
        raise NotImplementedError

    def revert(self, target: Target, before: Observed) -> None:
        """Restore what `observe` saw before."""
        raise NotImplementedError

    def left(self, target: Target, before: Observed) -> list[str]:
        """What is not as `observe` saw it, once all steps are undone."""
        return differing(before, self.observe(target))


def differing(before: Observed, now: Observed) -> list[str]:
    """The keys of which one has another value than the other, or none."""
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


class PathAction(Action, Protocol):
    """An action that changes one path."""

    @property
    def path(self) -> str: ...


P = TypeVar("P", bound=PathAction)


class PathStep(Step[P]):
    """Changes one path. The result is known beforehand, so a change by somebody else is told from ours."""

    @property
    def path(self) -> str:
        return self.action.path

    def after(self, target: Target, before: Observed) -> Observed:
        """What `observe` sees once it is applied."""
        raise NotImplementedError

    def left(self, target: Target, before: Observed) -> list[str]:
        return [self.path] if self.observe(target) != before else []


class FileStep(PathStep[P]):
    """Gives one path a new state."""

    def becomes(self, target: Target, state: State) -> State:
        """The new state of a path that is in this one."""
        raise NotImplementedError

    def observe(self, target: Target) -> Observed:
        return target.state(self.action.path).to_json()

    def after(self, target: Target, before: Observed) -> Observed:
        return self.becomes(target, State.from_json(before)).to_json()

    def apply(self, target: Target, before: Observed) -> None:
        if self.observe(target) != before:
            raise NotChangeable(f"{self.action.path} was changed meanwhile")
        target.put(self.action.path, self.becomes(target, State.from_json(before)))

    def revert(self, target: Target, before: Observed) -> None:
        if self.observe(target) == before:
            sweep(target.root, self.action.path, target.mark)
        else:
            target.put(self.action.path, State.from_json(before))


def module_tree(target: Target, folders: Sequence[str]) -> Observed:
    """Names, sizes and times of the files below some folders."""
    found: Observed = {}
    for folder in folders:
        try:
            fd = target.root.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        for where, _, names, at in os.fwalk(".", dir_fd=fd):
            for name in names:
                status = os.stat(name, dir_fd=at, follow_symlinks=False)
                found[os.path.normpath(f"{folder}/{where}/{name}")] = [status.st_size, status.st_mtime_ns]
        os.close(fd)
    return found
