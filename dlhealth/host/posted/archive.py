"""Reads posted files: packed or not, whatever their name, within limits. Nothing is extracted to a disk."""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

from dlhealth.host.base import NotAMachine
from dlhealth.host.posted.text import decode
from dlhealth.records import NamedTuple

SIZE_LIMIT = 256 << 20
"""The most bytes that an input may unpack to: a bug report has a few million, a sosreport a hundred."""
MEMBER_LIMIT = 32 << 20
"""The most bytes of one member; a larger one is skipped."""
COUNT_LIMIT = 100_000
HEAD = 1024

_OPENERS = ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\0", lzma.open), (b"BZh", bz2.open))
_BROKEN = (EOFError, OSError, lzma.LZMAError, zlib.error)


class Member(NamedTuple):
    """A file or a link of an archive: `target` is the target of a link, None for a file."""

    name: str
    content: bytes
    target: str | None


class TooLarge(NotAMachine):
    """It unpacks to more than anything that people post."""


class _Bounded(io.RawIOBase):
    """A stream that ends with an error after SIZE_LIMIT: a few kilobytes may unpack to terabytes."""

    def __init__(self, source: Any, path: str) -> None:
        self._source, self._path, self._left = source, path, SIZE_LIMIT

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = min(size, self._left + 1) if size >= 0 else self._left + 1
        # One read of the stream below: from incomplete packing, nothing that was unpacked before is lost.
        content: bytes = self._source.read1(wanted)
        self._left -= len(content)
        if self._left < 0:
            raise TooLarge(f"{self._path}: it unpacks to more than {SIZE_LIMIT >> 20} MiB")
        return content


def unpacked(path: str) -> IO[bytes]:
    """The content of a file without its gzip, xz or bzip2 packing. Raises OSError."""
    with open(path, "rb") as file:
        magic = file.read(8)
    opener = next((o for start, o in _OPENERS if magic.startswith(start)), None)
    source = opener(path, "rb") if opener else open(path, "rb")  # noqa: SIM115  (closed by the caller)
    return _Bounded(source, path)  # type: ignore[return-value]


def head(path: str) -> bytes:
    """The first bytes of the unpacked content; the readable part of a damaged or incomplete file."""
    try:
        with unpacked(path) as file:
            return file.read(HEAD)
    except _BROKEN:
        return b""


def is_tar(start: bytes) -> bool:
    """Whether this is the beginning of a tar archive."""
    return start[257:262] == b"ustar"


def first_name(start: bytes) -> str:
    """The name of the first member of a tar archive."""
    return start[:100].rstrip(b"\0").decode(errors="replace")


def text_of(path: str) -> str:
    """The whole content as text; the readable part of an incomplete file. Raises TooLarge."""
    content = bytearray()
    with unpacked(path) as file:
        try:
            while block := file.read(1 << 20):
                content += block
        except _BROKEN:
            pass
    return decode(bytes(content))


def members(path: str) -> Iterator[Member]:
    """The files and links of a tar archive, with names below its only top directory; the readable part of an incomplete
    one. Raises NotAMachine for one that is too large, or has too many members."""
    count = 0
    with unpacked(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                for member in archive:
                    count += 1
                    if count > COUNT_LIMIT:
                        raise TooLarge(f"{path}: it has more than {COUNT_LIMIT} members")
                    name = member.name.removeprefix("./").partition("/")[2]
                    if member.issym():
                        yield Member(name, b"", member.linkname)
                    elif member.isreg() and member.size <= MEMBER_LIMIT and (data := archive.extractfile(member)):
                        yield Member(name, data.read(), None)
        except (tarfile.TarError, *_BROKEN):
            return
