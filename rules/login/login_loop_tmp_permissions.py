"""/tmp or one of its socket directories has the wrong owner or mode.

What you see
    The login screen accepts the password and comes back. A login on a text console works.
Why
    Every session writes to /tmp. The X server and the compositor put their sockets into /tmp/.X11-unix, session
    managers into /tmp/.ICE-unix. A script that ran `chmod -R`, or moving /tmp to a data disk, removed the mode 1777
    that lets everybody write there.

    GNOME's compositor refuses a /tmp/.X11-unix that belongs to another user or has no sticky bit, because its owner
    could take over the socket.

    A /tmp that is mounted noexec, lies in memory, is a link to such a directory, or is private to a service is
    fine.
Repair
    Make root the owner of the directory and set mode 1777, then restart the display manager.
What the repair risks
    None: only the mode and the owner of that directory change.
By hand
    chown root:root /tmp; chmod 1777 /tmp
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    ChangeMode,
    ChangeOwner,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    SharedFolder,
    SharedFolders,
    Stage,
    Unknown,
)

# The owner that root's files have in a user namespace without root; there no owner can be judged.
_NOBODY = 65534


class LoginLoopTmpPermissions(Rule):
    id = "login-loop-tmp-permissions"
    title = "/tmp or one of its socket directories has the wrong owner or mode"
    stage = Stage.DISK
    severity = Severity.ERROR
    explains = ("login-loop-glx-broken-driver-mismatch",)

    def detect(self, shared: SharedFolders) -> Iterator[Finding | Unknown]:
        for problem in shared.problems:
            yield Unknown(problem)
        for folder in shared.folders:
            severity = _fault(folder)
            if severity:
                status = folder.status
                effect = "no session can start" if severity is Severity.ERROR else "some programs refuse it"
                yield self.finding(
                    f"file:{folder.path}",
                    f"{folder.path} {_wrong(folder)}: {effect}",
                    Evidence(folder.path, status.shown),
                    severity=severity,
                    path=folder.path,
                    link=folder.link or ("" if status.kind == "dir" else "no folder"),
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        path = finding.detail["path"]
        if finding.detail["link"]:
            yield Plan(
                f"Replace {path} with a directory",
                Risk.MEDIUM,
                (
                    ByHand(
                        f"Check {path} with: ls -ld {path}. Then make it, or its target, a directory of root with mode 1777"
                    ),
                ),
            )
            return
        yield Plan(
            f"Set owner root and mode 1777 on {path}",
            Risk.LOW,
            (ChangeOwner(path, "root", "root"), ChangeMode(path, 0o1777)),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "not writable, no sticky bit",
            Machine.debian12().folder("/tmp", 0o755),
            finds="file:/tmp",
            steps=("change-owner", "change-mode"),
            ladder=(("low", "change-owner /tmp root root", "change-mode /tmp 1777"),),
        )
        yield Scenario("writable, but no sticky bit", Machine.debian12().folder("/tmp", 0o777), finds="file:/tmp")
        yield Scenario(
            "a user owns the socket directory",
            Machine.debian12().folder("/tmp/.X11-unix", 0o1777, 1000),
            finds="file:/tmp/.X11-unix",
            ladder=(("low", "change-owner /tmp/.X11-unix root root", "change-mode /tmp/.X11-unix 1777"),),
        )
        yield Scenario(
            "nobody can use the session managers' sockets",
            Machine.debian12().folder("/tmp/.ICE-unix", 0o700),
            finds="file:/tmp/.ICE-unix",
            ladder=(("low", "change-owner /tmp/.ICE-unix root root", "change-mode /tmp/.ICE-unix 1777"),),
        )
        yield Scenario(
            "two users are in a loop",
            Machine.debian12().user("bob", 1001).folder("/tmp", 0o700).login_loop("alice").login_loop("bob"),
            finds="file:/tmp",
        )
        yield Scenario("as installed", Machine.debian12())
        yield Scenario(
            "a link to a correct directory",
            Machine().file("/etc/hostname", "host").folder("/data/tmp", 0o1777).link("/tmp", "/data/tmp"),
        )
        machine = Machine().file("/etc/hostname", "host").folder("/tmp", 0o1777)
        yield Scenario("a private /tmp without sockets", machine)
        yield Scenario("/tmp is not visible", Machine().file("/etc/hostname", "disk"), unknown=True)


def _wrong(folder: SharedFolder) -> str:
    status = folder.status
    if status.kind != "dir":
        return f"is a {status.named}, not a directory"
    owner = f"belongs to UID {status.uid} instead of root" if status.uid not in (0, _NOBODY) else ""
    mode = f"has mode {status.mode:04o} instead of 1777" if status.mode != 0o1777 else ""
    return " and ".join(filter(None, (mode, owner)))


def _fault(folder: SharedFolder) -> Severity | None:
    """How bad the state of a directory is."""
    path, status = folder.path, folder.status
    if status.kind != "dir" or status.mode & 0o007 != 0o007:
        return Severity.ERROR
    if path == "/tmp/.ICE-unix" or (status.mode & 0o1000 and status.uid in (0, _NOBODY)):
        return None
    return Severity.ERROR if path == "/tmp/.X11-unix" else Severity.WARNING
