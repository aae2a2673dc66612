"""Who else changes packages, and which program of a transaction still runs."""

import fcntl
import os
from struct import pack, unpack
from time import monotonic, sleep

from dlhealth.host.change import NotChangeable, get_state
from dlhealth.host.path import Root
from dlhealth.steps.base import MARK, CommandFailed, Target

# Programs above dpkg, such as apt, hold the first lock during their whole run; dpkg holds the second while it works.
_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")


def need_dpkg(target: Target) -> None:
    """Raises CommandFailed while another program changes packages: apt would wait for it in silence, and dpkg would
    fail halfway through the plan. Work that packages start (a DKMS build, a new initramfs) would be done twice at
    once."""
    for path in _LOCKS:
        holder = _holder(target, path)
        if holder:
            raise CommandFailed(f"{holder} is changing packages (it holds {path}): wait until it ends, then try again")


def wait_for_dpkg(target: Target, seconds: float) -> None:
    """Wait until no other program changes packages. Raises TimeoutError."""
    deadline = monotonic() + seconds
    while holders := [f"{holder} ({path})" for path in _LOCKS if (holder := _holder(target, path))]:
        if monotonic() >= deadline:
            raise TimeoutError(f"{holders[0]} is still changing packages after {seconds:g} seconds")
        sleep(0.2)


def program_of(target: Target) -> str:
    """A program that the transaction started and that still runs, "" if none: it survives if dlhealth is killed."""
    wanted = os.fsencode(f"{MARK}={target.of_it}")
    pids = sorted(int(name) for name in Target("/", target.mark).names("/proc") if name.isdecimal())
    pid = next((pid for pid in pids if wanted in _content(pid, "environ").split(b"\0")), 0)
    return f"{_name(pid)} (process {pid})" if pid else ""


def _holder(target: Target, path: str) -> str:
    """The program that holds a lock in the way of dpkg and apt, "" if none. It only asks for the holder: taking the
    lock, even for a moment, could make another program fail."""
    layout = "hhqqi"  # struct flock, fcntl(2)
    try:
        fd = target.root.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, _, _, _, pid = unpack(layout, answer)
    if kind == fcntl.F_UNLCK:
        return ""
    # a process of another container has no number here
    return f"{_name(pid)} (process {pid})" if pid > 0 else "another program"


def _name(pid: int) -> str:
    return _content(pid, "comm").decode(errors="replace").strip() or "a program"


def _content(pid: int, name: str) -> bytes:
    try:  # of the machine that dlhealth runs on, whichever root it changes
        return get_state(Root("/"), f"/proc/{pid}/{name}").content
    except (OSError, NotChangeable):
        return b""
