"""A diagnosis as text for a person, on anything from a rescue console to a wide terminal."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import groupby
from typing import Any

from dlhealth.actions import MoveAside
from dlhealth.data.kernel_log import Xid
from dlhealth.engine.causes import compatible, neighbours
from dlhealth.engine.rule import Rule
from dlhealth.lazy import regex
from dlhealth.model import Action, Diagnosed, Diagnosis, Health, Layer, Severity, Skipped, kind_of
from dlhealth.report.style import Style, columns, pieces, shortened

_COLOURS = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}
SIGNS = {Severity.ERROR: ("✗", "[x]"), Severity.WARNING: ("▲", "[!]"), Severity.NOTE: ("●", "[i]")}  # fmt: skip
WELL = ("✓", "[ok]")
_BLANK, _TRUNK = ("   ", "   "), ("│  ", "|  ")
_LINES = {
    "T": (("├─ ", "|- "), _TRUNK),
    "L": (("└─ ", "`- "), _BLANK),
    "I": (_TRUNK, _TRUNK),
    " ": (_BLANK, _BLANK),
}
"""The lines of a tree: beside the first line of an entry, and beside its other lines."""
_BY_PERSON = ("by-hand", "pip-install")
_FEW = 4
_MANY = 4
"""Moves of files in one directory that become one line."""
_WORD_LIMIT = 400
_NARROWEST = 20
"""Columns for text, at least, beside any indentation."""
LITERAL = ("By hand",)
"""Sections with commands: their lines are printed as they are, never wrapped, so that they can be copied."""
_PATH_FIRST = regex(r"(/\S+): (.+)", re.DOTALL)


class Detail(Enum):
    """How much to print: verdict and causes only; everything that matters; or also each check that could not run."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


def render(diagnosis: Diagnosis, style: Style, detail: Detail = Detail.NORMAL) -> str:
    """The whole report."""
    page = Page(style)
    page.verdict(diagnosis)
    if detail is Detail.QUIET:
        for finding in diagnosis.root_causes:
            page.text(f"  {page.sign(SIGNS[finding.severity])} ", f"{finding.title} ({finding.id})")
        return page.content()
    effects = _effects(diagnosis.findings)
    reached: set[int] = set()
    for number, diagnosed in enumerate(diagnosis.findings):
        # Root causes come first, and consequences that no root cause reaches must be printed, too.
        if number not in reached:
            page.cause(diagnosed, [*_tree(number, effects, reached, "")], diagnosis.findings)
    page.skipped(diagnosis.skipped, detail)
    page.bounds(diagnosis.machine.get("python_environments") or {})
    page.failed(diagnosis)
    if diagnosis.findings:
        page.line()
        page.text("", "Details of a problem, its repair and the risk: dlhealth explain ID")
    return page.content()


def render_rules(rules: Sequence[Rule], style: Style) -> str:
    """Everything that dlhealth can find, by layer."""
    page = Page(style)
    for layer in Layer:
        listed = [r for r in rules if r.layer is layer]
        if listed:
            page.line(style.paint(layer.value, "1"))
        for rule in listed:
            page.line(f"  {style.paint(f'{rule.severity.value:8}', _COLOURS[rule.severity])} {rule.id}")
            page.text(" " * 11, rule.title)
        if listed:
            page.line()
    page.text("", f"{len(rules)} rules. Details of one: dlhealth explain ID")
    return page.content()


def render_number(known: Xid, style: Style) -> str:
    """What is known of one error number of the driver or of an NVSwitch."""
    page = Page(style)
    page.line(style.paint(known.called, "1"))
    parts = {
        "NVIDIA's name": known.name,
        "NVIDIA's immediate action": known.action,
        "Severity": known.severity.value,
        "Usually the fault of": known.whose,
        "What to do": known.advice,
    }
    for label, value in parts.items():
        if value:
            page.text("", f"{label}: {value}")
    page.line()
    return page.content()


def render_rule(rule: Rule, rules: Sequence[Rule], style: Style) -> str:
    """One rule's documentation."""
    page = Page(style)
    page.line(style.paint(rule.id, "1"))
    page.text("", f"layer {rule.layer.value}, severity {rule.severity.value}, risk of the repair: {rule.risk.value}")
    summary, sections = sections_of(rule.documentation)
    page.line()
    page.text("", summary)
    for name, lines in sections:
        page.line()
        page.line(style.paint(style.clean(name), "1"))
        for line in lines:
            if name in LITERAL:
                page.line(f"    {style.clean(line)}")
            else:
                page.text("    ", line)
    for name, ids in zip(("Explains", "Explained by"), neighbours(rule, rules), strict=True):
        if ids:
            page.line()
            page.line(style.paint(name, "1"))
            for other in ids:
                page.line(f"    {style.clean(other)}")
    return page.content()


def sections_of(documentation: str) -> tuple[str, list[tuple[str, list[str]]]]:
    """The summary of a rule's documentation, and its sections by name. Each paragraph is one line: a blank line ends it,
    wherever the source wraps. In a LITERAL section, each line stays."""
    summary, _, rest = documentation.partition("\n\n")
    sections: list[tuple[str, list[str]]] = []
    ended = True
    for line in rest.splitlines():
        text = line.strip()
        if text and not line[0].isspace():
            sections.append((text, []))
            ended = True
        elif text and sections:
            name, lines = sections[-1]
            if ended or name in LITERAL:
                lines.append(text)
            else:
                lines[-1] += f" {text}"
            ended = False
        else:
            ended = True
    return " ".join(summary.split()), sections


def together(actions: Sequence[Action]) -> Iterator[tuple[int, Sequence[Action]]]:
    """Steps with the number of the first; many files of one directory that are moved aside go together."""

    def directory(numbered: tuple[int, Action]) -> str:
        number, action = numbered
        return action.path.rpartition("/")[0] if isinstance(action, MoveAside) else str(number)

    for _, group in groupby(enumerate(actions, 1), directory):
        steps = list(group)
        if len(steps) < _MANY:
            yield from ((number, [action]) for number, action in steps)
        else:
            yield steps[0][0], [action for _, action in steps]


class Page:
    """A page of text, line by line."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._lines: list[str] = []

    def content(self) -> str:
        return "\n".join(self._lines) + "\n"

    def line(self, text: str = "") -> None:
        self._lines.append(text)

    def text(self, first: str, text: str, following: str | None = None, code: str = "", width: int = 0) -> None:
        """Add wrapped text. `first` begins its first line and `following` the others, printed as they are. `width` is the
        width of `first` if that contains colours."""
        following = " " * columns(first) if following is None else following
        room = self._style.width - (width or columns(first))
        for number, line in enumerate(_wrapped(self._style.clean(text), max(room, _NARROWEST))):
            self.line((first if number == 0 else following) + self._style.paint(line, code))

    def exact(self, first: str, text: str, code: str) -> None:
        """Add a line of a file with all its blanks. A line that is too long continues under its beginning."""
        room = self._style.width - columns(first)
        for number, piece in enumerate(pieces(self._style.clean(text), max(room, _NARROWEST))):
            self.line(self._style.paint((first if number == 0 else " " * columns(first)) + piece, code))

    def steps(self, margin: str, actions: Sequence[Action], one: Callable[[str, Action], None] | None = None) -> None:
        """Add numbered steps. `one` adds a single step after its number; without it, a step is its summary."""
        for first, group in together(actions):
            if len(group) > 1:
                self.moved(f"{margin}{first:2}. to {first + len(group) - 1}. ", group, f"{margin}    ")
            elif one:
                one(f"{margin}{first:2}. ", group[0])
            else:
                self.text(f"{margin}{first:2}. ", group[0].summary())

    def moved(self, first: str, actions: Sequence[Action], following: str) -> None:
        """Add one step for many files of a directory that are moved aside."""
        paths = [a.path for a in actions if isinstance(a, MoveAside)]
        directory = paths[0].rpartition("/")[0]
        self.text(first, f"move {len(paths)} files of {directory} aside (kept in /var/lib/dlhealth):", following)
        self.text(f"{following}  ", " ".join(p.rpartition("/")[2] for p in paths))

    def sign(self, signs: tuple[str, str]) -> str:
        return signs[not self._style.unicode]

    def verdict(self, diagnosis: Diagnosis) -> None:
        machine, worst = diagnosis.machine, diagnosis.worst
        name = str(machine.get("hostname") or machine.get("root") or "this machine")
        if worst in (Severity.ERROR, Severity.WARNING):
            sign, colour = self.sign(SIGNS[worst]), _COLOURS[worst]
            state = "broken" if worst is Severity.ERROR else "degraded"
            others = sum(bool(d.caused_by) for d in diagnosis.findings)
            explained = f" with {count(others, 'consequence')}" if others else ""
            said = f"{name} is {state}: {count(len(diagnosis.root_causes), 'root cause')}{explained}"
        elif diagnosis.health is Health.UNKNOWN:
            sign, colour = self.sign(SIGNS[Severity.WARNING]), "33"
            found = "no problem found, but too little could be checked to call it healthy: " if diagnosis.run else ""
            said = f"{name}: {found}{diagnosis.doubt}"
        else:
            sign, colour = self.sign(WELL), "32"
            partly = f"; {len(diagnosis.skipped)} could not run completely" if diagnosis.skipped else ""
            said = f"{name}: no problem found by {count(diagnosis.run, 'check')}{partly}"
        self.text(f"{self._style.paint(sign, colour)} ", said, " " * (len(sign) + 1), f"1;{colour}", len(sign) + 1)
        for line in (describe(machine), *((machine.get("platform") or {}).get("notes") or ())):
            self.text(" " * (len(sign) + 1), line)

    def cause(self, root: Diagnosed, tree: Sequence[tuple[str, int]], findings: Sequence[Diagnosed]) -> None:
        """Add a finding with everything that it explains."""
        finding = root.finding
        sign, colour = self.sign(SIGNS[finding.severity]), _COLOURS[finding.severity]
        margin = " " * (len(sign) + 1)
        self.line()
        self.text(f"{self._style.paint(sign, colour)} ", finding.title, margin, f"1;{colour}", len(sign) + 1)
        subject = "" if finding.subject == "host" else f", {finding.subject}"
        self.text(margin, f"{finding.id}{subject}", code="2")
        self.heading(margin, "Proof")
        for evidence in finding.evidence:
            self.text(f"{margin}  ", f"{evidence.source}: {evidence.shows}", f"{margin}    ")
        plan = root.remedy
        if plan:
            needs = [
                f"risk {plan.risk.value}",
                *["needs a reboot"] * plan.reboot,
                *["needs the network"] * plan.network,
            ]
            by_person = root.by_hand and any(kind_of(a) in _BY_PERSON for a in plan.actions)
            self.heading(margin, "Repair by hand" if by_person else "Repair", f"{plan.summary} ({', '.join(needs)})")
            if root.by_hand:
                self.text(f"{margin}  ", f"dlhealth fix does not do this: {root.by_hand}", code="2")
            self.steps(f"{margin} ", plan.actions)
        if tree:
            self.heading(margin, "This explains")
        for stem, number in tree:
            effect = findings[number].finding
            first, following = ("".join(self.sign(_LINES[c][n]) for c in stem) for n in (0, 1))
            self.text(f"{margin}  {first}", f"{effect.title} ({effect.id})", f"{margin}  {following}")

    def heading(self, margin: str, name: str, text: str = "") -> None:
        start = f"{margin}{self._style.paint(name, '1')}"
        if text:
            self.text(f"{start}: ", text, f"{margin}  ", width=len(margin) + len(name) + 2)
        else:
            self.line(start)

    def skipped(self, skipped: Sequence[Skipped], detail: Detail) -> None:
        if not skipped:
            return
        self.line()
        if detail is not Detail.VERBOSE:
            self.text("", f"{count(len(skipped), 'check')} could not run completely (details: dlhealth doctor -v)")
            return
        self.line(self._style.paint(f"Checks that could not run completely ({len(skipped)})", "1"))
        for reason, (places, ids) in _by_reason(skipped).items():
            where = f" ({_some(places)})" if places else ""
            self.text("  ", f"{reason}{where}: {_some(ids, 'checks')}", "      ")

    def bounds(self, search: Mapping[str, Any]) -> None:
        """Say where Python environments were searched, if users have some."""
        if set(search.get("found", ())) - {"/usr", "/usr/local"} and search.get("bounds"):
            self.line()
            self.text("", f"{search['bounds']}.")

    def failed(self, diagnosis: Diagnosis) -> None:
        if not diagnosis.failed:
            return
        self.line()
        self.line(self._style.paint("Failed checks: defects of these rules, not of this machine", "1"))
        for failed in diagnosis.failed:
            self.text("  ", f"{failed.id}: {failed.error}", "      ")


def describe(machine: Any) -> str:
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


_DRIVER_PARTS = (("loaded", "loaded"), ("on_disk", "on disk"), ("libraries", "libraries"))


def _effects(findings: Sequence[Diagnosed]) -> dict[int, list[int]]:
    """The findings by number: a cause → its direct consequences."""
    effects: dict[int, list[int]] = {}
    for number, effect in enumerate(findings):
        causes = (
            cause
            for name in effect.caused_by
            for cause, other in enumerate(findings)
            if other.finding.id == name and cause != number and compatible(other.finding, effect.finding)
        )
        nearest = next(causes, None)
        if nearest is not None:
            effects.setdefault(nearest, []).append(number)
    return effects


def _tree(cause: int, effects: Mapping[int, list[int]], reached: set[int], stem: str) -> Iterator[tuple[str, int]]:
    """The consequences of a finding, each with the tree lines that lead to it: one key of _LINES per level."""
    reached.add(cause)
    below = [number for number in effects.get(cause, ()) if number not in reached]
    for number in below:
        last = number == below[-1]
        yield stem + ("L" if last else "T"), number
        yield from _tree(number, effects, reached, stem + (" " if last else "I"))


def _by_reason(skipped: Sequence[Skipped]) -> dict[str, tuple[list[str], list[str]]]:
    """Reason → its paths, and the ids of its checks; the reason with most checks first."""
    groups: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for skip in skipped:
        for reason in skip.reason.split("; "):
            match = _PATH_FIRST.fullmatch(reason)
            places, ids = groups.setdefault(match[2] if match else reason, ({}, {}))
            ids[skip.id] = None
            if match:
                places[match[1]] = None
    ordered = sorted(groups.items(), key=lambda group: -len(group[1][1]))
    return {reason: (list(places), list(ids)) for reason, (places, ids) in ordered}


def _some(names: Iterable[str], kind: str = "") -> str:
    """The names if they are few; otherwise their number, or the first of them."""
    names = list(names)
    if len(names) <= _FEW:
        return ", ".join(names)
    return f"{len(names)} {kind}" if kind else f"{', '.join(names[:3])} and {len(names) - 3} more"


def count(number: int, thing: str) -> str:
    return f"{number or 'no'} {thing}{'' if number == 1 else 's'}"


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Lines of at most `width` columns. A longer word stays whole, because it may be a path to copy; one of thousands of
    characters is not such a path, and is shortened."""
    line = ""
    for word in text.split():
        word = shortened(word, _WORD_LIMIT)
        if line and columns(line) + 1 + columns(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line
