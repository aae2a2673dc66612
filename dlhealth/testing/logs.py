"""Logs of logins in the formats of Debian and Ubuntu: lines of rsyslog, or a real journal."""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dlhealth.records import NamedTuple

if TYPE_CHECKING:  # pathlib costs more than this module, and every rule imports it
    from pathlib import Path

BEGIN = 1795158000.0
"""When the machines of tests were started: 2026-11-20 07:00 UTC."""

BOOT = "0123456789abcdef0123456789abcdef"
JOURNAL_REMOTE = "/lib/systemd/systemd-journal-remote"

_SERVICES = {"lightdm": "lightdm", "gdm": "gdm-password", "sddm": "sddm"}
_IDENTIFIERS = {"lightdm": "lightdm", "gdm": "gdm-password]", "sddm": "sddm-helper"}
_GREETERS = {"lightdm": "lightdm-greeter", "gdm": "gdm-launch-environment", "sddm": "sddm-greeter"}


class Entry(NamedTuple):
    """One line of a log, `seconds` after the machine's boot."""

    seconds: float
    identifier: str
    text: str
    pid: int = 0
    uid: int = 0


def session(
    user: str, begin: float, seconds: float | None, manager: str = "lightdm", number: int = 1, uid: int = 1000
) -> list[Entry]:
    """The messages of PAM and logind about one graphical session; it does not end if `seconds` is None. Then the
    greeter returns."""
    service, name, greeter = _SERVICES[manager], _IDENTIFIERS[manager], _GREETERS[manager]
    pid = 2000 + number
    lines = [
        Entry(begin, name, f"pam_unix({service}:session): session opened for user {user}(uid={uid}) by (uid=0)", pid),
        Entry(begin + 0.1, "systemd-logind", f"New session {number} of user {user}.", 700),
    ]
    if seconds is not None:
        end = begin + seconds
        lines += [
            Entry(end, name, f"pam_unix({service}:session): session closed for user {user}", pid),
            Entry(end + 0.1, "systemd-logind", f"Session {number} logged out. Waiting for processes to exit.", 700),
            Entry(end + 0.2, "systemd-logind", f"Removed session {number}.", 700),
            Entry(
                end + 1, "gdm-launch-environment]" if manager == "gdm" else name,
                f"pam_unix({greeter}:session): session opened for user {manager}(uid=115) by (uid=0)", pid + 500,
            ),
        ]  # fmt: skip
    return lines


def write_text(root: "Path", entries: Iterable[Entry], *, traditional: bool = False) -> None:
    """Append to auth.log, kern.log and syslog below a root, in rsyslog's ISO 8601 or its traditional format."""
    from datetime import datetime, timezone

    folder = root / "var/log"
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(entries, key=lambda e: e.seconds):
        when = datetime.fromtimestamp(BEGIN + entry.seconds, timezone.utc)
        stamp = f"{when:%b} {when.day:2} {when:%H:%M:%S}" if traditional else when.isoformat(timespec="microseconds")
        number = f"[{entry.pid}]" if entry.pid and entry.identifier != "kernel" else ""
        text = f"[{entry.seconds:12.6f}] {entry.text}" if entry.identifier == "kernel" else entry.text
        private = "pam_unix(" in text or entry.identifier == "systemd-logind"
        path = folder / ("auth.log" if private else "kern.log" if entry.identifier == "kernel" else "syslog")
        with path.open("a") as file:
            file.write(f"{stamp} workstation {entry.identifier}{number}: {text}\n")
        # The traditional format has no year: it is that of the file's time.
        os.utime(path, (BEGIN + 3600, BEGIN + 3600))


def write_journal(root: "Path", boots: Sequence[Sequence[Entry]]) -> None:
    """A real journal below a root, made by systemd-journal-remote. The last boot's identifier is BOOT."""
    folder = root / "var/log/journal" / BOOT
    folder.mkdir(parents=True, exist_ok=True)
    blocks = []
    for age, entries in enumerate(reversed(boots)):
        boot = BOOT if not age else f"{age:032x}"
        for entry in entries:
            stamp = int((BEGIN + entry.seconds - age * 86400) * 1e6)
            transport = "kernel" if entry.identifier == "kernel" else "syslog"
            message = entry.text.encode(errors="surrogateescape")
            # Binary form: the length in eight bytes, little endian, then the bytes.
            blocks.append(
                (stamp, f"__REALTIME_TIMESTAMP={stamp}\n__MONOTONIC_TIMESTAMP={int(entry.seconds * 1e6)}\n_BOOT_ID={boot}\n"
                f"_TRANSPORT={transport}\nSYSLOG_IDENTIFIER={entry.identifier}\n_UID={entry.uid}\n_PID={entry.pid}\n"
                "MESSAGE\n".encode() + len(message).to_bytes(8, "little") + message + b"\n\n")
            )  # fmt: skip
    import subprocess

    exported = root / "export"
    exported.write_bytes(b"".join(block for _, block in sorted(blocks)))
    subprocess.run(
        [JOURNAL_REMOTE, "-o", str(folder / "system.journal"), str(exported)],
        check=True,
        capture_output=True,
    )
    exported.unlink()
