"""Runs a repair and verifies it: the findings are gone and nothing new appeared, or everything is undone."""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

from dlhealth import __version__
from dlhealth.actions import action_from_json, changed_path, needs_programs
from dlhealth.engine.choose import ONLY_LIVE, Chosen, Repair
from dlhealth.host.exec import held
from dlhealth.model import Action, Diagnosis, Finding, Outcome, Risk, Severity, timestamp
from dlhealth.records import NamedTuple
from dlhealth.steps.base import Target
from dlhealth.steps.reach import out_of_reach
from dlhealth.txn.execute import Ended, NotPrepared, NotProved, NotVerified, NotYet, apply, confirm
from dlhealth.txn.journal import EntryKind, read_entries
from dlhealth.txn.store import Damaged, Record, Store, reading_plan

Look = Callable[[], Diagnosis]
T = TypeVar("T")


def in_rounds(most: int, look: Callable[[], T], attempt: Callable[[T], bool]) -> T:
    """Look at the machine and attempt a repair, and again as long as the attempt says that another round may help: one
    repair may reveal a problem that another had hidden. More than `most` rounds mean a circle. Returns the last look."""
    seen = look()
    for _ in range(most):
        if not attempt(seen):
            break
        seen = look()
    return seen


class RepairRecord(NamedTuple):
    """The record of a transaction, for people and scripts. Each action is (kind, summary, what became of it: done,
    reverted, conflict, begun or not begun); `programs` says whether programs of the machine run for them."""

    record: Record
    time: str
    problem: str
    findings: tuple[Mapping[str, str], ...]
    actions: tuple[tuple[str, str, str], ...]
    programs: bool = False


def carry_out(
    repair: Repair,
    before: Diagnosis,
    store: Store,
    folder: str,
    look: Look,
    progress: Callable[[str], None],
    keep: Callable[[str], bool] = lambda problem: False,
) -> Ended:
    """One transaction. `look` diagnoses again. If it cannot check what was repaired, `keep` decides whether the repair
    stays. Raises NotPrepared if the transaction cannot begin; then nothing was changed."""
    identity = secrets.token_hex(4)
    target = Target(folder, identity)
    if problems := out_of_reach(target, repair.actions):
        raise NotPrepared(problems)
    about: dict[str, Any] = {
        "dlhealth": __version__,
        "time": timestamp(),
        "digest": repair.digest,
        "findings": [_kept(c) for c in repair.chosen],
        "known": sorted(map(_name, _errors(before))),
        "beside": _beside(before, repair),
        "unknown": _unknown(before, {c.finding.id for c in repair.chosen}),
    }
    # The next boot shows the rest, which is checked then. On another machine's disk, much can be checked at once.
    aims = [f for f in about["findings"] if not (f["reboot"] and repair.live)]
    # No second round follows a repair that waits for a reboot.
    changed = frozenset() if repair.reboot else frozenset(filter(None, map(changed_path, repair.actions)))
    done = repair.actions if any(c.plan.reboot for c in repair.chosen) else ()
    proof = _Proof(aims, about["known"], about["beside"], changed, about["unknown"], not repair.live, done)
    return apply(
        store,
        target,
        identity,
        repair.actions,
        about,
        lambda: _prove(look(), proof),
        repair.reboot,
        progress,
        # The machine must not be switched off or suspended until the repair is done.
        lambda: held(_INHIBIT, _INHIBIT_SECONDS) if target.live else nullcontext(),
        keep,
    )


_INHIBIT = (
    "systemd-inhibit", "--what=shutdown:sleep", "--mode=block", "--who=dlhealth",
    "--why=dlhealth is repairing this machine", "cat",
)  # fmt: skip
_INHIBIT_SECONDS = 5.0
"""logind answers at once; without an answer, the repair continues."""


def confirm_after_reboot(
    store: Store,
    folder: str,
    look: Look,
    sure: Callable[[], bool] = lambda: True,
    keep: Callable[[str], bool] | None = None,
) -> Ended | None:
    """Check a repair that waited for a reboot which has happened. None if there is none, or if it seems to have helped
    but that is not `sure` yet. If the result cannot be checked, `keep` decides; without it, the repair keeps
    waiting."""
    record = store.current()
    if record is None:
        return None
    with reading_plan(record) as plan:
        unknown = plan.get("unknown", ())
        proof = _Proof(plan["findings"], plan["known"], plan.get("beside", ()), frozenset(), unknown)
    return confirm(store, Target(folder, record.id), lambda: _prove(look(), proof), sure, keep)


def tried(store: Store) -> frozenset[tuple[str, str]]:
    """Repairs that did not help, as the fingerprint of the finding and the summary of the plan: they are not tried
    again on the same evidence."""
    found: set[tuple[str, str]] = set()
    for record in store.ended():
        if record.outcome in (Outcome.ROLLED_BACK, Outcome.CONFLICT, Outcome.UNDONE):
            ends = [e for e in read_entries(record.folder) if e.kind == EntryKind.COMMIT]
            failed = ends[-1].fields.get("failed", ()) if ends else ()
            found.update(
                (f["fingerprint"], f["summary"]) for f in tell(record).findings if f.get("fingerprint") in failed
            )
    return frozenset(found)


def tell(record: Record) -> RepairRecord:
    """What was done, and how it ended. From a damaged record, or one of another version, it takes what can be read: it
    must not hide the others."""
    try:
        with reading_plan(record) as plan:
            events = read_entries(record.folder)
            became = {e.fields["n"]: _BECAME[e.kind] for e in events if e.kind in _BECAME}
            problem = next((e.fields["problem"] for e in reversed(events) if e.fields.get("problem")), "")
            actions = tuple(
                (str(action["kind"]), _summary(action), became.get(number, "not begun"))
                for number, action in enumerate(plan["actions"])
            )
            findings = tuple(map(_found, plan.get("findings", ())))
            programs = any(map(_needs_programs, plan["actions"]))
            return RepairRecord(record, str(plan.get("time", "")), str(problem), findings, actions, programs)
    except Damaged as damage:
        return RepairRecord(record, "", str(damage), (), ())


def _found(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The displayed values are text, whichever version stored them."""
    return {"id": "", **kept, **{name: str(kept[name]) for name in _SHOWN if name in kept}}


_SHOWN = ("id", "subject", "title", "summary")


def _summary(action: dict[str, Any]) -> str:
    try:
        return action_from_json(action).summary()
    except (LookupError, TypeError, AttributeError, ValueError):
        return f"{action['kind']}: this version of dlhealth does not know it"


def _needs_programs(action: dict[str, Any]) -> bool:
    try:
        return needs_programs(action_from_json(action))
    except (LookupError, TypeError, AttributeError, ValueError):
        return False


_BECAME: Mapping[str, str] = {
    EntryKind.INTENT: "begun",
    EntryKind.DONE: "done",
    EntryKind.REVERTED: "reverted",
    EntryKind.CONFLICT: "conflict",
}


def _kept(chosen: Chosen) -> dict[str, Any]:
    finding: Finding = chosen.finding
    return {
        "id": finding.id,
        "subject": finding.subject,
        "title": finding.title,
        "severity": finding.severity.value,
        "layer": finding.layer.value,
        "fingerprint": finding.fingerprint,
        "sources": [e.source for e in finding.evidence],
        "summary": chosen.plan.summary,
        "reboot": chosen.plan.reboot,
    }


def _beside(before: Diagnosis, repair: Repair) -> list[dict[str, str]]:
    """Findings of the same rules on the same subjects that this repair does not touch, such as another line of a
    person's file."""
    aimed = {c.finding.fingerprint for c in repair.chosen}
    names = {_name(c.finding) for c in repair.chosen}
    others = [d.finding for d in before.findings if _name(d.finding) in names and d.finding.fingerprint not in aimed]
    return [{"name": _name(f), "fingerprint": f.fingerprint} for f in others]


def _unknown(diagnosis: Diagnosis, rules: Collection[str]) -> list[list[str]]:
    """What these rules could not check, as rule, subject and reason."""
    return [[s.id, u.subject, u.reason] for s in diagnosis.skipped if s.id in rules for u in s.unknown]


class _Proof(NamedTuple):
    """Raises if something that must hold after a repair does not: the `aims` are gone, and there is no error that was
    not `known`. `beside` are similar findings that were not repaired, `changed` the changed paths, `unknown` what the
    rules of the aims could not check before either. A `patient` check leaves the rest to the next boot. `done` are the steps
    of a repair that waits for a reboot."""

    aims: Sequence[Mapping[str, Any]]
    known: Sequence[str]
    beside: Sequence[Mapping[str, str]]
    changed: frozenset[str]
    unknown: Sequence[Sequence[str]] = ()
    patient: bool = False
    done: Sequence[Action] = ()


def _prove(after: Diagnosis, proof: _Proof) -> None:
    hidden = _hidden(after, proof)
    expected = {*proof.known, *_until_started_anew(after, proof.done)}
    remaining = [f for f in proof.aims if _still_there(f, after, proof, hidden)]
    blind = {f["fingerprint"]: reason for f in proof.aims if (reason := _unchecked(f, after, proof))}
    later = [f for f in proof.aims if proof.patient and f["reboot"] and (f in remaining or f["fingerprint"] in blind)]
    remaining = [f for f in remaining if f not in later]
    new = [f for f in _errors(after) if f not in hidden and _name(f) not in expected]
    if remaining or new:
        names = sorted(dict.fromkeys(map(_name, new)))
        said = [f"{f['id']} ({f['subject']}) remains" for f in remaining] + [f"{name} is new" for name in names]
        # The subject of a new error shows which repair caused it; if it does not, any of them may have.
        harmed = {subject for f in new for subject in (f.subject, *f.about)}
        blamed = remaining or [f for f in proof.aims if f["subject"] in harmed] or proof.aims
        raise NotVerified("; ".join(said), [f["fingerprint"] for f in blamed])
    unproved = [f for f in proof.aims if f["fingerprint"] in blind and f not in later]
    if unproved:
        said = [f"{f['id']} ({f['subject']}) can no longer be checked: {blind[f['fingerprint']]}" for f in unproved]
        raise NotProved("; ".join(said), [f["fingerprint"] for f in unproved])
    if later:
        raise NotYet("; ".join(f"{f['id']} ({f['subject']}) can be checked after the next reboot" for f in later))


def _unchecked(aim: Mapping[str, Any], after: Diagnosis, proof: _Proof) -> str:
    """Why the rule of a finding cannot tell whether it remains, "" if it can. What the rule could not check before
    either, beside that finding, is not a reason."""
    if failed := next((f.error for f in after.failed if f.id == aim["id"]), ""):
        return f"the rule failed ({failed})"
    for skipped in after.skipped:
        if skipped.id == aim["id"]:
            known = [list(unknown) for unknown in proof.unknown]
            new = [u for u in skipped.unknown if [skipped.id, u.subject, u.reason] not in known]
            reasons = [u.reason for u in new if u.subject in ("host", aim["subject"])]
            return "; ".join(dict.fromkeys(reasons)) if skipped.unknown else skipped.reason
    return ""


def _still_there(aim: Mapping[str, Any], after: Diagnosis, proof: _Proof, hidden: Sequence[Finding]) -> bool:
    """An error was repaired if only a note remains."""
    counting = (aim["severity"], Severity.ERROR, Severity.WARNING)
    name = f"{aim['id']} ({aim['subject']})"
    found = [d.finding for d in after.findings if _name(d.finding) == name and d.finding.severity in counting]
    if aim["fingerprint"] in {f.fingerprint for f in found}:
        return True
    others = [b["fingerprint"] for b in proof.beside if b["name"] == name]
    left = [f for f in found if f not in hidden and f.fingerprint not in others]
    # A line that has moved has another fingerprint.
    return len(left) > len(others) - sum(f.fingerprint in others for f in found)


def _hidden(after: Diagnosis, proof: _Proof) -> list[Finding]:
    """Errors that the repaired one hid in the same file, for example in a file that could not be parsed. The next round
    repairs them there."""
    aimed = {(f["id"], source) for f in proof.aims for source in f.get("sources", ())}
    return [
        d.finding
        for d in after.findings
        if d.remedy
        and d.remedy.actions
        and d.remedy.risk is Risk.LOW
        and all(changed_path(a) in proof.changed for a in d.remedy.actions)
        and not any((d.finding.id, e.source) in aimed for e in d.finding.evidence)
    ]


def _errors(diagnosis: Diagnosis) -> list[Finding]:
    return [d.finding for d in diagnosis.findings if d.finding.severity is Severity.ERROR]


def _until_started_anew(diagnosis: Diagnosis, done: Sequence[Action]) -> set[str]:
    """New errors of a new driver on a machine that still runs without it, or runs the old one, and their consequences.
    They do no harm: they disappear when the modules are reloaded, or at the next boot, when everything is checked again.
    Their repair has no steps but that, and those that were `done`."""
    steps = {(type(action), action) for action in done}
    roots = {
        d.finding.id
        for d in diagnosis.findings
        if d.remedy and all(isinstance(a, ONLY_LIVE) or (type(a), a) in steps for a in d.remedy.actions)
    }
    return {_name(d.finding) for d in diagnosis.findings if {d.finding.id, *d.caused_by} & roots}


def _name(finding: Finding) -> str:
    return f"{finding.id} ({finding.subject})"
