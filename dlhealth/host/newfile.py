"""Writes dlhealth's own files: those that a person asked for, and its state."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def created(path: str, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A new file, which is on the disk when the block ends, and does not exist if it fails. Raises OSError, including
    FileExistsError: nothing is overwritten, and no link is followed."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise


def replace(path: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file in one step, also in a directory that belongs to somebody else: a reader sees the old content or the
    new one, and no link that lies there is followed. Raises OSError."""
    new = os.path.join(os.path.dirname(path), f".dlhealth-{os.urandom(6).hex()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, mode)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


def keep_own(path: str, content: bytes) -> None:
    """Write a file of this user alone, with the directories above it. Raises OSError."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    replace(path, content, 0o600)
