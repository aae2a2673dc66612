"""The content of an initramfs image: several cpio archives, the last one compressed."""

import errno
import io
import os
import posixpath
import time
from typing import IO

from dlhealth.host.compressed import DamagedData, Readable, decompressed, scan_module
from dlhealth.host.elf import NotElf

_HEADER = 110  # cpio "newc": a magic number and 13 fields of 8 hexadecimal digits
_MAGICS = (b"070701", b"070702")
_ENTRIES_LIMIT = 200_000
_SIZE_LIMIT = 1 << 30
"""In bytes, unpacked. The largest real images have half a gigabyte of firmware."""
_CPU_SECONDS = 2.5
"""Processor time. Real images take some hundred milliseconds."""
_ZEROS_LIMIT = 64 << 20
"""Padding between two archives, in bytes. Real images have less than a block."""
_NAME_LIMIT = 4096
_TEXT_LIMIT, _TEXTS_LIMIT = 256 << 10, 8 << 20
"""The bytes of one configuration file, and of all together, that are kept."""
_BLOCK = 1 << 20
_LINKS = 8
"""How many links may follow one another."""

_CONFIGURATION = ("etc/modprobe.d/", "lib/modprobe.d/", "usr/lib/modprobe.d/", "run/modprobe.d/")
_MODULES = ("nvidia", "nouveau", "nova", "vfio")


def read_initramfs(file: IO[bytes]) -> dict[str, str]:
    """The version of each kernel module that concerns an NVIDIA GPU (empty if it has none), and the text of each
    modprobe.d file, by name without a leading slash. Raises ValueError if the image cannot be read."""
    budget = _Budget()
    image = _Image(budget)
    while True:
        start = file.tell()
        magic = file.read(6)
        if not magic.strip(b"\0"):
            if not magic:
                return image.found()
            _skip_zeros(file)
            continue
        file.seek(start)
        if magic not in _MAGICS:  # the uncompressed ones (microcode, firmware) come first
            image.read(_Metered(decompressed(file, magic), budget))
            return image.found()
        image.read(_Metered(file, budget))


def _skip_zeros(file: IO[bytes]) -> None:
    """Skip bytes, also the holes of a sparse file: they may be larger than any disk."""
    skipped = 0
    while skipped <= _ZEROS_LIMIT:
        _skip_hole(file)
        block = file.read(_BLOCK)
        stripped = block.lstrip(b"\0")
        if stripped or not block:
            file.seek(-len(stripped), io.SEEK_CUR)
            return
        skipped += len(block)
    raise DamagedData("damaged: only zeros follow an archive")


def _skip_hole(file: IO[bytes]) -> None:
    try:
        descriptor = file.fileno()
        buffered = os.lseek(descriptor, 0, os.SEEK_CUR)
        data = os.lseek(descriptor, file.tell(), os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole follows
            file.seek(0, io.SEEK_END)
    else:
        os.lseek(descriptor, buffered, os.SEEK_SET)  # the position that the buffer of the file assumes
        file.seek(data)


class _Budget:
    """The most that all streams of one image may cost together: a few kilobytes may unpack to terabytes."""

    def __init__(self) -> None:
        self._left = _SIZE_LIMIT
        self._until = time.process_time() + _CPU_SECONDS

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise DamagedData(f"it unpacks to more than {_SIZE_LIMIT >> 20} MiB")
        if time.process_time() > self._until:
            raise DamagedData(f"unpacking it takes more than {_CPU_SECONDS:g} seconds")


class _Metered:
    """A stream whose bytes count against the limit."""

    def __init__(self, stream: Readable, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int = -1, /) -> bytes:
        block = self._stream.read(size)
        self._budget.spend(len(block))
        return block


class _Image:
    """What was found so far in the archives of one image."""

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self._modules: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._kept = 0

    def found(self) -> dict[str, str]:
        """Modules and configuration. Debian's files in modprobe.d are links into etc/nvidia."""
        configuration = {name: text for name in (*self._texts, *self._links) if (text := self._text(name)) is not None}
        return {**self._modules, **{n: t for n, t in configuration.items() if n.startswith(_CONFIGURATION)}}

    def _text(self, name: str) -> str | None:
        for _ in range(_LINKS):
            if name not in self._links:
                break
            target = posixpath.join("/", posixpath.dirname(name), self._links[name])
            name = posixpath.normpath(target).lstrip("/")
        return self._texts.get(name)

    def read(self, stream: Readable) -> None:
        """One archive, to its end."""
        for _ in range(_ENTRIES_LIMIT):
            header = _exactly(stream, _HEADER)
            if header[:6] not in _MAGICS:
                raise DamagedData("damaged: an entry without its header")
            if not header.isalnum():  # int() also accepts signs and blanks
                raise DamagedData("damaged: an entry with a strange header")
            mode, size, name_size = (int(header[6 + 8 * i : 14 + 8 * i], 16) for i in (1, 6, 11))
            if name_size > _NAME_LIMIT:
                raise DamagedData("damaged: an entry of an unlikely size")
            raw = _exactly(stream, name_size + (-(_HEADER + name_size) % 4))[: max(0, name_size - 1)]
            if raw == b"TRAILER!!!":
                return
            part = _Part(stream, size)
            self._entry(part, raw.decode(errors="surrogateescape"), mode)
            part.skip()
            _exactly(stream, -size % 4)
        raise DamagedData("damaged: more entries than any image has")

    def _entry(self, part: "_Part", name: str, mode: int) -> None:
        name = name.removeprefix("./").removeprefix("/")
        link, regular = mode & 0o170000 == 0o120000, mode & 0o170000 == 0o100000
        base = posixpath.basename(name)
        small = part.left <= _TEXT_LIMIT and self._kept + part.left <= _TEXTS_LIMIT
        if base.endswith(".conf") and small and (name.startswith(_CONFIGURATION) or name.startswith("etc/")):
            self._kept += part.left
            text = part.read().decode(errors="surrogateescape")
            if link:
                self._links[name] = text
            elif regular:
                self._texts[name] = text
        elif regular and ".ko" in base and base.startswith(_MODULES):
            self._modules[name] = _version(part, base, self._budget)


def _version(part: "_Part", base: str, budget: _Budget) -> str:
    """The version of a module, also of one that is compressed inside the image."""
    try:
        if base.endswith(".ko"):
            return scan_module(part).info("version")
        packed = io.BufferedReader(part, _BLOCK)
        unpacked = _Metered(decompressed(packed, packed.peek(6)[:6]), budget)
        return scan_module(unpacked).info("version")
    except (NotElf, DamagedData):
        return ""


class _Part(io.RawIOBase):
    """The content of one entry. If the archive ends inside it, it is DamagedData."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self.left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        content = _exactly(self._stream, wanted)
        self.left -= wanted
        return content

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def skip(self) -> None:
        """Skip the rest."""
        while self.left:
            self.read(_BLOCK)


def _exactly(stream: Readable, size: int) -> bytes:
    blocks, left = [], size
    while left:
        block = stream.read(left)
        if not block:
            raise DamagedData("damaged: it is incomplete")
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)
