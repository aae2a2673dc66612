"""The login screen comes back after each login.

What you see
    The login screen accepts the password, the screen flashes, and the login screen is back.
Why
    In the last boot in which this user logged in, the logs show at least three graphical sessions within ten
    minutes that ended within ten seconds, and none afterwards that lasted.

    The usual causes (the driver, a file in the home directory, the environment, a full disk, /tmp) are reported as
    problems of their own, and this one is then listed as their effect. Remaining causes are a broken desktop
    package, a desktop that is not installed, or a crash.
Repair
    None: look for the cause in the last lines of the session's log.
What the repair risks
    Nothing is changed.
By hand
    # log in on a text console (Ctrl+Alt+F3); with gdm
    journalctl -b _UID=$(id -u)
    # with lightdm
    less ~/.xsession-errors
    # with sddm
    cd ~/.local/share/sddm; less xorg-session.log wayland-session.log
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    LoopLogs,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Sessions,
    Severity,
    Stage,
)


class LoginLoopUnexplained(Rule):
    id = "login-loop-unexplained"
    title = "The login screen comes back after each login"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR

    def detect(self, sessions: Sessions, logs: LoopLogs | None) -> Iterator[Finding]:
        for loop in sessions.loops():
            said = logs.lines[loop.user] if logs else ()
            why = f". Last error message of the session: {said[-1].text.strip()[:200]}" if said else ""
            through = f" through {' and '.join(loop.services)}" if loop.services else ""
            yield self.finding(
                f"user:{loop.user}",
                f"{loop.user} is in a login loop: {loop.tries} graphical sessions in a row ended within {loop.longest:.0f} s{why}",
                Evidence(loop.source, f"{loop.user}'s sessions{through} end within 10 seconds, one after the other"),
                *(Evidence(f"{li.source} ({li.identifier})", li.text.strip()[:300]) for li in said),
                user=loop.user,
                places=logs.places[loop.user] if logs else ("journalctl -b _UID=$(id -u)",),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        user = finding.detail["user"]
        yield Plan(
            "Find the cause in the logs of the session",
            Risk.LOW,
            (
                ByHand(
                    f"Log in as {user} on a text console (Ctrl+Alt+F3) and read {' and '.join(finding.detail['places'])}. Try another "
                    "session in the login screen's menu. Try another user: if that works, the cause is in this user's home"
                ),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "lightdm",
            Machine.debian12().login_loop(),
            finds="user:alice",
            ladder=(("low", "by-hand Ctrl+Alt+F3 ~/.xsession-errors /var/log/lightdm/"),),
        )
        yield Scenario(
            "gdm on Ubuntu",
            Machine.ubuntu2404().login_loop(manager="gdm"),
            finds="user:alice",
            ladder=(("low", "by-hand Ctrl+Alt+F3 -b _UID=$(id -u"),),
        )
        yield Scenario(
            "sddm",
            Machine.debian12().login_loop(manager="sddm"),
            finds="user:alice",
            ladder=(("low", "by-hand Ctrl+Alt+F3 ~/.local/share/sddm/xorg-session.log"),),
        )
        yield Scenario(
            "messages of an older PAM, without process numbers",
            Machine.debian12().file("/var/log/auth.log", OLDER_LOG, mtime=1542990000),
            finds="user:alice",
        )
        yield Scenario(
            "only logind, with the greeter in between",
            Machine.debian12().file("/var/log/auth.log", LOGIND_LOG),
            finds="user:alice",
            ladder=(("low", "by-hand Ctrl+Alt+F3 ~/.xsession-errors -b _UID=$(id -u"),),
        )
        yield Scenario(
            "one of two users, the other can log in",
            Machine.debian12().user("bob", 1001).login_loop().login("bob", begin=2000.0),
            finds="user:alice",
        )
        yield Scenario("the last login worked", Machine.debian12().login_loop().login(begin=1500.0))
        yield Scenario("two tries are no loop", Machine.debian12().login_loop(tries=2))
        yield Scenario(
            "logins over a whole day, an hour each",
            Machine.debian12().login(begin=100.0, seconds=3600.0).login(begin=4000.0, seconds=3600.0),
        )
        ssh = Machine.debian12()
        for number in range(5):
            ssh.says(
                "sshd", "pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)", 10.0 * number
            )
            ssh.says("systemd-logind", f"New session {number} of user alice.", 10.0 * number)
            ssh.says("sshd", "pam_unix(sshd:session): session closed for user alice", 10.0 * number + 1)
            ssh.says("systemd-logind", f"Removed session {number}.", 10.0 * number + 1)
        yield Scenario("short sessions over ssh", ssh)
        yield Scenario("no logs", Machine.debian12(), unknown=True)
        yield Scenario("a log is not a file", Machine.debian12().fifo("/var/log/auth.log"), unknown=True)


OLDER_LOG = "".join(
    f"""\
Nov 23 07:0{minute}:01 workstation lightdm: pam_unix(lightdm:session): session opened for user alice by (uid=0)
Nov 23 07:0{minute}:01 workstation systemd-logind[709]: New session c{minute} of user alice.
Nov 23 07:0{minute}:03 workstation lightdm: pam_unix(lightdm:session): session closed for user alice
"""
    for minute in range(4)
)

LOGIND_LOG = "".join(
    f"""\
2026-11-23T07:0{minute}:01.000100+01:00 workstation systemd-logind[709]: New session {minute} of user alice.
2026-11-23T07:0{minute}:02.000100+01:00 workstation systemd-logind[709]: Session {minute} logged out. Waiting for processes to exit.
2026-11-23T07:0{minute}:02.000200+01:00 workstation systemd-logind[709]: Removed session {minute}.
2026-11-23T07:0{minute}:04.000100+01:00 workstation systemd-logind[709]: New session c{minute} of user gdm.
"""
    for minute in range(4)
)
