"""Changes in directories, as the kernel reports them (inotify(7)). Debian has no package of a binding with watches."""

import ctypes
import os
import struct
from collections.abc import Iterator
from enum import IntFlag

from dlhealth.records import NamedTuple

_HEAD = struct.Struct("iIII")
"""struct inotify_event: watch, mask, cookie, and the length of the name that follows."""
_ENOUGH = 64 << 10


class Change(IntFlag):
    """What happened, and how to watch (sys/inotify.h)."""

    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    Q_OVERFLOW = 0x4000
    ONLYDIR = 0x1000000
    MASK_ADD = 0x20000000


class Changed(NamedTuple):
    """One change: in which watched directory, what, and the name of the entry."""

    watch: int
    what: int
    name: str


class Inotify:
    """A queue of changes. It never waits. Raises OSError if the user has too many."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._asked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def fileno(self) -> int:
        return self._fd

    def add_watch(self, path: str, mask: int) -> int:
        """The number of the watch. Raises OSError."""
        return self._asked(self._libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask)))

    def rm_watch(self, watch: int) -> None:
        """Raises OSError if the directory is gone, and its watch with it."""
        self._asked(self._libc.inotify_rm_watch(self._fd, watch))

    def read(self) -> Iterator[Changed]:
        """The changes since the last read."""
        try:
            queue = os.read(self._fd, _ENOUGH)
        except BlockingIOError:
            return
        at = 0
        while at < len(queue):
            watch, what, _, length = _HEAD.unpack_from(queue, at)
            at += _HEAD.size
            yield Changed(watch, what, os.fsdecode(queue[at : at + length].rstrip(b"\0")))
            at += length

    def close(self) -> None:
        os.close(self._fd)

    def _asked(self, answer: int) -> int:
        if answer < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return answer
