"""What node_exporter's textfile collector gets."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dlhealth.model import Health, Layer, OpenProblem, Severity
from dlhealth.service.metrics import CARDS, SERIES, exposition
from dlhealth.service.state import ServiceState

PROJECT = Path(__file__).parents[3]
RULES = PROJECT / "contrib/prometheus"


def problem(id: str, subject: str = "host", *, causes: tuple[str, ...] = (), file: str = "/etc/x") -> OpenProblem:
    return OpenProblem(id, subject, Severity.ERROR, Layer.LOGIN, "t", False, "f", causes, (file,), None)


def known(*findings: OpenProblem) -> ServiceState:
    return ServiceState(1_700_000_000, findings, 100, 7, "", False, "1-abc", "", {"applied": 2, "undone": 1})


A100 = {
    "temperature": 61,
    "power": 385.2,
    "power_limit": 400.0,
    "corrected": 3,
    "uncorrected": 0,
    "remapped_rows": 1,
    "remap_pending": False,
    "remap_failed": True,
    "retired_pages": 2,
    "load": 98,
    "persistence": True,
    "link_generation": 4,
    "link_width": 8,
    "most_link_generation": 4,
    "most_link_width": 16,
    "slowdowns": ["software power cap", "hardware power brake"],
}


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_what_the_service_knows_is_there() -> None:
    given = known(problem("dkms", "kernel:6.1"), problem("mismatch", causes=("dkms",)))
    told = samples(exposition(given))
    assert told["dlhealth_findings", "dkms", "login", "false", "true", "error", "kernel:6.1"] == 1
    assert told["dlhealth_findings", "mismatch", "login", "false", "false", "error", "host"] == 1
    assert {health: told["dlhealth_verdict", health.value] for health in Health} == {
        health: health is Health.BROKEN for health in Health
    }
    assert (told["dlhealth_checks", "run"], told["dlhealth_checks", "skipped"]) == (100, 7)
    assert told["dlhealth_check_timestamp_seconds",] == 1_700_000_000
    assert (told["dlhealth_repairs", "applied"], told["dlhealth_repairs", "undone"]) == (2, 1)
    assert told["dlhealth_repair_pending",] == 1


def test_cards_that_answered_have_their_health() -> None:
    given = known()._replace(cards={"0000:01:00.0": A100, "0000:02:00.0": {"temperature": 40}})
    told = samples(exposition(given))
    first = {(name, *rest[1:]): v for (name, *rest), v in told.items() if rest[:1] == ["0000:01:00.0"]}
    assert first["dlhealth_gpu_temperature_celsius",] == 61
    assert first["dlhealth_gpu_power_watts",] == 385.2
    assert (first["dlhealth_gpu_replacement_failed",], first["dlhealth_gpu_replacement_pending",]) == (1, 0)
    assert (first["dlhealth_gpu_memory_errors", "corrected"], first["dlhealth_gpu_link", "most_width"]) == (3, 16)
    slowdowns = {rest[0]: v for (name, *rest), v in first.items() if name == "dlhealth_gpu_slowdown"}
    assert [reason for reason, active in slowdowns.items() if active] == ["hardware power brake"]
    assert len(slowdowns) == 4
    assert [(name, v) for (name, *rest), v in told.items() if "0000:02:00.0" in rest] == [
        ("dlhealth_gpu_temperature_celsius", 40)
    ]


def test_the_number_of_series_of_cards_is_bounded() -> None:
    many = known()._replace(cards={f"{n:04x}:01:00.0": A100 for n in range(3 * CARDS)})
    ours = [labels for labels in samples(exposition(many)) if labels[0].startswith("dlhealth_gpu")]
    assert len(ours) == 17 * CARDS


def test_what_is_not_known_has_no_number() -> None:
    given = ServiceState(None, (), None, None, "the service is not installed", False, "", "", None)
    told = samples(exposition(given))
    assert told["dlhealth_verdict", "unknown"] == 1
    assert {name for name, *_ in told} == {"dlhealth_verdict", "dlhealth_findings_left_out", "dlhealth_repair_pending"}


def test_users_are_counted_and_named_only_if_somebody_asks() -> None:
    given = known(
        problem("path", "user:alice"),
        problem("path", "user:bob"),
        problem("bashrc", "file:/home/mallory/x", file="/home/mallory/x"),
    )
    text = exposition(given)
    assert samples(text)["dlhealth_findings", "path", "login", "false", "true", "error", "user"] == 2
    assert not any(name in text for name in (b"alice", b"bob", b"mallory"))
    named = samples(exposition(given, users=True))
    assert named["dlhealth_findings", "path", "login", "false", "true", "error", "user:alice"] == 1


def test_the_number_of_series_is_bounded_and_causes_come_first() -> None:
    many = [problem("effect", f"file:/etc/{n}", causes=("cause",)) for n in range(3 * SERIES)]
    told = samples(exposition(known(*many, problem("cause"))))
    listed = [names for names in told if names[0] == "dlhealth_findings"]
    assert len(listed) == SERIES
    assert any(names[1] == "cause" for names in listed)
    assert told["dlhealth_findings_left_out",] == 2 * SERIES + 1


def test_names_that_are_no_text_are_written_out() -> None:
    told = samples(exposition(known(problem("x", 'file:/etc/\udcff"\n\\'))))
    assert any("\\udcff" in name for names in told for name in names)


def test_the_dashboard_and_the_alerts_ask_only_for_metrics_that_there_are() -> None:
    there = {name for name, *_ in samples(exposition(known(problem("x"))._replace(cards={"0000:01:00.0": A100})))}
    for name in ("dashboard.json", "dlhealth.rules.yml", "dlhealth.test.yml"):
        asked = set(re.findall(r"dlhealth_[a-z_]+", (RULES / name).read_text()))
        assert asked <= there, name
    json.loads((RULES / "dashboard.json").read_text())


def test_promtool_accepts_the_text_and_the_alert_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    subprocess.run(
        [promtool, "check", "metrics"],
        input=exposition(known(problem("x"))._replace(cards={"0000:01:00.0": A100})),
        check=True,
    )
    subprocess.run([promtool, "check", "rules", "dlhealth.rules.yml"], check=True, cwd=RULES)
    subprocess.run([promtool, "test", "rules", "dlhealth.test.yml"], check=True, cwd=RULES)
