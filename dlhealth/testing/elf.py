"""Writes small, valid ELF objects: shared libraries and kernel modules with only the requested content."""

import struct
from collections.abc import Mapping, Sequence
from functools import cache

_SIGNATURE_MAGIC = b"~Module signature appended~\n"


def shared_library(
    soname: str = "",
    needed: Sequence[str] = (),
    runpath: str = "",
    *,
    rpath: str = "",
    bits: int = 64,
    versions: Sequence[str] = (),
) -> bytes:
    """A shared library with only a dynamic section, and the versions of the symbols that it needs from the first of `needed`."""
    strings = bytearray(b"\0")
    entries: list[tuple[int, int]] = []
    for tag, text in [
        *((1, n) for n in needed),
        *([(14, soname)] if soname else []),
        *([(15, rpath)] if rpath else []),
        *([(29, runpath)] if runpath else []),
    ]:
        entries.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    names = [len(strings)]
    for version in versions:
        strings += version.encode() + b"\0"
        names.append(len(strings))
    entries.append((0, 0))
    dynamic = b"".join(struct.pack("<qQ" if bits == 64 else "<iI", *e) for e in entries)
    sections = [(".dynstr", 3, bytes(strings), 0), (".dynamic", 6, dynamic, 1)]
    if versions:
        required = struct.pack("<HHIII", 1, len(versions), entries[0][1], 16, 0)
        for number, name in enumerate(names[:-1], 1):
            following = 16 if number < len(versions) else 0
            required += struct.pack("<IHHII", 0, 0, 1 + number, name, following)
        sections.append((".gnu.version_r", 0x6FFFFFFE, required, 1))
    return _object(3, tuple(sections), bits)


def kernel_module(modinfo: Mapping[str, str | Sequence[str]], signature: bytes = b"") -> bytes:
    """A relocatable object with a .modinfo section, and a signature appended in the format of the kernel's
    sign-file."""
    lines = bytearray()
    for key, values in modinfo.items():
        for value in [values] if isinstance(values, str) else values:
            lines += f"{key}={value}".encode() + b"\0"
    content = _object(1, ((".modinfo", 1, bytes(lines), 0),), 64)
    return signed(content, signature) if signature else content


def signed(module: bytes, signature: bytes) -> bytes:
    """A module with a PKCS#7 message and the trailer that contains its length."""
    return module + signature + struct.pack(">BBBBBxxxI", 0, 0, 2, 0, 0, len(signature)) + _SIGNATURE_MAGIC


@cache  # the libraries of a driver are those of a thousand scenarios
def _object(kind: int, sections: tuple[tuple[str, int, bytes, int], ...], bits: int) -> bytes:
    names = bytearray(b"\0")
    all_sections = [*sections, (".shstrtab", 3, b"", 0)]
    offsets = []
    for name, *_ in all_sections:
        offsets.append(len(names))
        names += name.encode() + b"\0"
    header = 64 if bits == 64 else 52
    layout = "<IIQQQQIIQQ" if bits == 64 else "<IIIIIIIIII"
    body, table = bytearray(), [struct.pack(layout, *[0] * 10)]
    for (_, section_type, data, link), name_offset in zip(all_sections, offsets, strict=True):
        data = bytes(names) if data == b"" and section_type == 3 else data
        # The table starts with the null section, so the link to an earlier section counts from one.
        table.append(struct.pack(layout, name_offset, section_type, 0, 0, header + len(body), len(data), link, 0, 1, 0))
        body += data
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    machine = 62 if bits == 64 else 3
    entry = len(table[0])
    rest = struct.pack(
        "<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH",
        kind, machine, 1, 0, 0, header + len(body), 0, header, 0, 0, entry, len(table), len(table) - 1,
    )  # fmt: skip
    return ident + rest + bytes(body) + b"".join(table)
