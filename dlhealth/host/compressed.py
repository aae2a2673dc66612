"""Streams of compressed files, and kernel modules that are stored compressed (.ko.xz, .ko.zst, .ko.gz)."""

import gzip
import io
import lzma
import tempfile
import zlib
from typing import IO

from dlhealth.host.elf import Elf, NotElf, read_elf

_LIMIT = 1 << 30
"""Bytes. No module is that large once it is unpacked."""

_CHUNK = 1 << 20


def decompressed(file: IO[bytes], magic: bytes) -> IO[bytes]:
    """The content behind a compressed stream, by its first bytes. Raises ValueError for a kind that is not known."""
    if magic.startswith(b"\x1f\x8b"):
        unzipped: IO[bytes] = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
        return unzipped
    if magic.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(file)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
        except ImportError:
            from backports import zstd
        opened: IO[bytes] = zstd.ZstdFile(file)
        return opened
    raise ValueError(f"compressed in a way that is not known here (first bytes {magic[:4].hex()})")


def read_module(file: IO[bytes], path: str) -> Elf:
    """What a compressed module says of itself. Raises NotElf.

    A module's section table is at its end, so all of it must be unpacked; to a temporary file, because the driver's
    main module has a hundred megabytes.
    """
    with tempfile.TemporaryFile() as plain:
        size = 0
        try:
            stream = decompressed(file, _peek(file))
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > _LIMIT:
                    raise NotElf("too large once it is unpacked")
                plain.write(chunk)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
            if isinstance(error, NotElf):
                raise
            raise NotElf(f"can't be unpacked: {error}") from error
        except Exception as error:  # zstd's own error class, which is only there when it was imported
            if type(error).__name__ != "ZstdError":
                raise
            raise NotElf(f"can't be unpacked: {error}") from error
        return read_elf(plain, size)


def _peek(file: IO[bytes]) -> bytes:
    magic = file.read(6)
    file.seek(-len(magic), io.SEEK_CUR)
    return magic
