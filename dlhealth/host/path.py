"""Opens paths inside a root directory so that no link can lead out of it.

An absolute link starts again at the root, and `..` stops at it, exactly as if the caller had changed its root there.
Standard library only (rescue core).
"""

import errno
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_SYS_OPENAT2 = 437  # the same on every architecture (Linux 5.6)
_MAX_LINKS = 40  # the kernel's own limit, path_resolution(7)


@cache
def _openat2() -> Callable[[int, bytes, int], tuple[int, int]]:
    """openat2(2), which Python does not have: returns the descriptor, or -1 and the error number."""
    import ctypes  # the running machine does not need it

    syscall = ctypes.CDLL(None, use_errno=True).syscall

    def call(folder: int, relative: bytes, flags: int) -> tuple[int, int]:
        how = struct.pack("QQQ", flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        return syscall(_SYS_OPENAT2, folder, relative, how, len(how)), ctypes.get_errno()

    return call


def told(error: Exception) -> str:
    """What went wrong, as one line for people, without error numbers."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Add the path to errors: the error of a call with a descriptor does not say which disk is full."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


class Borrowed(OSError):
    """It belongs to the running machine, which is mounted there below another root."""


class Root:
    """A directory that acts as `/`. Its descriptor is closed with the last reference to it.

    File systems of the running machine that are mounted below it stay closed: they do not belong to the other machine.
    With `kernel`, its /proc, /sys, /dev and /run can be read all the same."""

    fd = -1

    def __init__(self, folder: str, *, kernel: bool = False) -> None:
        self.folder = folder
        self.fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._is_top = folder == "/"
        self._has_openat2 = not self._is_top
        self.borrowed: Mapping[str, str] = {}
        """By their numbers in mountinfo, the places below the root where the running machine is mounted."""
        if not self._is_top:
            from dlhealth.host.borrowed import borrowed  # the machine that runs needs it for nothing

            self.borrowed = borrowed(folder, kernel=kernel)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()

    def open(self, path: str, flags: int) -> int:
        """A descriptor of `path` inside the root. Raises OSError like open(2), Borrowed for files of the
        running machine, ValueError for a NUL byte."""
        fd = self._open(path, flags)
        try:
            self.check(fd, path)
        except Borrowed:
            os.close(fd)
            raise
        return fd

    def check(self, fd: int, path: str) -> None:
        """Raise Borrowed if a descriptor leads to the running machine."""
        if not self.borrowed:
            return
        from dlhealth.host.borrowed import mount_number

        if place := self.borrowed.get(mount_number(fd)):
            raise Borrowed(errno.EXDEV, f"belongs to the running machine, which is mounted at {place}", path)

    def _open(self, path: str, flags: int) -> int:
        relative = os.fsencode(path.lstrip("/") or ".")
        if b"\0" in relative:
            raise ValueError("a NUL byte in a path")  # the system call would ignore the rest
        flags |= os.O_CLOEXEC
        if self._is_top:
            return os.open(relative, flags, dir_fd=self.fd)  # no link leads out of the real root
        if self._has_openat2:
            fd, error = _openat2()(self.fd, relative, flags)
            if fd >= 0:
                return fd
            if error not in (errno.ENOSYS, errno.EPERM, errno.EAGAIN):
                raise OSError(error, os.strerror(error), path)
            # An old kernel, or a sandbox that does not know the call. Or somebody renamed something on the machine
            # while `..` was followed, and the kernel is not sure that it stayed inside.
            self._has_openat2 = error == errno.EAGAIN
        return self._walk(relative, flags, path)

    def stat(self, path: str, *, follow: bool) -> os.stat_result:
        """The status of `path`, or of its target. Raises like `open`."""
        if self._is_top:
            return os.stat(path.lstrip("/") or ".", dir_fd=self.fd, follow_symlinks=follow)
        fd = self.open(path, os.O_PATH if follow else os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _walk(self, relative: bytes, flags: int, path: str) -> int:
        parents = [os.dup(self.fd)]
        pending = relative.split(b"/")[::-1]
        links = 0
        try:
            while pending:
                part = pending.pop()
                if part in (b"", b"."):
                    continue
                if part == b"..":
                    if len(parents) > 1:
                        os.close(parents.pop())
                    continue
                final = not any(p not in (b"", b".") for p in pending)
                step = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parents[-1])
                try:
                    target = os.readlink(b"", dir_fd=step)
                except OSError:
                    parents.append(step)
                    if final and not flags & os.O_PATH:
                        return os.open(part, flags | os.O_NOFOLLOW, dir_fd=parents[-2])
                    continue
                if final and flags & os.O_NOFOLLOW:
                    parents.append(step)
                    break
                os.close(step)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith(b"/"):
                    while len(parents) > 1:
                        os.close(parents.pop())
                pending += target.split(b"/")[::-1]
            if flags & os.O_PATH:
                if flags & os.O_DIRECTORY:
                    return os.open(b".", flags, dir_fd=parents[-1])
                return os.dup(parents[-1])
            return os.open(b".", flags, dir_fd=parents[-1])
        finally:
            for fd in parents:
                os.close(fd)
