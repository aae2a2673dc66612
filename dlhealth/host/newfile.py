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


def save(path: str, content: str, mode: int = 0o644) -> None:
    """Replace a file of this process's own directory atomically."""
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, mode)
        file.write(content)
    os.replace(new, path)


def replace(path: str, content: bytes) -> None:
    """Write a file that everybody may read, in a directory that may belong to somebody else: a reader sees the old
    content or the new one, and no link that lies there is followed. Raises OSError."""
    import tempfile  # brings modules that most runs do not need

    fd, new = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".dlhealth-")
    try:
        with open(fd, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
