"""What could not be looked at accuses nobody: a machine of which a part is missing has no fault that it had not before."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.host import Host
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis, Health, Risk, Severity, kind_of
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.platform import Platform
from dlhealth.testing import Machine, Scenario

RULES = load_rules("/nonexistent").rules
FOLDERS = (
    "/etc", "/usr", "/usr/lib/modules", "/lib/modules", "/boot", "/proc", "/sys", "/var", "/var/log", "/var/lib/dpkg",
    "/var/lib/dpkg/info", "/var/lib/dkms", "/run", "/home", "/root",
)  # fmt: skip
"""Each holds a source of facts; one at a time is taken away."""
_BY_RISK = list(Risk)


def first_faulty() -> Iterator[object]:
    """The first faulty machine of every twelfth rule, as each costs some fifty diagnoses, and of one whose repair depends
    on what DKMS keeps."""
    for rule in (*RULES[::12], *(r for r in RULES if r.id == "dkms-module-missing-for-running-kernel")):
        scenario = next(s for s in rule.scenarios() if s.finds)
        yield pytest.param(scenario, id=rule.id)


def remove_kernel(root: Path) -> None:
    for part in ("usr/lib/modules", "boot", "var/lib/dkms"):
        shutil.rmtree(root / part)


HEALTHY = {
    "debian": Machine.debian12_gpu(),
    "ubuntu": Machine.ubuntu2404_gpu(),
    "runfile": Machine.ubuntu1604_runfile(),
    "toolkit": Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn().python_environment(torch="2.3.0+cu121"),
    "without a GPU": Machine.debian12(),
    "container": Machine.ubuntu2404_gpu()
    .file("/run/systemd/container", "lxc\n")
    .without_package("nvidia-driver-550")
    .without_package("nvidia-dkms-550")
    .without_package("nvidia-kernel-source-550")
    .without_package("nvidia-utils-550")
    .do(remove_kernel),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_machine_stays_healthy_whatever_is_not_seen(name: str, tmp_path: Path) -> None:
    check_all(Scenario(name, HEALTHY[name]), tmp_path)


@pytest.mark.parametrize("scenario", list(first_faulty()))
def test_a_faulty_machine_gets_no_other_fault_by_what_is_not_seen(scenario: Scenario, tmp_path: Path) -> None:
    check_all(scenario, tmp_path)


def check_all(scenario: Scenario, folder: Path) -> None:
    """Take each probe and each folder away, one at a time, and compare with the whole machine."""
    root, options = folder / "machine", Options(next_boot=scenario.next_boot)
    root.mkdir()
    scenario.machine.build(root)
    host = RootHost(str(root))
    facts = Facts(host, options)
    whole = diagnose(RULES, facts)
    for kind in [k for k in facts._known if hasattr(k, "probe") and k is not Platform]:
        part = Facts(host, options)
        part._known[kind] = Unavailable("taken away by the test")
        compare(whole, diagnose(RULES, part), kind.__name__)
    for number, path in enumerate(FOLDERS):
        place = root / path.lstrip("/")
        if place.is_dir() and not place.is_symlink():
            aside = folder / f"aside{number}"
            os.rename(place, aside)
            compare(whole, diagnose(RULES, Facts(RootHost(str(root)), options)), path)
            os.rename(aside, place)


def compare(whole: Diagnosis, part: Diagnosis, lacking: str) -> None:
    """No new root cause and no plan that does more. What a fault explains is known: with its cause out of sight it may
    come to the front, as what it is, but with no riskier repair."""
    assert not part.failed, lacking
    known = {d.finding.id for d in whole.findings}
    riskiest = max((_BY_RISK.index(d.remedy.risk) for d in whole.findings if d.remedy), default=0)
    steps = {kind_of(a) for d in whole.findings if d.remedy for a in d.remedy.actions}
    for found in part.findings:
        if found.finding.severity is Severity.NOTE or found.caused_by:
            continue
        assert found.finding.id in known, f"without {lacking}: {found.finding.title}"
        plan = found.remedy
        before = [d for d in whole.findings if d.finding.id == found.finding.id and not d.caused_by]
        if plan and before and not found.by_hand:
            assert {kind_of(a) for a in plan.actions} <= steps | {"by-hand", "reboot"}, f"without {lacking}: {plan}"
            assert _BY_RISK.index(plan.risk) <= riskiest, f"without {lacking}: {plan}"


def test_a_rule_that_crashes_is_no_proof_of_health(tmp_path: Path) -> None:
    Machine.debian12_gpu().build(tmp_path)
    healthy = diagnose(RULES, Facts(RootHost(str(tmp_path)), Options()))
    assert healthy.health is Health.HEALTHY

    class Crashing(type(RULES[0])):  # type: ignore[misc]
        def detect(self, host: Host) -> Iterator[object]:
            raise ValueError("a defect")

    crashed = diagnose([*RULES[1:], Crashing()], Facts(RootHost(str(tmp_path)), Options()))
    assert [f.id for f in crashed.failed] == [RULES[0].id]
    assert crashed.health is Health.UNKNOWN
    assert crashed.doubt == "1 check failed"


@pytest.mark.parametrize("folders", [(), ("etc", "usr", "var")])
def test_an_empty_tree_is_not_healthy(folders: tuple[str, ...], tmp_path: Path) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    diagnosis = diagnose(RULES, Facts(RootHost(str(tmp_path)), Options()))
    assert not diagnosis.findings
    assert diagnosis.health is Health.UNKNOWN
