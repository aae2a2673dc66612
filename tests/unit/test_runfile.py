"""Traces of NVIDIA's installer."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis
from dlhealth.probes import Options
from dlhealth.probes.runfile import Runfile, installed_version
from dlhealth.testing import Machine, layouts


@pytest.fixture
def runfile(tmp_path: Path) -> Callable[[Machine], Runfile]:
    def probe(machine: Machine) -> Runfile:
        found: Runfile = Facts(RootHost(str(machine.build(tmp_path))), Options()).get(Runfile)
        return found

    return probe


def test_an_installed_driver(runfile: Callable[[Machine], Runfile]) -> None:
    found = runfile(Machine.ubuntu1604_runfile())
    assert found.installed
    assert found.programs == ("/usr/bin/nvidia-uninstall", "/usr/bin/nvidia-installer")
    assert found.version == "381.22"
    assert found.blacklists == ("/etc/modprobe.d/nvidia-installer-disable-nouveau.conf",)
    assert [(t.module, t.version, t.sound) for t in found.trees] == [("nvidia", "381.22", True)]


def test_packages_leave_no_trace_of_it(runfile: Callable[[Machine], Runfile]) -> None:
    found = runfile(Machine.debian12_gpu())
    assert not found.installed
    assert (found.log, found.manifest, found.version, found.blacklists) == ("", "", "", ())


@pytest.mark.parametrize(
    "text",
    [
        layouts.RUNFILE_LOG.format(version="381.22"),
        "381.22\nNVIDIA Accelerated Graphics Driver for Linux-x86_64 (381.22)\n1: /usr/lib/x\n",
        "-> Installing NVIDIA driver version 381.22.\n",
        "WARNING: x\n-> Installation of the kernel module for the NVIDIA Accelerated Graphics Driver for Linux-x86_64 (version 381.22) is now complete.\n",
    ],
)
def test_the_version_in_the_log(text: str) -> None:
    assert installed_version(text) == "381.22"


@given(st.text(max_size=500))
def test_hostile_logs_never_raise(text: str) -> None:
    assert isinstance(installed_version(text), str)


def test_a_dkms_tree_without_its_source(runfile: Callable[[Machine], Runfile]) -> None:
    machine = Machine.debian12().link("/var/lib/dkms/nvidia/470.57.02/source", "/usr/src/nvidia-470.57.02")
    (tree,) = runfile(machine).trees
    assert not tree.sound
    assert tree.source == "/usr/src/nvidia-470.57.02"


def test_the_mixture_is_taken_apart_by_moving_not_by_deleting(examine: Callable[..., Diagnosis]) -> None:
    machine = (
        Machine.ubuntu2404()
        .gpu()
        .ubuntu_driver("550.120", loaded=False)
        .runfile_driver("570.86.10", ("6.8.0-50-generic",))
    )
    (found,) = examine(machine, "mixed-runfile-and-apt").findings
    steps = [a.summary() for a in found.remedy.actions]
    assert steps[0] == "mv /usr/bin/nvidia-uninstall /usr/bin/nvidia-uninstall.bak"
    assert "dkms remove nvidia/570.86.10 --all" in steps
    assert any(s.startswith("apt-get install --reinstall nvidia-driver-550 ") for s in steps)
    assert not any("purge" in s for s in steps)
    assert found.remedy.risk == "high"
    assert steps[-1] == "systemctl reboot"
