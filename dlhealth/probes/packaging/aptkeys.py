"""Which keys apt trusts for NVIDIA's repositories."""

import binascii
from collections.abc import Iterator

from dlhealth.data import load
from dlhealth.host import Host, Unreadable
from dlhealth.probes.packaging.apt import AptSources, Source
from dlhealth.probes.packaging.packages import Packages, owner_of
from dlhealth.records import NamedTuple

CUDA_KEYRING = "/usr/share/keyrings/cuda-archive-keyring.gpg"
_TRUSTED = ("/etc/apt/trusted.gpg", "/etc/apt/trusted.gpg.d/*.gpg", "/etc/apt/trusted.gpg.d/*.asc")
_KEYRINGS = ("/etc/apt/keyrings/*", "/usr/share/keyrings/*")
_PUBLIC_KEY, _SIGNATURE = 6, 2
_ISSUER, _ISSUER_FINGERPRINT = 16, 33


class Keyrings(NamedTuple):
    """The keyring files that apt's sources name: those that exist, and those of a package of NVIDIA's."""

    existing: frozenset[str]
    packaged: frozenset[str]

    @classmethod
    def probe(cls, host: Host, sources: AptSources, packages: Packages | None) -> "Keyrings":
        named = {s.signed_by for s in (*sources.sources, *sources.code) if s.signed_by.startswith("/")}
        existing = frozenset(path for path in named if _exists(host, path))
        return cls(existing, frozenset(p for p in existing if isinstance(owner_of(packages, p), str)))


class NeededKey(NamedTuple):
    """A repository of NVIDIA's and the key that signs it. `present` is None if a keyring could not be read; `keys` are
    those of each keyring that apt uses for it, None for a file that does not exist."""

    source: Source
    key: str
    present: bool | None
    keys: dict[str, tuple[str, ...] | None]


class NvidiaKeys(NamedTuple):
    """For each repository of NVIDIA's whose key is known. Local repositories have keys of their own. `packaged` are the
    keys in the keyring of the package cuda-keyring."""

    needed: tuple[NeededKey, ...]
    packaged: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, sources: AptSources) -> "NvidiaKeys":
        # An entry without a key takes the one of a later entry of the same repository.
        signed = {(s.uri.rstrip("/"), s.suites): s.signed_by for s in sources.sources if s.signed_by}
        complete = any(path for pattern in (*_TRUSTED, *_KEYRINGS) for path in host.glob(pattern))
        needed = tuple(
            _judged(host, s, s.signed_by or signed.get((s.uri.rstrip("/"), s.suites), ""), key, complete)
            for s in sources.sources
            if (key := key_of(s.uri))
        )
        if all(n.present for n in needed):
            return cls(needed, ())
        try:
            return cls(needed, tuple(read_keyring(host.read(CUDA_KEYRING) or b"")))
        except (Unreadable, ValueError):
            return cls(needed, ())


def key_of(uri: str) -> str:
    """The ID of the key that signs a repository of NVIDIA's for CUDA; "" for any other repository."""
    rows = load("package_patterns")["keys"]["rows"]
    return next((row["key"] for row in rows if row["path"] in f"{uri.rstrip('/')}/"), "")


def _exists(host: Host, path: str) -> bool:
    try:
        return host.exists(path)
    except Unreadable:
        return False


def _judged(host: Host, source: Source, signed_by: str, key: str, complete: bool) -> NeededKey:
    """`complete`: whether any keyring exists. No system with apt lacks them all: they are missing from this copy."""
    given = [part for part in signed_by.replace(",", " ").split() if part.startswith("/")]
    keys: dict[str, tuple[str, ...] | None] = {}
    unread = not complete
    for path in given or [p for pattern in _TRUSTED for p in host.glob(pattern)]:
        try:
            content = host.read(path)
            keys[path] = None if content is None else tuple(sorted(set(read_keyring(content))))
        except (Unreadable, ValueError):
            unread = True
    found = any(key in (ids or ()) for ids in keys.values())
    # A key in the entry itself, or one named by its fingerprint, is not a file that can be missing.
    unread = unread or bool(signed_by and not given)
    return NeededKey(source, key, True if found else None if unread else False, keys)


def read_keyring(content: bytes) -> Iterator[str]:
    """The IDs of the keys in a keyring, binary or armored, by who made the first signature after each: its own. Raises
    ValueError for anything else."""
    if b"-----BEGIN PGP PUBLIC KEY BLOCK-----" in content:
        content = b"".join(map(_unarmored, content.split(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")[1:]))
    waiting = False
    for tag, body in _packets(content):
        if tag == _PUBLIC_KEY:
            waiting = True
        elif tag == _SIGNATURE and waiting and (issuer := _issuer(body)):
            waiting = False
            yield issuer


def _unarmored(block: bytes) -> bytes:
    text = block.partition(b"-----END")[0].replace(b"\r", b"").strip(b"\n")
    head, blank, rest = text.partition(b"\n\n")
    lines = (rest if blank else head).split(b"\n")
    try:
        return binascii.a2b_base64(b"".join(line for line in lines if not line.startswith(b"=")))
    except binascii.Error as error:
        raise ValueError("not an OpenPGP key") from error


def _packets(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, body) of each packet (RFC 4880, section 4.2)."""
    at = 0
    while at < len(content):
        first = content[at]
        if not first & 0x80:
            raise ValueError("not an OpenPGP keyring")
        new = bool(first & 0x40)
        size = 1 << (first & 3)
        if new:
            tag, length, at = (first & 0x3F, *_new_length(content, at + 1))
        elif size < 8:
            tag, length = first >> 2 & 0xF, int.from_bytes(content[at + 1 : at + 1 + size], "big")
            at += 1 + size
        else:
            raise ValueError("a packet without a length")
        yield tag, content[at : at + length]
        at += length


def _new_length(content: bytes, at: int) -> tuple[int, int]:
    """The length of a packet or subpacket, and where its body begins."""
    first = content[at] if at < len(content) else 255
    if first < 192:
        return first, at + 1
    if first < 224:
        return (first - 192 << 8) + int.from_bytes(content[at + 1 : at + 2], "big") + 192, at + 2
    if first == 255:
        return int.from_bytes(content[at + 1 : at + 5], "big"), at + 5
    raise ValueError("a packet of unknown length")


def _issuer(signature: bytes) -> str:
    """The ID of the key that made a signature of version 3 or 4; "" for another."""
    if signature[:1] == b"\3":
        return signature[7:15].hex().upper()
    if signature[:1] != b"\4":
        return ""
    at = 4
    for _ in range(2):  # what is signed too, then what is not
        end = at + 2 + int.from_bytes(signature[at : at + 2], "big")
        at += 2
        while at < end:
            length, at = _new_length(signature, at)
            kind, body = signature[at] & 0x7F if at < len(signature) else 0, signature[at + 1 : at + length]
            if kind in (_ISSUER, _ISSUER_FINGERPRINT) and len(body) >= 8:
                return body[-8:].hex().upper()
            at += max(length, 1)
        at = end
    return ""
