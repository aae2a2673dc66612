"""Secure Boot: whether the kernel takes only signed modules, and whose signatures count."""

from collections.abc import Iterator

from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.journal import Journal
from dlhealth.records import NamedTuple

_FIRMWARE = "/sys/firmware"
_VARIABLES = f"{_FIRMWARE}/efi/efivars"
_STATE = f"{_VARIABLES}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
_MOK_STATE = f"{_VARIABLES}/MokSBStateRT-{_SHIM}"
# What the owner enrolled: the list that shim copies for the running system, and what does not fit into one variable.
_MOK_LISTS = tuple(f"{_VARIABLES}/MokListRT{n}-{_SHIM}" for n in ("", "1", "2", "3"))
_MOK_TABLES = tuple(f"{_FIRMWARE}/efi/mok-variables/MokListRT{n}" for n in ("", "1", "2", "3"))
# The firmware's own list counts as well: Debian's and Ubuntu's kernels also check modules with it.
_DB = f"{_VARIABLES}/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f"
_X509 = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")  # EFI_CERT_X509_GUID, UEFI specification 32.4.1
_LOCKDOWN = "/sys/kernel/security/lockdown"
_SIG_ENFORCE = "/sys/module/module/parameters/sig_enforce"
_PARTS = 200
_KEY_LIMIT = 64 << 10
LOCAL_KEYS = ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der")

# Object identifiers of X.509 (RFC 5280): commonName, subjectKeyIdentifier.
_COMMON_NAME, _SUBJECT_KEY = b"\x55\x04\x03", b"\x55\x1d\x0e"

# What the kernel says at its start, of the firmware and of itself.
_SAID_ON = r"[Ss]ecure ?boot enabled|Kernel is locked down from EFI Secure Boot"
_SAID_OFF = r"[Ss]ecure ?boot disabled"


class Signer(NamedTuple):
    """Whose certificate a signature was made with, or which one a file holds. `serial` and `key` (its subject key
    identifier) are in hexadecimal digits, "" if it is not named by that; `name` is a common name."""

    serial: str
    key: str
    name: str

    def same(self, other: "Signer") -> bool:
        """Whether both are of one key, as far as both name it in the same way."""
        return bool((self.serial and self.serial == other.serial) or (self.key and self.key == other.key))


class LocalKey(NamedTuple):
    """A key of this machine that modules are signed with, by its certificate."""

    path: str
    signer: Signer


class SecureBoot(NamedTuple):
    """`enforced` says that the kernel takes only signed modules, `source` and `shows` what tells it. `enrolled` are the
    certificates that the owner or the firmware's maker enrolled; None if the lists can't be read."""

    enforced: bool
    source: str
    shows: str
    enrolled: tuple[Signer, ...] | None
    keys: tuple[LocalKey, ...]

    def trusts(self, signer: Signer) -> bool:
        """Whether a signature is of a certificate that was enrolled."""
        return any(signer.same(s) for s in self.enrolled or ())

    def key_of(self, signer: Signer) -> LocalKey | None:
        """The key of this machine that a signature was made with."""
        return next((k for k in self.keys if k.signer.same(signer)), None)

    @classmethod
    def probe(cls, host: Host, journal: Journal | None) -> "SecureBoot":
        enforced, source, shows = enforcement(host)
        if enforced is None and journal:
            # A disk of a machine: what its kernel said when it last started.
            said = next(journal.kernel(f"{_SAID_ON}|{_SAID_OFF}", last_boot=True), None)
            if said:
                on = next(journal.kernel(_SAID_ON, last_boot=True), None)
                enforced, source, shows = bool(on), (on or said).source, (on or said).text.strip()
        if enforced is None:
            raise Unavailable("the Secure Boot state is not readable here")
        keys = tuple(LocalKey(p, signer) for p in LOCAL_KEYS if (signer := _certificate_in(host, p)))
        return cls(enforced, source, shows, _enrolled(host), keys)


def enforcement(host: Host) -> tuple[bool | None, str, str]:
    """Whether the kernel takes only signed modules, None if nothing tells it; what was looked at, and what it
    shows."""
    parameter = (_text(host, _SIG_ENFORCE) or "").strip()
    lockdown = (_text(host, _LOCKDOWN) or "").strip()
    if parameter == "Y":
        return True, _SIG_ENFORCE, parameter
    if lockdown:
        # "none [integrity] confidentiality": Debian's and Ubuntu's kernels lock themselves down under Secure Boot.
        return "[none]" not in lockdown, _LOCKDOWN, lockdown
    try:
        state = host.read(_STATE)
    except Unreadable as problem:
        return None, _STATE, problem.reason
    if state is None:
        if host.listdir(_VARIABLES):
            return False, _VARIABLES, "no variable SecureBoot"
        if host.listdir(_FIRMWARE) and not host.exists(f"{_FIRMWARE}/efi"):
            return False, _FIRMWARE, "started without UEFI"
        return None, _STATE, "does not exist"
    shim = host.read(_MOK_STATE)
    # Four bytes of attributes, then the value. Validation may be switched off in shim (mokutil --disable-validation).
    if shim is not None and shim[4:5] == b"\1":
        return False, _MOK_STATE, "shim does not validate"
    return state[4:5] == b"\1", _STATE, f"value {state[4:5].hex() or 'empty'}"


def signer_of(signature: str) -> Signer:
    """Whose certificate a module was signed with, from its PKCS#7 message in hexadecimal digits (RFC 5652, SignerInfo);
    empty fields where the message does not tell."""
    try:
        signed = _Der(bytes.fromhex(signature)).parts()[1].inside()
        signers = [part for part in signed.parts() if part.tag == 0x31][-1]
        who = signers.inside().parts()[1]
        if who.tag == 0x80:  # sign-file -k, and kmodsign of some: the subject key identifier
            return Signer("", who.content.hex(), "")
        issuer, serial = who.parts()[:2]
        return Signer(_number(serial), "", _common_name(issuer))
    except (ValueError, IndexError):
        return Signer("", "", "")


def certificate_of(content: bytes) -> Signer | None:
    """An X.509 certificate in DER; None for anything else."""
    try:
        parts = _Der(content).inside().parts()
        numbers = [p for p in parts if p.tag == 0x02]
        names = [p for p in parts if p.tag == 0x30]
        # Of the sequences: signature, issuer, validity, subject, public key.
        name = _common_name(names[3]) if len(names) > 3 else ""
        return Signer(_number(numbers[0]), _key_identifier(parts), name)
    except (ValueError, IndexError):
        return None


def _number(part: "_Der") -> str:
    return part.content.hex().lstrip("0")


def _common_name(name: "_Der") -> str:
    """A Name is a sequence of sets of pairs of type and value."""
    for relative in name.parts():
        for pair in relative.parts():
            kind, value = pair.parts()[:2]
            if kind.content == _COMMON_NAME:
                return bytes(value.content).decode(errors="replace")
    return ""


def _key_identifier(parts: list["_Der"]) -> str:
    for extension in [e for p in parts if p.tag == 0xA3 for e in p.inside().parts()]:
        values = extension.parts()
        if values and values[0].content == _SUBJECT_KEY:
            return _Der(values[-1].content).content.hex()
    return ""


def _text(host: Host, path: str) -> str | None:
    """A file of the kernel that only root may read, or that is not there."""
    try:
        return host.text(path)
    except Unreadable:
        return None


def _certificate_in(host: Host, path: str) -> Signer | None:
    try:
        return certificate_of(host.read(path, _KEY_LIMIT) or b"")
    except Unreadable:
        return None


def _enrolled(host: Host) -> tuple[Signer, ...] | None:
    found: list[Signer] = []
    try:
        lists = [(host.read(p) or b"")[4:] for p in _MOK_LISTS if host.exists(p)]
        if not lists:
            lists = [host.read(p) or b"" for p in _MOK_TABLES if host.exists(p)]
        if not host.exists(_STATE) and not lists:
            return None
        lists.append((host.read(_DB) or b"")[4:])
    except Unreadable:
        return None
    for content in lists:
        found += filter(None, map(certificate_of, _certificates(content)))
    return tuple(found)


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

    def __init__(self, data: memoryview | bytes) -> None:
        view = memoryview(data)
        if len(view) < 2:
            raise ValueError("too short")
        length, start = view[1], 2
        if length & 0x80:
            count = length & 0x7F
            length, start = int.from_bytes(view[2 : 2 + count], "big"), 2 + count
        self.end = start + length
        if self.end > len(view):
            raise ValueError("longer than its content")
        self.tag = view[0]
        self.content = view[start : self.end]

    def parts(self) -> list["_Der"]:
        found: list[_Der] = []
        rest = self.content
        while rest:
            if len(found) == _PARTS:
                raise ValueError("more parts than a certificate has")
            found.append(_Der(rest))
            rest = rest[found[-1].end :]
        return found

    def inside(self) -> "_Der":
        """The first part."""
        return _Der(self.content)
