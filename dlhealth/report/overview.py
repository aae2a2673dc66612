"""Many reports as one page: which root causes there are, on which machines, and since when."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dlhealth.lazy import regex
from dlhealth.model import Health, Severity, count
from dlhealth.records import NamedTuple
from dlhealth.report.json import SCHEMA
from dlhealth.report.page import environment, masked

_INSIDE = regex(r'<script type="application/json" id="dlhealth">(.*?)</script>')


class Machine(NamedTuple):
    """A machine at its newest report. `causes` are the ids of its root causes, without notes."""

    name: str
    verdict: Health
    time: str
    system: str
    gpus: str
    causes: tuple[str, ...]


class Affected(NamedTuple):
    """A machine with a root cause; `since` is the oldest of the reports, without a gap, that name the cause."""

    machine: str
    title: str
    since: str


class Cause(NamedTuple):
    """A root cause and the machines that have it."""

    id: str
    severity: Severity
    machines: tuple[Affected, ...]


class Overview(NamedTuple):
    """`causes` begins with the one that hits the most machines. `unread` names the files that are no report, and says
    why."""

    causes: tuple[Cause, ...]
    machines: tuple[Machine, ...]
    unread: tuple[tuple[str, str], ...]


class _Report(NamedTuple):
    machine: Machine
    roots: Mapping[str, tuple[Severity, str]]
    """By id, the severity and the title."""


def overview(texts: Mapping[str, str], unread: Mapping[str, str]) -> Overview:
    """What the named texts say: documents of `doctor --json`, or pages of `report`. `unread` are files that were left
    out, with the reasons."""
    reports: dict[str, list[_Report]] = {}
    left_out = dict(unread)
    for name, text in texts.items():
        try:
            found = _report(name, text)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
            left_out[name] = str(problem) if isinstance(problem, _NoReport) else "not a report of dlhealth"
            continue
        reports.setdefault(found.machine.name, []).append(found)
    for several in reports.values():
        several.sort(key=lambda report: report.machine.time, reverse=True)
    newest = [several[0] for several in reports.values()]
    machines = sorted((r.machine for r in newest), key=lambda m: (_ORDER.index(m.verdict), m.name))
    return masked(Overview(tuple(_causes(reports)), tuple(machines), tuple(sorted(left_out.items()))))


_ORDER = (Health.BROKEN, Health.DEGRADED, Health.UNKNOWN, Health.HEALTHY)


class _NoReport(ValueError):
    """The message says why."""


def _report(name: str, text: str) -> _Report:
    document = _document(text)
    if document["schema"] != SCHEMA:
        raise _NoReport(f"form {document['schema']} of another version of dlhealth; this one reads form {SCHEMA}")
    host = document["host"]
    roots = [f for f in document["findings"] if not f["caused_by"] and f["severity"] != Severity.NOTE]
    machine = Machine(
        name=str(host["hostname"] or name),
        verdict=Health(document["verdict"]),
        time=str(document["time"]),
        system=", ".join(str(part) for part in (host["os"], host["kernel"]) if part),
        gpus=", ".join(_gpus(host["gpus"] or ())),
        causes=tuple(str(f["id"]) for f in roots),
    )
    return _Report(machine, {str(f["id"]): (Severity(f["severity"]), str(f["title"])) for f in roots})


def _document(text: str) -> Any:
    inside = _INSIDE.search(" ".join(text.split("\n"))) if text.lstrip().startswith("<") else None
    return json.loads(inside[1] if inside else text)


def _gpus(gpus: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    names = [str(gpu.get("name") or gpu.get("pci") or "GPU") for gpu in gpus]
    for name in dict.fromkeys(names):
        number = names.count(name)
        yield f"{number} x {name}" if number > 1 else name


def _causes(reports: Mapping[str, list[_Report]]) -> Iterator[Cause]:
    affected: dict[str, list[Affected]] = {}
    severities: dict[str, Severity] = {}
    for name, several in reports.items():
        for id, (severity, title) in several[0].roots.items():
            since = several[0].machine.time
            for report in several:
                if id not in report.roots:
                    break
                since = report.machine.time
            affected.setdefault(id, []).append(Affected(name, title, since))
            severities[id] = max(severity, severities.get(id, severity))
    for id, machines in sorted(affected.items(), key=lambda item: (-len(item[1]), item[0])):
        yield Cause(id, severities[id], tuple(sorted(machines)))


def page(merged: Overview) -> str:
    """One HTML file that runs nothing and loads nothing."""
    verdicts = {v: sum(m.verdict is v for m in merged.machines) for v in _ORDER}
    return environment().get_template("overview.html").render(merged=merged, verdicts=verdicts, count=count)
