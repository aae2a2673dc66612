"""The JSON documents that programs read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlhealth import __version__
from dlhealth.actions import action_to_json
from dlhealth.engine.causes import declared
from dlhealth.engine.document import dump
from dlhealth.engine.rule import Rule
from dlhealth.model import Diagnosed, Diagnosis, OpenProblem, Outcome, Plan, Since, kind_of, timestamp
from dlhealth.report.story import Mark, areas_of, reboot_of

if TYPE_CHECKING:  # the doctor's report needs nothing about repairs
    from dlhealth.engine.choose import Repair
    from dlhealth.engine.repair import RepairRecord
    from dlhealth.prove.records import Result
    from dlhealth.txn.execute import Ended

SCHEMA = 1


def to_json(diagnosis: Diagnosis) -> str:
    """The report of `doctor --json`."""
    return dump(report(diagnosis))


def report(diagnosis: Diagnosis) -> dict[str, Any]:
    """The report as an object."""
    return {
        "schema": SCHEMA,
        "dlhealth": __version__,
        "time": timestamp(),
        "host": dict(diagnosis.machine),
        "verdict": diagnosis.health,
        "areas": [
            {"name": a.name, "subject": a.subject, "state": a.state, "text": a.text} for a in areas_of(diagnosis)
        ],
        "reboot": _reboot(diagnosis) if diagnosis.next_boot else None,
        "since": _since(diagnosis.since) if diagnosis.since else None,
        "findings": [_finding(d) for d in diagnosis.findings],
        "checks": {
            "run": diagnosis.run,
            "skipped": [{"id": s.id, "reason": s.reason} for s in diagnosis.skipped],
            "failed": [f._asdict() for f in diagnosis.failed],
        },
    }


def since_to_json(since: Since) -> str:
    """The document of `baseline compare --json`."""
    return dump({"schema": SCHEMA, "dlhealth": __version__, **_since(since)})


def _since(since: Since) -> dict[str, Any]:
    return {"baseline": since.time, "differences": [d._asdict() for d in since.differences]}


def _reboot(diagnosis: Diagnosis) -> dict[str, Any]:
    verdict = reboot_of(diagnosis)
    return {"safe": {Mark.WELL: True, Mark.ERROR: False}.get(verdict.mark), "text": verdict.text}


def repair_to_json(
    outcome: Outcome,
    repair: "Repair",
    ended: "Sequence[Ended]",
    diagnosis: Diagnosis,
    proof: "Sequence[Result] | None" = None,
) -> str:
    """The document of `fix --json`: the plan, its result, the diagnosis afterwards, and the stages of `fix --prove`."""
    return dump(
        {
            "schema": SCHEMA,
            "dlhealth": __version__,
            "outcome": outcome,
            "plan": {
                "digest": repair.digest,
                "risk": repair.risk.value,
                "reboot": repair.reboot,
                "network": repair.network,
                "repairs": [
                    {"id": c.finding.id, "subject": c.finding.subject, **(_remedy(c.plan) or {})} for c in repair.chosen
                ],
                "actions": [{**action_to_json(a), "summary": a.summary()} for a in repair.actions],
                "left": [
                    {
                        "id": x.finding.id,
                        "subject": x.finding.subject,
                        "reason": x.reason,
                        "by_hand": [a.summary() for a in x.by_hand],
                    }
                    for x in repair.left
                ],
            },
            "transactions": [_ended(e) for e in ended],
            "diagnosis": report(diagnosis),
            "proof": None if proof is None else [result.document() for result in proof],
        }
    )


def undone_to_json(ended: "Ended | None") -> str:
    """The document of `undo --json`."""
    return dump({"schema": SCHEMA, "transaction": _ended(ended) if ended else None})


def _ended(ended: "Ended") -> dict[str, Any]:
    return {"id": ended.record.name, "outcome": ended.outcome, "said": list(ended.said)}


def history_to_json(told: "Sequence[RepairRecord]") -> str:
    """The document of `history --json` and `show --json`."""
    return dump({"schema": SCHEMA, "transactions": [_told(t) for t in told]})


def _told(told: "RepairRecord") -> dict[str, Any]:
    return {
        "id": told.record.name,
        "time": told.time,
        "outcome": told.record.outcome or "active",
        "problem": told.problem,
        "findings": [dict(f) for f in told.findings],
        "actions": [{"kind": k, "summary": s, "outcome": o} for k, s, o in told.actions],
    }


def status_to_json(checked: int | None, findings: Sequence[OpenProblem], transaction: str, unknown: str) -> str:
    """The document of `status --json`. `checked` is a time in seconds, null where the service has not checked yet;
    `unknown` says why nobody knows how the machine is now, null where the service does."""
    listed = [
        {
            "id": f.id,
            "subject": f.subject,
            "severity": f.severity,
            "layer": f.layer,
            "title": f.title,
            "boot": "next" if f.next_boot else "",
            "caused_by": f.caused_by,
        }
        for f in findings
    ]
    document = {"schema": SCHEMA, "checked": checked, "findings": listed, "transaction": transaction or None}
    return dump({**document, "unknown": unknown or None})


def rules_to_json(rules: Sequence[Rule]) -> str:
    """The list of `rules --json`."""
    explained = declared(rules)
    listed = [
        {
            "id": rule.id,
            "title": rule.title,
            "layer": rule.layer.value,
            "severity": rule.severity.value,
            "risk": rule.risk.value,
            "explains": list(explained[rule.id]),
        }
        for rule in rules
    ]
    return dump({"schema": SCHEMA, "rules": listed})


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
        "remedy": _remedy(diagnosed.remedy, diagnosed.by_hand),
    }


def _remedy(plan: Plan | None, by_hand: str = "") -> dict[str, Any] | None:
    if plan is None:
        return None
    return {
        "summary": plan.summary,
        "risk": plan.risk.value,
        "reboot": plan.reboot,
        "network": plan.network,
        "by_hand": by_hand,
        "actions": [{"kind": kind_of(action), "summary": action.summary()} for action in plan.actions],
    }
