"""One check of the machine for the watcher, in its own process, so that the watcher stays small and cannot hang.

Prints one line of JSON, a `Checked`.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlhealth.engine.busy import being_changed
from dlhealth.engine.examine import Examiner, examining
from dlhealth.engine.facts import Options
from dlhealth.engine.load import Loaded, chosen, known_names
from dlhealth.engine.machine import card_health
from dlhealth.engine.policy import NOTHING_UNATTENDED, BadConfig, Policy, read_policy
from dlhealth.host import Host, NoAnswer, OutOfTime, Unreadable
from dlhealth.host.root import live_host
from dlhealth.model import Diagnosis, OpenProblem, Severity
from dlhealth.records import NamedTuple
from dlhealth.report.style import Style

_ANYWHERE = Style(colour=False, unicode=True, width=80)
"""Titles are cleaned: they may quote control characters from a file, and journalctl hides such messages."""


class Checked(NamedTuple):
    """The result of one check.

    `judged` are the rules that could decide: only their findings can be resolved, and those of rules that no longer
    exist. `rules` are all rules; empty if some could not be loaded. `busy` says which program is changing packages right
    now; then the rest is empty. `problem` is an invalid setting or a broken rule. `unchecked` says what did not answer in
    time. `cards` has the health of each GPU, of a complete check alone."""

    findings: tuple[OpenProblem, ...] = ()
    judged: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    busy: str = ""
    problem: str = ""
    unchecked: str = ""
    cards: Mapping[str, Mapping[str, Any]] = {}


def check(machine: Callable[[], Host], only: Sequence[str]) -> Checked:
    """Run `_check` under the supervision of this process."""
    return examining(machine(), lambda examiner: _check(examiner, machine, only))


def _check(examiner: Examiner, machine: Callable[[], Host], only: Sequence[str]) -> Checked:
    """Check what `only` names (rules and layers); if it is empty, check everything, and what the next boot will find.
    A half-finished package change is not a fault: while one runs, even if it began during the check, nothing is reported.
    `machine` opens the machine again, because a host remembers what it has read."""
    host, loaded = examiner.host, examiner.loaded
    if busy := being_changed(host):
        return Checked(busy=busy)
    policy, problem = policy_of(host)
    # The rule of an earlier finding may have been removed since.
    names = [name for name in only if name in known_names(loaded.rules)]
    rules = chosen(loaded, names) if names or not only else Loaded((), ())
    diagnosis = examiner.diagnose(Options(users=policy.users), rules)
    findings = open_problems(diagnosis, policy)
    unsure = [*(s.id for s in diagnosis.skipped), *(f.id for f in diagnosis.failed)]
    if not only:
        coming = examiner.diagnose(Options(users=policy.users, next_boot=True), rules)
        open_now = {(f.id, f.subject) for f in findings}
        then = open_problems(coming, policy, next_boot=True)
        findings += [f for f in then if (f.id, f.subject) not in open_now]
        unsure += [*(s.id for s in coming.skipped), *(f.id for f in coming.failed)]
    judged = {r.id for r in rules.rules} - set(unsure)
    for failed in (*loaded.failed, *diagnosis.failed):
        problem = problem or f"the rule {failed.id} failed: {failed.error}"
    if busy := being_changed(machine()):
        return Checked(busy=busy)
    there = () if loaded.failed else tuple(r.id for r in loaded.rules)
    cards = {} if only else card_health(examiner.facts(Options(users=policy.users)))
    return Checked(
        tuple(findings), tuple(sorted(judged)), there, problem=problem, unchecked=_unchecked(host), cards=cards
    )


def _unchecked(host: Host) -> str:
    problems = [a for a in host.seen.values() if isinstance(a, NoAnswer | OutOfTime)]
    return "; ".join(sorted({str(p) if isinstance(p, NoAnswer) else p.reason for p in problems}))


def policy_of(host: Host) -> tuple[Policy, str]:
    """The administrator's settings and ""; if they are not valid, the most careful settings and what is wrong."""
    try:
        return read_policy(host), ""
    except (BadConfig, Unreadable) as problem:
        return NOTHING_UNATTENDED, f"{problem}; automatic repair is off until this is fixed"


def open_problems(diagnosis: Diagnosis, policy: Policy, *, next_boot: bool = False) -> list[OpenProblem]:
    """The findings that are worth an alert, as the watcher keeps them."""
    return [
        OpenProblem(
            id=d.finding.id,
            subject=d.finding.subject,
            severity=d.finding.severity,
            layer=d.finding.layer,
            title=_ANYWHERE.clean(d.finding.title),
            next_boot=next_boot,
            fingerprint=d.finding.fingerprint,
            caused_by=tuple(c for c in d.caused_by if c not in policy.ignore),
            files=tuple(file for e in d.finding.evidence if (file := file_of(e.source))),
            repair=d.remedy.risk if d.remedy else None,
        )
        for d in diagnosis.findings
        if d.finding.severity is not Severity.NOTE and d.finding.id not in policy.ignore
    ]


def file_of(source: str) -> str:
    """The file that evidence comes from, without the line number; "" if the source is not a file."""
    path, _, line = source.partition(":")
    return path if path.startswith("/") and " " not in path and (not line or line.isdigit()) else ""


def main(only: Sequence[str]) -> None:
    """Print the result, in ASCII only."""
    checked = check(live_host, only)
    print(json.dumps({**checked._asdict(), "findings": [f._asdict() for f in checked.findings]}))


if __name__ == "__main__":
    main(sys.argv[1:])
