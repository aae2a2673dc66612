"""The people of this machine."""

import posixpath
import re

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import Account
from dlhealth.probes import Options, Unavailable
from dlhealth.records import NamedTuple

_NO_LOGIN = ("nologin", "false", "sync", "halt", "shutdown")


class Users(NamedTuple):
    """`people` are those asked for, or else those in login.defs' range of UIDs who may log in,
    or else root. `missing` are names
    that were asked for and have no line in /etc/passwd (they may come from a directory server)."""

    people: tuple[Account, ...]
    missing: tuple[str, ...] = ()

    @classmethod
    def probe(cls, host: Host, options: Options) -> "Users":
        passwd = host.text("/etc/passwd")
        if passwd is None:
            raise Unavailable("/etc/passwd does not exist")
        accounts = _accounts(passwd, _text(host, "/etc/group"))
        if options.users:
            known = {a.name: a for a in accounts}
            return cls(
                tuple(known[n] for n in options.users if n in known), tuple(n for n in options.users if n not in known)
            )
        low, high = _uid_range(_text(host, "/etc/login.defs"))
        people = tuple(a for a in accounts if low <= a.uid <= high and posixpath.basename(a.shell) not in _NO_LOGIN)
        # Where nobody else logs in, root does: a server, or a rented machine.
        return cls(people or tuple(a for a in accounts if a.uid == 0)[:1])


def _accounts(passwd: str, group: str) -> list[Account]:
    members: dict[str, list[int]] = {}
    for line in group.splitlines():
        fields = line.split(":")
        gid = _number(fields[2]) if len(fields) == 4 else None
        if gid is not None:
            for name in fields[3].split(","):
                members.setdefault(name, []).append(gid)
    accounts = []
    for line in passwd.splitlines():
        fields = line.split(":")
        uid, gid = (_number(fields[2]), _number(fields[3])) if len(fields) == 7 else (None, None)
        if uid is None or gid is None:
            continue  # a comment, or a line for NIS ("+::::::")
        name = fields[0]
        gids = (gid, *members.get(name, ()))
        accounts.append(Account(name, uid, gid, gids, fields[5] or "/", fields[6] or "/bin/sh"))
    return accounts


def _number(text: str) -> int | None:
    """A user's or group's number; the kernel's have 32 bits."""
    return int(text) if re.fullmatch(r"\d{1,10}", text, re.ASCII) else None


def _uid_range(login_defs: str) -> tuple[int, int]:
    """UID_MIN and UID_MAX; what is missing has the value that login.defs(5) names."""
    found = {"UID_MIN": 1000, "UID_MAX": 60000}
    for line in login_defs.splitlines():
        words = line.split()
        number = _number(words[1]) if len(words) >= 2 and words[0] in found else None
        if number is not None:
            found[words[0]] = number
    return found["UID_MIN"], found["UID_MAX"]


def _text(host: Host, path: str) -> str:
    """A file that only refines the answer; without it the defaults hold."""
    try:
        return host.text(path) or ""
    except Unreadable:
        return ""
