"""Secure Boot: whether the firmware asks for signed modules, and whose signatures count."""

from collections.abc import Iterator

from dlhealth.host import Host, Unreadable
from dlhealth.lean import NamedTuple
from dlhealth.probes import Unavailable

_VARIABLES = "/sys/firmware/efi/efivars"
_STATE = f"{_VARIABLES}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
_MOK_LIST = f"{_VARIABLES}/MokListRT-{_SHIM}"
_MOK_STATE = f"{_VARIABLES}/MokSBStateRT-{_SHIM}"
_X509 = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")  # EFI_CERT_X509_GUID, UEFI specification 32.4.1
LOCAL_KEYS = ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der")


class LocalKey(NamedTuple):
    """A key of this machine that modules are signed with; `serial` is its certificate's serial number in hex."""

    path: str
    serial: str


class SecureBoot(NamedTuple):
    """`enforced` says that the kernel takes only signed modules. `enrolled` are the serial numbers of the certificates
    that the owner enrolled (MOK); None where the firmware's list can't be read. `source` tells what told it."""

    enforced: bool
    source: str
    enrolled: tuple[str, ...] | None
    keys: tuple[LocalKey, ...]

    @classmethod
    def probe(cls, host: Host) -> "SecureBoot":
        state = host.read(_STATE)
        if state is None:
            if host.listdir(_VARIABLES):
                return cls(False, f"{_VARIABLES}: no SecureBoot variable", (), ())
            if host.listdir("/sys/firmware") and not host.exists("/sys/firmware/efi"):
                return cls(False, "/sys/firmware: started without UEFI", (), ())
            raise Unavailable("the firmware's variables can't be seen from here")
        shim = host.read(_MOK_STATE)
        # Four bytes of attributes, then the value. Validation may be switched off in shim (mokutil --disable-validation).
        enforced = state[4:5] == b"\1" and not (shim is not None and shim[4:5] == b"\1")
        keys = tuple(LocalKey(p, serial) for p in LOCAL_KEYS if (serial := _serial_of(host, p)))
        return cls(enforced, f"{_STATE}: {state[4:5].hex() or 'empty'}", _enrolled(host), keys)


def signer_serial(signature: str) -> str:
    """The serial number of the certificate that a module was signed with, from the PKCS#7 message in hex; empty where
    the message does not name one."""
    try:
        signed = _Der(bytes.fromhex(signature)).parts()[1].inside()
        signers = [part for part in signed.parts() if part.tag == 0x31][-1]
        issuer_and_serial = signers.inside().parts()[1]
        return issuer_and_serial.parts()[1].content.hex().lstrip("0") if issuer_and_serial.tag == 0x30 else ""
    except (ValueError, IndexError):
        return ""


def certificate_serial(content: bytes) -> str:
    """The serial number of an X.509 certificate in DER, in hex without leading zeros; empty for anything else."""
    try:
        parts = _Der(content).inside().parts()
        return next(p for p in parts if p.tag == 0x02).content.hex().lstrip("0")
    except (ValueError, IndexError, StopIteration):
        return ""


def _serial_of(host: Host, path: str) -> str:
    try:
        return certificate_serial(host.read(path) or b"")
    except Unreadable:
        return ""


def _enrolled(host: Host) -> tuple[str, ...] | None:
    try:
        content = host.read(_MOK_LIST)
    except Unreadable:
        return None
    return () if content is None else tuple(s for c in _certificates(content[4:]) if (s := certificate_serial(c)))


def _certificates(lists: bytes) -> Iterator[bytes]:
    """Of a sequence of EFI_SIGNATURE_LIST: type, sizes of list, header and entry, then entries of owner and data."""
    while len(lists) >= 28:
        kind = lists[:16]
        size, header, entry = (int.from_bytes(lists[i : i + 4], "little") for i in (16, 20, 24))
        if not 28 <= size <= len(lists) or entry <= 16:
            return
        if kind == _X509:
            for start in range(28 + header, size - entry + 1, entry):
                yield lists[start + 16 : start + entry]
        lists = lists[size:]


class _Der:
    """One DER element: its tag and its content. ValueError for what is not DER."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 2:
            raise ValueError("too short")
        length, start = data[1], 2
        if length & 0x80:
            count = length & 0x7F
            length, start = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
        if start + length > len(data):
            raise ValueError("longer than its content")
        self.tag = data[0]
        self.content = data[start : start + length]
        self.end = start + length

    def parts(self) -> list["_Der"]:
        found, rest = [], self.content
        while rest:
            part = _Der(rest)
            found.append(part)
            rest = rest[part.end :]
        return found

    def inside(self) -> "_Der":
        """The first part."""
        return _Der(self.content)
