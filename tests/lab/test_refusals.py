"""What would stop a repair half way stops it before its first change: another program at work on the packages, or a
full disk. On a real Debian machine with the real NVIDIA packages, from outside."""

import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import faults
from tests.lab.conftest import Fresh
from tests.lab.lab import LabMachine
from tests.lab.looks import packages, snapshot

pytestmark = pytest.mark.lab


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """As apt and dpkg hold it."""
    with lock.open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


@contextmanager
def small_disk(folder: Path, free_kib: int) -> Iterator[None]:
    """The same files, on a disk of their own with so much left."""
    aside = folder.parent / f".{folder.name}.aside"
    shutil.copytree(folder, aside)
    used = sum(-(-p.stat().st_size // 4096) * 4 + 4 for p in aside.rglob("*"))
    options = f"size={used + free_kib}k,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "dlhealth-test", folder], check=True)
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        shutil.rmtree(aside)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def refused(lab: LabMachine) -> str:
    """Why, when `dlhealth fix` has refused and nothing was changed."""
    before, installed = snapshot(lab.root), packages(lab)
    command = [sys.executable, "-m", "dlhealth", "fix", "--root", str(lab.root), "--yes", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert '"outcome": "refused"' in done.stdout
    assert done.stderr.endswith("Nothing was changed.\n")
    assert packages(lab) == installed
    after = snapshot(lab.root)
    assert {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)} == set()
    store = lab.root / "var/lib/dlhealth/txn"
    assert not (store / "active").exists()
    assert list((store / "history").iterdir()) == []
    return done.stderr


@pytest.mark.parametrize("name", ["lock-frontend", "lock"])
def test_while_another_program_changes_packages(name: str, fresh: Fresh) -> None:
    lab = fresh("nvidia")
    faults.a_purged_half(lab)
    comm = Path("/proc/self/comm").read_text().strip()
    with held(lab.root / "var/lib/dpkg" / name):
        said = refused(lab)
    assert f"{comm} (process " in said
    assert f"it holds /var/lib/dpkg/{name}" in said


def test_boot_without_room_for_a_second_initramfs(fresh: Fresh) -> None:
    lab = fresh("nvidia")
    (lab.root / "etc/modprobe.d/fix.conf").write_text("blacklist nvidia\n")
    with small_disk(lab.root / "boot", 20 << 10):
        said = refused(lab)
    assert "/boot has " in said
    assert "a new initramfs in /boot may take " in said


def test_archives_that_do_not_fit(fresh: Fresh) -> None:
    lab = fresh("nvidia")
    faults.a_purged_half(lab)
    with small_disk(lab.root / "var/cache/apt/archives", 1 << 10):
        said = refused(lab)
    assert "You don't have enough free space in /var/cache/apt/archives/" in said


# In place of a repair: the same context as around one, until it is killed.
REPAIRING = """
import time
from dlhealth.engine.repair import _INHIBIT, _INHIBIT_SECONDS
from dlhealth.host.exec import held
with held(_INHIBIT, _INHIBIT_SECONDS) as holds:
    print(holds, flush=True)
    time.sleep(600)
"""


def test_the_running_machine_does_not_go_down_or_to_sleep_meanwhile(fresh: Fresh) -> None:
    """And does again once dlhealth has ended, though it was killed."""
    lab = fresh("plain")
    python = lab.install_dlhealth().replace("bin/dlhealth", "bin/python")
    (lab.root / "root/repairing.py").write_text(REPAIRING)
    lab.boot()
    unit = ["systemd-run", "-q", "--unit=repairing", "-p", "KillMode=process"]
    lab.run(*unit, python, "/root/repairing.py")
    assert inhibitors(lab, 1) == ["dlhealth"]
    shown = lab.run("systemd-inhibit", "--list", "--no-pager").stdout
    assert "shutdown:sleep" in shown
    assert "block" in shown
    lab.run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", "repairing.service")
    assert inhibitors(lab, 0) == []


def inhibitors(lab: LabMachine, expected: int) -> list[str]:
    """Who holds some; waited for until there are as many as expected."""
    for _ in range(60):
        lines = lab.run("systemd-inhibit", "--list", "--no-pager", "--no-legend").stdout.splitlines()
        if len(lines) == expected:
            break
        time.sleep(0.5)
    return [line.split()[0] for line in lines]
