"""What holds for the repairs of every rule: the mildest one helps, harms nothing, has nothing to do a second time, and
gives back every byte when it is taken back."""

from pathlib import Path

import pytest

from dlhealth.actions import action_from_json, action_to_json, needs_programs
from dlhealth.engine.choose import Limits, Repair, choose, offer_for
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.engine.repair import carry_out
from dlhealth.engine.rule import Rule, plans
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis, Finding, Risk, Severity, kind_of
from dlhealth.probes import Options
from dlhealth.steps.base import Target
from dlhealth.testing import Scenario
from dlhealth.txn.execute import undo
from dlhealth.txn.store import Store
from tests.snapshot import snapshot

RULES = load_rules("/nonexistent").rules
BY_ID = {rule.id: rule for rule in RULES}
CASES = [pytest.param(r, s, id=f"{r.id}: {s.name}") for r in RULES for s in r.scenarios() if s.finds]


LATER = {"reboot", "load-modules", "reload-modules"}
"""What a folder's next start does."""
FILES = {"change-mode", "change-owner", "copy-file", "edit-file", "make-link", "move-aside", "write-file"}
LAB = "".join(path.read_text() for path in (Path(__file__).parents[1] / "lab").glob("*.py"))
IN_LAB = {rule.id for rule in RULES if f'"{rule.id}"' in LAB}


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
    root = scenario.machine.build(tmp_path)
    patient = Patient(root, scenario)
    before = snapshot(root)
    diagnosis, facts = patient.examine()
    for found in diagnosis.findings:
        if found.finding.id == rule.id:
            for plan in plans(rule, found.finding, facts.call):
                assert plan.actions, "a plan without a step repairs nothing"
                assert [action_from_json(action_to_json(a)) for a in plan.actions] == list(plan.actions)
            automatic = not found.caused_by and not offer_for(rule, found.finding, facts, Limits(Risk.HIGH)).reason
            assert not automatic or any(s.steps for s in rule.scenarios()), "a scenario must say what is done"
    diagnosis, repair = patient.choose(frozenset({rule.id}))
    roots = {d.finding.id for d in diagnosis.findings if not d.caused_by}
    assert {c.finding.id for c in repair.chosen} | {x.finding.id for x in repair.left} <= roots
    if why := cannot_carry_out(repair):
        pytest.skip(why)
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


def cannot_carry_out(repair: Repair) -> str:
    """Why a repair can't be carried out in a folder; "" where it can."""
    if not repair.chosen:
        return (
            "; ".join(dict.fromkeys(x.reason for x in repair.left)) or "only a note, or another cause is repaired first"
        )
    kinds = {kind_of(a) for a in repair.actions if needs_programs(a)}
    return f"needs the machine's own programs: {', '.join(sorted(kinds))}" if kinds else ""


@pytest.mark.parametrize(("rule", "scenario"), [p for p in CASES if p.values[1].steps])
def test_steps_are_those_of_the_mildest_plan(rule: Rule, scenario: Scenario, tmp_path: Path) -> None:
    """On the running machine, whatever the risk."""
    facts = Facts(RootHost(str(scenario.machine.build(tmp_path))), Options(next_boot=scenario.next_boot))
    found = (f for f in facts.call(rule.detect) if isinstance(f, Finding) and f.subject == scenario.finds)
    offer = offer_for(rule, next(found), facts, Limits(Risk.HIGH))
    assert offer.plan is not None
    assert not offer.reason
    assert tuple(dict.fromkeys(map(kind_of, offer.plan.actions))) == scenario.steps


NEVER_CARRIED_OUT = frozenset(
    {
        "closed-module-on-blackwell",
        "cudnn-fake-symlink-wrong-library",
        "cudnn-headers-missing-or-split",
        "cudnn-links-are-copies",
        "cudnn-major-8-vs-9",
        "cudnn-mixed-sublibraries",
        "cudnn-runtime-missing",
        "cudnn-wrong-cuda-major",
        "dkms-compiler-mismatch",
        "driver-too-old-for-new-gpu",
        "glx-alternatives-wrong",
        "held-packages-block-driver",
        "initramfs-old-nvidia-module",
        "initramfs-stale-nouveau-blacklist",
        "ldconfig-cuda-entry-missing",
        "libcupti-not-on-path",
        "login-loop-glx-broken-driver-mismatch",
        "maxwell-pascal-volta-dropped-after-580",
        "mixed-repositories",
        "nouveau-bound-instead-of-nvidia",
        "nova-core-claims-gpu",
        "nvidia-module-not-loaded",
        "open-module-on-unsupported-gpu",
        "other-dkms-module-fails",
        "stale-libglx-symlink",
        "third-party-package-pulls-other-libnvidia",
    }
)
"""Rules whose repair neither a folder nor the lab carries out: their steps need programs that a folder has not,
or a GPU."""


def test_rules_whose_repair_is_never_carried_out_are_named() -> None:
    """A folder has no programs of its own; the lab has the real ones."""
    never = set()
    for rule in RULES:
        scenarios = [s for s in rule.scenarios() if s.steps]
        if scenarios and rule.id not in IN_LAB and not any(map(in_folder, scenarios)):
            never.add(rule.id)
    assert never == NEVER_CARRIED_OUT


def in_folder(scenario: Scenario) -> bool:
    return not set(scenario.steps) - FILES - LATER and bool(set(scenario.steps) - LATER)
