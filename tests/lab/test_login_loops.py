"""Real login loops: lightdm, PAM and logind, a session that dies again and again, and the service that says why."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.lab import LabMachine, machine

pytestmark = pytest.mark.lab

APPEARED = "36d11906a1d0447088306d0529c38f21"
REPAIRED = "9320d96a0ab64903b4d1dde3265e3972"
COMMAND = "/opt/dlhealth/bin/dlhealth"
TRIES = 3
STAYS = 12.0
"""Seconds: longer than a session that dlhealth would call short."""
# A container has no virtual terminals: the X server and logind must not be given one.
X_SERVER = """#!/bin/sh
for a; do shift; case $a in vt[0-9]*|-novtswitch|-keeptty) ;; *) set -- "$@" "$a";; esac; done
exec /usr/bin/Xvfb "$@"
"""
# As desktops do it, with a bus of its own, whose socket lies in /tmp.
SESSION = """[Desktop Entry]
Type=Application
Name=Openbox with a bus
Exec=dbus-run-session -- openbox-session
"""
LIGHTDM = """[LightDM]
logind-check-graphical=false
[Seat:*]
xserver-command=/usr/local/bin/x-without-vt
autologin-user=alice
autologin-user-timeout=0
autologin-session=with-bus
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[LabMachine]:
    with machine("nvidia") as made:
        made.install_dlhealth()
        made.run("useradd", "-m", "-s", "/bin/bash", "alice", check=False)
        server = made.root / "usr/local/bin/x-without-vt"
        server.write_text(X_SERVER)
        server.chmod(0o755)
        (made.root / "etc/lightdm/lightdm.conf").write_text(LIGHTDM)
        (made.root / "usr/share/xsessions/with-bus.desktop").write_text(SESSION)
        made.run("sh", "-c", "echo 'XDG_VTNR DEFAULT= OVERRIDE=' >> /etc/security/pam_env.conf")
        made.run("mkdir", "-p", "/etc/dlhealth")
        policy(made, "none")
        made.boot("--bind=/dev/kmsg", "--capability=CAP_SYSLOG")
        made.run(COMMAND, "service", "install")
        yield made


def policy(lab: LabMachine, risk: str) -> None:
    (lab.root / "etc/dlhealth/config.toml").write_text(f'[repair]\nmax_risk = "{risk}"\n')


def log_in(lab: LabMachine) -> None:
    """As when alice types her password again: a display manager that has just come up logs her in."""
    lab.run("systemctl", "reset-failed", "lightdm.service", check=False)
    lab.run("systemctl", "restart", "lightdm.service")


def session(lab: LabMachine) -> str:
    """The process of alice's window manager, "" where she has none."""
    return lab.run("pgrep", "-u", "alice", "-x", "openbox", check=False).stdout.strip()


def alerts(lab: LabMachine, kind: str, id: str) -> list[dict[str, Any]]:
    printed = lab.run("journalctl", "--no-pager", "-o", "json", f"MESSAGE_ID={kind}", f"DLHEALTH_ID={id}").stdout
    return [json.loads(line) for line in printed.splitlines()]


def within(seconds: float, look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


def sudo_startx(lab: LabMachine) -> None:
    lab.run(
        "sh",
        "-c",
        "touch /home/alice/.Xauthority; chown root:root /home/alice/.Xauthority; chmod 600 /home/alice/.Xauthority",
    )


def a_script_that_ends(lab: LabMachine) -> None:
    lab.run("sh", "-c", "echo 'exit 1' > /home/alice/.xsessionrc; chown alice: /home/alice/.xsessionrc")


def no_system_path(lab: LabMachine) -> None:
    lab.run("sh", "-c", "echo 'PATH=/usr/local/cuda/bin' > /etc/environment")


def a_home_of_root(lab: LabMachine) -> None:
    lab.run("chown", "root:root", "/home/alice")
    lab.run("chmod", "700", "/home/alice")


def tmp_for_root_alone(lab: LabMachine) -> None:
    lab.run("chmod", "700", "/tmp")


LOOPS = (
    (sudo_startx, "login-loop-xauthority-wrong-owner"),
    (a_script_that_ends, "login-loop-profile-script-error"),
    (no_system_path, "login-loop-broken-path-environment"),
    (a_home_of_root, "login-loop-home-dotfile-permissions"),
    (tmp_for_root_alone, "login-loop-tmp-permissions"),
)


def test_what_the_policy_allows_is_repaired_by_itself(lab: LabMachine) -> None:
    policy(lab, "low")
    lab.run("systemctl", "stop", "lightdm.service")
    sudo_startx(lab)
    for _ in range(TRIES):
        log_in(lab)
        time.sleep(4)
    assert within(15, lambda: alerts(lab, REPAIRED, "login-loop-xauthority-wrong-owner"))
    log_in(lab)
    assert within(10, lambda: session(lab))
    time.sleep(STAYS)
    assert session(lab)
    policy(lab, "none")


@pytest.mark.parametrize(("broken", "cause"), LOOPS, ids=[b.__name__ for b, _ in LOOPS])
def test_a_loop_is_noticed_explained_and_repaired(
    broken: Callable[[LabMachine], None], cause: str, lab: LabMachine
) -> None:
    log_in(lab)
    assert within(10, lambda: session(lab)), "a healthy login does not work here"
    lab.run("systemctl", "stop", "lightdm.service")
    before = len(alerts(lab, APPEARED, cause))
    broken(lab)
    for _ in range(TRIES):
        log_in(lab)
        time.sleep(4)
        assert not session(lab), "this does not end a session"
    told = within(10, lambda: alerts(lab, APPEARED, cause)[before:])
    assert told, lab.run(COMMAND, "doctor", "--only", "login", check=False).stdout
    assert told[0]["DLHEALTH_SEVERITY"] == "error"
    assert "DLHEALTH_CAUSED_BY" not in told[0]
    done = lab.run(COMMAND, "fix", "--yes", "--json", check=False)
    assert json.loads(done.stdout)["outcome"] == "applied", done.stdout
    log_in(lab)
    assert within(10, lambda: session(lab))
    time.sleep(STAYS)
    assert session(lab)
