"""What no plan may do, whichever rule offers it."""

import re
import sys
from pathlib import Path

import pytest

from dlhealth.actions import (
    AptInstall,
    ByHand,
    DkmsBuild,
    DpkgConfigure,
    EditFile,
    LoadModules,
    MoveAside,
    PipInstall,
    Reboot,
    UpdateInitramfs,
)
from dlhealth.engine.bounds import Bounds
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.host.root import RootHost
from dlhealth.model import Action, Health, Plan, Risk
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.machine.platform import Platform
from dlhealth.testing import Machine

LIB = "/usr/lib/x86_64-linux-gnu"
ROCKY = 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4"\n'


def facts(machine: Machine, folder: Path) -> Facts:
    machine.build(folder)
    return Facts(RootHost(str(folder)), Options())


def bounds(machine: Machine, folder: Path) -> Bounds:
    found = facts(machine, folder).get(Bounds)
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
    assert {type(a) for a in changed.actions} == {ByHand}
    assert bounds(Machine.debian12_gpu(), tmp_path / "whole").within(plan(action)) == plan(action)


def test_a_person_reads_which_line_to_change(tmp_path: Path) -> None:
    changed = bounds(unmanaged(), tmp_path).within(plan(EditFile("/etc/environment", ((3, "a=1", "a=2"),))))
    assert ByHand("in /etc/environment: line 3 becomes: a=2") in changed.actions


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


JETSON = Machine.ubuntu2404().file("/etc/nv_tegra_release", "# R36 (release), REVISION: 4.0\n")
WSL = Machine.ubuntu2404().file("/proc/sys/kernel/osrelease", "5.15.167.4-microsoft-standard-WSL2\n")
CONTAINER = Machine.ubuntu2404().file("/run/systemd/container", "docker\n")


@pytest.mark.parametrize("machine", [JETSON, WSL, CONTAINER], ids=["jetson", "wsl", "container"])
@pytest.mark.parametrize(
    "action", [AptInstall(("nvidia-driver-550",)), DkmsBuild("nvidia", "550.120", "6.8"), LoadModules(("nvidia",))]
)
def test_a_driver_of_another_system_is_for_a_person(machine: Machine, action: Action, tmp_path: Path) -> None:
    limits = bounds(machine, tmp_path)
    assert [type(a) for a in limits.within(plan(action)).actions] == [ByHand]
    others = plan(AptInstall(("libcudnn9-cuda-12", "nvidia-container-toolkit", "nvidia-cuda-toolkit")))
    assert limits.within(others) == others


@pytest.mark.parametrize("machine", [WSL, CONTAINER], ids=["wsl", "container"])
def test_without_a_kernel_of_its_own_none_is_prepared(machine: Machine, tmp_path: Path) -> None:
    limits = bounds(machine, tmp_path)
    changed = limits.within(Plan("do it", Risk.LOW, (DpkgConfigure(), UpdateInitramfs("all"), Reboot()), reboot=True))
    assert changed == plan(DpkgConfigure())


@pytest.mark.parametrize("manager", ["", "docker\n"], ids=["itself", "a container"])
def test_a_jetson_gets_nvidias_wheels(manager: str, tmp_path: Path) -> None:
    machine = Machine.ubuntu2404().file("/etc/nv_tegra_release", "# R36\n").python_environment(torch="2.3.0+cpu")
    if manager:
        machine.file("/run/systemd/container", manager)
    rules = load_rules("/nonexistent").rules
    found = diagnose(rules, facts(machine, tmp_path)).findings
    remedy = next(d.remedy for d in found if d.finding.id == "torch-cpu-only-build")
    assert remedy
    assert [type(a) for a in remedy.actions] == [ByHand]
    assert "JetPack" in remedy.actions[0].summary()


def test_rules_that_name_a_wheel_of_a_pc_say_so() -> None:
    """They import what installs one, or name the command."""
    for rule in load_rules("/nonexistent").rules:
        source = Path(str(sys.modules[type(rule).__module__].__file__)).read_text()
        code = source.split('"""', 2)[2].partition("def scenarios")[0]
        offers = re.search(r"pip install|PipInstall\(|pip_install\(|pip_cudnn\(|replace_torch\(", code)
        assert rule.gpu_wheels == bool(offers and rule.id != "numpy-2-abi"), rule.id


def test_what_could_not_be_checked_sets_the_narrowest_bounds(tmp_path: Path) -> None:
    facts(Machine.debian12_gpu(), tmp_path)
    limits = Bounds(None, None, None)
    assert [type(a) for a in limits.within(plan(MoveAside("/etc/X11/xorg.conf"))).actions] == [ByHand]
    whole = facts(Machine.debian12_gpu(), tmp_path / "whole")
    blind = Bounds(whole.get(Platform), None, None)
    assert blind.lost([MoveAside(f"{LIB}/libcuda.so.535.261.03")]) == "libcuda.so.1"
    assert blind.lost([MoveAside("/etc/X11/xorg.conf")]) is None


def test_a_diagnosis_without_the_platform_says_so(tmp_path: Path) -> None:
    known = facts(Machine.debian12_gpu(), tmp_path)
    known._known[Platform] = Unavailable("removed by the test")
    diagnosis = diagnose(load_rules("/nonexistent").rules, known)
    assert diagnosis.health is Health.UNKNOWN
    assert diagnosis.doubt == "which system this is could not be checked (removed by the test)"
    assert diagnosis.machine["platform"] is None
