"""What lies in an initramfs image: cpio archives in a row, the last one compressed."""

import lzma
import zlib
from typing import IO

from dlhealth.host.compressed import decompressed
from dlhealth.host.elf import NotElf, read_elf

_HEADER = 110  # cpio "newc": a magic number and 13 fields of 8 hexadecimal digits
_KEPT_TEXT = 256 << 10
_ENTRIES_LIMIT = 200_000
_CONFIGURATION = ("etc/modprobe.d/", "lib/modprobe.d/", "usr/lib/modprobe.d/", "run/modprobe.d/")
_MODULES = ("nvidia", "nouveau", "nova", "vfio")


def read_initramfs(file: IO[bytes]) -> dict[str, str]:
    """Of each NVIDIA-related kernel module its version (empty where it has none), and of each modprobe.d file its
    text, by name without a leading slash. Raises ValueError when the image can't be read."""
    found: dict[str, str] = {}
    try:
        _archives(file, found)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"not a sound initramfs: {error}") from error
    except ValueError:
        raise
    except Exception as error:  # zstd's own error class, which is only there when it was imported
        if type(error).__name__ != "ZstdError":
            raise
        raise ValueError(f"not a sound initramfs: {error}") from error
    return found


def _archives(file: IO[bytes], found: dict[str, str]) -> None:
    """Uncompressed archives first (microcode), zeros between them, then the compressed rest."""
    while True:
        start = file.tell()
        magic = file.read(6)
        if not magic.strip(b"\0"):
            if not magic:
                return
            _skip_zeros(file)
            continue
        file.seek(start)
        if magic in (b"070701", b"070702"):
            _archive(file, found)
        else:
            _archive(decompressed(file, magic), found)
            return


def _skip_zeros(file: IO[bytes]) -> None:
    while block := file.read(512):
        stripped = block.lstrip(b"\0")
        if stripped:
            file.seek(-len(stripped), 1)
            return


def _archive(stream: IO[bytes], found: dict[str, str]) -> None:
    for _ in range(_ENTRIES_LIMIT):
        header = stream.read(_HEADER)
        if len(header) < _HEADER or header[:6] not in (b"070701", b"070702"):
            raise ValueError("not a sound initramfs: an entry without its header")
        mode, size, name_size = (int(header[6 + 8 * i : 14 + 8 * i], 16) for i in (1, 6, 11))
        name = stream.read(name_size + (-(_HEADER + name_size) % 4))[: name_size - 1].decode(errors="surrogateescape")
        if name == "TRAILER!!!":
            return
        _entry(stream, name, mode, size, found)
    raise ValueError("not a sound initramfs: more entries than any has")


def _entry(stream: IO[bytes], name: str, mode: int, size: int, found: dict[str, str]) -> None:
    name = name.removeprefix("./").removeprefix("/")
    regular = mode & 0o170000 == 0o100000
    if regular and name.startswith(_CONFIGURATION) and size <= _KEPT_TEXT:
        found[name] = stream.read(size).decode(errors="surrogateescape")
        stream.read(-size % 4)
        return
    base = name.rpartition("/")[2]
    if regular and ".ko" in base and base.startswith(_MODULES):
        found[name] = _module_version(stream, size) if base.endswith(".ko") else _skip(stream, size)
        stream.read(-size % 4)
        return
    _skip(stream, size + (-size % 4))


def _module_version(stream: IO[bytes], size: int) -> str:
    import tempfile

    with tempfile.TemporaryFile() as plain:
        left = size
        while left and (chunk := stream.read(min(left, 1 << 20))):
            plain.write(chunk)
            left -= len(chunk)
        try:
            return read_elf(plain, size).info("version")
        except NotElf:
            return ""


def _skip(stream: IO[bytes], size: int) -> str:
    while size and (chunk := stream.read(min(size, 1 << 20))):
        size -= len(chunk)
    if size:
        raise ValueError("not a sound initramfs: it is cut off")
    return ""
