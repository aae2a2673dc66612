"""From a diagnosis to the one plan that will be carried out, and the walk that carries it out."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from dlhealth.actions import EditFile, Reboot, RefreshLoaderCache, UpdateInitramfs, action_to_json, step_of
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule, plans
from dlhealth.lean import NamedTuple
from dlhealth.model import Action, Diagnosis, Finding, Plan, Risk
from dlhealth.probes import Unavailable

_BY_RISK = {risk: number for number, risk in enumerate(Risk)}
# Made from what the other actions change, so they come last, and once.
_DERIVED = (RefreshLoaderCache, UpdateInitramfs)


class Chosen(NamedTuple):
    """A finding and the plan that was chosen for it."""

    finding: Finding
    plan: Plan


class Left(NamedTuple):
    """A finding that will not be repaired, and why; `by_hand` is what a person can do."""

    finding: Finding
    reason: str
    by_hand: tuple[str, ...]


class Repair(NamedTuple):
    """All that will be done at once, in its order. The digest is compared, the plan is never built a second time."""

    chosen: tuple[Chosen, ...]
    left: tuple[Left, ...]
    actions: tuple[Action, ...]

    @property
    def risk(self) -> Risk:
        return max((c.plan.risk for c in self.chosen), key=_BY_RISK.__getitem__, default=Risk.LOW)

    @property
    def reboot(self) -> bool:
        return any(c.plan.reboot for c in self.chosen)

    @property
    def network(self) -> bool:
        return any(c.plan.network for c in self.chosen)

    @property
    def digest(self) -> str:
        text = json.dumps([action_to_json(a) for a in self.actions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def choose(
    diagnosis: Diagnosis,
    rules: Mapping[str, Rule],
    facts: Facts,
    *,
    only: Iterable[str],
    highest: Risk,
    offline: bool,
    tried: frozenset[str],
) -> Repair:
    """The mildest plan that is allowed, for each root cause; `tried` are fingerprints whose repair did not hold."""
    wanted = set(only)
    chosen: list[Chosen] = []
    left: list[Left] = []
    for item in diagnosis.findings:
        finding = item.finding
        if item.caused_by or (wanted and finding.id not in wanted):
            continue
        try:
            ladder = plans(rules[finding.id], finding, facts.call)
        except Unavailable as problem:
            left.append(Left(finding, str(problem), ()))
            continue
        if finding.fingerprint in tried:
            left.append(Left(finding, "the same repair did not hold before", _by_hand(ladder)))
            continue
        reasons = [_refusal(p, highest, offline) for p in ladder]
        allowed = next((p for p, reason in zip(ladder, reasons, strict=True) if not reason), None)
        if allowed is None:
            left.append(Left(finding, reasons[0] if reasons else "there is no remedy", _by_hand(ladder)))
        else:
            chosen.append(Chosen(finding, allowed))
    return Repair(tuple(chosen), tuple(left), merge([c.plan for c in chosen]))


def _refusal(plan: Plan, highest: Risk, offline: bool) -> str:
    if any(not _can_be_done(a) for a in plan.actions):
        return "a person has to do this"
    if _BY_RISK[plan.risk] > _BY_RISK[highest]:
        return f"its risk is {plan.risk.value}: --max-risk {plan.risk.value} allows it"
    if plan.network and offline:
        return "it needs the network"
    return ""


def _can_be_done(action: Action) -> bool:
    if isinstance(action, Reboot):
        return True
    try:
        step_of(action)
    except KeyError:
        return False
    return True


def _by_hand(ladder: Sequence[Plan]) -> tuple[str, ...]:
    return tuple(a.summary() for a in ladder[0].actions) if ladder else ()


def merge(chosen: Sequence[Plan]) -> tuple[Action, ...]:
    """The actions of several plans as one: each once, edits of one file together, what is derived from others last.
    A reboot is nothing that a transaction does: it waits for it."""
    edits: dict[str, dict[int, tuple[int, str, str | None]]] = {}
    merged: dict[Action, None] = {}
    for plan in chosen:
        for action in plan.actions:
            if isinstance(action, EditFile):
                edits.setdefault(action.path, {}).update({c[0]: c for c in action.changes})
                merged[EditFile(action.path, ())] = None
            elif not isinstance(action, Reboot):
                merged[action] = None
    complete = [EditFile(a.path, tuple(edits[a.path].values())) if isinstance(a, EditFile) else a for a in merged]
    return tuple(sorted(complete, key=lambda a: isinstance(a, _DERIVED)))
