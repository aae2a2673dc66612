"""What a report says, before anybody decides how to draw it: text, HTML, Markdown and JSON are made from this."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import groupby
from typing import Any

from dlhealth.actions import OF_A_PERSON, ChangeMode, ChangeOwner, EditFile, MoveAside, WriteFile
from dlhealth.engine.causes import compatible
from dlhealth.lazy import regex
from dlhealth.model import (
    DRIVER,
    OF_THE_BOOT,
    Action,
    Area,
    Diagnosed,
    Diagnosis,
    Difference,
    Failed,
    Finding,
    Health,
    Severity,
    Since,
    Skipped,
    State,
    count,
)
from dlhealth.records import NamedTuple

_MANY = 4
"""So many steps of the same kind become one line, and so many people with the same problem one cause."""
_PATH_FIRST = regex(r"(/\S+): (.+)", re.DOTALL)
_DRIVER_PARTS = (("loaded", "loaded"), ("on_disk", "on disk"), ("libraries", "libraries"))


class Mark(Enum):
    """The sign before a line of a report."""

    WELL = "well"
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    UNKNOWN = "unknown"
    ABSENT = "absent"


class Change(NamedTuple):
    """One line that a step removes from a file ("-") or adds to it ("+"); `number` is None in a new file."""

    sign: str
    number: int | None
    text: str


class Step(NamedTuple):
    """One step of a plan, or several of the same kind: those from `first` to `last`. `text` is the command or what is
    done, `names` are the files of several steps by directory, `changes` the changed lines of a file."""

    first: int
    last: int
    text: str
    names: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()


class Told(NamedTuple):
    """The plan of a root cause. `by_person` says that it has steps for a person, `reason` why `dlhealth fix` does not run
    it ("" if it does)."""

    summary: str
    needs: tuple[str, ...]
    by_person: bool
    reason: str
    steps: tuple[Step, ...]


class Effect(NamedTuple):
    """A consequence, and its own consequences."""

    finding: Finding
    effects: tuple["Effect", ...]


class RootCause(NamedTuple):
    """A finding with its plan and everything that it explains."""

    finding: Finding
    plan: Told | None
    effects: tuple[Effect, ...]


class Unchecked(NamedTuple):
    """One reason for which checks could not run completely: the paths that it concerns, and the ids of the checks."""

    reason: str
    places: tuple[str, ...]
    ids: tuple[str, ...]


class Line(NamedTuple):
    """One line with a sign: an area and what was seen of it, or the verdict on a machine."""

    mark: Mark
    name: str
    text: str


class Story(NamedTuple):
    """A whole report. `reboot` is the verdict on the next boot, None for a report on the running one. `repair` is the command that repairs this machine, "" if none does; `skipped` counts the checks
    that could not run completely."""

    verdict: Line
    reboot: Line | None
    name: str
    machine: str
    notes: tuple[str, ...]
    areas: tuple[Line, ...]
    roots: tuple[RootCause, ...]
    unchecked: tuple[Unchecked, ...]
    skipped: int
    failed: tuple[Failed, ...]
    searched: str
    since: tuple[str, ...]
    repair: str


def story_of(diagnosis: Diagnosis, fix: str = "") -> Story:
    """The report on a diagnosis. `fix` is the command that would repair this machine, "" if it cannot be changed."""
    machine = diagnosis.machine
    platform = machine.get("platform") or {}
    automatic = any(d.remedy and not d.by_hand for d in diagnosis.findings if d.finding.severity is not Severity.NOTE)
    name = str(machine.get("hostname") or machine.get("root") or "this machine")
    return Story(
        verdict=_verdict(diagnosis, name),
        reboot=reboot_of(diagnosis) if diagnosis.next_boot else None,
        name=name,
        machine=describe(machine),
        notes=tuple(platform.get("notes") or ()),
        areas=tuple(_lines(diagnosis)),
        roots=tuple(_roots(diagnosis.findings)),
        unchecked=tuple(_by_reason(diagnosis.skipped)),
        skipped=len(diagnosis.skipped),
        failed=diagnosis.failed,
        searched=_searched(machine.get("python_environments") or {}),
        since=tuple(since_lines(diagnosis.since)) if diagnosis.since else (),
        repair=fix if automatic else "",
    )


def since_lines(since: Since) -> Iterator[str]:
    """What differs since the known-good record, one line for all that changed in the same way."""
    day = since.time[:10]
    if not since.differences:
        yield f"nothing that is recorded differs from the known-good record of {day}"
        return
    yield f"since the known-good record of {day}:"
    yield from difference_lines(since.differences)


def difference_lines(differences: Iterable[Difference]) -> Iterator[str]:
    """One line for all that changed in the same way."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for section, name, before, now in differences:
        groups.setdefault((section, before, now), []).append(name)
    for (section, before, now), names in groups.items():
        change = f"{before} -> {now}" if before and now else f"new: {now}" if now else f"gone: {before}"
        yield f"{section}: {some(names)}: {change}"


def _verdict(diagnosis: Diagnosis, name: str) -> Line:
    worst = diagnosis.worst
    if worst in (Severity.ERROR, Severity.WARNING):
        others = sum(bool(d.caused_by) for d in diagnosis.findings)
        explained = f" with {count(others, 'consequence')}" if others else ""
        state, mark = ("broken", Mark.ERROR) if worst is Severity.ERROR else ("degraded", Mark.WARNING)
        return Line(mark, name, f"{name} is {state}: {count(len(diagnosis.root_causes), 'root cause')}{explained}")
    if diagnosis.health is Health.UNKNOWN:
        found = "no problem found, but too little could be checked to call it healthy: " if diagnosis.run else ""
        return Line(Mark.WARNING, name, f"{name}: {found}{diagnosis.doubt}")
    return Line(Mark.WELL, name, f"{name}: no problem found by {count(diagnosis.run, 'check')}")


def reboot_of(diagnosis: Diagnosis) -> Line:
    """Whether a reboot is safe: only if every item was seen to be well, or is not there on purpose."""
    barring = [
        d.finding
        for d in diagnosis.findings
        if d.finding.severity is Severity.ERROR and d.finding.layer in OF_THE_BOOT and not d.caused_by
    ]
    if barring:
        more = f" (and {count(len(barring) - 1, 'more problem')})" if len(barring) > 1 else ""
        return Line(Mark.ERROR, "reboot", f"do not reboot: {barring[0].title}{more}")
    if diagnosis.doubt:
        return Line(Mark.UNKNOWN, "reboot", f"not known whether a reboot is safe: {diagnosis.doubt}")
    unknown = [a for a in diagnosis.areas if a.state is State.UNKNOWN]
    if unknown:
        listed = ", ".join(a.name for a in unknown)
        listed += f" ({unknown[0].text})" if len(unknown) == 1 else ""
        return Line(Mark.UNKNOWN, "reboot", f"no problem found for the next boot, but not verified: {listed}")
    seen = ", ".join(a.text for a in diagnosis.areas if a.name in (DRIVER, "login screen") and a.state is State.WELL)
    return Line(Mark.WELL, "reboot", f"safe to reboot: {seen}")


def areas_of(diagnosis: Diagnosis) -> tuple[Area, ...]:
    """The areas of a machine, and where each problem lies."""
    problems = _Problems(diagnosis)
    return tuple(_with_problems(area, problems.of(area)) for area in diagnosis.areas)


class _Problems:
    """The findings that do harm, by the subjects that they name: one fault in a thousand homes is a thousand findings in
    a thousand areas."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self._harmful = [d for d in diagnosis.findings if d.finding.severity is not Severity.NOTE]
        kinds = {_kind(area.subject) for area in diagnosis.areas}
        self._naming: dict[str, list[int]] = {}
        self._others: dict[str, list[int]] = {kind: [] for kind in kinds}
        for number, (finding, *_) in enumerate(self._harmful):
            subjects = dict.fromkeys((finding.subject, *finding.about))
            for subject in subjects:
                self._naming.setdefault(subject, []).append(number)
            for kind in kinds - set(map(_kind, subjects)):
                self._others[kind].append(number)

    def of(self, area: Area) -> list[Finding]:
        """Those that concern an area: without their consequences, if there are any others."""
        numbers = sorted((*self._others[_kind(area.subject)], *self._naming.get(area.subject, ())))
        here = [d for d in (self._harmful[n] for n in numbers) if d.finding.layer in area.layers]
        return [d.finding for d in here if not d.caused_by] or [d.finding for d in here]


def _kind(subject: str) -> str:
    return subject.partition(":")[0]


def _with_problems(area: Area, problems: Sequence[Finding]) -> Area:
    ids = dict.fromkeys(f.id for f in problems)
    return area._replace(state=State.PROBLEM, text=f"see {some(ids, 'problems')}") if ids else area


_MARKS = {State.WELL: Mark.WELL, State.UNKNOWN: Mark.UNKNOWN, State.ABSENT: Mark.ABSENT}


def _lines(diagnosis: Diagnosis) -> Iterator[Line]:
    """One line per area; users with the same result share a line."""
    groups: dict[tuple[str, Mark, str], list[str]] = {}
    harmful = _Problems(diagnosis)
    for area in diagnosis.areas:
        problems = harmful.of(area)
        worst = max((f.severity for f in problems), default=None)
        mark = _MARKS[area.state] if worst is None else Mark.ERROR if worst is Severity.ERROR else Mark.WARNING
        text = _with_problems(area, problems).text
        groups.setdefault((area.name, mark, text), []).append(area.subject)
    for (name, mark, text), subjects in groups.items():
        users = [s.removeprefix("user:") for s in subjects if s.startswith("user:")]
        yield Line(mark, name, f"{some(users)}: {text}" if users else text)


def few(areas: Sequence[Line]) -> Iterator[Line]:
    """The lines of the areas; of many lines of one area, the first and how many more there are."""
    for name, group in groupby(areas, lambda line: line.name):
        lines = list(group)
        if len(lines) <= _MANY:
            yield from lines
            continue
        yield from lines[: _MANY - 1]
        rest = {line.mark for line in lines[_MANY - 1 :]}
        mark = rest.pop() if len(rest) == 1 else Mark.UNKNOWN
        yield Line(mark, name, f"and {len(lines) - _MANY + 1} more")


def describe(machine: Mapping[str, Any]) -> str:
    """The `host` object of the JSON report in one line."""
    parts = [str(machine.get("os") or "unknown system")]
    if machine.get("kernel"):
        parts.append(f"kernel {machine['kernel']}")
    gpus = [str(g.get("name") or g.get("id")) for g in machine.get("gpus") or ()]
    parts += [name if gpus.count(name) == 1 else f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    driver = machine.get("driver") or {}
    versions = [(driver[k], text) for k, text in _DRIVER_PARTS if driver.get(k)]
    if len({version for version, _ in versions}) == 1:
        parts.append(f"driver {versions[0][0]}")
    elif versions:
        parts.append("driver " + " / ".join(f"{version} {text}" for version, text in versions))
    if machine.get("cuda"):
        parts.append(f"CUDA {', '.join(machine['cuda'])}")
    return ", ".join(parts)


def _searched(search: Mapping[str, Any]) -> str:
    """Where Python environments were searched, if users have some; "" otherwise."""
    own = set(search.get("found", ())) - {"/usr", "/usr/local"}
    return f"{search['bounds']}." if own and search.get("bounds") else ""


class Repeated(NamedTuple):
    """A root cause, and the other people who have the same problem."""

    root: RootCause
    others: tuple[str, ...]


def repeated(roots: Sequence[RootCause]) -> list[Repeated]:
    """The root causes. Of the same problem of many people, as from a line that all their files have, only the first with
    the names of the others."""
    groups: dict[object, list[RootCause]] = {}
    for number, root in enumerate(roots):
        kind, _, person = root.finding.subject.partition(":")
        key: object = number
        if kind == "user":
            titles = (root.finding.title, root.plan.summary if root.plan else "", *_titles(root.effects))
            key = root.finding.id, *(title.replace(person, "\0") for title in titles)
        groups.setdefault(key, []).append(root)
    found = []
    for several in groups.values():
        if len(several) < _MANY:
            found += [Repeated(root, ()) for root in several]
        else:
            found.append(Repeated(several[0], tuple(r.finding.subject.partition(":")[2] for r in several[1:])))
    return found


def _titles(effects: Sequence[Effect]) -> Iterator[str]:
    for effect in effects:
        yield effect.finding.title
        yield from _titles(effect.effects)


def _roots(findings: Sequence[Diagnosed]) -> Iterator[RootCause]:
    effects = _effects(findings)
    reached: set[int] = set()
    for number, diagnosed in enumerate(findings):
        # Root causes come first, and consequences that no root cause reaches must be reported, too.
        if number not in reached:
            below = _below(number, findings, effects, reached)
            yield RootCause(diagnosed.finding, _told(diagnosed), below)


def _effects(findings: Sequence[Diagnosed]) -> dict[int, list[int]]:
    """The findings by number: a cause → its direct consequences."""
    effects: dict[int, list[int]] = {}
    everybody = {person for d in findings for person in _people(d.finding)}
    found: dict[tuple[str, str], list[int]] = {}
    for number, (finding, *_) in enumerate(findings):
        for person in _people(finding) or ("",):
            found.setdefault((finding.id, person), []).append(number)
    for number, effect in enumerate(findings):
        people = ("", *(_people(effect.finding) or everybody))
        causes = (
            cause
            for name in effect.caused_by
            for cause in sorted({cause for person in people for cause in found.get((name, person), ())})
            if cause != number and compatible(findings[cause].finding, effect.finding)
        )
        nearest = next(causes, None)
        if nearest is not None:
            effects.setdefault(nearest, []).append(number)
    return effects


def _people(finding: Finding) -> tuple[str, ...]:
    """The people whom a finding concerns; none if it concerns everybody."""
    return tuple(s for s in dict.fromkeys((finding.subject, *finding.about)) if s.startswith("user:"))


def _below(
    cause: int, findings: Sequence[Diagnosed], effects: Mapping[int, list[int]], reached: set[int]
) -> tuple[Effect, ...]:
    reached.add(cause)
    below = [number for number in effects.get(cause, ()) if number not in reached]
    return tuple(Effect(findings[n].finding, _below(n, findings, effects, reached)) for n in below)


def _told(diagnosed: Diagnosed) -> Told | None:
    plan = diagnosed.remedy
    if plan is None:
        return None
    needs = (f"risk {plan.risk.value}", *["needs a reboot"] * plan.reboot, *["needs the network"] * plan.network)
    by_person = bool(diagnosed.by_hand) and any(isinstance(a, OF_A_PERSON) for a in plan.actions)
    return Told(plan.summary, needs, by_person, diagnosed.by_hand, tuple(steps_of(plan.actions)))


def steps_of(actions: Sequence[Action]) -> Iterator[Step]:
    """The steps of a plan. Many of the same kind in a row, which change one file each, become one."""

    def kind(numbered: tuple[int, Action]) -> str:
        number, action = numbered
        return next((same(action) for made, same in _FOLDED if isinstance(action, made)), str(number))

    for text, group in groupby(enumerate(actions, 1), kind):
        steps = list(group)
        if len(steps) < _MANY:
            yield from (Step(number, number, _text(action), (), tuple(_changes(action))) for number, action in steps)
        else:
            paths = [action.path for _, action in steps]  # type: ignore[attr-defined]
            yield _several(steps[0][0], text, paths)


_FOLDED: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (MoveAside, lambda action: "move {} aside (kept in /var/lib/dlhealth)"),
    (ChangeOwner, lambda action: f"chown -h {action.user}:{action.group} of {{}}"),
    (ChangeMode, lambda action: f"chmod {action.mode:04o} of {{}}"),
)


def _several(first: int, text: str, paths: Sequence[str]) -> Step:
    by_directory: dict[str, list[str]] = {}
    for path in paths:
        directory, _, name = path.rpartition("/")
        by_directory.setdefault(directory or "/", []).append(name)
    files = f"{len(paths)} files"
    if len(by_directory) == 1:
        [(directory, names)] = by_directory.items()
        return Step(first, first + len(paths) - 1, text.format(f"{files} of {directory}"), (" ".join(names),))
    listed = tuple(f"{directory}: {' '.join(names)}" for directory, names in by_directory.items())
    return Step(first, first + len(paths) - 1, text.format(files), listed)


def _text(action: Action) -> str:
    if isinstance(action, EditFile):
        return f"edit {action.path}"
    return f"write {action.path}" if isinstance(action, WriteFile) else action.summary()


def _changes(action: Action) -> Iterator[Change]:
    if isinstance(action, EditFile):
        for number, old, new in action.changes:
            yield Change("-", number, old)
            if new is not None:
                yield Change("+", number, new)
    elif isinstance(action, WriteFile):
        yield from (Change("+", None, line) for line in action.text.splitlines())


def _by_reason(skipped: Sequence[Skipped]) -> Iterator[Unchecked]:
    """The reason with most checks first."""
    groups: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for skip in skipped:
        for reason in skip.reason.split("; "):
            match = _PATH_FIRST.fullmatch(reason)
            places, ids = groups.setdefault(match[2] if match else reason, ({}, {}))
            ids[skip.id] = None
            if match:
                places[match[1]] = None
    for reason, (places, ids) in sorted(groups.items(), key=lambda group: -len(group[1][1])):
        yield Unchecked(reason, tuple(places), tuple(ids))


def some(names: Iterable[str], kind: str = "") -> str:
    """The names if they are few; otherwise their number, or the first of them."""
    names = list(names)
    if len(names) <= _MANY:
        return ", ".join(names)
    return f"{len(names)} {kind}" if kind else f"{', '.join(names[:3])} and {len(names) - 3} more"
