"""Runs rules over facts and orders what they find by who explains whom."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout

from dlhealth.engine.facts import Facts
from dlhealth.engine.machine import describe_machine
from dlhealth.engine.rule import Rule, plans
from dlhealth.model import Diagnosed, Diagnosis, Failed, Finding, Plan, Severity, Skipped, Unknown
from dlhealth.probes import Unavailable

_BY_SEVERITY = {severity: number for number, severity in enumerate(Severity)}


def select(rules: Sequence[Rule], only: Iterable[str]) -> list[Rule]:
    """The rules with these ids or layers, and all that could explain what they find. Raises KeyError for a name
    that is neither."""
    wanted = set(only)
    if not wanted:
        return list(rules)
    unknown = wanted - {r.id for r in rules} - {r.layer.value for r in rules}
    if unknown:
        raise KeyError(sorted(unknown)[0])
    chosen = {r.id for r in rules if r.id in wanted or r.layer.value in wanted}
    while more := {r.id for r in rules if r.id not in chosen and chosen & set(r.explains)}:
        chosen |= more
    return [r for r in rules if r.id in chosen]


def diagnose(
    rules: Sequence[Rule], facts: Facts, *, failed: Sequence[Failed] = (), extra: Sequence[Finding] = ()
) -> Diagnosis:
    """Run every rule once. A rule that can't look is skipped, one that crashes has failed; the others still run."""
    findings, skipped, failures = list(extra), [], list(failed)
    run = 0
    for rule in rules:
        try:
            with redirect_stdout(sys.stderr):  # what a rule prints is no part of a report
                results = list(facts.call(rule.detect))
            if not all(isinstance(result, (Finding, Unknown)) for result in results):
                raise TypeError("detect must yield findings, or unknowns")
        except Unavailable as problem:
            skipped.append(Skipped(rule.id, str(problem)))
            continue
        except (Exception, SystemExit) as error:  # a rule's defect must not hide what the others see
            failures.append(Failed(rule.id, f"{type(error).__name__}: {error}"))
            continue
        run += 1
        findings += [r for r in results if isinstance(r, Finding)]
        unknown = list(dict.fromkeys(r.reason for r in results if isinstance(r, Unknown)))
        if unknown:
            skipped.append(Skipped(rule.id, "; ".join(unknown)))
    by_id = {rule.id: rule for rule in rules}
    ordered = order(findings, by_id, lambda rule, finding: mildest(rule, finding, facts, failures))
    return Diagnosis(tuple(ordered), run, tuple(skipped), tuple(failures), describe_machine(facts))


def mildest(rule: Rule, finding: Finding, facts: Facts, failures: list[Failed]) -> Plan | None:
    """The first remedy of a root cause; None where what it needs to know could not be had."""
    try:
        return next(iter(plans(rule, finding, facts.call)), None)
    except Unavailable:
        return None
    except (Exception, SystemExit) as error:
        failures.append(Failed(rule.id, f"remedies: {type(error).__name__}: {error}"))
        return None


def order(
    findings: Sequence[Finding], rules: Mapping[str, Rule], remedy: Callable[[Rule, Finding], Plan | None]
) -> list[Diagnosed]:
    """Root causes first; each group by severity, then in the order of repair."""
    causes = {i: _causes(i, findings, rules) for i in range(len(findings))}

    def rank(number: int) -> tuple[bool, int, int, str, str]:
        finding = findings[number]
        rule = rules.get(finding.id)
        stage = rule.stage if rule else 0
        return bool(causes[number]), _BY_SEVERITY[finding.severity], stage, finding.id, finding.subject

    result = []
    for number in sorted(causes, key=rank):
        finding, rule = findings[number], rules.get(findings[number].id)
        plan = None if causes[number] or rule is None else remedy(rule, finding)
        result.append(Diagnosed(finding, causes[number], plan))
    return result


def _causes(number: int, findings: Sequence[Finding], rules: Mapping[str, Rule]) -> tuple[str, ...]:
    """Ids of all that explains a finding, directly or through others, the nearest first."""
    reached, frontier = {number}, [number]
    ids: dict[str, None] = {}
    while frontier:
        parents = [
            p
            for p, cause in enumerate(findings)
            if p not in reached
            and any(_explains(cause, findings[child], rules) for child in frontier)
            and compatible(cause, findings[number])
        ]
        reached.update(parents)
        ids.update(dict.fromkeys(findings[p].id for p in parents))
        frontier = parents
    ids.pop(findings[number].id, None)
    return tuple(ids)


def _explains(cause: Finding, effect: Finding, rules: Mapping[str, Rule]) -> bool:
    rule = rules.get(cause.id)
    # A note harms nothing, so nothing that harms comes from it.
    mild = cause.severity is Severity.NOTE and effect.severity is not Severity.NOTE
    return rule is not None and effect.id in rule.explains and not mild and compatible(cause, effect)


def compatible(cause: Finding, effect: Finding) -> bool:
    """Whether one can concern the other: they don't name different users, kernels, GPUs, environments or lines."""
    ours, theirs = _subjects(cause), _subjects(effect)
    return all(ours[kind] & theirs[kind] for kind in ours.keys() & theirs.keys())


def _subjects(finding: Finding) -> dict[str, set[str]]:
    subjects: dict[str, set[str]] = {}
    for subject in (finding.subject, *finding.about):
        kind, colon, name = subject.partition(":")
        # Two files or packages may well explain each other; two users or kernels, or two lines of a file, can't.
        if colon and kind in ("user", "kernel", "gpu", "python", "line"):
            subjects.setdefault(kind, set()).add(name)
    return subjects
