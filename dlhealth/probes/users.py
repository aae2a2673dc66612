"""The people of this machine."""

import posixpath

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import Account
from dlhealth.lean import NamedTuple
from dlhealth.probes import Options, Unavailable

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
            raise Unavailable("there is no /etc/passwd")
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
        if len(fields) == 4 and fields[2].isdecimal():
            for name in fields[3].split(","):
                members.setdefault(name, []).append(int(fields[2]))
    accounts = []
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) != 7 or not (fields[2].isdecimal() and fields[3].isdecimal()):
            continue  # a comment, or a line for NIS ("+::::::")
        name, gid = fields[0], int(fields[3])
        gids = (gid, *members.get(name, ()))
        accounts.append(Account(name, int(fields[2]), gid, gids, fields[5] or "/", fields[6] or "/bin/sh"))
    return accounts


def _uid_range(login_defs: str) -> tuple[int, int]:
    """UID_MIN and UID_MAX; what is missing has the value that login.defs(5) names."""
    found = {"UID_MIN": 1000, "UID_MAX": 60000}
    for line in login_defs.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] in found and words[1].isdecimal():
            found[words[0]] = int(words[1])
    return found["UID_MIN"], found["UID_MAX"]


def _text(host: Host, path: str) -> str:
    """A file that only refines the answer; without it the defaults hold."""
    try:
        return host.text(path) or ""
    except Unreadable:
        return ""
