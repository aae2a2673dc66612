"""Login loops: what PAM and logind of several versions and display managers write, and what is none."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.host.bundle import BundleHost
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.login.homes import HomeFiles
from dlhealth.probes.login.sessions import Loop, SessionLogs, Sessions, find_sessions
from dlhealth.probes.login.users import Users
from dlhealth.probes.machine.journal import Journal, Line, number_boots, parse_log_line
from dlhealth.probes.machine.localtime import LocalTime
from dlhealth.testing import Machine, logs

WRITTEN = 1795417200.0

# elogind and lightdm of Arch, sddm of Debian 12, gdm of Arch: as people posted them, with other names.
LIGHTDM = """\
Nov 21 19:02:48 m lightdm[17042]: pam_unix(lightdm-greeter:session): session closed for user lightdm
Nov 21 19:02:48 m lightdm[17400]: pam_unix(lightdm:session): session opened for user alice(uid=1004) by (uid=0)
Nov 21 19:02:48 m systemd-logind[10794]: New session 25 of user alice.
Nov 21 19:03:02 m lightdm[17400]: pam_unix(lightdm:session): session closed for user alice
Nov 21 19:03:02 m systemd-logind[10794]: Removed session 25.
Nov 21 19:03:05 m lightdm[20539]: pam_unix(lightdm-greeter:session): session opened for user lightdm(uid=991) by (uid=0)
Nov 21 19:03:05 m systemd-logind[10794]: New session 27 of user lightdm.
"""
SDDM = """\
2026-11-21T11:46:58.100000+02:00 m sddm-helper[1578]: pam_unix(sddm:session): session opened for user alice(uid=1000) by (uid=0)
2026-11-21T11:46:58.200000+02:00 m sddm-helper[1546]: pam_unix(sddm-greeter:session): session closed for user sddm
2026-11-21T11:46:59.100000+02:00 m (systemd): pam_unix(systemd-user:session): session opened for user alice(uid=1000) by alice(uid=0)
2026-11-21T11:47:00.100000+02:00 m sddm-helper[1578]: pam_unix(sddm:session): session closed for user alice
"""
QUOTED = """\
2026-11-21T11:46:58+00:00 m systemd-logind[900]: New session '4' of user 'alice' with class 'user' and type 'wayland'.
2026-11-21T11:46:58+00:00 m systemd-logind[900]: New session '5' of user 'alice' with class 'manager' and type 'unspecified'.
2026-11-21T11:46:59+00:00 m systemd-logind[900]: New session '6' of user 'alice' with class 'user' and type 'tty'.
2026-11-21T11:47:01+00:00 m systemd-logind[900]: Session 4 logged out. Waiting for processes to exit.
2026-11-21T11:47:02+00:00 m systemd-logind[900]: Removed session 4.
"""


def lines(text: str) -> list[Line]:
    parsed = [parse_log_line(t, "/var/log/auth.log", WRITTEN, LocalTime()) for t in text.splitlines()]
    return list(number_boots(p for p in parsed if p))


def read(*entries: logs.Entry) -> list[Line]:
    in_order = sorted(entries, key=lambda e: e.seconds)
    return [Line(e.seconds, "1", e.identifier, e.uid, e.text, "x", e.pid) for e in in_order]


def sessions(*entries: logs.Entry) -> Sessions:
    return Sessions.of(find_sessions(read(*entries)))


def test_lightdm() -> None:
    (found,) = find_sessions(lines(LIGHTDM))
    assert (found.user, found.service) == ("alice", "lightdm")
    assert found.ended is not None
    assert found.ended - found.started == 14


def test_sddm() -> None:
    (found,) = find_sessions(lines(SDDM))
    assert (found.user, found.service) == ("alice", "sddm")
    assert found.ended == pytest.approx(found.started + 2)


def test_logind_of_258_names_the_type() -> None:
    (found,) = find_sessions(lines(QUOTED))
    assert (found.user, found.service) == ("alice", "")
    assert found.ended == found.started + 3


@pytest.mark.parametrize("manager", ["lightdm", "gdm", "sddm"])
def test_a_loop(manager: str) -> None:
    tries = [e for n in range(3) for e in logs.session("alice", 100 + 60 * n, 2, manager, n + 1)]
    service = "gdm-password" if manager == "gdm" else manager
    found = sessions(*tries)
    assert found.loops() == (Loop("alice", (service,), 3, 2.0, 2.0, "x", found.sessions[-1]),)


@pytest.mark.parametrize(
    ("seconds", "distance", "tries", "looping"),
    [(9, 60, 3, True), (11, 60, 3, False), (2, 301, 3, False), (2, 290, 3, True), (2, 60, 2, False), (0, 10, 9, True)],
)
def test_what_counts_as_a_loop(seconds: float, distance: float, tries: int, looping: bool) -> None:
    entries = [e for n in range(tries) for e in logs.session("alice", 100 + distance * n, seconds, number=n + 1)]
    assert bool(sessions(*entries).loops()) is looping


def test_whoever_got_in_afterwards_is_in_no_loop() -> None:
    tries = [e for n in range(3) for e in logs.session("alice", 100 + 60 * n, 2, number=n + 1)]
    later = sessions(*tries, *logs.session("alice", 400, None, number=9))
    assert later.loops() == ()
    assert later.got_in("alice")
    assert sessions(*logs.session("alice", 40, None, number=9), *tries).loop("alice"), "before does not count"


@pytest.mark.parametrize(
    ("seconds", "looping"), [(3, True), (9.9, True), (10, False), (3600, False), (-3600, False), (None, False)]
)
def test_a_session_that_has_just_begun_does_not_end_a_loop(seconds: float | None, looping: bool) -> None:
    """A clock that was set back, and a machine that does not run, don't tell: then it counts as one that lasts."""
    tries = [e for n in range(3) for e in logs.session("alice", 100 + 60 * n, 2, number=n + 1)]
    entries = read(*tries, *logs.session("alice", 400, None, number=9))
    host = BundleHost("a running machine", True, {("now", ""): None if seconds is None else 400 + seconds})
    found = Sessions.probe(host, Journal(tuple(entries), ("1",), ""))
    assert bool(found.loop("alice")) is looping
    assert found.got_in("alice") is not looping


def test_people_are_judged_apart() -> None:
    tries = [e for n in range(3) for e in logs.session("alice", 100 + 60 * n, 2, number=n + 1)]
    both = sessions(*tries, *logs.session("bob", 300, None, number=9, uid=1001))
    assert [loop.user for loop in both.loops()] == ["alice"]
    assert both.users() == ("alice", "bob")
    assert both.got_in("bob")
    assert not both.got_in("alice")


def test_a_loop_of_an_earlier_boot_is_over_when_the_last_login_was_good() -> None:
    text = "".join(
        f"Nov 20 07:0{n}:00 m lightdm[{n}]: pam_unix(lightdm:session): session opened for user alice by (uid=0)\n"
        f"Nov 20 07:0{n}:02 m lightdm[{n}]: pam_unix(lightdm:session): session closed for user alice\n"
        for n in range(4)
    )
    again = (
        "Nov 21 07:00:00 m kernel: [    0.000000] Linux version 6.1.0\n"
        "Nov 21 07:01:00 m lightdm[9]: pam_unix(lightdm:session): session opened for user alice by (uid=0)\n"
        "Nov 21 09:01:00 m lightdm[9]: pam_unix(lightdm:session): session closed for user alice\n"
    )
    for extra, looping in (("", True), (again, False)):
        found = lines(text + extra)
        assert bool(Sessions.of(find_sessions(found)).loops()) is looping


def test_other_services_open_no_graphical_session() -> None:
    text = "".join(
        f"Nov 20 07:00:0{n} m {name}[{n}]: pam_unix({name}:session): session opened for user alice(uid=1000) by (uid=0)\n"
        f"Nov 20 07:00:0{n} m systemd-logind[7]: New session {n} of user alice.\n"
        for n, name in enumerate(["sshd", "login", "cron", "sudo", "polkit-1", "systemd-user", "xrdp-sesman"])
    )
    assert find_sessions(lines(text)) == []


def test_the_complaints_of_a_session(tmp_path: Path) -> None:
    home = "/home/alice"
    (
        Machine.debian12()
        .file(f"{home}/.xsession-errors", "one\nwanted\n", 0o600, 1000)
        .file("/var/log/Xorg.0.log", "[  1.5] (II) wanted\n[  1.6] (EE) wanted by X\n")
        .file("/etc/shadow", "wanted: a secret\n", 0o600)
        .link(f"{home}/.local/share/sddm/xorg-session.log", "/etc/shadow")
        .file("/var/log/Xorg.0.log.old", "(EE) wanted by X of last year\n", mtime=logs.BEGIN - 365 * 86400)
        .says("gdm3", "wanted by gdm")
        .says("kernel", "wanted by nobody")
        .build(tmp_path)
    )
    host = RootHost(str(tmp_path))
    homes = HomeFiles.probe(host, Users.probe(host, Options()))
    found = SessionLogs.probe(host, Journal.probe(host), homes)
    assert [tuple(c) for c in found.matching("wanted")] == [
        ("", "/var/log/Xorg.0.log", "(EE) wanted by X"),
        ("alice", f"{home}/.xsession-errors", "wanted"),
        ("", "/var/log/syslog (gdm3)", "wanted by gdm"),
    ]
    assert found.problems == ()


WORDS = st.sampled_from(
    [
        "pam_unix(lightdm:session): session opened for user alice(uid=1000) by (uid=0)",
        "pam_unix(lightdm:session): session closed for user alice",
        "pam_unix(gdm-launch-environment]:session): session opened for user gdm(uid=1) by (uid=0)",
        "New session 1 of user alice.",
        "New session '1' of user 'alice' with class 'user' and type 'x11'.",
        "Removed session 1.",
        "Session 1 logged out. Waiting for processes to exit.",
        "pam_unix(",
        "",
    ]
)


@given(st.lists(st.tuples(WORDS | st.text(), st.floats(0, 1e9), st.integers(0, 3))))
def test_any_log_gives_sessions_that_end_after_they_began(entries: list[tuple[str, float, int]]) -> None:
    found = [Line(t, "1", "x", None, text, "x", pid) for text, t, pid in sorted(entries, key=lambda e: e[1])]
    result = Sessions.of(find_sessions(found))
    assert all(s.ended is None or s.ended >= s.started for s in result.sessions)
    assert all(loop.tries >= 3 and loop.longest < 10 for loop in result.loops())
