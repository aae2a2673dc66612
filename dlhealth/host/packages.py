"""An index of packages (a Packages file of apt), read as a stream: Debian's has fifty megabytes."""

import re
from collections.abc import Iterator, Sequence

from dlhealth.host.compressed import Readable
from dlhealth.lazy import regex

_BLOCK = 1 << 20
_STANZA_LIMIT = 1 << 20
_KEPT = regex(rb"^(?:Version|Pre-Depends|Depends|Conflicts): .*\n", re.MULTILINE)


def read_offers(stream: Readable, names: Sequence[str]) -> dict[str, str]:
    """The entries of these packages in an index: by name, the dependency fields of each version, with an empty line
    between two versions. Raises Damaged for an incomplete stream."""
    needles = {name: b"\nPackage: " + name.encode(errors="surrogateescape") + b"\n" for name in names}
    offers: dict[str, str] = {}
    for block in _blocks(stream):
        for name, needle in needles.items():
            at = block.find(needle)
            while at >= 0:
                end = block.find(b"\n\n", at + 1)
                stanza = block[at : end + 1 if end >= 0 else len(block)]
                kept = b"".join(_KEPT.findall(stanza)).decode(errors="surrogateescape")
                offers[name] = f"{offers[name]}\n{kept}" if name in offers else kept
                at = block.find(needle, at + 1)
    return offers


def _blocks(stream: Readable) -> Iterator[bytes]:
    """Blocks of complete entries; an empty line precedes and follows each entry."""
    rest = b"\n"
    while block := stream.read(_BLOCK):
        whole, separator, rest = (rest + block).rpartition(b"\n\n")
        if separator:
            yield whole + separator
            rest = b"\n" + rest
        elif len(rest) > _STANZA_LIMIT:
            rest = b""  # no package has such a long entry
    yield rest + b"\n"
