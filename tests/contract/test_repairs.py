"""What holds for the repairs of every rule: the mildest one helps, harms nothing, has nothing to do a second time, and
gives back every byte when it is taken back."""

from pathlib import Path

import pytest

from dlhealth.actions import action_from_json, action_to_json, needs_programs
from dlhealth.engine.choose import Limits, Repair, choose
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.engine.repair import carry_out
from dlhealth.engine.rule import Rule, plans
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis, Risk, Severity
from dlhealth.probes import Options
from dlhealth.steps.base import Target
from dlhealth.testing import Scenario
from dlhealth.txn.execute import undo
from dlhealth.txn.store import Store
from tests.snapshot import snapshot

RULES = load_rules("/nonexistent").rules
BY_ID = {rule.id: rule for rule in RULES}
CASES = [pytest.param(r, s, id=f"{r.id}: {s.name}") for r in RULES for s in r.scenarios() if s.finds]


class Patient:
    """A machine in a folder, and what dlhealth says of it now."""

    def __init__(self, root: Path, scenario: Scenario) -> None:
        self.root = root
        self._options = Options(next_boot=scenario.next_boot)

    def examine(self) -> tuple[Diagnosis, Facts]:
        facts = Facts(RootHost(str(self.root)), self._options)
        return diagnose(RULES, facts), facts

    def choose(self, wanted: frozenset[str]) -> tuple[Diagnosis, Repair]:
        diagnosis, facts = self.examine()
        return diagnosis, choose(diagnosis, BY_ID, facts, Limits(Risk.HIGH, live=False, wanted=wanted))


@pytest.mark.parametrize(("rule", "scenario"), CASES)
def test_repair(rule: Rule, scenario: Scenario, tmp_path: Path) -> None:
    scenario.machine.build(tmp_path)
    patient = Patient(tmp_path, scenario)
    before = snapshot(tmp_path)
    diagnosis, facts = patient.examine()
    for found in diagnosis.findings:
        if found.finding.id == rule.id:
            for plan in plans(rule, found.finding, facts.call):
                assert plan.actions, "a plan without a step repairs nothing"
                assert [action_from_json(action_to_json(a)) for a in plan.actions] == list(plan.actions)
    diagnosis, repair = patient.choose(frozenset({rule.id}))
    roots = {d.finding.id for d in diagnosis.findings if not d.caused_by}
    assert {c.finding.id for c in repair.chosen} | {x.finding.id for x in repair.left} <= roots
    if not repair.chosen or any(needs_programs(a) for a in repair.actions):
        return  # programs of the machine are needed: the lab has them
    store = Store(str(tmp_path))
    with store.locked():
        ended = carry_out(repair, diagnosis, store, str(tmp_path), lambda: patient.examine()[0], lambda text: None)
        assert (ended.outcome, ended.said) == ("applied", ())
        aims = {(c.finding.id, c.finding.subject) for c in repair.chosen}
        again, second = patient.choose(frozenset())
        bad = [d.finding for d in again.findings if d.finding.severity is not Severity.NOTE]
        assert not aims & {(f.id, f.subject) for f in bad}
        assert not aims & {(c.finding.id, c.finding.subject) for c in second.chosen}
        assert undo(store, Target(str(tmp_path), ended.record.id), ended.record).outcome == "undone"
    assert snapshot(tmp_path) == before
