"""The common part of all steps, and the machine that they change."""

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
"""Where large files are kept for an undo."""

Observed = dict[str, Any]
"""The present state of what an action changes: plain JSON, compared as a whole."""


class CommandFailed(Exception):
    """A program that had to succeed failed; the message ends with its last output."""


class DiskFull(CommandFailed):
    """It failed because a disk is full; it may succeed once there is space again."""


class CopyGone(NotChangeable):
    """The copy that `Target.keep` made is missing; or there was none, because the step was interrupted before."""


class Target:
    """The machine to change. `mark` names the transaction in the names of temporary files."""

    def __init__(self, folder: str, mark: str) -> None:
        self.folder = folder
        self.live = folder == "/"
        self.mark = mark
        self.root = Root(folder)
        status = self.root.stat("/", follow=True)
        self.of_it = f"{mark} {status.st_dev} {status.st_ino}"
        """The value of the variable MARK in the environment of all started programs and their children: which
        transaction started them, and for which root. The same root may be mounted at several places, or be / later."""
        self.mounts = Mounts(self.root)
        self.wanted: dict[int, dict[str, tuple[int, int]]] = {}
        """Bytes and inodes that the steps of a plan need, by file system and purpose (`need_room`)."""
        self.unheld = False
        """Whether a step of the plan releases packages from hold, so that later steps may change them."""

    def command(self, *argv: str, timeout: float, check: bool = True, network: bool = False) -> Output:
        """Run a program on the machine itself, confined to its root if that is another one; `network` then says whether
        it may use this machine's network. The timeout is in seconds. It is far longer than the slowest machine needs,
        because a change must not be killed halfway."""
        environment = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", MARK: self.of_it}
        try:
            inside = argv if self.live else cell.words(self.folder, argv, network)
            output = run(inside, timeout, environment=environment)
        except OSError as error:
            output = Output(None, "", problem=told(error))
        if check and output.status != 0:
            last = " / ".join((output.stderr or output.stdout).strip().splitlines()[-4:])
            full = os.strerror(errno.ENOSPC) in output.stderr + output.stdout
            shown = argv if len(argv) <= 6 else (argv[0], "...", *argv[-5:])
            problem = f"{' '.join(shown)}: {output.problem or f'status {output.status}'}: {last}"
            raise DiskFull(problem) if full else CommandFailed(problem)
        return output

    def state(self, path: str) -> State:
        return get_state(self.root, path)

    def put(self, path: str, state: State) -> None:
        put_state(self.root, path, state, self.mark)

    def remove_tree(self, path: str) -> None:
        """Remove a directory and its content, if it exists."""
        with naming(path), parent(self.root, path) as (folder, name):
            if folder is not None:
                remove_tree(folder, name)

    def names(self, folder: str) -> list[str]:
        """Sorted names in a directory; none if it does not exist."""
        try:
            fd = self.root.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def make_folder(self, path: str) -> None:
        """Make a directory that belongs to root, below existing directories."""
        if self.state(path).kind == "absent":
            self.put(path, State("dir", b"", 0o700))

    def large_digest(self, path: str) -> str:
        """For a file that may be too large for the memory."""
        digest = hashlib.sha256()
        with open(self.root.open(path, os.O_RDONLY), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def identity(self, path: str) -> Observed:
        """Identifies the thing at a path without reading it. The value stays the same when `set_aside` copies it to
        another file system and `bring_back` copies it back. Follows no links."""
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
        """Keep a copy of a large file beside the transaction's store, synced to disk, unless there is one already."""
        self.make_folder(KEPT)
        if not self.identity(self._kept(path)):
            self._copy(path, self._kept(path))

    def share(self, path: str, folder: str) -> None:
        """Make a file available under the same name in another directory: for files that are only ever replaced, never
        written to. On the same file system, the two names share their bytes."""
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
        """Sync everything that programs have written. dpkg syncs by itself, dkms and others do not. This includes the
        partition that the firmware reads, where systemd-boot has copies of kernels and images. A missing path does not
        prevent the sync of the others."""
        self.command("sync", "-f", "/", "/usr", "/var", "/boot", "/boot/efi", "/efi", timeout=600, check=False)

    def settle(self, path: str) -> None:
        """Sync a file and its name to disk."""
        for each in (path, os.path.dirname(path)):
            fd = self.root.open(each, os.O_RDONLY)
            try:
                with naming(each):
                    os.fsync(fd)
            finally:
                os.close(fd)

    def put_back(self, path: str) -> bool:
        """Restore the file that `keep` kept; whether there was a copy."""
        kept = self._kept(path)
        if self.identity(kept):
            self._copy(kept, path)
            return True
        self.put(kept, ABSENT)  # the rest of an interrupted copy
        return False

    def set_aside(self, path: str) -> None:
        """Move something out of the way, to where `bring_back` finds it. From another file system it is copied, so that
        its own gets the space."""
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
        """Move back what `set_aside` moved; nothing if it did not."""
        kept = self._kept(path)
        if not self.identity(kept) or self.identity(path):
            self.put(kept, ABSENT)  # interrupted during the copy: the original never left its place, or is back
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
                raise NotChangeable(f"the directory of {destination} is gone")
            temporary = f".{name}.{self.mark}"
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            try:
                self._fill(source, temporary, folder)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):  # half of a large file, on a disk that it may have filled
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
        """Open a file, following no link of a user."""
        with parent(self.root, path) as (folder, name):
            if folder is None:
                raise NotChangeable(f"the directory of {path} is gone")
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotChangeable(f"{path} was changed meanwhile")
            yield file

    def ids(self, user: str, group: str) -> tuple[int, int]:
        """The numbers of a user and a group in the machine's own files. Raises CommandFailed for unknown names."""
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
"""The variable that marks a program as started by a transaction."""


A = TypeVar("A", bound=Action)


class Step(Generic[A]):
    """Does one action to a machine, and undoes it. Each part may be repeated."""

    def __init__(self, action: A) -> None:
        self.action = action

    def summary(self) -> str:
        """The summary of its action."""
        return self.action.summary()

    def prepare(self, target: Target) -> None:
        """Find out, before the first change, whether the step can work; it may download."""

    def observe(self, target: Target) -> Observed:
        """The present state."""
        raise NotImplementedError

    def apply(self, target: Target, before: Observed) -> None:
        """Change it."""
        raise NotImplementedError

    def revert(self, target: Target, before: Observed) -> None:
        """Restore the state that `observe` saw before."""
        raise NotImplementedError

    def left(self, target: Target, before: Observed) -> list[str]:
        """What differs from the state that `observe` saw, after all steps were undone."""
        return differing(before, self.observe(target))

    def same(self, now: Observed, recorded: Observed) -> bool:
        """Whether the present state is a recorded one; an earlier version may have recorded less of it."""
        return now == recorded


def differing(before: Observed, now: Observed) -> list[str]:
    """The keys whose values differ, or that only one of them has."""
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


class PathAction(Action, Protocol):
    """An action that changes one path."""

    @property
    def path(self) -> str: ...


P = TypeVar("P", bound=PathAction)


class PathStep(Step[P]):
    """Changes one path. The result is known in advance, so a change by somebody else can be told from dlhealth's
    own."""

    @property
    def path(self) -> str:
        return self.action.path

    def after(self, target: Target, before: Observed) -> Observed:
        """The state that `observe` sees after the step."""
        raise NotImplementedError

    def left(self, target: Target, before: Observed) -> list[str]:
        return [self.path] if self.observe(target) != before else []


class FileStep(PathStep[P]):
    """Gives one path a new state."""

    def becomes(self, target: Target, state: State) -> State:
        """The new state of a path that has this state."""
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
    """Names, sizes and times of the files below some directories."""
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
