"""The files in people's homes that a session must be able to write, and what may keep it from starting."""

import posixpath
from contextlib import suppress

from dlhealth.host import Host, Space, Stat, Unreadable
from dlhealth.host.account import Account, may_read
from dlhealth.host.place import Place
from dlhealth.host.remote import MOUNTS, mounts_in, on_server
from dlhealth.lazy import regex
from dlhealth.probes.login.users import Users
from dlhealth.records import NamedTuple

NEEDED = (
    "",
    ".ICEauthority",
    ".Xauthority",
    ".cache",
    ".config",
    ".config/dconf",
    ".dbus",
    ".local",
    ".local/share",
    ".profile",
)
"""What a session reads or writes at its start, relative to the home. Nothing below these is looked at: what a container
or a data set left there with other owners keeps nobody from logging in."""
AUTHORITY_LIMIT = 1 << 20
UNIT_LIMIT = 1 << 16

_LOCKED = "Access-Your-Private-Data.desktop"  # what ecryptfs shows in a home that is not unlocked
_SETTING = regex(r"^\s*(Wants|Requires|BindsTo|PartOf|Requisite|Upholds|WantedBy|RequiredBy|UpheldBy)\s*=\s*(.*)$")
_SESSION_TARGET = regex(r"(?:graphical-session(?:-pre)?|[\w-]+-session(?:@[^.\s]*)?)\.target")
_STARTS = ("Wants", "Requires", "BindsTo", "Upholds")


class HomeFile(NamedTuple):
    """One of NEEDED that is there. `status` is that of what a link leads to, `link` what the link says ("" for none)."""

    path: str
    status: Stat
    link: str = ""


class UserUnit(NamedTuple):
    """A systemd user unit that a person made and enabled, and that has to do with the target of graphical sessions.
    `starts` says that it starts this target itself (Wants=, Requires=), before any session did. `links` enable it;
    `source` is where the target is named, `setting` that line."""

    path: str
    links: tuple[str, ...]
    starts: bool
    source: Place
    setting: str


class Home(NamedTuple):
    """One person's home. `problem` says why it was not read; then there are no files. `authority` is the content
    of .Xauthority, None if it is absent or may not be read; `space` is that of its file system."""

    account: Account
    problem: str
    files: tuple[HomeFile, ...] = ()
    authority: bytes | None = None
    units: tuple[UserUnit, ...] = ()
    space: Space | None = None
    problems: tuple[str, ...] = ()

    def file(self, name: str) -> HomeFile | None:
        """By its name relative to the home."""
        path = posixpath.join(self.account.home, name) if name else self.account.home
        return next((f for f in self.files if f.path == path), None)


class HomeFiles(NamedTuple):
    """The homes of all people."""

    homes: tuple[Home, ...]

    @classmethod
    def probe(cls, host: Host, users: Users) -> "HomeFiles":
        mounts = _mounts(host)
        return cls(tuple(_home(host, account, mounts) for account in users.people))


def may_write(account: Account, status: Stat) -> bool:
    """Whether the modes let somebody read and write a file, or enter and change a directory."""
    bits = 7 if status.kind == "dir" else 6
    shift = 6 if status.uid == account.uid else 3 if status.gid in account.gids else 0
    return status.mode >> shift & bits == bits


def authority_fault(content: bytes) -> str:
    """What is wrong with an X authority file that is not empty; "" for nothing. It is a row of entries: a family, then
    address, display number, name and data, each with its length before it, all numbers of two bytes (Xau(3))."""
    position = entries = 0
    while position < len(content):
        fields = []
        start = position
        position += 2
        for _ in range(4):
            length = int.from_bytes(content[position : position + 2], "big")
            if position + 2 + length > len(content):
                return f"not an entry at byte {start}" if entries else "no X authority entry in it"
            fields.append(content[position + 2 : position + 2 + length])
            position += 2 + length
        if not fields[2].isascii() or not fields[2].decode("ascii").isprintable() or not fields[2]:
            return f"not an entry at byte {start}" if entries else "no X authority entry in it"
        entries += 1
    return ""


def _home(host: Host, account: Account, mounts: dict[str, str]) -> Home:
    home = account.home
    above = [home, *_parents(home)]
    remote = next((f"{mounts[p]} at {p}" for p in above if p != "/" and on_server(mounts.get(p, ""))), "")
    if remote:
        # The server decides who may write, and root is nobody there.
        return Home(account, f"{home} is on {remote}: its server decides who may write there")
    try:
        status = host.stat(home)
        names = host.listdir(home) if status and status.kind == "dir" else ()
    except Unreadable as problem:
        return Home(account, str(problem))
    if status is None:
        return Home(account, f"{home} does not exist: it may not be mounted")
    if not names and any(p in mounts for p in above if p != "/"):
        return Home(account, f"{home} is empty: it may not be mounted")
    if _LOCKED in names:
        return Home(account, f"{home} is encrypted and locked")
    files, problems = [], []
    for name in NEEDED:
        path = posixpath.join(home, name) if name else home
        try:
            status = host.stat(path)
        except Unreadable as problem:
            problems.append(str(problem))
            continue
        if status:
            files.append(HomeFile(path, status, (host.readlink(path) or "") if name else ""))
    authority = None
    try:
        path = posixpath.join(home, ".Xauthority")
        if (status := host.stat(path)) and status.kind == "file" and may_read(host, account, path):
            authority = host.read(path, AUTHORITY_LIMIT)
    except Unreadable as problem:
        problems.append(str(problem))
    units, unread = _units(host, account)
    return Home(account, "", tuple(files), authority, units, host.space(home), (*problems, *unread))


def _parents(path: str) -> list[str]:
    parents = []
    while path != "/":
        path = posixpath.dirname(path) or "/"
        parents.append(path)
    return parents


def _mounts(host: Host) -> dict[str, str]:
    """Type of the file system by mount point: what is mounted, or what /etc/fstab would mount."""
    found = {}
    with suppress(Unreadable):
        for line in (host.text("/etc/fstab") or "").splitlines():
            words = line.split()
            if len(words) >= 3 and not words[0].startswith("#"):
                found[words[1].rstrip("/") or "/"] = words[2]
    if host.live:
        with suppress(Unreadable):
            found.update({path: m.kind for path, m in mounts_in(host.text(MOUNTS) or "").items()})
    return found


def _units(host: Host, account: Account) -> tuple[tuple[UserUnit, ...], tuple[str, ...]]:
    """Enabled units that name the target of graphical sessions: the person's own, and others that start it early."""
    own = posixpath.join(account.home, ".config/systemd/user")
    units, problems = [], []
    for folder in (own, "/etc/systemd/user"):
        links: dict[str, list[str]] = {}
        try:
            for suffix in ("wants", "requires", "upholds"):
                for link in host.glob(f"{folder}/*.{suffix}/*"):
                    links.setdefault(posixpath.basename(link), []).append(link)
            for name, enabling in sorted(links.items()):
                path = posixpath.join(folder, name)
                path = path if host.exists(path) else host.realpath(enabling[0]) or ""
                if may_read(host, account, path) and (text := host.text(path, UNIT_LIMIT)):
                    units += [u for u in _hooked(path, text, tuple(enabling)) if u.starts or path.startswith(own)]
        except Unreadable as problem:
            problems.append(str(problem))
    return tuple(units), tuple(problems)


def _hooked(path: str, text: str, links: tuple[str, ...]) -> list[UserUnit]:
    """The unit with the line that ties it to graphical sessions: best one that starts their target before any other."""
    # What the target itself pulls in can't start it early.
    early = any(not _SESSION_TARGET.search(posixpath.basename(posixpath.dirname(link))) for link in links)
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _SETTING.match(line)
        if match and _SESSION_TARGET.search(match[2]):
            found.append(UserUnit(path, links, early and match[1] in _STARTS, Place(path, number), line.strip()))
    return sorted(found, key=lambda unit: not unit.starts)[:1]
