"""What the system wrote to its logs: the kernel, logins, display managers."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.localtime import LocalTime
from dlhealth.records import NamedTuple

JOURNAL_FOLDERS = ("/var/log/journal", "/run/log/journal")
ENTRIES = 2000
"""Newest entries that are read: more than a boot of a desktop, and 80 ms for journalctl and for parsing together."""
SECONDS = 2.0

TEXT_LOGS = ("/var/log/kern.log", "/var/log/auth.log", "/var/log/syslog", "/var/log/messages")
"""What rsyslog writes on Debian and Ubuntu."""
DMESG = "/var/log/dmesg"
TAIL = 256 << 10
"""Bytes that are read of each text log, from its end."""

IDENTIFIERS = (
    "systemd-logind",
    "systemd-oomd",
    "lightdm",
    "gdm",
    "gdm3",
    "gdm-password]",  # gdm names its workers "gdm-session-worker [pam/gdm-password]"; syslog keeps what is after the /
    "gdm-autologin]",
    "gdm-fingerprint]",
    "gdm-launch-environment]",
    "gdm-session-worker",
    "gdm-x-session",
    "gdm-wayland-session",
    "/usr/lib/gdm3/gdm-x-session",
    "/usr/lib/gdm3/gdm-wayland-session",
    "/usr/libexec/gdm-x-session",
    "/usr/libexec/gdm-wayland-session",
    "sddm",
    "sddm-helper",
    "sddm-greeter",
    "lxdm",
    "slim",
    "xdm",
    "greetd",
    "cosmic-greeter",
    "Xorg",
    "gnome-session",
    "gnome-session-b",
    "gnome-session-binary",
    "gnome-session-i",
    "gnome-session-init-worker",
    "gnome-session-service",
    "gnome-shell",
    "org.gnome.Shell.desktop",
    "kwin_x11",
    "kwin_wayland",
    "startplasma-x11",
    "startplasma-wayland",
)
"""Beside the kernel, whose lines are wanted. What a service manager or a cron daemon says of itself is ten times as
much, and nothing of it is about a session."""

_WANTED = regex(r" kernel: |pam_unix\(|logind|oomd|[dx]m[]\[:3 -]|gnome-s|Shell|kwin|plasma|greet|Xorg|slim")
"""Found in every line that may be wanted: the lines of other programs are not parsed."""
_TRADITIONAL = regex(
    r"([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) \S+ (\S+?)(?:\[(\d{1,10})\])?:(?: (.*))?", re.DOTALL
)
_ISO = regex(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|([+-])(\d\d):?(\d\d)) \S+ (\S+?)(?:\[(\d{1,10})\])?:(?: (.*))?",
    re.DOTALL,
)
_UPTIME = regex(r"\[\s*(\d{1,10}\.\d+)\] ?(?:kernel: )?(.*)", re.DOTALL)
_MONTHS = {
    m: n for n, m in enumerate(("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1)
}
_BOOT = "Linux version "
_TOLERANCE = 2 * 86400
"""Seconds that a line may be newer than its file: the clock was wrong."""


_KNOWN = frozenset(("kernel", *IDENTIFIERS))


class Line(NamedTuple):
    """One record. `time` in seconds since the epoch; `boot` names the boot it belongs to; `identifier` is "kernel",
    "systemd-logind", "lightdm" …; `source` is what to name as evidence: "journalctl" or a file."""

    time: float
    boot: str
    identifier: str
    uid: int | None
    text: str
    source: str = "journalctl"
    pid: int | None = None


class Journal(NamedTuple):
    """The newest lines of the kernel, of logind and of display managers, oldest first; this boot and those before.

    `boots` are in order, the newest last; `problem` says what could not be read ("" for nothing).
    """

    lines: tuple[Line, ...]
    boots: tuple[str, ...]
    problem: str

    def kernel(self, pattern: str = "", *, last_boot: bool = False) -> Iterator[Line]:
        """What the kernel said, as far as it matches a regular expression; `last_boot` only of the newest boot."""
        return self.matching(pattern, ("kernel",), last_boot=last_boot)

    def matching(self, pattern: str, identifiers: tuple[str, ...] = (), *, last_boot: bool = False) -> Iterator[Line]:
        """Lines of these identifiers (of all, where none is given) that match a regular expression."""
        wanted = regex(pattern)
        for line in self.lines:
            if identifiers and line.identifier not in identifiers:
                continue
            if last_boot and line.boot != self.boots[-1]:  # a line has a boot, so there is one
                continue
            if wanted.search(line.text):
                yield line

    @classmethod
    def probe(cls, host: Host) -> "Journal":
        lines, problem = _journal(host)
        if not lines or not _persistent(host):
            # A journal in memory begins with this boot; what was before is in the text logs only.
            begin = lines[0].time if lines else float("inf")
            older, missed = _text_logs(host)
            lines = [line for line in older if line.time < begin] + lines
            problem = "; ".join(filter(None, (problem, missed)))
        if not lines and problem:
            raise Unavailable(problem)
        if not lines and not any(host.exists(path) for path in (*TEXT_LOGS, DMESG)):
            raise Unavailable("this machine has neither a journal nor a log of rsyslog")
        return cls(tuple(lines), tuple(dict.fromkeys(line.boot for line in lines)), problem)


def _persistent(host: Host) -> bool:
    try:
        return bool(host.listdir(JOURNAL_FOLDERS[0]))
    except Unreadable:
        return False


def _journal(host: Host) -> tuple[list[Line], str]:
    """From systemd's journal: the lines and why not all of them."""
    try:
        folder = next((f for f in JOURNAL_FOLDERS if host.listdir(f)), None)
    except Unreadable as problem:
        return [], str(problem)
    if folder is None:
        return [], ""
    where = () if host.live else ("--directory", f"root:{folder}")
    output = host.run(
        "journalctl", *where, "--no-pager", "-o", "json", "-n", str(ENTRIES),
        "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_UID,_PID,_BOOT_ID",
        "_TRANSPORT=kernel", "+", *(f"SYSLOG_IDENTIFIER={i}" for i in IDENTIFIERS),
        timeout=SECONDS,
    )  # fmt: skip
    lines = sorted(filter(None, map(parse_entry, output.stdout.splitlines())), key=lambda line: line.time)
    if output.problem:
        return lines, output.problem
    if "not seeing messages" in output.stderr or "insufficient permissions" in output.stderr:
        return lines, "the journal needs root or the group systemd-journal"
    if output.status or (not lines and "No journal files were found" not in output.stderr):
        said = output.stderr.strip().splitlines()
        return lines, f"journalctl: {said[-1]}" if said else ""
    return lines, ""


def parse_entry(text: str) -> Line | None:
    """One entry as `journalctl -o json` prints it; None if it is none, or has no message."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    message = _message(entry.get("MESSAGE"))
    stamp = _number(entry.get("__REALTIME_TIMESTAMP"))
    if message is None or stamp is None:
        return None
    boot, identifier = entry.get("_BOOT_ID"), entry.get("SYSLOG_IDENTIFIER")
    return Line(
        stamp / 1e6,
        boot if isinstance(boot, str) else "",
        identifier if isinstance(identifier, str) else "",
        _number(entry.get("_UID")),
        message,
        "journalctl",
        _number(entry.get("_PID")),
    )


def _message(value: Any) -> str | None:
    """A message that is not UTF-8 is printed as a list of its bytes, one of more than 4096 bytes as null."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        try:
            return bytes(value).decode(errors="surrogateescape")
        except (TypeError, ValueError):
            return None
    return None


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else None


def _text_logs(host: Host) -> tuple[list[Line], str]:
    """From the files of rsyslog: the lines, by boots, and why not all of them."""
    found: list[Line] = []
    problems = []
    local = LocalTime(host)
    for path in TEXT_LOGS:
        try:
            found += _read_log(host, path, local)
        except Unreadable as problem:
            problems.append(str(problem))
    # One line goes to more than one file: of the kernel to syslog and to kern.log.
    unique: dict[tuple[float, str, int | None, str], Line] = {}
    for line in found:
        unique.setdefault((line.time, line.identifier, line.pid, line.text), line)
    lines = list(number_boots(sorted(unique.values(), key=lambda line: (line.time, line.identifier != "kernel"))))
    try:
        lines += _read_dmesg(host, lines)
    except Unreadable as problem:
        problems.append(str(problem))
    return lines, "; ".join(problems)


def _read_log(host: Host, path: str, local: LocalTime) -> list[Line]:
    """The end of a log; where it was rotated of late, also the end of what was rotated away."""
    content, status = host.tail(path, TAIL), host.stat(path)
    if content is None or status is None:
        return []
    before = _rotated(host, path, local) if len(content) < TAIL // 4 and not path.endswith(".1") else []
    texts = content.decode(errors="surrogateescape").split("\n")
    if len(content) == TAIL:
        del texts[0]  # its beginning is not here
    parsed = (parse_log_line(text, path, status.mtime, local) for text in texts if _WANTED.search(text))
    return before + [p for p in parsed if p and (p.identifier in _KNOWN or "pam_unix(" in p.text)]


def _rotated(host: Host, path: str, local: LocalTime) -> list[Line]:
    """From what was rotated away; nothing where that can't be read, as the newest lines are there."""
    try:
        return _read_log(host, f"{path}.1", local)
    except Unreadable:
        return []


def parse_log_line(text: str, path: str, written: float, local: LocalTime) -> Line | None:
    """One line as rsyslog writes it, in its traditional or its ISO 8601 form. The first is a local time without a year:
    it is not after `written`, when the file was."""
    stamp: float | None
    if match := _ISO.match(text):
        year, month, day, hour, minute, second = map(int, match.groups()[:6])
        if not 1 <= month <= 12 or year < 1970:
            return None
        import calendar  # for text logs only, which few machines still have

        stamp = calendar.timegm((year, month, day, hour, minute, second)) + float(match[7] or 0)
        if match[9]:
            offset = int(match[10]) * 3600 + int(match[11]) * 60
            stamp -= offset if match[9] == "+" else -offset
        identifier, pid, message = match[12], match[13], match[14]
    elif match := _TRADITIONAL.match(text):
        if match[1] not in _MONTHS:
            return None
        day, hour, minute, second = map(int, match.groups()[1:5])
        stamp = _latest(local, written, (_MONTHS[match[1]], day, hour, minute, second))
        identifier, pid, message = match[6], match[7], match[8]
    else:
        return None
    if stamp is None:
        return None
    message = message or ""
    if identifier == "kernel" and (inner := _UPTIME.match(message)):
        message = inner[2]
    return Line(stamp, "", identifier, None, message, path, int(pid) if pid else None)


def _latest(local: LocalTime, written: float, moment: tuple[int, int, int, int, int]) -> float | None:
    """The last time before `written`, with a tolerance, that has this month, day, hour, minute and second. The 29th of
    February may be years ago."""
    last = local.year(written)
    times = (local.seconds(year, *moment) for year in range(last, last - 9, -1))
    return next((t for t in times if t is not None and t <= written + _TOLERANCE), None)


def number_boots(lines: Iterable[Line]) -> Iterator[Line]:
    """Text logs don't name the boot; the kernel's first line begins one."""
    boot = 0
    for line in lines:
        if line.identifier == "kernel" and line.text.startswith(_BOOT):
            boot += 1
        yield line._replace(boot=str(boot))


def _read_dmesg(host: Host, others: list[Line]) -> Iterator[Line]:
    """The kernel's messages of the last boot, as Debian and Ubuntu keep them; without those that kern.log has too."""
    content, status = host.head(DMESG, TAIL), host.stat(DMESG)
    if not content or status is None:
        return
    boot = others[-1].boot if others else "1"
    known = {line.text for line in others if line.boot == boot and line.identifier == "kernel"}
    matches = [_UPTIME.match(text) for text in content.decode(errors="surrogateescape").split("\n")]
    stamps = [(float(m[1]), m[2]) for m in matches if m]
    if not stamps:
        return
    began = status.mtime - stamps[-1][0]
    for uptime, text in stamps:
        if text not in known:
            yield Line(began + uptime, boot, "kernel", None, text, DMESG)
