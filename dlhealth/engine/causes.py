"""Which finding explains which: the graph that the rules declare, closed over faults that were not found."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush

from dlhealth.engine.rule import Rule
from dlhealth.model import Finding, Layer, Severity

_OF_ONE_PERSON = (Layer.ENVIRONMENT, Layer.PYTHON, Layer.LOGIN)
"""The layers whose faults may concern one person or one Python environment alone."""

Graph = Mapping[str, Mapping[str, None]]
"""The id of a fault, and those of the faults that it explains directly."""


def declared(rules: Iterable[Rule]) -> Graph:
    """The edges that rules name, from either end."""
    graph: dict[str, dict[str, None]] = {}
    for rule in rules:
        graph.setdefault(rule.id, {}).update(dict.fromkeys(rule.explains))
        for cause in rule.explained_by:
            graph.setdefault(cause, {})[rule.id] = None
    return graph


def neighbours(rule: Rule, rules: Iterable[Rule]) -> tuple[list[str], list[str]]:
    """The ids of what a fault explains directly, and of what explains it directly."""
    graph = declared(rules)
    return list(graph[rule.id]), [cause for cause, effects in graph.items() if rule.id in effects]


def causes(findings: Sequence[Finding], rules: Mapping[str, Rule]) -> list[tuple[str, ...]]:
    """For each finding the ids of all that explains it, the nearest first."""
    graph = declared(rules.values())
    reached = [_reached(finding, graph, rules) for finding in findings]
    return [_causes(number, findings, reached) for number in range(len(findings))]


def _reached(cause: Finding, graph: Graph, rules: Mapping[str, Rule]) -> dict[str, int]:
    """How many edges lead from a finding to each fault that it can explain.

    A fault between the two need not have been found. But what is wrong for one person does not break the machine for
    all, so it explains nothing through a fault of the machine that nobody has found.
    """
    personal = not _subjects(cause).keys().isdisjoint(("user", "python"))
    steps, queue = {cause.id: 0}, [cause.id]
    for fault in queue:
        if fault != cause.id and personal and fault in rules and rules[fault].layer not in _OF_ONE_PERSON:
            continue
        for effect in graph.get(fault, ()):
            if effect not in steps:
                steps[effect] = steps[fault] + 1
                queue.append(effect)
    return steps


def _causes(number: int, findings: Sequence[Finding], reached: Sequence[Mapping[str, int]]) -> tuple[str, ...]:
    """The causes of one finding, directly or through others that were found."""
    settled: dict[int, None] = {}
    waiting = [(0, number)]
    while waiting:
        steps, nearest = heappop(waiting)
        if nearest in settled:
            continue
        settled[nearest] = None
        effect = findings[nearest]
        for p, cause in enumerate(findings):
            if p not in settled and _explains(cause, effect, reached[p]) and compatible(cause, findings[number]):
                heappush(waiting, (steps + reached[p][effect.id], p))
    ids = dict.fromkeys(findings[p].id for p in settled)
    del ids[findings[number].id]
    return tuple(ids)


def _explains(cause: Finding, effect: Finding, reached: Mapping[str, int]) -> bool:
    # A note harms nothing, so nothing that harms comes from it.
    mild = cause.severity is Severity.NOTE and effect.severity is not Severity.NOTE
    return reached.get(effect.id, 0) > 0 and not mild and compatible(cause, effect)


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
