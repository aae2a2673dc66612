"""A diagnosis as one HTML file for people, and as Markdown for an issue or a forum. Secrets are masked as in an archive."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from dlhealth.engine.proofs import Run
from dlhealth.engine.record import Inventory, Timeline
from dlhealth.lazy import regex
from dlhealth.model import Diagnosis, count
from dlhealth.records import NamedTuple
from dlhealth.report.json import report
from dlhealth.report.redact import without_secrets
from dlhealth.report.story import Effect, Mark, RootCause, Step, Story, some, story_of
from dlhealth.report.style import Style

if TYPE_CHECKING:
    from jinja2 import Environment

_STYLE = Style(colour=False, unicode=True, width=100)
_LONGEST = 4000
"""Characters of one text that are shown."""
_INVENTORY = 400
"""Rows of one section of the inventory that are shown."""
_PATH = regex(r"((?<![:/\w])/[\w./+-]+: )")
T = TypeVar("T")


class Curve(NamedTuple):
    """A series of values of a stage, as the points of a line in a picture of WIDTH x HEIGHT."""

    name: str
    points: str
    first: str
    last: str


class ProofPage(NamedTuple):
    """The last result of each stage of `dlhealth prove` (when, name, outcome, text), and its curves."""

    stages: tuple[tuple[str, str, str, str], ...]
    curves: tuple[Curve, ...]


WIDTH, HEIGHT = 300, 100


def proof_of(runs: Sequence[Run]) -> ProofPage | None:
    """The page on the kept runs of `dlhealth prove`; None without any."""
    last = {stage["stage"]: (run.time, stage) for run in runs for stage in run.stages}
    curves = [
        Curve(f"{stage['stage']}: {name}", _points(values), f"{values[0]:.3g}", f"{values[-1]:.3g}")
        for _, stage in last.values()
        for name, values in stage["curves"].items()
        if len(values) > 1
    ]
    rows = tuple((time, stage["stage"], stage["outcome"], stage["text"]) for time, stage in last.values())
    return ProofPage(rows, tuple(curves)) if rows else None


def _points(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    height = HEIGHT / ((high - low) or 1)
    width = WIDTH / (len(values) - 1)
    return " ".join(f"{n * width:.1f},{(high - value) * height:.1f}" for n, value in enumerate(values))


class Pages(NamedTuple):
    """Everything that a page shows, without secrets."""

    story: Story
    timeline: Timeline
    inventory: Inventory
    proof: "ProofPage | None"
    document: Mapping[str, Any]

    @property
    def action(self) -> str:
        """The one thing to do, in words; `story.repair` is the command, if there is one."""
        story = self.story
        if story.repair:
            return "Repair it with this command. It shows the plan and asks first:"
        harmful = [r for r in story.roots if r.finding.severity != "note"]
        if harmful and harmful[0].plan:
            return f"By hand: {harmful[0].plan.summary}"
        if harmful:
            return f"No repair is known for: {harmful[0].finding.title}"
        if story.reboot and story.reboot.mark is not Mark.WELL:
            return "Before a reboot, see below what could not be verified."
        if story.verdict.mark is Mark.WELL:
            return "Nothing to do."
        return "See below what could not be checked, and why."


def pages_of(
    diagnosis: Diagnosis, fix: str, timeline: Timeline, inventory: Inventory, runs: Sequence[Run] = ()
) -> Pages:
    """The pages on a diagnosis. `fix` is the command that would repair the machine, "" if it cannot be changed; `runs`
    are those of `dlhealth prove`."""
    kept = {name: dict([*pairs.items()][:_INVENTORY]) for name, pairs in inventory.items()}
    story = story_of(diagnosis, fix)
    document = report(diagnosis)
    return Pages(masked(story), masked(timeline), masked(kept), masked(proof_of(runs)), masked(document))


def masked(value: T) -> T:
    """The same records with every text on one line, without secrets and control characters."""
    made: Any = value
    if isinstance(value, str) and not isinstance(value, Enum):
        # A path before a colon is not the label of a secret: "/etc/passwd: needs root".
        parts = _PATH.split(value[:_LONGEST])
        made = _STYLE.clean("".join(p if n % 2 else without_secrets(p) for n, p in enumerate(parts)))
    elif isinstance(value, dict):
        made = {masked(k): masked(v) for k, v in value.items()}
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        made = type(value)(*map(masked, value))
    elif isinstance(value, (list, tuple)):
        made = type(value)(map(masked, value))
    return made  # type: ignore[no-any-return]


def environment() -> "Environment":
    """For templates of pages: no script runs, and nothing is loaded from anywhere."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # for this command only

    return Environment(
        loader=PackageLoader("dlhealth.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def html(pages: Pages) -> str:
    """One file."""
    return (
        environment()
        .get_template("page.html")
        .render(pages=pages, story=pages.story, count=count, some=some, width=WIDTH, height=HEIGHT)
    )


def markdown(pages: Pages) -> str:
    """A text to paste into an issue or a forum."""
    return "\n".join(_markdown(pages)) + "\n"


_SIGNS = {
    Mark.WELL: "✓",
    Mark.ERROR: "✗",
    Mark.WARNING: "▲",
    Mark.NOTE: "●",
    Mark.UNKNOWN: "?",
    Mark.ABSENT: "–",
}


def _markdown(pages: Pages) -> Iterator[str]:
    story = pages.story
    yield f"## {_SIGNS[story.verdict.mark]} {_plain(story.verdict.text)}"
    yield ""
    yield f"{_plain(story.machine)}. dlhealth {pages.document['dlhealth']}, {pages.document['time']}."
    for note in story.notes:
        yield f"\n{_plain(note)}"
    if story.reboot:
        yield f"\n**{_SIGNS[story.reboot.mark]} {_plain(story.reboot.text)}**"
    yield f"\n{_plain(pages.action)}"
    if story.repair:
        yield from _block([story.repair])
    for root in story.roots:
        yield from _markdown_root(root)
    if story.areas:
        yield "\n### What was seen\n\n| | area | |\n|---|---|---|"
        yield from (_row(_SIGNS[line.mark], line.name, line.text) for line in story.areas)
    if pages.proof:
        yield "\n### What dlhealth prove tested\n\n| when | stage | | |\n|---|---|---|---|"
        yield from (_row(*stage) for stage in pages.proof.stages)
    if story.since:
        yield f"\n### What changed\n\n{_plain(story.since[0])}\n"
        yield from (f"- {_plain(line)}" for line in story.since[1:])
    yield f"\n### What happened\n\nTimes are in {_plain(pages.timeline.zone)}.\n"
    yield from _markdown_timeline(pages.timeline)
    if story.unchecked:
        yield f"\n<details><summary>{count(story.skipped, 'check')} could not run completely</summary>\n"
        yield from (f"- {_plain(u.reason)}: {_plain(some(u.ids, 'checks'))}" for u in story.unchecked)
        yield "\n</details>"


def _markdown_root(root: RootCause) -> Iterator[str]:
    finding = root.finding
    yield f"\n### {_plain(finding.title)}\n\n`{_code(finding.id)}`, {finding.severity}, {_plain(finding.subject)}"
    yield from _block([f"{e.source}: {e.shows}" for e in finding.evidence])
    if root.plan:
        yield f"\n**Repair:** {_plain(root.plan.summary)} ({', '.join(root.plan.needs)})"
        if root.plan.reason:
            yield f"\n`dlhealth fix` does not do this: {_plain(root.plan.reason)}"
        yield from _block([line for step in root.plan.steps for line in _step(step)], "diff")
    if root.effects:
        yield "\n**This explains:**\n"
        yield from _markdown_effects(root.effects, "")


def _markdown_effects(effects: tuple[Effect, ...], margin: str) -> Iterator[str]:
    for effect in effects:
        yield f"{margin}- {_plain(effect.finding.title)} (`{_code(effect.finding.id)}`)"
        yield from _markdown_effects(effect.effects, f"{margin}  ")


def _step(step: Step) -> Iterator[str]:
    number = f"{step.first}." if step.first == step.last else f"{step.first}. to {step.last}."
    yield f" {number} {step.text}"
    yield from (f"      {names}" for names in step.names)
    yield from (f"{c.sign} {c.text}" for c in step.changes)


def _markdown_timeline(timeline: Timeline) -> Iterator[str]:
    if timeline.events:
        yield "| when | what |\n|---|---|"
    for when, event in timeline.events:
        yield _row(when, "; ".join([event.text, *event.details]))
    if timeline.left:
        yield f"\n{count(timeline.left, 'older event')} not shown."
    for missing in timeline.missing:
        yield f"\nNot read: {_plain(missing)}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _block(lines: list[str], kind: str = "text") -> Iterator[str]:
    longest = max((len(run) for line in lines for run in _runs(line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"\n{fence}{kind}"
    yield from lines
    yield fence


def _runs(line: str) -> list[str]:
    """The runs of backquotes in a line."""
    return "".join(c if c == "`" else " " for c in line).split()


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, also in a table."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~" else c for c in text)


def _code(text: str) -> str:
    return text.replace("`", "'")
