"""Which finding explains which: the graph that the rules declare, including paths through faults that were not
found."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush

from dlhealth.engine.rule import Rule
from dlhealth.model import Finding, Layer, Severity

_OF_ONE_PERSON = (Layer.ENVIRONMENT, Layer.PYTHON, Layer.LOGIN)
"""The layers whose faults may concern only one person or one Python environment."""

Graph = Mapping[str, Mapping[str, None]]
"""The id of a fault, and the ids of the faults that it explains directly."""


def declared(rules: Iterable[Rule]) -> Graph:
    """The edges that rules declare, from either end."""
    graph: dict[str, dict[str, None]] = {}
    for rule in rules:
        graph.setdefault(rule.id, {}).update(dict.fromkeys(rule.explains))
        for cause in rule.explained_by:
            graph.setdefault(cause, {})[rule.id] = None
    return graph


def neighbours(rule: Rule, rules: Iterable[Rule]) -> tuple[list[str], list[str]]:
    """The ids of the faults that a fault explains directly, and of those that explain it directly."""
    graph = declared(rules)
    return list(graph[rule.id]), [cause for cause, effects in graph.items() if rule.id in effects]


def select(rules: Sequence[Rule], only: Iterable[str]) -> list[Rule]:
    """The rules with these ids or layers, and all rules that could explain their findings. Raises KeyError for a name
    that is neither."""
    wanted = set(only)
    if not wanted:
        return list(rules)
    unknown = wanted - {r.id for r in rules} - {r.layer.value for r in rules}
    if unknown:
        raise KeyError(sorted(unknown)[0])
    chosen = {r.id for r in rules if r.id in wanted or r.layer.value in wanted}
    graph = declared(rules)
    while more := {cause for cause, effects in graph.items() if cause not in chosen and chosen & effects.keys()}:
        chosen |= more
    return [r for r in rules if r.id in chosen]


def causes(findings: Sequence[Finding], rules: Mapping[str, Rule]) -> list[tuple[str, ...]]:
    """For each finding, the ids of all its causes, the nearest first."""
    found = _Found(findings, rules)
    return [_causes(number, found) for number in range(len(findings))]


class _Found:
    """All findings, indexed so that each has few possible causes: one fault in a thousand homes is a thousand
    findings."""

    def __init__(self, findings: Sequence[Finding], rules: Mapping[str, Rule]) -> None:
        graph = declared(rules.values())
        self.findings = findings
        self.subjects = [_subjects(f) for f in findings]
        self._users = sorted({user for s in self.subjects for user in s.get("user", ())})
        self.reached: list[Mapping[str, int]] = []
        # By the fault that they can explain and the person whom they concern; None if they concern everybody.
        self._explaining: dict[tuple[str, str | None], list[int]] = {}
        known: dict[tuple[str, bool], dict[str, int]] = {}
        for number, (finding, subjects) in enumerate(zip(findings, self.subjects, strict=True)):
            personal = not subjects.keys().isdisjoint(("user", "python"))
            key = finding.id, personal
            if key not in known:
                known[key] = _reached(finding.id, personal, graph, rules)
            self.reached.append(known[key])
            for effect in known[key].keys() - {finding.id}:
                for user in subjects.get("user", (None,)):
                    self._explaining.setdefault((effect, user), []).append(number)

    def explaining(self, number: int) -> list[int]:
        """The findings that explain one finding directly."""
        fault = self.findings[number].id
        users = (None, *self.subjects[number].get("user", self._users))
        candidates = {p for user in users for p in self._explaining.get((fault, user), ())}
        return [p for p in sorted(candidates) if self._harms(p, number) and self.fit(p, number)]

    def _harms(self, cause: int, effect: int) -> bool:
        """A note does no harm, so it explains nothing that does; what is only coming explains nothing."""
        if self.findings[cause].coming:
            return False
        severities = self.findings[cause].severity, self.findings[effect].severity
        return severities[0] is not Severity.NOTE or severities[1] is Severity.NOTE

    def fit(self, cause: int, effect: int) -> bool:
        """Like `compatible`."""
        return _compatible(self.subjects[cause], self.subjects[effect])


def _reached(cause: str, personal: bool, graph: Graph, rules: Mapping[str, Rule]) -> dict[str, int]:
    """How many edges lead from a fault to each fault that it can explain; `personal` if it does not concern the whole
    machine.

    A fault between the two need not have been found. But a personal problem does not break the machine for everybody,
    so it explains nothing through a machine-wide fault that was not found.
    """
    steps, queue = {cause: 0}, [cause]
    for fault in queue:
        if fault != cause and personal and fault in rules and rules[fault].layer not in _OF_ONE_PERSON:
            continue
        for effect in graph.get(fault, ()):
            if effect not in steps:
                steps[effect] = steps[fault] + 1
                queue.append(effect)
    return steps


def _causes(number: int, found: _Found) -> tuple[str, ...]:
    """The causes of one finding, directly or through others that were found."""
    settled: dict[int, None] = {}
    waiting = [(0, number)]
    while waiting:
        steps, nearest = heappop(waiting)
        if nearest in settled:
            continue
        settled[nearest] = None
        effect = found.findings[nearest]
        for p in found.explaining(nearest):
            if p not in settled and found.fit(p, number):
                heappush(waiting, (steps + found.reached[p][effect.id], p))
    ids = dict.fromkeys(found.findings[p].id for p in settled)
    del ids[found.findings[number].id]
    return tuple(ids)


def compatible(cause: Finding, effect: Finding) -> bool:
    """Whether one finding can concern the other: they do not name different users, kernels, GPUs, environments or
    lines."""
    return _compatible(_subjects(cause), _subjects(effect))


def _compatible(ours: Mapping[str, set[str]], theirs: Mapping[str, set[str]]) -> bool:
    return all(ours[kind] & theirs[kind] for kind in ours.keys() & theirs.keys())


def _subjects(finding: Finding) -> dict[str, set[str]]:
    subjects: dict[str, set[str]] = {}
    for subject in (finding.subject, *finding.about):
        kind, colon, name = subject.partition(":")
        # Two files or packages may explain each other; two users, kernels, or lines of a file cannot.
        if colon and kind in ("user", "kernel", "gpu", "python", "line"):
            subjects.setdefault(kind, set()).add(name)
    return subjects
