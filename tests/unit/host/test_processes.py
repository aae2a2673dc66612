"""Processes of this machine: real ones."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dlhealth.engine.busy import being_changed
from dlhealth.host.processes import building, end_tree, since, started
from dlhealth.host.root import live_host

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is root's process, or another user's")


def script(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nread -r line\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def world_readable(tmp_path: Path) -> Iterator[Path]:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("test_", "popen-", "pytest-")):
            folder.chmod(0o755)
    yield tmp_path


@as_root
@pytest.mark.parametrize(
    ("path", "said"),
    [("dkms", "modules are being built"), ("var/lib/dpkg/info/nvidia-driver.postinst", "packages are being changed")],
)
def test_who_builds_modules_or_configures_packages(path: str, said: str, world_readable: Path) -> None:
    program = script(world_readable / path)
    with subprocess.Popen([str(program)], stdin=subprocess.PIPE) as working:
        deadline = time.monotonic() + 20
        while str(working.pid) not in building() and time.monotonic() < deadline:
            time.sleep(0.05)
        text = building()
        assert text.startswith(f"{program.name} (process {working.pid}, since ")
        assert text.endswith(said)
        assert being_changed(live_host())
        working.kill()


@as_root
def test_what_another_user_calls_dkms_is_not_waited_for(world_readable: Path) -> None:
    program = script(world_readable / "dkms")
    with subprocess.Popen([str(program)], stdin=subprocess.PIPE, user=30001) as working:
        time.sleep(0.5)
        assert str(working.pid) not in building()
        working.kill()


def test_when_a_process_started_as_polkit_counts() -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert started(os.getpid()) == int(fields[19])
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert since(gone.pid) == ""
    with pytest.raises(ProcessLookupError):
        started(gone.pid)


def test_a_tree_ends_with_what_has_a_session_of_its_own() -> None:
    with subprocess.Popen(["sh", "-c", "setsid sleep 60 & sleep 60"]) as top:
        deadline = time.monotonic() + 20
        while len(below := psutil.Process(top.pid).children(recursive=True)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(below) == 2
        end_tree(top.pid)
        psutil.wait_procs(below, timeout=20)
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below)
