"""Directories for tests that build machines: thousands of small files, which a disk takes most of a test's time to write."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = "/dev/shm"
_NEEDED = 1 << 30
"""Bytes, and a thousandth of it in files: twice what the workers use at most."""


def directory() -> str | None:
    """A file system in memory with room to spare, or None for the usual place."""
    try:
        room = os.statvfs(_MEMORY)
    except OSError:
        return None
    enough = room.f_bavail * room.f_frsize >= _NEEDED and room.f_favail >= _NEEDED >> 10
    return _MEMORY if enough and not room.f_flag & (os.ST_NOEXEC | os.ST_RDONLY) else None


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """As pytest's own, and gone when the test ends. Below a mount that the test left, nothing is removed."""
    path = tempfile.mkdtemp(prefix="dlhealth-test-", dir=directory())
    os.chmod(path, 0o755)
    yield Path(path)
    with open("/proc/self/mountinfo") as mounts:
        assert not any(line.split(" ")[4].startswith(f"{path}/") for line in mounts)
    shutil.rmtree(path, ignore_errors=True)
