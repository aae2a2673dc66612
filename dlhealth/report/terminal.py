"""A diagnosis as text for a person, on anything from a rescue console to a wide terminal."""

from collections.abc import Iterator, Sequence
from enum import Enum

from dlhealth.data.kernel_log import Xid
from dlhealth.engine.causes import neighbours
from dlhealth.engine.rule import Rule
from dlhealth.model import Evidence, Layer, Severity, Since, count
from dlhealth.report.story import (
    Effect,
    Line,
    Mark,
    RootCause,
    Step,
    Story,
    Told,
    few,
    repeated,
    since_lines,
    some,
)
from dlhealth.report.style import Style, columns, cut, pieces, shortened

_COLOURS = {
    Mark.ERROR: "31",
    Mark.WARNING: "33",
    Mark.NOTE: "36",
    Mark.WELL: "32",
    Mark.UNKNOWN: "33",
    Mark.ABSENT: "2",
}
SIGNS = {
    Mark.ERROR: ("✗", "[x]"),
    Mark.WARNING: ("▲", "[!]"),
    Mark.NOTE: ("●", "[i]"),
    Mark.WELL: ("✓", "[ok]"),
    Mark.UNKNOWN: ("?", "[?]"),
    Mark.ABSENT: ("-", "[-]"),
}
MARKS = {Severity.ERROR: Mark.ERROR, Severity.WARNING: Mark.WARNING, Severity.NOTE: Mark.NOTE}
_BLANK, _TRUNK = ("   ", "   "), ("│  ", "|  ")
_LINES = {
    "T": (("├─ ", "|- "), _TRUNK),
    "L": (("└─ ", "`- "), _BLANK),
    "I": (_TRUNK, _TRUNK),
    " ": (_BLANK, _BLANK),
}
"""The lines of a tree: beside the first line of an entry, and beside its other lines."""
_PROOFS = 6
"""Observations of one problem that are printed; the others are counted."""
_CHANGES = 9
"""Lines on what differs since the known-good record that are printed; the others are counted."""
_WORD_LIMIT = 400
_NARROWEST = 20
"""Columns for text, at least, beside any indentation."""
LITERAL = ("By hand",)
"""Sections with commands: their lines are printed as they are, never wrapped, so that they can be copied."""


class Detail(Enum):
    """How much to print: verdict and causes only; everything that matters; or also each check that could not run."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


def render(story: Story, style: Style, detail: Detail = Detail.NORMAL) -> str:
    """The whole report. The verdict and the next command come last: they stay on the screen."""
    page = Page(style)
    if detail is Detail.QUIET:
        page.verdict(story)
        for root, others in repeated(story.roots):
            if root.finding.severity is not Severity.NOTE:
                sign = page.sign(MARKS[root.finding.severity])
                more = f", and {len(others)} other people" if others else ""
                page.text(f"  {sign} ", f"{root.finding.title} ({root.finding.id}){more}")
        return page.content()
    page.head(story)
    page.areas(story.areas if detail is Detail.VERBOSE else [*few(story.areas)], detail)
    for root, others in repeated(story.roots) if detail is Detail.NORMAL else ((root, ()) for root in story.roots):
        page.cause(root, detail)
        page.others(others)
    page.failed(story)
    page.since(story.since, detail)
    page.skipped(story, detail)
    page.line()
    page.verdict(story)
    page.next(story)
    return page.content()


def render_since(since: Since, style: Style) -> str:
    """What differs since the known-good record."""
    page = Page(style)
    page.changes([*since_lines(since)])
    return page.content()


def render_rules(rules: Sequence[Rule], style: Style) -> str:
    """Everything that dlhealth can find, by layer."""
    page = Page(style)
    for layer in Layer:
        listed = [r for r in rules if r.layer is layer]
        if listed:
            page.line(style.paint(layer.value, "1"))
        for rule in listed:
            page.line(f"  {style.paint(f'{rule.severity.value:8}', _COLOURS[MARKS[rule.severity]])} {rule.id}")
            page.text(" " * 11, rule.title)
        if listed:
            page.line()
    page.text("", f"{len(rules)} rules. Details of one: dlhealth explain ID")
    return page.content()


def render_possible(rules: Sequence[Rule], style: Style) -> str:
    """The problems that an error text can come from, the most probable first."""
    page = Page(style)
    page.text("", f"This text can come from {len(rules)} problems; the most probable is first:")
    for rule in rules:
        page.line()
        page.line(f"  {style.paint(rule.id, '1')}")
        page.text("    ", rule.title)
    page.line()
    page.text("", "Details of one: dlhealth explain ID. To see which of them this machine has: dlhealth doctor")
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

    def steps(self, margin: str, steps: Sequence[Step], *, names: bool) -> None:
        """Add numbered steps. `names`: also the names of files that a step of several is about."""
        for step in steps:
            first = (
                f"{margin}{step.first:2}. " if step.last == step.first else f"{margin}{step.first:2}. to {step.last}. "
            )
            self.step(first, step, f"{margin}    ", names=names)

    def step(self, first: str, step: Step, following: str, *, names: bool) -> None:
        """Add one step, and the names of its files or the lines that it changes."""
        self.text(first, step.text, following)
        for listed in step.names if names else ():
            self.text(f"{following}  ", listed)
        for change in step.changes:
            number = f"{change.number}: " if change.number is not None else ""
            self.exact(f"{following}  {change.sign} {number}", change.text, "31" if change.sign == "-" else "32")

    def sign(self, mark: Mark) -> str:
        return SIGNS[mark][not self._style.unicode]

    def marked(self, mark: Mark, text: str) -> str:
        """Add a text with a sign before it; returns the margin for what follows."""
        sign, colour = self.sign(mark), _COLOURS[mark]
        margin = " " * (len(sign) + 1)
        self.text(f"{self._style.paint(sign, colour)} ", text, margin, f"1;{colour}", len(sign) + 1)
        return margin

    def head(self, story: Story) -> None:
        """Say which machine this is."""
        name = self._style.clean(story.name)
        self.text(f"{self._style.paint(name, '1')}: ", story.machine, "  ", width=columns(name) + 2)
        for note in story.notes:
            self.text("  ", note)

    def areas(self, areas: Sequence[Line], detail: Detail) -> None:
        """Add one line for each area; in full if that is wanted."""
        if areas:
            self.line()
        widest = max((len(line.name) for line in areas), default=0)
        signs = max(len(self.sign(line.mark)) for line in areas) if areas else 0
        for line in areas:
            sign = f"{self.sign(line.mark):{signs}}"
            first = f"{self._style.paint(sign, _COLOURS[line.mark])} {line.name:{widest}}  "
            margin = signs + widest + 3
            text = line.text
            if detail is not Detail.VERBOSE:
                text = cut(self._style.clean(text), max(self._style.width - margin, _NARROWEST))
            self.text(first, text, " " * margin, width=margin)

    def verdict(self, story: Story) -> None:
        self.marked(story.verdict.mark, story.verdict.text)
        if story.reboot:
            text = story.reboot.text
            self.marked(story.reboot.mark, f"{text[:1].upper()}{text[1:]}")

    def next(self, story: Story) -> None:
        """Name the next command, if there is one."""
        margin = " " * (len(self.sign(story.verdict.mark)) + 1)
        if story.roots:
            ids = {root.finding.id for root in story.roots}
            self.text(f"{margin}Explain: ", f"dlhealth explain {ids.pop() if len(ids) == 1 else 'ID'}")
        if story.repair:
            self.text(f"{margin}Repair:  ", story.repair)

    def cause(self, root: RootCause, detail: Detail) -> None:
        """Add a finding with everything that it explains."""
        finding = root.finding
        self.line()
        margin = self.marked(MARKS[finding.severity], finding.title)
        subject = "" if finding.subject == "host" else f", {finding.subject}"
        self.text(margin, f"{finding.id}{subject}", code="2")
        self.proof(margin, finding.evidence, detail)
        if root.plan:
            self.plan(margin, root.plan, detail)
        if root.effects:
            self.heading(margin, "This explains")
        for stem, effect in _tree(root.effects, ""):
            first, following = ("".join(_LINES[c][n][not self._style.unicode] for c in stem) for n in (0, 1))
            found = effect.finding
            self.text(f"{margin}  {first}", f"{found.title} ({found.id})", f"{margin}  {following}")

    def others(self, people: Sequence[str]) -> None:
        """Name the people who have the same problem."""
        if people:
            margin = " " * (len(self.sign(Mark.ERROR)) + 1)
            self.heading(
                margin, f"{len(people)} other people have the same problem", f"{some(people)} (dlhealth doctor -v)"
            )

    def proof(self, margin: str, evidence: Sequence[Evidence], detail: Detail) -> None:
        """Add what was observed."""
        self.heading(margin, "Proof")
        all_of_it = detail is Detail.VERBOSE or len(evidence) <= _PROOFS
        for seen in evidence if all_of_it else evidence[: _PROOFS - 1]:
            self.text(f"{margin}  ", f"{seen.source}: {seen.shows}", f"{margin}    ")
        if not all_of_it:
            self.text(f"{margin}  ", f"and {len(evidence) - _PROOFS + 1} more (dlhealth doctor -v)")

    def plan(self, margin: str, plan: Told, detail: Detail) -> None:
        """Add the repair of a root cause."""
        name = "Repair by hand" if plan.by_person else "Repair"
        self.heading(margin, name, f"{plan.summary} ({', '.join(plan.needs)})")
        if plan.reason:
            self.text(f"{margin}  ", f"dlhealth fix does not do this: {plan.reason}", code="2")
        self.steps(f"{margin} ", plan.steps, names=detail is Detail.VERBOSE)

    def heading(self, margin: str, name: str, text: str = "") -> None:
        start = f"{margin}{self._style.paint(name, '1')}"
        if text:
            self.text(f"{start}: ", text, f"{margin}  ", width=len(margin) + len(name) + 2)
        else:
            self.line(start)

    def skipped(self, story: Story, detail: Detail) -> None:
        """Say how many checks could not run completely; in detail, which ones, and where was searched."""
        if story.skipped:
            self.line()
            checks = f"{count(story.skipped, 'check')} could not run completely"
            if detail is not Detail.VERBOSE:
                self.text("", f"{checks} (details: dlhealth doctor -v)")
            else:
                self.line(self._style.paint(f"Checks that could not run completely ({story.skipped})", "1"))
                for reason, places, ids in story.unchecked:
                    where = f" ({some(places)})" if places else ""
                    self.text("  ", f"{reason}{where}: {some(ids, 'checks')}", "      ")
        if story.searched and detail is Detail.VERBOSE:
            self.line()
            self.text("", story.searched)

    def since(self, lines: Sequence[str], detail: Detail) -> None:
        """Add what differs since the known-good record."""
        if not lines:
            return
        self.line()
        shown = lines if detail is Detail.VERBOSE else lines[:_CHANGES]
        self.changes(shown)
        if len(shown) < len(lines):
            self.text("  ", f"and {len(lines) - len(shown)} more (dlhealth baseline compare)")

    def changes(self, lines: Sequence[str]) -> None:
        self.text("", f"{lines[0][:1].upper()}{lines[0][1:]}")
        for text in lines[1:]:
            self.text("  ", text, "      ")

    def failed(self, story: Story) -> None:
        if not story.failed:
            return
        self.line()
        self.line(self._style.paint("Failed checks: defects of these rules, not of this machine", "1"))
        for failed in story.failed:
            self.text("  ", f"{failed.id}: {failed.error}", "      ")


def _tree(effects: Sequence[Effect], stem: str) -> Iterator[tuple[str, Effect]]:
    """The consequences of a finding, each with the tree lines that lead to it: one key of _LINES per level."""
    for effect in effects:
        last = effect is effects[-1]
        yield stem + ("L" if last else "T"), effect
        yield from _tree(effect.effects, stem + (" " if last else "I"))


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
