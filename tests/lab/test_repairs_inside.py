"""Repairs on the machine that runs: under systemd, by root on a console, and what a person's next shell then gets."""

import json

import pytest

from tests.lab import faults
from tests.lab.conftest import Fresh
from tests.lab.lab import LabMachine

pytestmark = [pytest.mark.lab, pytest.mark.ci]


def path_in(lab: LabMachine, shell: str) -> list[str]:
    """PATH in a new terminal of alice's; by its own means, as her login would start it."""
    script = f"exec /bin/{shell} -ic 'echo $PATH' </dev/null 2>/dev/null"
    done = lab.run("runuser", "-l", "alice", "-c", script, check=False)
    return done.stdout.strip().splitlines()[-1].split(":") if done.stdout.strip() else []


def test_repair_and_undo_under_systemd(fresh: Fresh) -> None:
    lab = fresh("nvidia")
    command = lab.install_dlhealth()
    faults.path_swallowed_in_bashrc(lab)
    faults.path_lost_in_environment(lab)
    lab.run("sh", "-c", "cd /home/alice && HOME=/home/alice; touch .Xauthority; chmod 600 .Xauthority")
    lab.boot()
    assert path_in(lab, "bash") == ["/usr/local/cuda/bin"]
    before = lab.run(
        "sh", "-c", "cat /etc/environment /home/alice/.bashrc; stat -c %u%a /home/alice/.Xauthority"
    ).stdout
    done = lab.run(command, "fix", "--yes", "--json", check=False)
    fixed = json.loads(done.stdout)
    assert (done.returncode, fixed["outcome"]) == (0, "applied"), fixed
    # Debian's ~/.profile reads ~/.bashrc, so that its line is one of those that lose the login its PATH.
    repaired = {r["id"] for r in fixed["plan"]["repairs"]}
    assert repaired == {"login-loop-broken-path-environment", "login-loop-xauthority-wrong-owner"}
    found = path_in(lab, "bash")
    assert "/usr/bin" in found
    assert "/usr/local/cuda/bin" in found
    assert lab.run(command, "doctor", check=False).returncode == 0
    assert json.loads(lab.run(command, "fix", "--yes", "--json").stdout)["outcome"] == "nothing-to-do"
    lab.run(command, "undo", "--yes")
    after = lab.run("sh", "-c", "cat /etc/environment /home/alice/.bashrc; stat -c %u%a /home/alice/.Xauthority").stdout
    assert after == before


def test_the_rescue_needs_nothing_but_the_systems_python(fresh: Fresh) -> None:
    lab = fresh("nvidia")
    command = lab.install_dlhealth()
    faults.path_swallowed_in_bashrc(lab)
    before = lab.run("cat", "/home/alice/.bashrc").stdout
    lab.run(command, "fix", "--yes")
    assert lab.run("cat", "/home/alice/.bashrc").stdout != before
    folder = lab.run("sh", "-c", "dirname /opt/dlhealth/lib/python3*/site-packages/dlhealth/model.py").stdout.strip()
    lab.run("sh", "-c", "rm -rf /opt/dlhealth/bin /opt/dlhealth/lib/python3*/site-packages/click")
    done = lab.run("/usr/bin/python3", "-I", "-S", f"{folder}/txn/__main__.py", "undo")
    assert "undone" in done.stdout
    assert lab.run("cat", "/home/alice/.bashrc").stdout == before
