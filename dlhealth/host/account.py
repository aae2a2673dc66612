"""An account, and what it may read."""

import posixpath

from dlhealth.host.base import Host, Stat
from dlhealth.records import NamedTuple


class Account(NamedTuple):
    """One line of /etc/passwd with the groups of /etc/group (`gids` has the own group too)."""

    name: str
    uid: int
    gid: int
    gids: tuple[int, ...]
    home: str
    shell: str


def may_read(host: Host, account: Account, path: str) -> bool:
    """Whether the modes of a file, and of its real directory and those above, allow somebody to read it. A link from a
    home to /etc/shadow leads to a file that the home's owner may not read, so dlhealth does not read it for that
    person."""
    real = host.realpath(path)
    status = real and host.stat(real)
    if not real or not status:
        return False
    folder = posixpath.dirname(real)
    while folder != "/":
        above = host.stat(folder)
        if not above or not _allows(above, account, 1):
            return False
        folder = posixpath.dirname(folder)
    return _allows(status, account, 4)


def _allows(status: Stat, account: Account, bit: int) -> bool:
    """By the rule of path_resolution(7): only the first matching class counts."""
    if account.uid == 0:
        return True
    if status.uid == account.uid:
        return bool(status.mode >> 6 & bit)
    if status.gid in account.gids:
        return bool(status.mode >> 3 & bit)
    return bool(status.mode & bit)
