"""Graphical logins: how long they lasted, and what their programs complained of."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import Account, may_read
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.login.homes import HomeFiles
from dlhealth.probes.login.users import Users
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.records import NamedTuple

SHORT = 10.0
"""Seconds. A desktop that ends earlier never showed itself."""
TRIES, WINDOW = 3, 600.0
"""A loop is so many short sessions within so many seconds: fewer may be a person who logs out again."""
ERRORS = 64 << 10
"""Bytes that are read of each log of a session, from its end."""

RECENT = 30 * 86400.0
"""Seconds. A session's log that is older than the newest line of the system's logs by so much is of no login of late."""
LONGEST = 300
"""Characters of one line: enough to know it."""
X_LOG = 256 << 10
"""The bytes of an X server's log; each server begins a new one."""

_PAM = regex(r"pam_unix\(([^:()]+):session\): session (opened|closed) for user ([^\s(]+)")
_UPTIME = regex(r"^\[ *[\d.]+\] *")
_NEW = regex(r"New session '?(\w+)'? of user '?([^\s']+?)'?(?: with class '([\w-]+)' and type '(\w+)')?\.$")
_GONE = regex(r"(?:Session (\w+) logged out\.|Removed session (\w+)\.)")
_MANAGERS = (
    "gdm",
    "lightdm",
    "sddm",
    "lxdm",
    "slim",
    "xdm",
    "mdm",
    "kdm",
    "wdm",
    "nodm",
    "kde",
    "greetd",
    "cosmic-greeter",
    "ly",
)
_GREETERS = frozenset(
    ("lightdm", "gdm", "Debian-gdm", "gdm-greeter", "sddm", "lxdm", "greeter", "greetd", "_greetd", "cosmic-greeter")
)
# A PAM session and logind's begin in the same login, one a moment after the other.
_SAME_LOGIN = 5.0
# So soon after a graphical session its greeter is back.
_GREETER_BACK = 15.0


class Session(NamedTuple):
    """One graphical session of a person. Times in seconds as in the log; `ended` is None if no end was seen.
    `service` is the PAM service of the display manager ("" if only logind reported the session)."""

    user: str
    boot: str
    service: str
    started: float
    ended: float | None
    source: str

    def lasted(self) -> float:
        """In seconds. A session without an end is never short: it goes on, or what ended it ended the log too."""
        return math.inf if self.ended is None else self.ended - self.started


class Loop(NamedTuple):
    """A person whom the greeter got back at once, several times, and who did not get in afterwards."""

    user: str
    services: tuple[str, ...]
    tries: int
    shortest: float
    longest: float
    source: str
    last: Session


class Sessions(NamedTuple):
    """All graphical sessions in the logs, oldest first, without those that have only just begun: such a one may end at
    once like those before. `by_user` has those of each person."""

    sessions: tuple[Session, ...]
    by_user: Mapping[str, tuple[Session, ...]]

    @classmethod
    def of(cls, sessions: Iterable[Session]) -> "Sessions":
        """Some sessions, oldest first."""
        every = tuple(sessions)
        own: dict[str, list[Session]] = {}
        for session in every:
            own.setdefault(session.user, []).append(session)
        return cls(every, {user: tuple(several) for user, several in own.items()})

    def of_boot(self, boot: str) -> "Sessions":
        """Those of one boot."""
        return Sessions.of(s for s in self.sessions if s.boot == boot)

    def users(self) -> tuple[str, ...]:
        """Who logged in graphically in the last boot in which anybody did."""
        last = self.sessions[-1].boot if self.sessions else ""
        return tuple(dict.fromkeys(s.user for s in self.sessions if s.boot == last))

    def loops(self) -> tuple[Loop, ...]:
        """Who is in a login loop, judged by the last boot in which he logged in."""
        found = map(self.loop, self.by_user)
        return tuple(loop for loop in found if loop)

    def loop(self, user: str) -> Loop | None:
        """The loop of one person, None if there is none."""
        own = self.by_user.get(user, ())
        streak: list[tuple[Session, float]] = []
        for session in own:
            if session.boot != own[-1].boot:
                continue
            seconds = session.lasted()
            streak = [*streak, (session, seconds)] if seconds < SHORT else []
        tries = zip(streak, streak[TRIES - 1 :], strict=False)
        if not any(last[0].started - first[0].started <= WINDOW for first, last in tries):
            return None
        return Loop(
            user,
            tuple(dict.fromkeys(s.service for s, _ in streak if s.service)),
            len(streak),
            min(seconds for _, seconds in streak),
            max(seconds for _, seconds in streak),
            ", ".join(dict.fromkeys(s.source for s, _ in streak)),
            streak[-1][0],
        )

    def got_in(self, user: str) -> bool:
        """Whether the last thing that is known of a person is a session that lasted."""
        own = self.by_user.get(user, ())
        return bool(own) and own[-1].lasted() >= SHORT

    @classmethod
    def probe(cls, host: Host, journal: Journal) -> "Sessions":
        sessions = find_sessions(journal.lines)
        if not sessions and journal.problem:
            raise Unavailable(f"logins cannot be checked: {journal.problem}")
        now = host.now()
        if now is not None:
            sessions = [s for s in sessions if s.ended is not None or not 0 <= now - s.started < SHORT]
        return cls.of(sessions)


class _Open:
    """A session while the log is read."""

    def __init__(self, user: str, line: Line, service: str = "", number: str = "") -> None:
        self.user, self.line, self.service, self.number = user, line, service, number
        self.ended: float | None = None
        self.graphical = bool(service)

    def near(self, line: Line) -> bool:
        return self.line.boot == line.boot and 0 <= line.time - self.line.time <= _SAME_LOGIN

    def session(self) -> Session:
        line = self.line
        return Session(self.user, line.boot, self.service, line.time, self.ended, line.source)


def find_sessions(lines: Iterable[Line]) -> list[Session]:
    """The graphical sessions of people, oldest first, from what PAM and logind say."""
    opened: list[_Open] = []
    others: list[tuple[str, Line]] = []  # logins that are not graphical, by user
    greeters: list[Line] = []
    for line in lines:
        if match := _PAM.search(line.text):
            _pam(match, line, opened, others, greeters)
        elif match := _NEW.match(line.text):
            _new(match, line, opened, others, greeters)
        elif match := _GONE.match(line.text):
            number = match[1] or match[2]
            for session in reversed(opened):
                if session.number == number and session.line.boot == line.boot:
                    session.ended = line.time if session.ended is None else min(session.ended, line.time)
                    break
    return [s.session() for s in opened if s.graphical or _greeter_came_back(s, greeters)]


def _pam(
    match: re.Match[str], line: Line, opened: list[_Open], others: list[tuple[str, Line]], greeters: list[Line]
) -> None:
    service, what, user = match.groups()
    of_greeter = "greeter" in service and service != "cosmic-greeter"
    if of_greeter or "launch-environment" in service or user in _GREETERS:
        if what == "opened":
            greeters.append(line)
    elif not service.startswith(_MANAGERS):
        # The manager of a person's units, or a sudo in the session, tells nothing of how the session came.
        if what == "opened" and service in ("sshd", "login", "cron", "su", "su-l", "remote", "xrdp-sesman"):
            others.append((user, line))
    elif what == "opened":
        same = next((s for s in opened[-3:] if not s.service and s.user == user and s.near(line)), None)
        if same:  # logind was first
            same.service, same.graphical = service, True
        else:
            opened.append(_Open(user, line, service))
    else:
        for session in reversed(opened):
            same_process = None in (session.line.pid, line.pid) or session.line.pid == line.pid
            if (session.user, session.service, session.line.boot) == (user, service, line.boot) and same_process:
                if session.ended is None:
                    session.ended = line.time
                break


def _new(
    match: re.Match[str], line: Line, opened: list[_Open], others: list[tuple[str, Line]], greeters: list[Line]
) -> None:
    number, user, kind, display = match.groups()
    if user in _GREETERS or kind == "greeter":
        greeters.append(line)
        return
    if kind and not kind.startswith("user"):
        return
    same = next((s for s in reversed(opened) if s.user == user and not s.number and s.near(line)), None)
    if same:
        same.number = number
        return
    if kind and display not in ("x11", "wayland", "mir"):
        return
    if any(u == user and abs(line.time - other.time) <= _SAME_LOGIN for u, other in others[-5:]):
        return
    session = _Open(user, line, "", number)
    session.graphical = bool(kind)
    opened.append(session)


def _greeter_came_back(session: _Open, greeters: Iterable[Line]) -> bool:
    """Whether a session that only logind reported was a greeter's: the greeter appears again after it."""
    ended = session.ended
    return ended is not None and any(
        g.boot == session.line.boot and -2.0 <= g.time - ended <= _GREETER_BACK for g in greeters
    )


_QUOTED = 3
"""Lines of a session that are shown: the last ones are nearest to its end."""
_COMPLAINS = regex(
    r"\(EE\)|error|fail|abort|assert|signal \d|segfault|fatal|cannot|can't|could not|unable|refused|denied|not found"
    r"|no such|undefined symbol|no protocol specified|authorization|core dumped|crash",
    re.IGNORECASE,
)
_SESSION_LOGS = {
    "lightdm": ("~/.xsession-errors", "/var/log/lightdm/"),
    "sddm": ("~/.local/share/sddm/xorg-session.log and wayland-session.log",),
    "gdm": ("journalctl -b _UID=$(id -u)",),
}
"""Where the programs of a session write, by the display manager that started it."""


class LoopLogs(NamedTuple):
    """By user in a login loop: the last lines of the session that failed last which complain of something, and where the
    logs of such a session are."""

    lines: Mapping[str, tuple[Line, ...]]
    places: Mapping[str, tuple[str, ...]]

    @classmethod
    def probe(cls, host: Host, sessions: Sessions, journal: Journal, users: Users) -> "LoopLogs":
        numbers = {a.name: a.uid for a in users.people}
        ordered = sorted(journal.lines, key=_when)
        lines, places = {}, {}
        for loop in sessions.loops():
            inside = [li for li in _during(ordered, loop.last) if _is_of(li, numbers.get(loop.user))]
            telling = [li for li in inside if _COMPLAINS.search(li.text)]
            lines[loop.user] = tuple({li.text: li for li in telling}.values())[-_QUOTED:]
            manager = next((m for m in _SESSION_LOGS if any(s.startswith(m) for s in loop.services)), "")
            places[loop.user] = _SESSION_LOGS.get(manager, ("~/.xsession-errors", "journalctl -b _UID=$(id -u)"))
        return cls(lines, places)


def _when(line: Line) -> tuple[str, float]:
    return line.boot, line.time


def _during(ordered: list[Line], session: Session) -> list[Line]:
    """The lines that were written while a session ran."""
    end = (session.ended or session.started) + 2
    first = bisect_left(ordered, (session.boot, session.started), key=_when)
    return ordered[first : bisect_right(ordered, (session.boot, end), key=_when)]


def _is_of(line: Line, uid: int | None) -> bool:
    """Whether a program of a person may have written a line; syslog does not say whose a line is."""
    system = line.identifier in ("kernel", "systemd-logind") or "pam_unix(" in line.text
    return line.uid in (uid, None) and not system


class Complaint(NamedTuple):
    """One line that a session or its X server wrote; `user` is "" if it can't be said whose session it was."""

    user: str
    source: str
    text: str


class SessionLogs(NamedTuple):
    """What the last sessions wrote: X servers' errors, session programs' output, display managers' complaints."""

    complaints: tuple[Complaint, ...]
    problems: tuple[str, ...]

    def matching(self, pattern: str) -> tuple[Complaint, ...]:
        """Lines that match a regular expression; each text of a file once."""
        wanted = regex(pattern)
        return tuple(dict.fromkeys(c for c in self.complaints if wanted.search(c.text)))

    @classmethod
    def probe(cls, host: Host, journal: Journal | None, homes: HomeFiles | None) -> "SessionLogs":
        complaints, problems = [], []
        accounts = [home.account for home in homes.homes if not home.problem] if homes else []
        newest = journal.lines[-1].time if journal and journal.lines else 0.0
        for user, path, account in _files(accounts):
            try:
                if account and not (may_read(host, account, path)):
                    continue
                status = host.stat(path)
                if status is None or status.mtime < newest - RECENT:
                    continue
                content = host.tail(path, X_LOG if "Xorg" in path else ERRORS) or b""
            except Unreadable as problem:
                problems.append(str(problem))
                continue
            for text in content.decode(errors="surrogateescape").splitlines():
                # Of the X server's lines, the few that are errors; some thousand others are its hardware.
                if "Xorg" not in path or "(EE)" in text or "NVIDIA: Failed" in text:
                    complaints.append(Complaint(user, path, _UPTIME.sub("", text.strip())[:LONGEST]))
        names = {a.uid: a.name for a in accounts}
        if journal:
            for line in journal.matching(r"", last_boot=True):
                if line.identifier not in ("kernel", "systemd-logind"):
                    user = names.get(line.uid, "") if line.uid else ""
                    complaints.append(
                        Complaint(user, f"{line.source} ({line.identifier.rstrip(']')})", line.text.strip()[:LONGEST])
                    )
        return cls(tuple(complaints), tuple(problems))


def _files(accounts: Iterable[Account]) -> Iterator[tuple[str, str, Account | None]]:
    # A session that dies takes its X server along: its log is then the old one.
    yield "", "/var/log/Xorg.0.log", None
    yield "", "/var/log/Xorg.0.log.old", None
    for account in accounts:
        for name in (
            ".xsession-errors",
            ".local/share/xorg/Xorg.0.log",
            ".local/share/xorg/Xorg.1.log",
            ".local/share/sddm/xorg-session.log",
            ".local/share/sddm/wayland-session.log",
        ):
            yield account.name, f"{account.home.rstrip('/')}/{name}", account
