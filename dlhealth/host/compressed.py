"""Streams of compressed files, and kernel modules that are read as a stream (.ko.xz, .ko.zst, .ko.gz).

Nothing is unpacked to a file or kept whole: /tmp may be full, or be in memory, and the driver's main module has a
hundred megabytes.
"""

import bz2
import gzip
import io
import lzma
import struct
import sys
import zlib
from typing import IO, TYPE_CHECKING, Protocol

from dlhealth.host.elf import Elf, NotElf, appended_signature
from dlhealth.lazy import regex

if TYPE_CHECKING:
    import ctypes

_LIMIT = 1 << 29
"""In bytes. No unpacked module is that large."""

_CHUNK = 1 << 20
_SECTION = 1 << 16
"""In bytes. The .modinfo section of an NVIDIA module has two thousand."""
_TAIL = (1 << 16) + 64
"""In bytes. A signature and its trailer are shorter."""

_TRIES = 16
"""How often one of these may occur in a megabyte of other content."""
_ANCHORS = (b"vermagic=", b"\0version=", b"\0license=")
_ENTRY = regex(rb"([a-z][a-z0-9_.]{0,63})=([^\0]*)\Z")


class Readable(Protocol):
    """Something that can be read from its beginning to its end, in blocks."""

    def read(self, size: int = -1, /) -> bytes: ...


class DamagedData(ValueError):
    """A compressed stream that is incomplete, damaged, or in an unsupported format."""


class Stream(io.RawIOBase):
    """The content of a compressed stream. Every error in it becomes DamagedData."""

    def __init__(self, packed: Readable) -> None:
        self._packed = packed

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._packed.read(size)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
            raise DamagedData(f"damaged: {str(error).lower()}") from error
        except Exception as error:
            # zstd's own error class, which exists only if its library was loaded.
            if type(error).__name__ != "ZstdError":
                raise
            raise DamagedData(f"damaged: {str(error).lower()}") from error


class _Lz4:
    """lz4 in its legacy format, which the kernel accepts for an initramfs: blocks of at most 8 MiB when unpacked, each
    after its packed size. systemd and apt of Debian and Ubuntu need the library."""

    _BLOCK = 8 << 20
    _AGAIN = 0x184C2102
    """The magic number, if another stream follows."""

    def __init__(self, file: Readable) -> None:
        import ctypes  # nothing else needs it, and few images use this format

        self._unpack = _library("liblz4.so.1", "lz4").LZ4_decompress_safe
        self._buffer = ctypes.create_string_buffer(self._BLOCK)
        self._file, self._block, self._at = file, b"", 0
        file.read(4)

    def read(self, size: int = -1) -> bytes:
        if self._at == len(self._block):
            self._block, self._at = self._next(), 0
        part = self._block[self._at : None if size < 0 else self._at + size]
        self._at += len(part)
        return part

    def _next(self) -> bytes:
        size = self._AGAIN
        while size == self._AGAIN:
            size = int.from_bytes(self._file.read(4), "little")
        packed = self._file.read(size) if size <= 2 * self._BLOCK else b""
        if size and len(packed) != size:
            raise ValueError("it is incomplete")
        written = self._unpack(packed, self._buffer, size, self._BLOCK) if size else 0
        if written < 0:
            raise ValueError("a block that cannot be unpacked")
        return self._buffer.raw[:written]


class _Lz4Frame:
    """lz4 in its usual format: apt stores its lists in it if it is configured to compress them."""

    _VERSION = 100

    def __init__(self, file: Readable) -> None:
        self._library = _library("liblz4.so.1", "lz4")
        import ctypes

        self._file, self._packed = file, b""
        self._left = 0
        """Bytes that the frame still expects; 0 at its end."""
        self._sizes = ctypes.c_size_t, ctypes.byref
        self._library.LZ4F_decompress.restype = self._library.LZ4F_freeDecompressionContext.restype = ctypes.c_size_t
        self._context = ctypes.c_void_p()
        self._buffer = ctypes.create_string_buffer(_CHUNK)
        self._library.LZ4F_createDecompressionContext(ctypes.byref(self._context), self._VERSION)

    def __del__(self) -> None:
        if library := getattr(self, "_library", None):
            library.LZ4F_freeDecompressionContext(self._context)

    def read(self, size: int = -1) -> bytes:
        number, reference = self._sizes
        while self._packed or (packed := self._file.read(_CHUNK)):
            self._packed = self._packed or packed
            written, taken = number(min(size, _CHUNK) if size >= 0 else _CHUNK), number(len(self._packed))
            self._left = self._library.LZ4F_decompress(
                self._context, self._buffer, reference(written), self._packed, reference(taken), None
            )
            if self._library.LZ4F_isError(number(self._left)):
                raise ValueError("a block that cannot be unpacked")
            self._packed = self._packed[taken.value :]
            if written.value:
                return self._buffer.raw[: written.value]
        if self._left:
            raise EOFError("it is incomplete")
        return b""


class _Zstd:
    """zstd by the system's library, which apt and systemd of Debian and Ubuntu need: Debian has no backports.zstd."""

    def __init__(self, file: Readable) -> None:
        self._library = library = _library("libzstd.so.1", "zstd")
        import ctypes

        library.ZSTD_createDStream.restype, library.ZSTD_getErrorName.restype = ctypes.c_void_p, ctypes.c_char_p
        library.ZSTD_decompressStream.restype = ctypes.c_size_t
        self._context = ctypes.c_void_p(library.ZSTD_createDStream())
        self._number = ctypes.c_size_t
        self._buffer = ctypes.create_string_buffer(_CHUNK)
        # ZSTD_outBuffer and ZSTD_inBuffer: the address, the size, and how much of it is used.
        self._out = (ctypes.c_size_t * 3)(ctypes.addressof(self._buffer), 0, 0)
        self._in = (ctypes.c_size_t * 3)(0, 0, 0)
        self._file = file
        self._left = 0
        """More than 0 inside a frame."""
        self._full = False
        """Whether the library may hold content that did not fit."""

    def __del__(self) -> None:
        if library := getattr(self, "_library", None):
            library.ZSTD_freeDStream(self._context)

    def read(self, size: int = -1) -> bytes:
        wanted = min(size, _CHUNK) if size >= 0 else _CHUNK
        while wanted and self._more():
            self._out[1], self._out[2] = wanted, 0
            self._left = self._library.ZSTD_decompressStream(self._context, self._out, self._in)
            if self._library.ZSTD_isError(self._number(self._left)):
                raise ValueError(self._library.ZSTD_getErrorName(self._number(self._left)).decode())
            written = self._out[2]
            self._full = written == wanted and self._left > 0
            if written:
                return self._buffer.raw[:written]
        return b""

    def _more(self) -> bool:
        if self._full or self._in[2] < self._in[1]:
            return True
        import ctypes

        packed = self._file.read(_CHUNK)
        if not packed:
            if self._left:
                raise EOFError("it is incomplete")
            return False
        self._packed = ctypes.create_string_buffer(packed, len(packed))
        self._in[0], self._in[1], self._in[2] = ctypes.addressof(self._packed), len(packed), 0
        return True


def _library(name: str, of: str) -> "ctypes.CDLL":
    """A library of the system that unpacks a format. Raises DamagedData."""
    import ctypes

    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise DamagedData(f"compressed with {of}, which cannot be read here ({name} is missing)") from error


def decompressed(file: IO[bytes] | io.BufferedReader, magic: bytes) -> Stream:
    """The content of a compressed stream, by its first six bytes. Raises DamagedData for an unknown format."""
    if magic.startswith(b"\x1f\x8b"):
        return Stream(gzip.GzipFile(fileobj=file))
    if magic.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return Stream(lzma.LZMAFile(file))
    if magic.startswith(b"BZh"):
        return Stream(bz2.BZ2File(file))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return Stream(_zstd(file))
    if magic.startswith(b"\x02\x21\x4c\x18"):
        return Stream(_Lz4(file))
    if magic.startswith(b"\x04\x22\x4d\x18"):
        return Stream(_Lz4Frame(file))
    raise DamagedData(f"compressed in an unknown format (first bytes {magic[:4].hex()})")


def _zstd(file: IO[bytes] | io.BufferedReader) -> Readable:
    """By Python, or else by the system's library. Raises DamagedData."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        return _Zstd(file)
    return zstd.ZstdFile(file)


def read_module(file: IO[bytes]) -> Elf:
    """The fields of a compressed module. Raises NotElf."""
    magic = file.read(6)
    file.seek(-len(magic), io.SEEK_CUR)
    try:
        return scan_module(decompressed(file, magic))
    except DamagedData as error:
        raise NotElf(f"cannot be unpacked: {error}") from error


def scan_module(stream: Readable) -> Elf:
    """The fields of a module, read once from its beginning to its end. Raises NotElf, and the errors of the stream.

    The table of an ELF file's sections is at its end, after the sections. So .modinfo is recognized by its content: a
    run of NUL-terminated "key=value" that contains a vermagic.
    """
    size, window, tail, modinfo = 0, b"", b"", b""
    head = b""
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if size > _LIMIT:
            raise NotElf("too large after unpacking")
        if len(head) < 64:
            head = (head + chunk)[:64]
            if not b"\x7fELF".startswith(head[:4]):
                raise NotElf("not an ELF file")  # in small pieces: a few kilobytes may unpack to terabytes
        tail = (tail + chunk)[-_TAIL:]
        if b"vermagic=" not in modinfo:
            window += chunk
            modinfo = _find(window, modinfo, last=False)
            window = window[-2 * _SECTION :]
    if b"vermagic=" not in modinfo:
        modinfo = _find(window, modinfo, last=True)
    if head[:4] != b"\x7fELF" or len(head) < 64 or head[4] not in (1, 2) or head[5] not in (1, 2):
        raise NotElf("not an ELF file")
    machine = struct.unpack_from("<>"[head[5] - 1] + "H", head, 18)[0]
    info = _parse(modinfo)
    signature = appended_signature(io.BytesIO(tail), len(tail)) if info else ""
    return Elf((32, 64)[head[4] - 1], machine, "", (), "", tuple(info.items()), signature, size)


def _find(window: bytes, known: bytes, *, last: bool) -> bytes:
    """The run of entries in a window that most resembles .modinfo; `known` is the best so far. Before the `last`
    window, a run that may continue after the end is left for the next."""
    end = len(window) if last else len(window) - _SECTION
    for anchor in _ANCHORS:
        place = -1
        for _ in range(_TRIES):
            place = window.find(anchor, place + 1)
            if not 0 <= place < end:
                break
            at = place + anchor.startswith(b"\0")
            start = max(0, at - _SECTION)
            run = _run(window[start : at + _SECTION], at - start)
            if b"vermagic=" in run:
                return run
            if run.count(b"=") > known.count(b"="):
                known = run
    return known


def _run(region: bytes, anchor: int) -> bytes:
    """The entry at a place, and its neighbours as far as they have the form of entries."""
    entries = region.split(b"\0")
    own = region.count(b"\0", 0, anchor)
    # The section's first entry follows the end of the previous section.
    if not _ENTRY.match(entries[own]):
        entries[own] = entries[own][anchor - region.rfind(b"\0", 0, anchor) - 1 :]
        entries[:own] = []
        own = 0
    first, last = own, own + 1
    while first > 0 and (not entries[first - 1] or _ENTRY.match(entries[first - 1])):
        first -= 1
    glued = _ENTRY.search(entries[first - 1]) if first else None
    while last < len(entries) and (not entries[last] or _ENTRY.match(entries[last])):
        last += 1
    return b"\0".join([*([glued[0]] if glued else []), *entries[first:last]])


def _parse(modinfo: bytes) -> dict[str, str]:
    """Keys and values; those of a repeated key are joined by newlines."""
    info: dict[str, str] = {}
    for entry in modinfo.split(b"\0"):
        if match := _ENTRY.match(entry):
            key, value = match[1].decode(), match[2].decode(errors="replace")
            info[key] = f"{info[key]}\n{value}" if key in info else value
    return info
