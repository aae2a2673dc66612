"""A machine whose files are in a directory: a mounted disk, a container's tree, or the running machine (`/`)."""

import errno
import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TypeVar

from dlhealth.host.base import NOT_MOUNTED, Host, NoAnswer, Output, Question, Space, Stat, Unreadable
from dlhealth.host.elf import Elf, NotElf, read_elf
from dlhealth.host.path import Root
from dlhealth.host.remote import Remote, mount_of, mounts_here, remote_of
from dlhealth.lazy import fits

T = TypeVar("T")

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
}
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_ENTRIES_LIMIT = 100_000
_LINKS_LIMIT = 16
_SEARCH_LIMIT = 5_000
_HASH_LIMIT = 2 << 30
_BLOCK = 1 << 16


class RootHost(Host):
    """`live` means that the directory is the running machine itself. `seconds` limits all programs together."""

    def __init__(self, folder: str, *, live: bool = False, seconds: float = 4.5) -> None:
        super().__init__()
        self.name = folder
        self.live = live
        self._root = Root(folder, kernel=True)
        self._mounts = None
        self._lent: tuple[str, ...] = ()
        self._remote = remote_of(mounts_here().values(), self._asks_now) if live else None
        self._lacking: tuple[str, ...] = ()
        if not live:
            from dlhealth.host.mounts import Mounts, lacking, lent

            self._mounts = Mounts(self._root)
            self._lent = lent(self._root)
            self._lacking = lacking(self._root)
        self._deadline = time.monotonic() + seconds

    def give_up(self, path: str) -> None:
        """Ask nothing about a path again, because a question about it did not end."""
        self._remote = self._remote or Remote(())
        self._remote.give_up(path, mount_of(path, mounts_here()))

    def _asks_now(self, question: Question) -> None:
        self.asks(question)  # the supervisor sets it later

    def _lstat(self, path: str) -> Stat | None:
        return _described(self._status(path, follow=False))

    def _stat(self, path: str) -> Stat | None:
        found = self._status(path, follow=True)
        if found is None:
            self._leads_away(path)
        return _described(found)

    def _status(self, path: str, *, follow: bool) -> os.stat_result | None:
        if not self._reach(path, follow=follow):
            return None
        return _there(path, lambda: self._root.stat(path, follow=follow))

    def _leads_away(self, path: str) -> None:
        """Raises Unreadable if a broken link leads into a part of the system that is missing here."""
        if not (self._lacking or (self._mounts and self._mounts.missing)):
            return
        for _ in range(_LINKS_LIMIT):
            target = self._readlink(path)
            if target is None:
                return
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            self._reach(path)

    def _realpath(self, path: str) -> str | None:
        with self._opened(path, os.O_PATH) as fd:
            if fd is None:
                self._leads_away(path)
                return None
            try:
                real = os.readlink(f"/proc/self/fd/{fd}")
                root = os.readlink(f"/proc/self/fd/{self._root.fd}").rstrip("/")
            except OSError as error:
                raise Unreadable(path, "needs /proc to be mounted") from error
        if real.endswith(" (deleted)") or not (real == root or real.startswith(root + "/")):
            return None
        return real[len(root) :] or "/"

    def _listdir(self, path: str) -> tuple[str, ...] | None:
        with self._opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK) as fd:
            if fd is None:
                return None
            try:
                names = sorted(os.listdir(fd))
            except OSError as error:
                raise Unreadable(path, _reason(error)) from error
        if len(names) > _ENTRIES_LIMIT:
            raise Unreadable(path, f"more than {_ENTRIES_LIMIT} entries")
        return tuple(names)

    def _folders(self, path: str) -> tuple[str, ...] | None:
        names = []
        with self._opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK) as fd:
            if fd is None:
                return None
            try:
                with os.scandir(fd) as entries:
                    for number, entry in enumerate(entries):
                        if number >= _SEARCH_LIMIT:
                            raise Unreadable(path, f"more than {_SEARCH_LIMIT} entries")
                        if entry.is_dir(follow_symlinks=False):
                            names.append(entry.name)
            except OSError as error:
                raise Unreadable(path, _reason(error)) from error
        return tuple(sorted(names))

    def _readlink(self, path: str) -> str | None:
        with self._opened(path, os.O_PATH | os.O_NOFOLLOW) as fd:
            if fd is None:
                return None
            try:
                return os.readlink("", dir_fd=fd)
            except OSError:
                return None

    def _read(self, path: str, limit: int) -> bytes | None:
        fd = self._open_file(path)
        if fd is None:
            return None
        content = bytearray()
        try:
            # In blocks: the files of /proc/sys refuse a read of megabytes.
            while len(content) <= limit and (block := os.read(fd, _BLOCK)):
                content += block
        except OSError as error:
            raise Unreadable(path, _reason(error)) from error
        finally:
            os.close(fd)
        if len(content) > limit:
            raise Unreadable(path, f"larger than {limit >> 10} KiB")
        return bytes(content)

    def _head(self, path: str, size: int) -> bytes | None:
        with self._file(path) as file:
            return None if file is None else file.read(size)

    def _tail(self, path: str, size: int) -> bytes | None:
        with self._file(path) as file:
            if file is None:
                return None
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)

    def _elf(self, path: str) -> Elf | None:
        with self._file(path) as file:
            if file is None:
                return None
            size = os.fstat(file.fileno()).st_size
            try:
                if path.endswith((".xz", ".zst", ".gz")):
                    from dlhealth.host.compressed import read_module

                    return read_module(file)
                return read_elf(file, size)
            except NotElf as error:
                raise Unreadable(path, f"not a sound ELF file ({error})") from error

    def _initramfs(self, path: str) -> dict[str, str] | None:
        from dlhealth.host.initramfs import read_initramfs

        with self._file(path) as file:
            if file is None:
                return None
            try:
                return read_initramfs(file)
            except ValueError as error:
                raise Unreadable(path, str(error)) from error

    def _offers(self, path: str, names: tuple[str, ...]) -> dict[str, str] | None:
        from dlhealth.host.compressed import DamagedData, decompressed
        from dlhealth.host.packages import read_offers

        with self._file(path) as file:
            if file is None:
                return None
            try:
                packed = not path.endswith("_Packages")
                return read_offers(decompressed(file, _magic(file)) if packed else file, names)
            except DamagedData as error:
                raise Unreadable(path, str(error)) from error

    def _sha256(self, path: str) -> str | None:
        import hashlib  # loads OpenSSL, which few diagnoses need

        with self._file(path) as file:
            if file is None:
                return None
            if os.fstat(file.fileno()).st_size > _HASH_LIMIT:
                raise Unreadable(path, "too large to compare")
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()

    def _space(self, path: str) -> Space | None:
        with self._opened(path, os.O_PATH) as fd:
            if fd is None:
                return None
            s = os.fstatvfs(fd)
        return Space(s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize, s.f_files, s.f_favail)

    def _run(self, program: str, arguments: tuple[str, ...], timeout: float) -> Output:
        from dlhealth.host.exec import run

        remaining = self._deadline - time.monotonic()
        if remaining < 0.1:
            return Output(None, "", problem="the time limit of the diagnosis was used up")
        descriptors: list[int] = []
        argv = [program]
        try:
            for argument in arguments:
                if argument.startswith("root:"):
                    # Resolved here and passed as a descriptor, so that no link can lead the program out of the root.
                    self._reach(argument.removeprefix("root:"))
                    fd = self._root.open(argument.removeprefix("root:"), os.O_PATH)
                    descriptors.append(fd)
                    argument = f"/proc/self/fd/{fd}"
                argv.append(argument)
            return run(argv, min(timeout, remaining), pass_fds=descriptors)
        except OSError as error:
            return Output(None, "", problem=f"{argument.removeprefix('root:')}: {_reason(error)}")
        except Unreadable as problem:
            return Output(None, "", problem=str(problem))
        finally:
            for fd in descriptors:
                os.close(fd)

    def _now(self) -> float | None:
        return time.time() if self.live else None

    def _open(self, path: str, flags: int) -> int | None:
        """A descriptor that the caller closes; None if it does not exist."""
        if not self._reach(path, follow=not flags & os.O_NOFOLLOW):
            return None
        return _there(path, lambda: self._root.open(path, flags))

    def _reach(self, path: str, *, follow: bool = True) -> bool:
        """Whether a path belongs to the machine. Raises Unreadable if it would be visible only after its file system
        was mounted, or answered: it is not absent."""
        if self._remote and (silent := self._remote.silent(path, follow=follow)):
            raise NoAnswer(silent.place, silent.told())
        if self._mounts and (mount := self._mounts.over(path)):
            raise Unreadable(mount.path, mount.unsure or f"{NOT_MOUNTED}{mount.command(self.name)}")
        for tree in self._lacking:
            if path == tree or path.startswith(f"{tree}/"):
                raise Unreadable(tree, "does not exist: only a part of the system is here")
        return not any(fits(f"{path}/", pattern) for pattern in self._lent)

    def _open_file(self, path: str) -> int | None:
        """Like _open, for a regular file. Opening a device or a FIFO has effects, so its type is checked first."""
        before = self._status(path, follow=True)
        found = _described(before)
        if before is None or found is None:
            return None
        if found.kind != "file":
            raise Unreadable(path, f"a {found.named}, not a file")
        fd = self._open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if fd is not None:
            after = os.fstat(fd)
            if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
                os.close(fd)
                raise Unreadable(path, "changed while it was read")
        return fd

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int | None]:
        fd = self._open(path, flags)
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    @contextmanager
    def _file(self, path: str) -> Iterator[IO[bytes] | None]:
        """A regular file that can be read at any position."""
        fd = self._open_file(path)
        if fd is None:
            yield None
            return
        try:
            with open(fd, "rb") as file:
                yield file
        except OSError as error:
            raise Unreadable(path, _reason(error)) from error


def _magic(file: IO[bytes]) -> bytes:
    """The first bytes of a compressed file, which is read from its beginning afterwards."""
    magic = file.read(6)
    file.seek(0)
    return magic


def live_host() -> RootHost:
    """The machine that runs this."""
    return RootHost("/", live=True)


def _there(path: str, look: Callable[[], T]) -> T | None:
    """The answer to a question about a path; None if it does not exist."""
    try:
        return look()
    except OSError as error:
        if error.errno in _ABSENT or error.errno == errno.ELOOP:
            return None
        raise Unreadable(path, _reason(error)) from error
    except ValueError as error:  # a NUL byte in a name from some file
        raise Unreadable(path, "not a possible file name") from error


def _described(s: os.stat_result | None) -> Stat | None:
    if s is None:
        return None
    kind = _KINDS.get(stat.S_IFMT(s.st_mode), "file")
    return Stat(kind, stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid, s.st_size, s.st_mtime, s.st_dev, s.st_rdev, s.st_ino)


def _reason(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "needs root" if os.geteuid() else "permission denied"
    return (error.strerror or str(error)).lower()
