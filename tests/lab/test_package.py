"""The Debian package on booted machines: installed, upgraded with an open repair, removed, purged."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.lab.lab import PROJECT, LabMachine, machine

pytestmark = pytest.mark.lab

PACKAGE = "/root/dlhealth.deb"
STORE = "/var/lib/dlhealth/txn"
UNITS = ["dlhealth.service", "dlhealth-repair.socket"]


@cache
def built(release: str) -> bytes:
    """The package of what is committed, built and checked in a fresh root of its release."""
    made = PROJECT / "dlhealth.deb"
    subprocess.run([PROJECT / ".ci/in-fresh", release, ".ci/package", "dlhealth.deb"], check=True, cwd=PROJECT)
    content = made.read_bytes()
    made.unlink()
    return content


@pytest.fixture(scope="module", params=[("plain", "bookworm"), ("trixie", "trixie")], ids=["bookworm", "trixie"])
def lab(request: pytest.FixtureRequest) -> Iterator[LabMachine]:
    kind, release = request.param
    with machine(kind) as made:
        Path(f"{made.root}{PACKAGE}").write_bytes(built(release))
        made.boot()
        made.run("apt-get", "update", "-q")
        yield made


def install(lab: LabMachine, *options: str) -> None:
    lab.run("apt-get", "install", "-qy", "--no-install-recommends", *options, PACKAGE)


def interrupted_repair(lab: LabMachine) -> None:
    """A repair of /tmp's mode that was killed after its change."""
    code = (
        "import os, signal; from dlhealth.txn.store import Store; from dlhealth.cli import run\n"
        "def stop(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store.end = stop; run(['fix', '--yes', 'login-loop-tmp-permissions'])"
    )
    lab.run("chmod", "755", "/tmp")
    done = lab.run("/usr/bin/python3", "-c", code, check=False)
    assert lab.run("test", "-d", f"{STORE}/active", check=False).returncode == 0, done.stderr + done.stdout


def test_it_installs_from_main_alone_and_runs(lab: LabMachine) -> None:
    install(lab)
    assert lab.run("systemctl", "is-active", *UNITS).stdout.split() == ["active", "active"]
    lab.run("systemctl", "is-enabled", *UNITS, "dlhealth-boot.service", "dlhealth-recover.service")
    assert lab.run("systemctl", "--failed", "--no-legend").stdout.count("dlhealth") == 0
    assert lab.run("dlhealth", "doctor", "--json", check=False).returncode in (0, 1, 3, 6)
    assert "dlhealth found a problem" in lab.run("journalctl", "--dump-catalog").stdout
    assert lab.run("dlhealth", "config", "check").returncode == 0
    assert lab.run("getent", "passwd", "dlhealth").stdout
    lab.run("bash", "-c", ". /usr/share/bash-completion/completions/dlhealth && complete -p dlhealth")
    for place in ("zsh/vendor-completions/_dlhealth", "fish/vendor_completions.d/dlhealth.fish"):
        assert (lab.root / "usr/share" / place).exists(), place


def test_its_own_test_of_the_service_passes(lab: LabMachine) -> None:
    """The one that autopkgtest runs in a container with systemd."""
    (lab.root / "root/service").write_bytes((PROJECT / "debian/tests/service").read_bytes())
    lab.run("mkdir", "-p", "/run/autopkgtest")
    done = lab.run("sh", "-x", "/root/service", AUTOPKGTEST_TMP="/run/autopkgtest", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_owns_the_service(lab: LabMachine) -> None:
    for verb in ("install", "remove"):
        done = lab.run("dlhealth", "service", verb, check=False)
        assert done.returncode != 0
        assert "the package dlhealth has installed the service" in done.stderr
    assert "active enabled" in lab.run("dlhealth", "service", "status").stdout
    assert not (lab.root / "usr/local/lib/dlhealth").exists()


def test_an_open_repair_survives_an_upgrade_and_keeps_the_package(lab: LabMachine) -> None:
    lab.run("systemctl", "stop", "dlhealth.service")
    interrupted_repair(lab)
    install(lab, "--reinstall")
    assert lab.run("test", "-d", f"{STORE}/active", check=False).returncode == 0
    refused = lab.run("apt-get", "remove", "-qy", "dlhealth", check=False)
    assert refused.returncode != 0
    assert "a repair has not ended" in refused.stderr + refused.stdout
    lab.run("systemctl", "start", "dlhealth-recover.service")
    assert lab.run("test", "-d", f"{STORE}/active", check=False).returncode != 0
    assert len(lab.run("ls", f"{STORE}/history").stdout.split()) == 1
    lab.run("chmod", "1777", "/tmp")


def test_an_upgrade_waits_for_a_running_repair(lab: LabMachine) -> None:
    holds = f"flock {STORE}/lock sleep 8"
    lab.run("systemd-run", "--unit=repairing", "sh", "-c", holds)
    lab.run("sh", "-c", f"until ! flock -n {STORE}/lock true; do sleep 0.1; done")
    install(lab, "--reinstall")
    assert lab.run("systemctl", "is-active", "repairing", check=False).stdout.strip() != "active"


def test_removed_it_leaves_nothing_that_runs_and_purged_it_keeps_what_an_undo_needs(lab: LabMachine) -> None:
    lab.run("apt-get", "remove", "-qy", "dlhealth")
    assert lab.run("systemctl", "is-active", *UNITS, check=False).stdout.split() == ["inactive", "inactive"]
    for path in ("/usr/lib/dlhealth", "/run/dlhealth", "/etc/issue.d/90-dlhealth.issue"):
        assert lab.run("test", "-e", path, check=False).returncode != 0, path
    lab.run("apt-get", "install", "-qy", "--no-install-recommends", "hostname")  # apt's hook without dlhealth
    purged = lab.run("apt-get", "purge", "-qy", "dlhealth")
    assert "kept /var/lib/dlhealth" in purged.stderr + purged.stdout
    assert lab.run("test", "-d", f"{STORE}/history", check=False).returncode == 0
    assert lab.run("test", "-e", "/etc/dlhealth", check=False).returncode != 0
    install(lab)
    assert len(lab.run("dlhealth", "history").stdout.splitlines()) >= 1
    lab.run("rm", "-rf", "/var/lib/dlhealth")
    lab.run("apt-get", "purge", "-qy", "dlhealth")
    assert lab.run("test", "-e", "/var/lib/dlhealth", check=False).returncode != 0
