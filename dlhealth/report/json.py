"""The JSON documents that programs read."""

import json
import time
from collections.abc import Sequence
from typing import Any

from dlhealth import __version__
from dlhealth.engine.rule import Rule
from dlhealth.model import Diagnosed, Diagnosis, Plan, Severity, kind_of

SCHEMA = 1

VERDICTS = {None: "healthy", Severity.NOTE: "healthy", Severity.WARNING: "degraded", Severity.ERROR: "broken"}


def to_json(diagnosis: Diagnosis) -> str:
    """The report of `doctor --json`, and a newline. ASCII only, whatever the machine's files held."""
    return dump(
        {
            "schema": SCHEMA,
            "dlhealth": __version__,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "host": dict(diagnosis.machine),
            "verdict": VERDICTS[diagnosis.worst],
            "findings": [_finding(d) for d in diagnosis.findings],
            "checks": {
                "run": diagnosis.run,
                "skipped": [s._asdict() for s in diagnosis.skipped],
                "failed": [f._asdict() for f in diagnosis.failed],
            },
        }
    )


def rules_to_json(rules: Sequence[Rule]) -> str:
    """The list of `rules --json`, and a newline."""
    listed = [
        {
            "id": rule.id,
            "title": rule.title,
            "layer": rule.layer.value,
            "severity": rule.severity.value,
            "risk": rule.risk.value,
            "explains": list(rule.explains),
        }
        for rule in rules
    ]
    return dump({"schema": SCHEMA, "rules": listed})


def dump(document: dict[str, Any]) -> str:
    """Bytes of a file that are not UTF-8 are surrogates here, which JSON can't hold: they become question marks."""
    sound = json.dumps(document, ensure_ascii=False).encode(errors="replace")
    return json.dumps(json.loads(sound), indent=2) + "\n"


def _finding(diagnosed: Diagnosed) -> dict[str, Any]:
    finding = diagnosed.finding
    return {
        "id": finding.id,
        "subject": finding.subject,
        "severity": finding.severity.value,
        "layer": finding.layer.value,
        "title": finding.title,
        "caused_by": list(diagnosed.caused_by),
        "evidence": [e._asdict() for e in finding.evidence],
        "remedy": _remedy(diagnosed.remedy),
    }


def _remedy(plan: Plan | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    return {
        "summary": plan.summary,
        "risk": plan.risk.value,
        "reboot": plan.reboot,
        "network": plan.network,
        "actions": [{"kind": kind_of(action), "summary": action.summary()} for action in plan.actions],
    }
