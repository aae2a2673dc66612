"""Mounts of a test that nobody else sees."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
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
