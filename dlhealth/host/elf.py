"""Reads the few facts of an ELF file that a diagnosis needs, without loading it.

pyelftools reads all of ELF; its import alone took a third of the time of the whole doctor. The tests compare this
reader with it. Standard library only (rescue core); zstd-compressed modules need libzstd.so.1 below Python 3.14.
"""

import struct
from typing import IO

from dlhealth.records import NamedTuple

_SHT_STRTAB, _SHT_DYNAMIC, _SHT_VERSIONS = 3, 6, 0x6FFFFFFE
_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 14, 15, 29
_SECTION_LIMIT = 8 << 20
_VERSIONS_LIMIT = 1000
_NAME_LIMIT = 1 << 16
_SIGNATURE_MAGIC = b"~Module signature appended~\n"


class NotElf(ValueError):
    """The file is not a readable ELF object."""


class Elf(NamedTuple):
    """`rpath` is the older kind of run path, which is searched before LD_LIBRARY_PATH; the loader ignores it if there
    is a `runpath`. `modinfo` has a kernel module's keys (repeated keys joined by a newline); `signature` is its
    appended PKCS#7 message as hexadecimal digits, empty if unsigned. `versions` are those of the symbols that it needs
    from other libraries: "GLIBC_2.34", "GLIBCXX_3.4.30"."""

    bits: int
    machine: int
    soname: str
    needed: tuple[str, ...]
    runpath: str
    modinfo: tuple[tuple[str, str], ...]
    signature: str
    size: int
    rpath: str = ""
    versions: tuple[str, ...] = ()

    def info(self, key: str) -> str:
        """One modinfo value; empty when absent."""
        return dict(self.modinfo).get(key, "")


class _Section(NamedTuple):
    name: int
    type: int
    offset: int
    size: int
    link: int


class _Strings:
    """A table of strings. A large one is read only where it is needed: patchelf moves the names of all symbols to the
    table that has the names of libraries, ten megabytes in PyTorch."""

    def __init__(self, file: IO[bytes], section: _Section) -> None:
        self._file = file
        self._section = section
        self._whole = _section(file, section) if section.size <= _SECTION_LIMIT else None

    def __getitem__(self, offset: int) -> str:
        """The string at an offset."""
        if self._whole is not None:
            table = self._whole[offset : offset + _NAME_LIMIT]
        else:
            there = max(0, min(_NAME_LIMIT, self._section.size - offset))
            table = _at(self._file, self._section.offset + offset, there)
        return table.partition(b"\0")[0].decode(errors="replace")


def read_elf(file: IO[bytes], size: int) -> Elf:
    """Parse an open, seekable file. Raises NotElf for anything that is not a valid ELF object."""
    try:
        return _read(file, size)
    except NotElf:
        raise
    except (struct.error, IndexError, OverflowError, UnicodeError, ValueError) as error:
        raise NotElf("truncated or damaged") from error


def _read(file: IO[bytes], size: int) -> Elf:
    ident = _at(file, 0, 64)
    if ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise NotElf("not an ELF file")
    bits, order = (32, 64)[ident[4] - 1], "<>"[ident[5] - 1]
    machine = struct.unpack_from(order + "H", ident, 18)[0]
    if bits == 64:
        shoff, shentsize, shnum, shstrndx = struct.unpack_from(order + "40xQ10xHHH", ident)
        layout = order + "II8x8xQQI20x"
    else:
        shoff, shentsize, shnum, shstrndx = struct.unpack_from(order + "32xI10xHHH", ident)
        layout = order + "II4x4xIII12x"
    if struct.calcsize(layout) != shentsize:
        if shnum == 0:
            return Elf(bits, machine, "", (), "", (), "", size)
        raise NotElf("section headers of an unknown size")
    table = _at(file, shoff, shentsize * shnum)
    sections = [_Section(*struct.unpack_from(layout, table, i * shentsize)) for i in range(shnum)]
    names = _Strings(file, sections[shstrndx]) if sections else None
    soname, needed, runpath, rpath = "", [], "", ""
    versions: tuple[str, ...] = ()
    modinfo: dict[str, str] = {}
    for section in sections:
        if section.type == _SHT_DYNAMIC:
            strings = _Strings(file, sections[section.link])
            width = 16 if bits == 64 else 8
            content = _section(file, section)
            for tag, value in struct.iter_unpack(
                order + ("qQ" if bits == 64 else "iI"), content[: len(content) // width * width]
            ):
                if tag == 0:
                    break
                if tag in (_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH):
                    text = strings[value]
                    if tag == _DT_NEEDED:
                        needed.append(text)
                    elif tag == _DT_SONAME:
                        soname = text
                    elif tag == _DT_RUNPATH:
                        runpath = text
                    else:
                        rpath = text
        elif section.type == _SHT_VERSIONS:
            versions = _versions(_section(file, section), _Strings(file, sections[section.link]), order)
        elif names and names[section.name] == ".modinfo":
            for entry in _section(file, section).split(b"\0"):
                key, equals, value_bytes = entry.partition(b"=")
                if equals:
                    name, value = key.decode(errors="replace"), value_bytes.decode(errors="replace")
                    modinfo[name] = f"{modinfo[name]}\n{value}" if name in modinfo else value
    signature = appended_signature(file, size) if modinfo else ""
    rpath = "" if runpath else rpath
    return Elf(bits, machine, soname, tuple(needed), runpath, tuple(modinfo.items()), signature, size, rpath, versions)


def _versions(content: bytes, strings: _Strings, order: str) -> tuple[str, ...]:
    """The names in a section of required versions: a chain of libraries, each with a chain of versions."""
    found: dict[str, None] = {}
    library, more = 0, True
    while more and len(found) < _VERSIONS_LIMIT:
        count, first, step = struct.unpack_from(order + "2xH4xII", content, library)
        entry = library + first
        for _ in range(min(count, _VERSIONS_LIMIT)):
            name, following = struct.unpack_from(order + "8xII", content, entry)
            found[strings[name]] = None
            entry += following
        library, more = library + step, step > 0
    return tuple(found)


def appended_signature(file: IO[bytes], size: int) -> str:
    """The PKCS#7 message at the end of a kernel module, in hexadecimal digits; empty if there is none."""
    # struct module_signature (include/linux/module_signature.h): 8 bytes of kinds and lengths, then a be32 length.
    trailer = len(_SIGNATURE_MAGIC) + 12
    if size < trailer:
        return ""
    end = _at(file, size - trailer, trailer)
    if not end.endswith(_SIGNATURE_MAGIC):
        return ""
    length = struct.unpack_from(">8xI", end)[0]
    if not 0 < length <= size - trailer or length > 1 << 16:
        return ""
    return _at(file, size - trailer - length, length).hex()


def _at(file: IO[bytes], offset: int, count: int) -> bytes:
    if count > _SECTION_LIMIT:
        raise NotElf("a section of an unlikely size")
    file.seek(offset)
    return file.read(count)


def _section(file: IO[bytes], section: _Section) -> bytes:
    return _at(file, section.offset, section.size)
