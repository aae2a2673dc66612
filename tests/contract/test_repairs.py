"""What holds for the repairs of every rule: the mildest one helps, harms nothing, has nothing to do a second time, and
gives back every byte when it is taken back."""

from pathlib import Path

import pytest

from dlhealth.actions import SetAlternative, needs_programs
from dlhealth.engine.choose import Limits, Repair, offer_for
from dlhealth.engine.repair import carry_out
from dlhealth.engine.rule import Rule
from dlhealth.model import Diagnosis, Risk, Severity, kind_of
from dlhealth.steps.base import Target
from dlhealth.testing import Scenario
from dlhealth.txn.execute import undo
from dlhealth.txn.store import Store
from tests.patient import Patient
from tests.rules import FAULTY, RULES
from tests.snapshot import snapshot
from tests.stand_in_root import StandInRoot

LATER = {"reboot", "load-modules", "reload-modules"}
"""What a directory's next start does."""
FILES = {
    "change-mode",
    "change-owner",
    "copy-file",
    "edit-file",
    "make-directory",
    "make-link",
    "move-aside",
    "write-file",
}
STAND_INS = {"refresh-loader-cache", "refresh-module-index", "set-alternative", "update-initramfs"}
"""What programs do that have a stand-in."""
LAB = "".join(path.read_text() for path in (Path(__file__).parents[1] / "lab").glob("*.py"))
IN_LAB = {rule.id for rule in RULES if f'"{rule.id}"' in LAB}
OWN = {"cudnn-headers-missing-or-split", "nouveau-bound-instead-of-nvidia", "nova-core-claims-gpu"}
"""Carried out with packages, or with the next start of the machine, in test_repairs_by_packages.py."""
BY_PACKAGES = (Path(__file__).parent / "test_repairs_by_packages.py").read_text()
"""With stand-ins for apt, DKMS and the next start."""


NEVER_CARRIED_OUT = {
    "nvidia-module-not-loaded": "only a running machine with a GPU can load the module, and no stand-in has a kernel",
}
"""Rules whose repair neither a directory, nor stand-ins, nor the lab carries out, and why."""


def in_folder(scenario: Scenario) -> bool:
    return not set(scenario.steps) - FILES - LATER and bool(set(scenario.steps) - LATER)


def by_stand_ins(scenario: Scenario) -> bool:
    return not set(scenario.steps) - FILES - LATER - STAND_INS and bool(set(scenario.steps) & STAND_INS)


@pytest.mark.parametrize(("rule", "scenario"), FAULTY)
def test_repair(rule: Rule, scenario: Scenario, tmp_path: Path) -> None:
    root = scenario.machine.build(tmp_path)
    patient = Patient(root, scenario)
    before = snapshot(root)
    diagnosis, facts = patient.examine()
    for found in diagnosis.findings:
        if found.finding.id == rule.id:
            automatic = not found.caused_by and not offer_for(rule, found.finding, facts, Limits(Risk.HIGH)).reason
            assert not automatic or any(s.steps or s.ladder for s in rule.scenarios()), (
                "a scenario must say what is done"
            )
    diagnosis, repair = patient.choose(frozenset({rule.id}))
    roots = {d.finding.id for d in diagnosis.findings if not d.caused_by}
    assert {c.finding.id for c in repair.chosen} | {x.finding.id for x in repair.left} <= roots
    if why := cannot_carry_out(repair):
        pytest.skip(why)
    helps_and_is_undone(patient, diagnosis, repair, before)


def helps_and_is_undone(patient: Patient, diagnosis: Diagnosis, repair: Repair, before: dict[str, object]) -> None:
    """Carry a repair out, check that it helps and leaves nothing to repair, and undo it."""
    root = patient.root
    store = Store(str(root))
    with store.locked():
        ended = carry_out(repair, diagnosis, store, str(root), lambda: patient.examine()[0], lambda text: None)
        assert (ended.outcome, ended.said) == ("applied", ())
        aims = {(c.finding.id, c.finding.subject) for c in repair.chosen}
        again, second = patient.choose(frozenset())
        bad = [d.finding for d in again.findings if d.finding.severity is not Severity.NOTE]
        assert not aims & {(f.id, f.subject) for f in bad}
        assert not aims & {(c.finding.id, c.finding.subject) for c in second.chosen}
        assert undo(store, Target(str(root), ended.record.id), ended.record).outcome == "undone"
    assert snapshot(root) == before


@pytest.mark.real_programs  # the stand-ins
@pytest.mark.parametrize(
    ("rule", "scenario"), [p for p in FAULTY if p.values[0].id not in OWN and by_stand_ins(p.values[1])]
)
def test_repair_by_stand_ins(rule: Rule, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With programs that change the tree as the real ones do."""
    stand_in = StandInRoot(tmp_path, monkeypatch)
    stand_in.system_programs()
    patient = Patient(scenario.machine.build(stand_in.folder), scenario)
    before = snapshot(patient.root)
    diagnosis, repair = patient.choose(frozenset({rule.id}))
    assert [c.finding.id for c in repair.chosen] == [rule.id]
    for name in (a.name for a in repair.actions if isinstance(a, SetAlternative)):
        if not (patient.root / f"var/lib/dpkg/alternatives/{name}").exists():
            pytest.skip(f"the scenario has no record of the alternative {name}")
    helps_and_is_undone(patient, diagnosis, repair, before)


def cannot_carry_out(repair: Repair) -> str:
    """Why a repair can't be carried out in a directory; "" if it can."""
    if not repair.chosen:
        return (
            "; ".join(dict.fromkeys(x.reason for x in repair.left)) or "only a note, or another cause is repaired first"
        )
    kinds = {kind_of(a) for a in repair.actions if needs_programs(a)}
    return f"needs the machine's own programs: {', '.join(sorted(kinds))}" if kinds else ""


def test_rules_whose_repair_is_never_carried_out_are_named() -> None:
    """A directory has no programs of its own; the lab has the real ones."""
    never = set()
    for rule in RULES:
        scenarios = [s for s in rule.scenarios() if s.steps]
        stood_in = f'"{rule.id}"' in BY_PACKAGES or (rule.id not in OWN and any(map(by_stand_ins, scenarios)))
        if scenarios and rule.id not in IN_LAB and not stood_in and not any(map(in_folder, scenarios)):
            never.add(rule.id)
    assert never == NEVER_CARRIED_OUT.keys()
