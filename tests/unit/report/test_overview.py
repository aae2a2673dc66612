"""Many reports as one page: what is common to many machines comes first, and no file is silently left out."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dlhealth.cli import run
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts, Options
from dlhealth.engine.load import load_rules
from dlhealth.host.bundle import write_bundle
from dlhealth.host.root import RootHost
from dlhealth.model import Health, Severity
from dlhealth.report.json import SCHEMA
from dlhealth.report.overview import Affected, overview, page

HOSTILE = "<script>alert(1)</script>\033[2J"


def finding(id: str, severity: str = "error", *causes: str) -> dict[str, Any]:
    return {"id": id, "severity": severity, "caused_by": causes, "title": f"{id} is wrong"}


def report(host: str, *findings: dict[str, Any], time: str = "2026-03-02T10:00:00Z", **more: Any) -> str:
    severities = {f["severity"] for f in findings}
    verdict = Health.BROKEN if "error" in severities else Health.DEGRADED if severities else Health.HEALTHY
    about = {"hostname": host, "os": "debian 12", "kernel": "6.1", "gpus": [{"name": "A100"}, {"name": "A100"}]}
    document = {"schema": SCHEMA, "time": time, "verdict": verdict, "host": about, "findings": findings}
    return json.dumps({**document, **more})


def test_the_cause_that_hits_most_machines_comes_first() -> None:
    found = overview(
        {
            "1": report("a", finding("rare")),
            "2": report("b", finding("often"), finding("effect", "error", "often")),
            "3": report("c", finding("often", "warning"), finding("remark", "note")),
            "4": report("d"),
        },
        {},
    )
    assert [(cause.id, cause.severity, [m.machine for m in cause.machines]) for cause in found.causes] == [
        ("often", Severity.ERROR, ["b", "c"]),
        ("rare", Severity.ERROR, ["a"]),
    ]
    assert [(m.name, m.verdict) for m in found.machines] == [
        ("a", Health.BROKEN),
        ("b", Health.BROKEN),
        ("c", Health.DEGRADED),
        ("d", Health.HEALTHY),
    ]
    assert found.machines[0].gpus == "2 x A100"


def test_of_several_reports_on_a_machine_the_newest_counts_and_the_older_say_since_when() -> None:
    days = {day: [finding("x")] if day in (1, 3, 4) else [finding("gone")] for day in range(1, 5)}
    texts = {str(day): report("a", *there, time=f"2026-03-0{day}T00:00:00Z") for day, there in days.items()}
    found = overview(texts, {})
    (cause,) = found.causes
    assert cause.machines == (Affected("a", "x is wrong", "2026-03-03T00:00:00Z"),)
    assert [m.time for m in found.machines] == ["2026-03-04T00:00:00Z"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a report of dlhealth"),
        ("{}", "not a report of dlhealth"),
        ("[" * 100_000, "not a report of dlhealth"),
        ("<html></html>", "not a report of dlhealth"),
        (report("a", schema=SCHEMA + 1), f"form {SCHEMA + 1} of another version"),
        (report("a", verdict="fine"), "not a report of dlhealth"),
        (report("a", findings=[{}]), "not a report of dlhealth"),
    ],
)
def test_what_is_no_report_is_named_with_the_reason(text: str, reason: str) -> None:
    found = overview({"bad": text, "good": report("a")}, {"other": "needs root"})
    assert [m.name for m in found.machines] == ["a"]
    assert [name for name, _ in found.unread] == ["bad", "other"]
    assert found.unread[0][1].startswith(reason)


def test_names_from_a_machine_run_nothing_on_the_page() -> None:
    text = page(overview({"x": report(HOSTILE, finding(HOSTILE))}, {HOSTILE: HOSTILE}))
    elements: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: elements.append(tag)  # type: ignore[method-assign]
    parser.feed(text)
    assert "script" not in elements
    assert "\033" not in text
    assert "http://" not in text and "https://" not in text


def test_the_command_takes_documents_pages_and_archives(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    (tmp_path / "machine/etc").mkdir(parents=True)
    (tmp_path / "machine/etc/hostname").write_text("bundled\n")
    (tmp_path / "machine/etc/os-release").write_text("ID=debian\nVERSION_ID=12\n")
    machine = str(tmp_path / "machine")
    host = RootHost(machine)
    diagnose(load_rules().rules, Facts(host, Options()))
    write_bundle(host, str(reports / "a.tar.gz"), lambda question, answer: answer, {})
    assert run(["report", "--root", machine, "-o", str(reports / "b.html")]) == 0
    (reports / "b.html").write_text((reports / "b.html").read_text().replace("bundled", "paged"))
    (reports / "c.json").write_text(report("documented"))
    (reports / "d.txt").write_text("nothing of interest")
    assert run(["report", "--merge", str(reports), "-o", str(tmp_path / "all.html")]) == 0
    said = capfd.readouterr()
    assert "3 machines" in said.out
    assert "left out: d.txt: " in said.err
    text = (tmp_path / "all.html").read_text()
    assert all(name in text for name in ("bundled", "paged", "documented"))


@pytest.mark.parametrize("words", [["--md"], ["--root", "/mnt"], ["--next-boot"]])
def test_an_option_about_one_machine_does_not_fit(words: list[str], tmp_path: Path) -> None:
    assert run(["report", "--merge", str(tmp_path), *words]) == 2


def test_a_directory_without_reports_is_said_to_be_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--merge", str(tmp_path), "-o", str(tmp_path / "x.html")]) == 2
    assert "has no report of dlhealth" in capfd.readouterr().err
    assert not (tmp_path / "x.html").exists()
