"""The service on a booted machine: installed, watching, repairing what it may, asked by who may not, upgraded, removed."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.lab import LabMachine, machine
from tests.lab.looks import COMMAND, alerts, within

pytestmark = pytest.mark.lab

APPEARED, GONE = "36d11906a1d0447088306d0529c38f21", "0dabdc3e1b5e412098af7681f253d409"
DRIVER_EVENT, REPAIRED = "d366e71109d741efa7ce1d71856ba091", "9320d96a0ab64903b4d1dde3265e3972"
NOT_CHECKED, NOT_REPAIRED = "00de2f313efc4048a667ef69dd07a0c9", "f9994504272d41eb915a783a56eb1f90"
CONFIG = "/etc/dlhealth/config.toml"
ASK = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/dlhealth-repair.sock'); "
    "s.sendall(sys.argv[1].encode() + b'\\n'); print(s.makefile().read())"
)


@pytest.fixture(scope="module", params=["nvidia", "trixie"])
def lab(request: pytest.FixtureRequest) -> Iterator[LabMachine]:
    """One machine of each release, on which the service is installed; the tests leave it healthy."""
    with machine(request.param) as made:
        made.install_dlhealth()
        made.run("useradd", "-m", "-s", "/bin/bash", "alice", check=False)
        made.boot("--bind=/dev/kmsg", "--capability=CAP_SYSLOG")
        made.run(COMMAND, "service", "install")
        within(90, lambda: made.run(COMMAND, "status", check=False).returncode != 6)  # it has checked
        yield made


def ask(lab: LabMachine, user: str, **fields: object) -> dict[str, Any]:
    line = json.dumps({"version": 1, "verb": "preview", "finding": "", "subject": "host", "digest": "", **fields})
    for _ in range(5):
        time.sleep(3.1)  # a user who asks more often than once in three seconds is soon refused
        done = lab.run("runuser", "-u", user, "--", "python3", "-c", ASK, line, check=False)
        answer: dict[str, Any] = json.loads(done.stdout or "{}")
        if answer and "too many requests" not in answer.get("error", ""):
            return answer
    raise AssertionError(done.stderr)


def repair_nothing(lab: LabMachine) -> None:
    lab.run("sh", "-c", f"mkdir -p /etc/dlhealth && printf '[repair]\\nmax_risk = \"none\"\\n' > {CONFIG}")


def break_tmp(lab: LabMachine) -> None:
    lab.run("chmod", "755", "/tmp")


def mode_of_tmp(lab: LabMachine) -> str:
    return lab.run("stat", "-c", "%a", "/tmp").stdout.strip()


@pytest.mark.ci
def test_a_healthy_machine_is_silent(lab: LabMachine) -> None:
    assert lab.run(COMMAND, "status").stdout.splitlines()[-1] == "No open problems."
    assert alerts(lab, APPEARED) == []
    assert lab.run("systemctl", "--failed", "--no-legend").stdout.count("dlhealth") == 0


@pytest.mark.ci
def test_a_line_of_the_kernel_is_told_at_once_and_once(lab: LabMachine) -> None:
    line = "NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus."
    for _ in range(5):
        lab.run("sh", "-c", f"echo '{line}' > /dev/kmsg")
    within(90, lambda: alerts(lab, DRIVER_EVENT, "xid-79-fallen-off-bus"))
    time.sleep(2)
    (told,) = alerts(lab, DRIVER_EVENT, "xid-79-fallen-off-bus")
    assert told["DLHEALTH_SUBJECT"] == "gpu:0000:01:00.0"
    assert told["SYSLOG_IDENTIFIER"] == "dlhealth"
    explained = lab.run("journalctl", "-x", "--no-pager", f"MESSAGE_ID={DRIVER_EVENT}").stdout
    assert "dlhealth explain xid-79-fallen-off-bus" in explained


@pytest.mark.ci
def test_what_the_policy_allows_is_repaired_and_can_be_undone(lab: LabMachine) -> None:
    break_tmp(lab)
    lab.run(COMMAND, "doctor", check=False)
    lab.run("sh", "-c", "touch /lib/modules/x; rm /lib/modules/x")  # a reason to look
    repaired = within(90, lambda: alerts(lab, REPAIRED, "login-loop-tmp-permissions"))
    assert mode_of_tmp(lab) == "1777"
    (appeared,) = alerts(lab, APPEARED, "login-loop-tmp-permissions")
    assert appeared["DLHEALTH_SEVERITY"] == "error"
    within(90, lambda: alerts(lab, GONE, "login-loop-tmp-permissions"))
    assert repaired[0]["DLHEALTH_TRANSACTION"] in lab.run(COMMAND, "history").stdout
    lab.run(COMMAND, "undo", "--yes")
    assert mode_of_tmp(lab) == "755"
    lab.run("chmod", "1777", "/tmp")


def test_where_node_exporter_is_installed_it_gets_metrics_after_each_check(lab: LabMachine) -> None:
    folder = "/var/lib/prometheus/node-exporter"
    lab.run("install", "-d", "-o", "alice", folder)  # its own user, on a machine that has it
    lab.run("systemctl", "start", "dlhealth-metrics.path")
    repair_nothing(lab)
    break_tmp(lab)
    lab.run("sh", "-c", "touch /lib/modules/x; rm /lib/modules/x")

    def text() -> str:
        return lab.run("cat", f"{folder}/dlhealth.prom", check=False).stdout

    within(90, lambda: 'id="login-loop-tmp-permissions"' in text())
    assert 'dlhealth_verdict{verdict="broken"} 1.0' in text()
    assert 'dlhealth_checks{outcome="run"}' in text()
    lab.run("chmod", "1777", "/tmp")
    lab.run("sh", "-c", "touch /lib/modules/x; rm /lib/modules/x")
    within(90, lambda: 'dlhealth_verdict{verdict="healthy"} 1.0' in text())
    assert lab.run("ls", "-A", folder).stdout.split() == ["dlhealth.prom"]
    assert lab.run("systemctl", "is-failed", "dlhealth-metrics.service", check=False).stdout.strip() != "failed"
    lab.run("systemctl", "stop", "dlhealth-metrics.path")
    lab.run("rm", "-r", "/etc/dlhealth", "/var/lib/prometheus")


def test_a_policy_of_none_only_tells(lab: LabMachine) -> None:
    repair_nothing(lab)
    before = len(alerts(lab, REPAIRED))
    break_tmp(lab)
    lab.run("sh", "-c", "touch /lib/modules/x; rm /lib/modules/x")
    within(90, lambda: "/tmp has" in lab.run(COMMAND, "status", check=False).stdout)
    within(90, lambda: "dlhealth fix" in lab.run("script", "-qc", "agetty --show-issue", "/dev/null").stdout)
    time.sleep(3)
    assert mode_of_tmp(lab) == "755"
    assert len(alerts(lab, REPAIRED)) == before
    lab.run(COMMAND, "fix", "--yes")
    assert mode_of_tmp(lab) == "1777"
    within(90, lambda: "No open problems." in lab.run(COMMAND, "status", check=False).stdout)
    assert lab.run("cat", "/etc/issue.d/90-dlhealth.issue").stdout == ""


def test_a_setting_that_can_not_be_meant_is_told_and_nothing_repaired(lab: LabMachine) -> None:
    lab.run("sh", "-c", f"printf '[repair]\\nmax_risc = \"high\"\\n' > {CONFIG}")
    break_tmp(lab)
    lab.run("sh", "-c", "touch /lib/modules/x; rm /lib/modules/x")
    (told,) = within(90, lambda: alerts(lab, NOT_CHECKED))
    assert "repair.max_risc" in told["MESSAGE"]
    assert mode_of_tmp(lab) == "755"
    lab.run("rm", "-r", "/etc/dlhealth")
    lab.run("chmod", "1777", "/tmp")


def test_nobody_gets_more_than_he_may(lab: LabMachine) -> None:
    repair_nothing(lab)
    break_tmp(lab)
    finding = "login-loop-tmp-permissions"
    shown = within(90, lambda: (found := ask(lab, "dlhealth", finding=finding))["ok"] and found)
    assert (shown["ok"], shown["allowed"]) == (True, False)
    for user, fields in (
        ("dlhealth", {"verb": "apply", "finding": finding, "digest": shown["digest"]}),  # the policy says no
        ("dlhealth", {"verb": "apply", "finding": finding, "digest": "0" * 12}),
        ("dlhealth", {"verb": "undo"}),
        ("alice", {"verb": "preview", "finding": finding}),  # there is no polkit here to allow it
        ("alice", {"verb": "apply", "finding": finding, "digest": shown["digest"]}),
        ("alice", {"verb": "undo"}),
        ("alice", {"verb": "apply", "finding": "../../etc", "digest": shown["digest"]}),
        ("alice", {"verb": "run", "finding": finding}),
        ("alice", {"verb": "preview", "finding": finding, "command": "id"}),
        ("alice", {"verb": "preview", "finding": "x" * 5000}),
    ):
        refused = ask(lab, user, **fields)
        assert refused["ok"] is False, (user, fields)
        assert refused["error"]
    assert mode_of_tmp(lab) == "755"
    lab.run("rm", "-r", "/etc/dlhealth")
    lab.run("chmod", "1777", "/tmp")


def test_a_rule_of_somebody_else_is_not_loaded(lab: LabMachine) -> None:
    lab.run(
        "sh",
        "-c",
        "mkdir -p /etc/dlhealth/rules.d; echo 'import os; os.mkdir(\"/root/taken\")' > /etc/dlhealth/rules.d/x.py",
    )
    lab.run("chown", "-R", "alice", "/etc/dlhealth/rules.d")
    lab.run("sh", "-c", "touch /lib/modules/x; rm /lib/modules/x")
    within(90, lambda: any("rules.d" in a["MESSAGE"] for a in alerts(lab, NOT_CHECKED)))
    assert lab.run("test", "-e", "/root/taken", check=False).returncode == 1
    lab.run("rm", "-r", "/etc/dlhealth")


def test_the_watchdog_starts_it_anew(lab: LabMachine) -> None:
    lab.run(
        "sh",
        "-c",
        "mkdir -p /run/systemd/system/dlhealth.service.d; printf '[Service]\\nWatchdogSec=3\\nRestartSec=1\\n' > /run/systemd/system/dlhealth.service.d/soon.conf; systemctl daemon-reload; systemctl restart dlhealth",
    )
    before = lab.run("systemctl", "show", "-P", "MainPID", "dlhealth").stdout.strip()
    lab.run("kill", "-STOP", before)
    within(30, lambda: lab.run("systemctl", "show", "-P", "NRestarts", "dlhealth").stdout.strip() != "0")
    within(15, lambda: lab.run("systemctl", "is-active", "dlhealth", check=False).stdout.strip() == "active")
    assert lab.run("systemctl", "show", "-P", "MainPID", "dlhealth").stdout.strip() not in ("0", before)
    lab.run(
        "sh", "-c", "rm -r /run/systemd/system/dlhealth.service.d; systemctl daemon-reload; systemctl restart dlhealth"
    )


def test_the_journal_is_restarted_below_it(lab: LabMachine) -> None:
    lab.run("systemctl", "restart", "systemd-journald")
    lab.run("sh", "-c", "echo 'NVRM: Xid (PCI:0000:02:00): 48, pid=1, DBE' > /dev/kmsg")
    within(90, lambda: alerts(lab, DRIVER_EVENT, "xid-ecc-48-63-64-92-94-95"))


def test_the_check_at_boot(lab: LabMachine) -> None:
    lab.run("systemctl", "stop", "dlhealth.service")
    lab.run("install", "-o", "root", "-m", "600", "/dev/null", "/home/alice/.Xauthority")  # as sudo startx does
    lab.run("systemctl", "restart", "dlhealth-boot.service")
    assert lab.run("find", "/home/alice", "-name", ".Xauthority", "-user", "root").stdout == ""
    lab.run("systemctl", "start", "dlhealth.service")


def test_a_restart(lab: LabMachine) -> None:
    """What is broken is repaired before anybody can log in, and the service is there again. What was repaired today and
    broke again is left alone, and that is said."""
    lab.run("systemctl", "stop", "dlhealth.service")
    lab.run("install", "-o", "root", "-m", "600", "/dev/null", "/home/alice/.Xauthority")  # as sudo startx does
    lab.run("sh", "-c", "useradd -m bob; install -o root -m 600 /dev/null /home/bob/.Xauthority")
    before = lab.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    lab.restart()
    boot = lab.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    assert boot != before

    def told(kind: str) -> list[str]:
        return [a["DLHEALTH_SUBJECT"] for a in alerts(lab, kind) if a["_BOOT_ID"] == boot.strip().replace("-", "")]

    assert told(REPAIRED) == ["file:/home/bob/.Xauthority"]
    assert told(NOT_REPAIRED) == ["file:/home/alice/.Xauthority"]
    assert lab.run("find", "/home", "-name", ".Xauthority", "-user", "root").stdout == "/home/alice/.Xauthority\n"
    assert "dlhealth-boot.service" in lab.run("systemctl", "show", "-P", "After", "display-manager.service").stdout
    units = ("dlhealth.service", "dlhealth-repair.socket")
    assert lab.run("systemctl", "is-active", *units).stdout.split() == ["active", "active"]
    lab.run("rm", "/home/alice/.Xauthority")
    within(30, lambda: lab.run(COMMAND, "status", check=False).stdout.splitlines()[-1] == "No open problems.")


def test_the_look_in_its_sandbox_sees_what_root_sees(lab: LabMachine) -> None:
    """What systemd hides from the service must not look like a fault."""
    lab.run(
        "sh",
        "-c",
        "echo 'export PATH=/usr/local/cuda/bin' >> /home/alice/.bashrc; rm -f /etc/modprobe.d/nvidia-blacklists-nouveau.conf.x",
    )
    repair_nothing(lab)
    lab.run("systemctl", "restart", "dlhealth.service")
    time.sleep(5)
    told = {
        (f["id"], f["subject"])
        for f in json.loads(lab.run(COMMAND, "status", "--json", check=False).stdout)["findings"]
    }
    report = json.loads(lab.run(COMMAND, "doctor", "--json", check=False).stdout)
    seen = {(f["id"], f["subject"]) for f in report["findings"] if f["severity"] != "note"}
    assert seen
    assert told == seen
    lab.run("sh", "-c", "sed -i '$d' /home/alice/.bashrc; rm -r /etc/dlhealth")


@pytest.mark.ci
def test_an_upgrade_over_the_running_service_and_its_removal(lab: LabMachine) -> None:
    before = lab.run("systemctl", "show", "-P", "MainPID", "dlhealth").stdout.strip()
    lab.run(COMMAND, "service", "install")
    assert lab.run("systemctl", "show", "-P", "MainPID", "dlhealth").stdout.strip() not in ("0", before)
    lab.run(COMMAND, "service", "remove")
    left = lab.run(
        "find", "/etc", "/usr", "/run", "/var", "-xdev", "-name", "*dlhealth*", "-not", "-path", "/run/systemd/*"
    ).stdout.split()
    assert left == ["/var/lib/dlhealth"]
    assert lab.run("getent", "passwd", "dlhealth", check=False).returncode != 0
    assert "not installed" in lab.run(COMMAND, "service", "status", check=False).stdout
