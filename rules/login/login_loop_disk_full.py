"""A session cannot write its files: the disk is full.

What you see
    The login screen accepts the password and comes back. root can still log in on a text console, because some
    space is reserved for root.
Why
    Data sets, checkpoints and caches filled the disk. The display manager cannot write ~/.Xauthority (it is left
    empty), or the session cannot write to /tmp or ~/.config and ends.

    Little free space is not the cause as long as a file can still be written. This is reported only if no space or
    no inodes are left, or if the session itself said "No space left on device" or "Disk quota exceeded". The same
    message about inotify watches means another limit.
Repair
    Free space. The owner of the data decides what can be deleted; start with caches.
What the repair risks
    Deleted data is lost. dlhealth deletes nothing.
By hand
    df -h; df -i
    apt-get clean; apt-get autoremove
    journalctl --vacuum-size=200M
    # as the user
    pip cache purge; conda clean --all
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Complaint,
    Evidence,
    Finding,
    HomeFiles,
    Machine,
    Plan,
    Platform,
    Risk,
    Rule,
    Scenario,
    SessionLogs,
    Sessions,
    Severity,
    Space,
    Stage,
    Storage,
    Unknown,
)

_PATHS = ("/", "/home", "/tmp", "/var", "/var/tmp", "/run")
_SAID = r"No space left on device|Disk quota exceeded"
_WATCHES = r"(?i)inotify|watch"
# Only messages from the start of a session; any other program may have written to a USB stick or a share.
_START = r"(?i)xauth|iceauth|dconf|dbus|xsession|lightdm|gdm|sddm|mktemp|/tmp/|/\.config|/\.cache|/\.local|/run/user|gnome-session|startkde|startplasma"
# A file needs at least one block.
_BLOCK = 4096


class LoginLoopDiskFull(Rule):
    id = "login-loop-disk-full"
    title = "A session cannot write its files: the disk is full"
    stage = Stage.DISK
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = (
        "login-loop-xauthority-wrong-owner",
        "login-loop-glx-broken-driver-mismatch",
        "dkms-module-missing-for-running-kernel",
        "dpkg-interrupted",
        "half-configured-driver-packages",
    )

    def detect(
        self, storage: Storage, logs: SessionLogs, sessions: Sessions | None, homes: HomeFiles | None
    ) -> Iterator[Finding | Unknown]:
        for problem in (*storage.problems, *logs.problems):
            yield Unknown(problem)
        complaints = tuple(c for c in logs.matching(_SAID) if c not in logs.matching(_WATCHES))
        said = tuple(Evidence(c.source, c.text) for c in complaints[:1])
        full = list(_full(storage, homes))
        for path, shows, user in full:
            yield self.finding(
                f"file:{path}",
                f"the file system of {path} is full ({shows}): no session can write to it",
                Evidence(path, shows),
                *said,
                about=(f"user:{user}",) if user else (),
                path=path,
            )
        if not full:
            yield from self._said(complaints, logs, sessions)

    def _said(
        self, complaints: tuple[Complaint, ...], logs: SessionLogs, sessions: Sessions | None
    ) -> Iterator[Finding]:
        looping = tuple(loop.user for loop in sessions.loops()) if sessions else ()
        starting = logs.matching(_START)
        seen = set()
        for complaint in complaints:
            user = complaint.user
            blamed = (user,) if user else looping
            known = sessions is not None and any(s.user in blamed for s in sessions.sessions)
            believed = any(u in looping for u in blamed) or (bool(blamed) and not known and complaint in starting)
            if not believed or blamed in seen:
                continue
            seen.add(blamed)
            yield self.finding(
                f"user:{blamed[0]}",
                f"The session of {' and '.join(blamed)} could not write: {complaint.text}",
                Evidence(complaint.source, complaint.text),
                about=tuple(f"user:{u}" for u in blamed[1:]),
                path="",
            )

    def remedies(self, finding: Finding, platform: Platform | None) -> Iterator[Plan]:
        where = finding.detail["path"] or "the file systems of /, /home, /tmp and /var (df -h; df -i; quota)"
        yield Plan(
            "Free space",
            Risk.MEDIUM,
            (
                ByHand(
                    f"Free space on {where}.{f' As root: {platform.free_space}.' if platform else ''} As the user: pip "
                    "cache purge; conda clean --all. Then delete old data sets and checkpoints, and log in again"
                ),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        errors, full = "/home/alice/.xsession-errors", "No space left on device"
        debian = Machine.debian12
        yield Scenario(
            "the message is in .xsession-errors",
            debian().file(errors, f"xauth: error in locking authority file /home/alice/.Xauthority\nmktemp: failed to create file via template '/tmp/xsess-env-XXXXXX': {full}\n", 0o600, 1000),
            finds="user:alice",
            ladder=(('medium', 'by-hand / /home /tmp /var -h -i'),),
        )  # fmt: skip
        yield Scenario(
            "the message is in the log, and a loop",
            Machine.ubuntu2404().login_loop().says("lightdm", f"Error writing X authority: Failed to write X authority /home/alice/.Xauthority: {full}", 1001.0),
            finds="user:alice",
        )  # fmt: skip
        yield Scenario(
            "a quota, and a loop",
            debian().login_loop(manager="gdm").file(errors, "dconf-WARNING **: failed to commit changes to dconf: Disk quota exceeded\n", 0o600, 1000),
            finds="user:alice",
        )  # fmt: skip
        yield Scenario("enough space", debian())
        yield Scenario(
            "the limit on inotify watches",
            debian().login_loop().file(errors, f"inotify_add_watch: {full}\n", 0o600, 1000),
        )
        yield Scenario(
            "it was full, but then the login worked",
            debian().login_loop().login(begin=3000.0).file(errors, f"mktemp: /tmp/x: {full}\n", 0o600, 1000),
        )
        yield Scenario(
            "a program in a working session wrote to a full USB stick",
            debian().login().file(errors, f"cp: error writing '/media/alice/STICK/a': {full}\n", 0o600, 1000),
        )
        yield Scenario("a log is not a file", debian().fifo(errors), unknown=True)


def _full(storage: Storage, homes: HomeFiles | None) -> Iterator[tuple[str, str, str]]:
    """Each full file system once: a path on it, what is used up, and whose home it is ("" for everybody)."""
    devices = set()
    for path in _PATHS:
        system = storage.systems.get(path)
        if system is None or system.device in devices:
            continue
        devices.add(system.device)
        if shows := _used_up(system.space):
            yield path, shows, ""
    for home in homes.homes if homes else ():
        file = home.file("")
        if file and home.space and file.status.device not in devices and (shows := _used_up(home.space)):
            yield home.account.home, shows, home.account.name


def _used_up(space: Space) -> str:
    """What a file system has run out of; "" if nothing."""
    no_inodes = space.inodes > 0 and space.inodes_free == 0
    no_blocks = space.total > 0 and space.free < _BLOCK
    if no_blocks and no_inodes:
        return ""  # a read-only image (squashfs) is always full
    if no_blocks:
        return f"0 of {space.total >> 20} MiB free for users"
    return f"0 of {space.inodes} inodes free for users" if no_inodes else ""
