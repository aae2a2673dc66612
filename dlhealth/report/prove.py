"""The result of a proof, as text and as JSON."""

from collections.abc import Iterator, Sequence

from dlhealth import __version__
from dlhealth.engine.document import dump
from dlhealth.engine.proofs import Comparison, Run
from dlhealth.model import Finding
from dlhealth.prove.records import Proof, Result
from dlhealth.records import NamedTuple
from dlhealth.report.json import SCHEMA
from dlhealth.report.story import difference_lines, some
from dlhealth.report.style import Style
from dlhealth.report.terminal import Page


class Explanation(NamedTuple):
    """What the doctor says about a failed stage: the problems that explain it, and the checks for such problems that
    could not run. `repairing` is the command that repairs this machine. `related` are other problems of the environment
    that failed."""

    causes: tuple[Finding, ...] = ()
    unchecked: tuple[str, ...] = ()
    repairing: str = ""
    related: tuple[Finding, ...] = ()


NOT_ASKED = Explanation()
_COLOURS = {Proof.PROVED: "32", Proof.CPU_ONLY: "33", Proof.FAILED: "31", Proof.NOT_RUN: "33"}


def render_proof(
    results: Sequence[Result],
    explained: Explanation,
    run: Run,
    comparison: Comparison,
    notes: Sequence[str],
    style: Style,
) -> str:
    """One line and the figures for each stage, what explains a failed one, and what became worse."""
    page = Page(style)
    for result in results:
        label = style.paint(f"{result.outcome.value:15}", _COLOURS[result.outcome])
        page.line(f"{label} {result.stage:9} {result.seconds:6.1f} s")
        page.text("  ", style.clean(result.text))
        for part in result.parts if len(result.parts) > 1 else ():
            page.text("  ", style.clean(f"{part.environment}: {part.outcome.value}: {part.text}"))
        for name, value in result.figures.items():
            page.text("    ", style.clean(f"{name}: {value:.4g}"))
    page.line()
    for cause in explained.causes:
        page.text("", f"This explains it: {style.clean(cause.title)} ({cause.id})")
    for finding in explained.related:
        page.text("", f"Also wrong in this environment: {style.clean(finding.title)} ({finding.id})")
    if any(r.outcome is Proof.FAILED for r in results):
        page.text("", _advice(explained))
    for note in notes:
        page.text("", style.clean(note))
    if run.battery:
        page.text("", "This machine runs on its battery: its speed is not compared with earlier runs.")
    for line in comparison_lines(comparison):
        page.text("", style.clean(line))
    proved = sum(r.outcome is Proof.PROVED for r in results)
    page.text("", f"{proved} of {len(results)} stages proved")
    return page.content()


def _advice(explained: Explanation) -> str:
    if explained.causes:
        return f"Repair: {explained.repairing}"
    if explained.unchecked:
        return (
            f"dlhealth doctor finds no problem that explains it, but {some(explained.unchecked, 'checks')} could not run "
            "(details: dlhealth doctor -v)."
        )
    return "dlhealth doctor finds no problem that explains it."


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """What became worse, and what changed in between."""
    for stage, figure, before, now, when in comparison.worse:
        yield f"Worse than on {when[:10]}: {stage}{f', {figure}' if figure else ''}: {before} -> {now}"
    if comparison.worse:
        yield "Nothing that is recorded changed in between." if not comparison.differences else "Changed in between:"
    yield from (f"  {line}" for line in difference_lines(comparison.differences))


def proof_to_json(
    results: Sequence[Result], explained: Explanation, run: Run, comparison: Comparison, notes: Sequence[str]
) -> str:
    """The document of `prove --json`."""
    return dump(
        {
            "schema": SCHEMA,
            "dlhealth": __version__,
            "time": run.time,
            "battery": run.battery,
            "notes": list(notes),
            "stages": [r.document() for r in results],
            "causes": [{"id": c.id, "subject": c.subject, "title": c.title} for c in explained.causes],
            "related": [{"id": c.id, "subject": c.subject, "title": c.title} for c in explained.related],
            "unchecked": list(explained.unchecked),
            "worse": [w._asdict() for w in comparison.worse],
            "differences": [d._asdict() for d in comparison.differences],
        }
    )
