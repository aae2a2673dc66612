"""One look at the machine, for the watcher: a process of its own, so that the watcher stays small and can't hang.

Prints one line of JSON, a `Checked`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from dlhealth.engine.examine import Examiner, chosen, examining
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import Loaded, known_names
from dlhealth.engine.policy import NOTHING_UNATTENDED, BadConfig, Policy, read_policy
from dlhealth.host import Host, NoAnswer, OutOfTime, Unreadable
from dlhealth.host.root import live_host
from dlhealth.lean import NamedTuple
from dlhealth.model import Diagnosis, Severity
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.apt import PackageLocks
from dlhealth.report.style import Style

_ANYWHERE = Style(colour=False, unicode=True, width=80)
"""journalctl shows none of a message that holds control characters, which a title may have from a file."""


class Checked(NamedTuple):
    """What one look found. `judged` are the rules that could say yes or no: only of them, a finding can be gone, and of
    those that are no longer among `rules`, which are all that there are, or none where some could not be loaded.
    `busy` says what is changing packages right now; then nothing else is said. `problem` is a setting that can't be
    meant, or a rule that is broken; `unchecked` says what did not answer, or not in time."""

    findings: tuple[dict[str, str], ...] = ()
    judged: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    busy: str = ""
    problem: str = ""
    unchecked: str = ""


def check(machine: Callable[[], Host], only: Sequence[str]) -> Checked:
    """One look, as `_check` describes it, under the supervision of this process."""
    return examining(machine(), lambda examiner: _check(examiner, machine, only))


def _check(examiner: Examiner, machine: Callable[[], Host], only: Sequence[str]) -> Checked:
    """Look at what `only` names (rules and layers); at everything, and at what the next boot will find, where it is
    empty. The half of a change of packages is no fault: nothing is said while one is under way, also where it began
    during the look. `machine` opens the machine anew: a host remembers what it has seen."""
    host, loaded = examiner.host, examiner.loaded
    if busy := being_changed(host):
        return Checked(busy=busy)
    policy, problem = policy_of(host)
    # What was found before may be of a rule that has been taken away since.
    names = [name for name in only if name in known_names(loaded.rules)]
    rules = chosen(loaded, names) if names or not only else Loaded((), ())
    diagnosis = examiner.diagnose(Options(users=policy.users), rules)
    findings = told(diagnosis, policy)
    unsure = [*(s.id for s in diagnosis.skipped), *(f.id for f in diagnosis.failed)]
    if not only:
        coming = examiner.diagnose(Options(users=policy.users, next_boot=True), rules)
        open_now = {(f["id"], f["subject"]) for f in findings}
        findings += [f for f in told(coming, policy, "next") if (f["id"], f["subject"]) not in open_now]
        unsure += [*(s.id for s in coming.skipped), *(f.id for f in coming.failed)]
    judged = {r.id for r in rules.rules} - set(unsure)
    for failed in (*loaded.failed, *diagnosis.failed):
        problem = problem or f"the rule {failed.id} can't judge: {failed.error}"
    if busy := being_changed(machine()):
        return Checked(busy=busy)
    there = () if loaded.failed else tuple(r.id for r in loaded.rules)
    return Checked(tuple(findings), tuple(sorted(judged)), there, problem=problem, unchecked=_unchecked(host))


def _unchecked(host: Host) -> str:
    problems = [a for a in host.seen.values() if isinstance(a, NoAnswer | OutOfTime)]
    return "; ".join(sorted({str(p) if isinstance(p, NoAnswer) else p.reason for p in problems}))


def being_changed(host: Host) -> str:
    """Who is changing packages or building modules right now, "" where nobody is or nobody can tell."""
    with suppress(Unavailable):
        locks: PackageLocks = Facts(host, Options()).get(PackageLocks)
        if locks.busy:
            return locks.busy
    if not host.live:
        return ""
    from dlhealth.host.processes import building

    return building()


def policy_of(host: Host) -> tuple[Policy, str]:
    """The administrator's settings; what is wrong with them, and then the most careful ones."""
    try:
        return read_policy(host), ""
    except (BadConfig, Unreadable) as problem:
        return NOTHING_UNATTENDED, f"{problem}; until that is cured, nothing is repaired unattended"


def told(diagnosis: Diagnosis, policy: Policy, boot: str = "") -> list[dict[str, str]]:
    """Each finding that is worth an alert, as the watcher keeps it. `boot` is "next" for what the next one will find."""
    return [
        {
            "id": d.finding.id,
            "subject": d.finding.subject,
            "severity": d.finding.severity.value,
            "layer": d.finding.layer.value,
            "title": _ANYWHERE.clean(d.finding.title),
            "boot": boot,
            "fingerprint": d.finding.fingerprint,
            "caused_by": " ".join(c for c in d.caused_by if c not in policy.ignore),
            "files": "\n".join(file for e in d.finding.evidence if (file := file_of(e.source))),
            "repair": d.remedy.risk.value if d.remedy else "",
        }
        for d in diagnosis.findings
        if d.finding.severity is not Severity.NOTE and d.finding.id not in policy.ignore
    ]


def file_of(source: str) -> str:
    """The file that evidence comes from, without the number of the line; "" where it is no file."""
    path, _, line = source.partition(":")
    return path if path.startswith("/") and " " not in path and (not line or line.isdigit()) else ""


def main(only: Sequence[str]) -> None:
    """Print what is found. ASCII only, whatever the machine's files held."""
    checked: dict[str, Any] = check(live_host, only)._asdict()
    print(json.dumps(checked))


if __name__ == "__main__":
    main(sys.argv[1:])
