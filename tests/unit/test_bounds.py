"""What no plan may do, whichever rule offers it."""

from pathlib import Path

import pytest

from dlhealth.actions import AptInstall, ByHand, EditFile, LoadModules, MoveAside, PipInstall
from dlhealth.engine.bounds import Bounds, bounds_of
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.host.root import RootHost
from dlhealth.model import Action, Plan, Risk
from dlhealth.probes import Options
from dlhealth.testing import Machine

LIB = "/usr/lib/x86_64-linux-gnu"
ROCKY = 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4"\n'


def facts(machine: Machine, folder: Path) -> Facts:
    machine.build(folder)
    return Facts(RootHost(str(folder)), Options())


def bounds(machine: Machine, folder: Path) -> Bounds:
    found = facts(machine, folder).call(bounds_of)
    assert isinstance(found, Bounds)
    return found


def plan(*actions: Action) -> Plan:
    return Plan("do it", Risk.LOW, actions)


def unmanaged() -> Machine:
    return Machine.debian12_gpu().remove("/var/lib/dpkg/status")


@pytest.mark.parametrize(
    "action",
    [
        MoveAside("/etc/X11/xorg.conf"),
        AptInstall(("nvidia-driver",)),
        LoadModules(("nvidia",)),
        EditFile("/etc/environment", ((1, "a", "b"),)),
        EditFile("/home/alice/work/.env", ((1, "a", "b"),)),
    ],
)
def test_without_package_records_only_a_person_changes_the_system(action: Action, tmp_path: Path) -> None:
    changed = bounds(unmanaged(), tmp_path).within(plan(action))
    assert [type(a) for a in changed.actions] == [ByHand]
    assert bounds(Machine.debian12_gpu(), tmp_path / "whole").within(plan(action)) == plan(action)


@pytest.mark.parametrize("action", [EditFile("/home/alice/.bashrc", ((1, "a", "b"),)), PipInstall("/x/python", ("a",))])
def test_a_persons_own_start_up_files_are_repaired_everywhere(action: Action, tmp_path: Path) -> None:
    assert bounds(unmanaged(), tmp_path).within(plan(action)) == plan(action)


def test_the_last_libcuda_stays(tmp_path: Path) -> None:
    limits = bounds(Machine.ubuntu2404_gpu(), tmp_path)
    aside = MoveAside(f"{LIB}/libcuda.so.1")
    assert limits.lost([aside]) == "libcuda.so.1"
    assert [type(a) for a in limits.within(plan(aside)).actions] == [ByHand]
    assert limits.lost([aside, AptInstall(("libnvidia-compute-550",))]) is None
    assert limits.lost([MoveAside(f"{LIB}/libnvidia-fbc.so.1")]) is None


def test_a_driver_that_no_record_names_is_no_leftover(tmp_path: Path) -> None:
    """Of a driver without a module nothing is moved while nobody knows which package its libraries belong to."""
    machine = unmanaged().remove("/usr/lib/modules/6.1.0-50-amd64/updates/dkms/nvidia-current.ko")
    diagnosis = diagnose(load_rules("/nonexistent").rules, facts(machine, tmp_path))
    told = " ".join(str(d.finding) for d in diagnosis.findings)
    assert "belongs to no package" not in told
    assert not [a for d in diagnosis.findings if d.remedy for a in d.remedy.actions if isinstance(a, MoveAside)]


def test_rpms_libraries_are_no_leftover(tmp_path: Path) -> None:
    """Rocky after an update of the kernel whose module is still to be built: driver libraries, and no module."""
    machine = Machine().file("/etc/os-release", ROCKY).folder("/usr/lib64").file("/var/lib/rpm/rpmdb.sqlite", "x")
    for name in ("libcuda.so", "libnvidia-ml.so", "libGLX_nvidia.so"):
        number = "0" if "GLX" in name else "1"
        machine.library(f"/usr/lib64/{name}.565.57.01", f"{name}.{number}")
        machine.link(f"/usr/lib64/{name}.{number}", f"{name}.565.57.01")
    machine.file("/boot/vmlinuz-5.14.0-427.el9.x86_64").file("/usr/lib/modules/5.14.0-427.el9.x86_64/modules.dep")
    machine.link("/lib", "usr/lib").link("/lib64", "usr/lib64")
    diagnosis = diagnose(load_rules("/nonexistent").rules, facts(machine, tmp_path))
    assert [d.finding.id for d in diagnosis.findings] == []
    assert diagnosis.unjudged == "Rocky Linux 9.4 is not Debian or Ubuntu"
