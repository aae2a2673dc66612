"""Carries a repair out and proves it: the finding is gone and nothing new came, or all is taken back."""

import secrets
from collections.abc import Callable
from typing import Any

from dlhealth.actions.base import Target
from dlhealth.engine.repair import Repair
from dlhealth.model import Diagnosis, Severity
from dlhealth.txn.execute import Ended, apply, confirm
from dlhealth.txn.store import Record, Store, read_json

Look = Callable[[], Diagnosis]


def carry_out(
    repair: Repair, before: Diagnosis, store: Store, folder: str, look: Look, progress: Callable[[str], None]
) -> Ended:
    """One transaction. `look` diagnoses anew. Raises NotChangeable or CommandFailed when it can't even begin; then
    nothing was changed."""
    identity = secrets.token_hex(4)
    about: dict[str, Any] = {
        "digest": repair.digest,
        "findings": [
            {
                "id": c.finding.id,
                "subject": c.finding.subject,
                "title": c.finding.title,
                "fingerprint": c.finding.fingerprint,
            }
            for c in repair.chosen
        ],
        "known": sorted(_errors(before)),
    }
    # What only the next boot can show is judged then.
    aims = [[c.finding.id, c.finding.subject] for c in repair.chosen if not c.plan.reboot]
    return apply(
        store,
        Target(folder, identity),
        identity,
        repair.actions,
        about,
        lambda: _still_wrong(look(), aims, about["known"]),
        repair.reboot,
        progress,
    )


def confirm_after_reboot(store: Store, folder: str, look: Look) -> Ended | None:
    """Judge a repair that waited for the reboot which has happened; None when there is none."""
    record = store.current()
    if record is None:
        return None
    plan = read_json(f"{record.folder}/plan.json")
    aims = [[f["id"], f["subject"]] for f in plan["findings"]]
    return confirm(store, Target(folder, record.id), lambda: _still_wrong(look(), aims, plan["known"]))


def tried(store: Store) -> frozenset[str]:
    """Fingerprints of findings whose repair did not hold: not tried again on the same evidence."""
    failed = (read_json(f"{r.folder}/plan.json") for r in store.ended() if r.outcome == "rolled-back")
    return frozenset(f["fingerprint"] for plan in failed for f in plan.get("findings", ()))


def describe(record: Record) -> dict[str, Any]:
    """What is kept of a transaction, for people and scripts."""
    plan = read_json(f"{record.folder}/plan.json")
    return {"id": record.name, "outcome": record.outcome or "active", **{k: plan[k] for k in ("findings", "actions")}}


def _still_wrong(after: Diagnosis, aims: list[list[str]], known: list[str]) -> str:
    found = {(d.finding.id, d.finding.subject) for d in after.findings}
    remaining = [f"{identity} ({subject}) is still there" for identity, subject in aims if (identity, subject) in found]
    new = [f"{name} is new" for name in sorted(_errors(after) - set(known))]
    return "; ".join(remaining + new)


def _errors(diagnosis: Diagnosis) -> set[str]:
    return {f"{d.finding.id} ({d.finding.subject})" for d in diagnosis.findings if d.finding.severity is Severity.ERROR}
