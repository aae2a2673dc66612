"""Alerts in the system's journal, by its native protocol. The catalog explains them (`journalctl -x`).

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

import socket
from collections.abc import Mapping, Sequence
from enum import Enum

SOCKET = "/run/systemd/journal/socket"
LIMIT = 48 << 10
"""The bytes of one entry: more would not fit into a datagram with the kernel's usual limits."""

_PRIORITY = {"error": "3", "warning": "4", "note": "6"}


class Kind(str, Enum):
    """The kinds of alerts. The values are MESSAGE_IDs, each with an entry in systemd/dlhealth.catalog. They never
    change."""

    DRIVER_EVENT = "d366e71109d741efa7ce1d71856ba091"
    APPEARED = "36d11906a1d0447088306d0529c38f21"
    GONE = "0dabdc3e1b5e412098af7681f253d409"
    NEXT_BOOT = "47308d7c04cb4e45b458948c690f89cb"
    REPAIRED = "9320d96a0ab64903b4d1dde3265e3972"
    NOT_REPAIRED = "f9994504272d41eb915a783a56eb1f90"
    AWAITING_REBOOT = "b21d1be93155499a861fa950e6263e63"
    NOT_CHECKED = "00de2f313efc4048a667ef69dd07a0c9"
    RECOVERED = "78fa0a12479e446daec9091e1c7a8007"


def alert(
    kind: Kind,
    message: str,
    *,
    id: str = "",
    subject: str | Sequence[str] = "",
    severity: str = "note",
    layer: str = "",
    transaction: str = "",
    caused_by: str = "",
    quiet: bool = False,
) -> bytes:
    """An alert in the format of the journal's socket. Empty fields are left out; several subjects give several fields.
    A `quiet` alert has the priority of a note, however severe its finding is: nobody needs to act."""
    fields: dict[str, str | Sequence[str]] = {
        "MESSAGE": message,
        "MESSAGE_ID": kind.value,
        "PRIORITY": _PRIORITY["note" if quiet else severity],
        "SYSLOG_IDENTIFIER": "dlhealth",
        "DLHEALTH_ID": id,
        "DLHEALTH_SUBJECT": subject,
        "DLHEALTH_SEVERITY": severity,
        "DLHEALTH_LAYER": layer,
        "DLHEALTH_TRANSACTION": transaction,
        "DLHEALTH_CAUSED_BY": caused_by,
    }
    return encode({name: value for name, value in fields.items() if value})


def encode(fields: Mapping[str, str | Sequence[str]]) -> bytes:
    """Fields in the native protocol. A value with a line break is sent with its length before it."""
    parts = []
    pairs = ((name, v) for name, value in fields.items() for v in ([value] if isinstance(value, str) else value))
    for name, value in pairs:
        data = value.encode(errors="replace")[: LIMIT // 4].decode(errors="ignore").encode()
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def send(entry: bytes, path: str = SOCKET) -> bool:
    """Send an entry; whether the journal accepted it. A journal that restarts, or does not exist, does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        try:
            channel.sendto(entry, path)
        except OSError:
            return False
    return True
