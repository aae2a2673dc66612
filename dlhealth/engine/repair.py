"""Carries a repair out and proves it: the findings are gone and nothing new came, or all is taken back."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from dlhealth import __version__
from dlhealth.actions import action_from_json, needs_programs
from dlhealth.actions.base import CommandFailed, Target
from dlhealth.engine.choose import ONLY_LIVE, Chosen, Repair
from dlhealth.host.exec import held
from dlhealth.lean import NamedTuple
from dlhealth.model import Diagnosed, Diagnosis, Finding, Severity, timestamp
from dlhealth.txn.execute import Ended, NotPrepared, NotVerified, apply, confirm
from dlhealth.txn.journal import read_events
from dlhealth.txn.store import Damaged, Record, Store, read_plan, reading

Look = Callable[[], Diagnosis]


class Told(NamedTuple):
    """What is kept of a transaction, for people and scripts. Each action is (kind, summary, what became of it: done,
    reverted, conflict, begun or not begun)."""

    record: Record
    time: str
    problem: str
    findings: tuple[Mapping[str, str], ...]
    actions: tuple[tuple[str, str, str], ...]


def carry_out(
    repair: Repair, before: Diagnosis, store: Store, folder: str, look: Look, progress: Callable[[str], None]
) -> Ended:
    """One transaction. `look` diagnoses anew. Raises NotChangeable or CommandFailed (NotPrepared where it is one action
    that can't) when it can't even begin; then nothing was changed."""
    identity = secrets.token_hex(4)
    target = Target(folder, identity)
    _check_programs(repair, target)
    about: dict[str, Any] = {
        "dlhealth": __version__,
        "time": timestamp(),
        "digest": repair.digest,
        "findings": [_kept(c) for c in repair.chosen],
        "known": sorted(_errors(before)),
    }
    # What only the next boot can show is judged then.
    aims = [f for f in about["findings"] if not f["reboot"]]
    return apply(
        store,
        target,
        identity,
        repair.actions,
        about,
        lambda: _prove(look(), aims, about["known"]),
        repair.reboot,
        progress,
        # Nobody switches the machine off, or sends it to sleep, until it is done.
        lambda: held(_INHIBIT, _INHIBIT_SECONDS) if target.live else nullcontext(),
    )


_INHIBIT = (
    "systemd-inhibit", "--what=shutdown:sleep", "--mode=block", "--who=dlhealth",
    "--why=A repair of this machine is under way", "cat",
)  # fmt: skip
_INHIBIT_SECONDS = 5.0
"""logind answers at once; where nobody answers, the repair goes on without."""


def confirm_after_reboot(
    store: Store, folder: str, look: Look, sure: Callable[[], bool] = lambda: True
) -> Ended | None:
    """Judge a repair that waited for the reboot which has happened; None when there is none, or when it seems to have
    helped and that is not `sure` yet."""
    record = store.current()
    if record is None:
        return None
    with reading(record.folder):
        plan = read_plan(record)
        aims, known = plan["findings"], plan["known"]
    return confirm(store, Target(folder, record.id), lambda: _prove(look(), aims, known), sure)


def tried(store: Store) -> frozenset[tuple[str, str]]:
    """Repairs that did not hold, as the fingerprint of the finding and the summary of the plan: not tried again on the
    same evidence."""
    found: set[tuple[str, str]] = set()
    for record in store.ended():
        if record.outcome == "rolled-back":
            ends = [e for e in read_events(record.folder) if e.kind == "COMMIT"]
            failed = ends[-1].fields.get("failed", ()) if ends else ()
            found.update(
                (f["fingerprint"], f["summary"]) for f in tell(record).findings if f.get("fingerprint") in failed
            )
    return frozenset(found)


def tell(record: Record) -> Told:
    """What was done, and how it ended; of what is damaged, or another version's, as much as can be read: it must not
    hide the others."""
    try:
        with reading(record.folder):
            plan = read_plan(record)
            events = read_events(record.folder)
            became = {e.fields["n"]: _BECAME[e.kind] for e in events if e.kind in _BECAME}
            problem = next((e.fields["problem"] for e in reversed(events) if e.fields.get("problem")), "")
            actions = tuple(
                (str(action["kind"]), _summary(action), became.get(number, "not begun"))
                for number, action in enumerate(plan["actions"])
            )
            return Told(record, plan.get("time", ""), problem, tuple(map(dict, plan.get("findings", ()))), actions)
    except Damaged as damage:
        return Told(record, "", str(damage), (), ())


def _summary(action: dict[str, Any]) -> str:
    try:
        return action_from_json(action).summary()
    except (LookupError, TypeError, AttributeError):
        return f"{action['kind']}: this version of dlhealth does not know it"


_BECAME = {"INTENT": "begun", "DONE": "done", "REVERTED": "reverted", "CONFLICT": "conflict"}


def _kept(chosen: Chosen) -> dict[str, Any]:
    finding: Finding = chosen.finding
    return {
        "id": finding.id,
        "subject": finding.subject,
        "title": finding.title,
        "severity": finding.severity.value,
        "layer": finding.layer.value,
        "fingerprint": finding.fingerprint,
        "summary": chosen.plan.summary,
        "reboot": chosen.plan.reboot,
    }


def _check_programs(repair: Repair, target: Target) -> None:
    """Whether programs of another root run here, where the repair needs some."""
    needing = [a for a in repair.actions if needs_programs(a)]
    if target.live or not needing:
        return
    try:
        target.command("true", timeout=30)
    except CommandFailed as error:
        raise NotPrepared(
            f"the programs of {target.folder} can't run here (another architecture, or a damaged system), and the "
            f"repair needs them ({error})",
            needing,
        ) from error


def _prove(after: Diagnosis, aims: Sequence[Mapping[str, Any]], known: Sequence[str]) -> None:
    found = {(d.finding.id, d.finding.subject): d.finding.severity for d in after.findings}
    # Where only a remark is left of an error, it was repaired.
    remaining = [
        f for f in aims if found.get((f["id"], f["subject"])) in (f["severity"], Severity.ERROR, Severity.WARNING)
    ]
    new = sorted(_errors(after) - _until_started_anew(after) - set(known))
    if remaining or new:
        said = [f"{f['id']} ({f['subject']}) is still there" for f in remaining] + [f"{name} is new" for name in new]
        raise NotVerified("; ".join(said), [f["fingerprint"] for f in remaining or aims])


def _errors(diagnosis: Diagnosis) -> set[str]:
    return {_name(d) for d in diagnosis.findings if d.finding.severity is Severity.ERROR}


def _until_started_anew(diagnosis: Diagnosis) -> set[str]:
    """What a new driver brings along on a machine that still runs the old one, and what comes of that: it is no harm,
    because it goes when the modules are loaded anew, or at the next start."""
    roots = {
        d.finding.id for d in diagnosis.findings if d.remedy and all(isinstance(a, ONLY_LIVE) for a in d.remedy.actions)
    }
    return {_name(d) for d in diagnosis.findings if {d.finding.id, *d.caused_by} & roots}


def _name(diagnosed: Diagnosed) -> str:
    return f"{diagnosed.finding.id} ({diagnosed.finding.subject})"
