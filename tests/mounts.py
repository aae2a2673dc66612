"""Mounts of a test."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2
_PRIVATE, _RECURSIVE, _NEW_NAMESPACE = 1 << 18, 1 << 14, 1 << 17  # sys/mount.h, sched.h


@contextmanager
def own_mounts() -> Iterator[None]:
    """Within it, mounts go with this process, whatever ends it. One that stayed would be emptied by whoever removes the
    test's directory: so the /dev of the machine."""
    here, before = os.getcwd(), os.open("/proc/self/ns/mnt", os.O_RDONLY)
    if LIBC.unshare(_NEW_NAMESPACE) or LIBC.mount(None, b"/", None, ctypes.c_ulong(_RECURSIVE | _PRIVATE), None):
        os.close(before)
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        assert LIBC.setns(before, _NEW_NAMESPACE) == 0
        os.close(before)
        os.chdir(here)


def mount(device: str | None, folder: Path, flags: int, options: str) -> None:
    kind = b"ext4" if device and device.startswith("/") else b"tmpfs"
    source = device.encode() if device else None
    if LIBC.mount(source, bytes(folder), kind, ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A small file system, which is in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mount("dlhealth-test", folder, 0, options)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield folder
    finally:
        LIBC.umount2(bytes(folder), MNT_DETACH)  # an exception that a test keeps may hold a directory open
