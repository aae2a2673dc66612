"""What holds for every rule, built in or not."""

import re
from collections.abc import Callable
from graphlib import TopologicalSorter

import pytest

from dlhealth.engine.causes import declared
from dlhealth.engine.rule import Rule
from dlhealth.model import Diagnosis, Risk
from dlhealth.probes import Options
from dlhealth.report.terminal import sections_of
from dlhealth.testing import Scenario
from tests.rules import RULES, SCENARIOS

SECTIONS = ("What you see", "Why", "Repair", "What the repair risks", "By hand")


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_documentation_is_complete(rule: Rule) -> None:
    summary, sections = sections_of(rule.documentation)
    assert summary.endswith(".")
    assert [name for name, _ in sections] == list(SECTIONS)
    assert all(paragraphs for _, paragraphs in sections)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_name_is_the_faults(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", rule.id)
    assert type(rule).__module__.rpartition(".")[2] == rule.id.replace("-", "_")


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_has_enough_scenarios(rule: Rule) -> None:
    scenarios = list(rule.scenarios())
    assert len({s.name for s in scenarios}) == len(scenarios)
    assert len({id(s.machine) for s in scenarios}) == len(scenarios), "each change reaches all that share a machine"
    assert sum(bool(s.finds) for s in scenarios) >= 2
    assert any(not s.finds and not s.unknown for s in scenarios)
    assert any(s.unknown for s in scenarios)


def test_explains_has_no_cycle_and_names_rules() -> None:
    ids = {r.id for r in RULES}
    graph = declared(RULES)
    assert {*graph, *(effect for effects in graph.values() for effect in effects)} <= ids
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(("rule", "scenario"), SCENARIOS)
def test_scenario(rule: Rule, scenario: Scenario, examine: Callable[..., Diagnosis]) -> None:
    diagnosis = examine(scenario.machine, options=Options(next_boot=scenario.next_boot))
    assert not diagnosis.failed
    ours = [d for d in diagnosis.findings if d.finding.id == rule.id]
    if scenario.unknown:
        assert not ours
        assert rule.id in {s.id for s in diagnosis.skipped}
        return
    if not scenario.finds:
        assert not ours
        return
    assert scenario.finds in {d.finding.subject for d in ours}
    for found in ours:
        assert found.finding.evidence, "a finding needs evidence"
        assert all(e.source and e.shows for e in found.finding.evidence)
        assert set(scenario.causes) <= set(found.caused_by)
        if found.caused_by:
            assert found.remedy is None
        else:
            assert found.remedy is not None, "a root cause needs a remedy, if only by hand"
            assert found.remedy.actions
            assert found.remedy.risk in Risk
            assert all(a.summary() for a in found.remedy.actions)
    if scenario.alone and not scenario.causes:
        roots = {d.finding.id for d in diagnosis.findings if not d.caused_by and d.finding.severity != "note"}
        assert roots <= {rule.id}, "another rule sees a root cause here: explains edges are missing, or it is mistaken"


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_the_same_machine_gives_the_same_fingerprints(rule: Rule, examine: Callable[..., Diagnosis]) -> None:
    scenario = next(s for s in rule.scenarios() if s.finds)
    first, second = (
        [d.finding.fingerprint for d in examine(scenario.machine, rule.id).findings if d.finding.id == rule.id]
        for _ in range(2)
    )
    assert first == second
    assert first
