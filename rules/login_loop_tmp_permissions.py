"""/tmp or /tmp/.X11-unix lost its owner or its mode.

What you see
    The login screen accepts the password and comes back. A login on a text console works.
Why
    Everybody's session writes to /tmp: the X server its socket folder, the session its lock files. A script that ran
    `chmod -R`, or /tmp moved to a data disk, took away the mode 1777 and the owner root that they need.
Repair
    Give the folder back to root with mode 1777, then restart the display manager.
What the repair risks
    Nothing is lost; only the mode and the owner of that one folder change.
By hand
    chown root:root /tmp; chmod 1777 /tmp
"""

from collections.abc import Iterator

from dlhealth.api import (
    ChangeMode,
    ChangeOwner,
    Evidence,
    Finding,
    Layer,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    SharedFolders,
    Stage,
)


class LoginLoopTmpPermissions(Rule):
    id = "login-loop-tmp-permissions"
    title = "A folder that every session writes to has the wrong owner or mode"
    layer = Layer.LOGIN
    stage = Stage.DISK
    severity = Severity.ERROR
    explains = ("login-loop-unexplained",)

    def detect(self, shared: SharedFolders) -> Iterator[Finding]:
        for path, status in shared.folders:
            if path.startswith("/tmp") and (status.kind != "dir" or status.mode != 0o1777 or status.uid != 0):
                shows = f"{status.kind}, mode {status.mode:04o}, owner {status.uid}"
                yield self.finding(
                    f"file:{path}",
                    f"{path} is a {shows} instead of a dir, mode 1777, owner 0: no session can start",
                    Evidence(path, shows),
                    path=path,
                )

    def remedies(self, finding: Finding, shared: SharedFolders) -> Iterator[Plan]:
        path = finding.detail["path"]
        yield Plan(
            f"Give {path} back to root with mode 1777",
            Risk.LOW,
            (ChangeOwner(path, "root", "root"), ChangeMode(path, 0o1777)),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario("no sticky bit", Machine.debian12().folder("/tmp", 0o755), finds="file:/tmp")
        yield Scenario(
            "owned by a user", Machine.debian12().folder("/tmp/.X11-unix", 0o1777, 1000), finds="file:/tmp/.X11-unix"
        )
        yield Scenario("as installed", Machine.debian12())
        yield Scenario("no /tmp in sight", Machine().file("/etc/hostname", "disk"), unknown=True)
