"""Repairs as text for a person: the plan, the result, the history."""

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

from dlhealth.actions import needs_programs
from dlhealth.engine.choose import Repair
from dlhealth.model import Diagnosis, Outcome, count
from dlhealth.records import NamedTuple
from dlhealth.report.story import Mark, steps_of
from dlhealth.report.style import Style
from dlhealth.report.terminal import Page

if TYPE_CHECKING:  # a report is made from records and reads no disk
    from dlhealth.engine.repair import RepairRecord
    from dlhealth.txn.execute import Ended


class _Result(NamedTuple):
    """How an outcome is shown: its sign, the number of its colour, and what to do next."""

    mark: Mark
    colour: str
    advice: str


_RESULTS = {
    Outcome.APPLIED: _Result(
        Mark.WELL, "32", "Verified: the checks ran again and no longer find it. To undo it: dlhealth undo {name}{root}"
    ),
    Outcome.NOT_PROVED: _Result(
        Mark.WARNING,
        "33",
        "Not proved: no check could show whether it helped. To undo it: dlhealth undo {name}{root}",
    ),
    Outcome.AWAITING_REBOOT: _Result(
        Mark.WELL, "33", "{start}. The next dlhealth fix {there} keeps the repair if it helped, or undoes it."
    ),
    Outcome.ROLLED_BACK: _Result(Mark.ERROR, "31", "Undone: everything that it changed is as it was before."),
    Outcome.UNDONE: _Result(Mark.WELL, "32", "Everything that it changed is as it was before."),
    Outcome.CONFLICT: _Result(
        Mark.ERROR,
        "31",
        "What was not undone is as named above; everything else is as it was before. To undo the rest after you resolved "
        "that: dlhealth undo {name}{root}",
    ),
}


def render_repair(repair: Repair, style: Style, root: str = "/") -> str:
    """The plan: repairs, steps with the changes in files, risk, needs; then the problems left to a person. `root` is
    the machine's directory."""
    page = Page(style)
    if repair.chosen:
        needs = [f"risk {repair.risk.value}", *["the network"] * repair.network, *["a reboot"] * repair.reboot]
        steps = count(len(repair.actions), "step") if repair.actions else "only a reboot"
        page.line(style.paint(f"Plan: {steps} ({', needs '.join(needs)})", "1"))
        for chosen in repair.chosen:
            page.line()
            page.text("  ", chosen.finding.title, "  ")
            page.text("    ", f"{chosen.finding.id}: {chosen.plan.summary}", "      ", "2")
        page.line()
        page.steps("  ", [*steps_of(repair.actions)], names=True)
        if repair.reboot:
            page.text("      ", "then reboot at a time that suits you: systemctl reboot")
        if root != "/" and any(map(needs_programs, repair.actions)):
            page.line()
            page.text("  ", _PROGRAMS.format(root=root), "  ")
    if repair.left:
        if repair.chosen:
            page.line()
        page.line(style.paint("Not repaired automatically", "1"))
        for left in repair.left:
            page.text("  ", left.finding.title)
            page.text("    ", f"{left.finding.id}: {left.reason}", "      ", "2")
            for step in steps_of(left.by_hand):
                page.step("      by hand: ", step, " " * 15, names=True)
    return page.content() if repair.chosen or repair.left else ""


_PROGRAMS = (
    "This runs programs from the disk in {root} as root. They are confined: they cannot see the processes, devices and "
    "other files of this machine, and can use the network only to download packages."
)


def render_ended(ended: "Ended", told: "RepairRecord", style: Style) -> str:
    """How one repair ended; `told` is its record."""
    page = Page(style)
    result = _RESULTS[ended.outcome]
    sign, colour = page.sign(result.mark), result.colour
    margin = " " * (len(sign) + 1)
    undone = _undone(ended, told) if ended.outcome is Outcome.CONFLICT else ()
    how = ("only partly undone" if undone else "not undone") if ended.outcome is Outcome.CONFLICT else ended.outcome
    head = f"Repair {ended.record.name}: {how.replace('-', ' ')}"
    page.text(f"{style.paint(sign, colour)} ", head, margin, f"1;{colour}", len(sign) + 1)
    for line in ended.said:
        page.text(margin, line, f"{margin}  ")
    for summary in undone[:_NAMED]:
        page.text(margin, f"undone: {summary}", f"{margin}  ")
    if len(undone) > _NAMED:
        page.text(margin, f"undone: {count(len(undone) - _NAMED, 'more step')}")
    for finding in told.findings if ended.outcome is Outcome.APPLIED else ():
        page.text(margin, f"resolved: {finding['id']} ({finding['subject']})", f"{margin}  ")
    root = ended.record.folder.root
    where = f" --root {quote(root)}" if root != "/" else ""  # without it, the command would concern this machine
    start = (
        f"To finish it, start the machine from the disk in {root}" if where else "Reboot to finish it: systemctl reboot"
    )
    there = "on it" if where else "after that"
    page.text(margin, result.advice.format(name=ended.record.name, root=where, start=start, there=there))
    return page.content()


def _undone(ended: "Ended", told: "RepairRecord") -> tuple[str, ...]:
    """The steps that left nothing, the last one first, as they were undone."""
    left = tuple(line for line in ended.said if line.startswith("not undone: "))
    return tuple(
        summary
        for _, summary, became in reversed(told.actions)
        if became == "reverted" and not any(line.startswith(f"not undone: {summary}: ") for line in left)
    )


_NAMED = 8
"""Steps of a repair that are named; the others are counted."""


def render_remaining(diagnosis: Diagnosis, style: Style, *, waiting: bool) -> str:
    """The remaining problems, one line each. `waiting`: a reboot may still resolve them."""
    page = Page(style)
    if not diagnosis.root_causes:
        partly = len({s.id for s in diagnosis.skipped} | {f.id for f in diagnosis.failed})
        beside = f" {count(partly, 'check')} could not run completely (details: dlhealth doctor -v)." if partly else ""
        page.text("", f"No problems found.{beside}")
    for finding in diagnosis.root_causes:
        page.text("", f"Still there{' before the reboot' if waiting else ''}: {finding.id}: {finding.title}", "  ")
    return page.content()


def render_history(told: Sequence["RepairRecord"], style: Style) -> str:
    """One line per repair, the newest last."""
    page = Page(style)
    for one in told:
        line = f"{one.record.name:14}  {one.time}  {(one.record.outcome or 'active'):15}  {_why(one)}"
        page.line(style.clean(line))
    if not told:
        page.line("No repairs are recorded on this machine.")
    return page.content()


def render_told(told: "RepairRecord", style: Style) -> str:
    """One repair in full."""
    page = Page(style)
    head = f"Repair {told.record.name}: {told.record.outcome or 'active'}"
    page.line(style.paint(style.clean(head), "1"))
    page.text("", told.time)
    if told.problem:
        page.text("", told.problem, "  ")
    for finding in told.findings:
        page.line()
        page.text("  ", finding.get("title", ""))
        found = f"{finding['id']} ({finding.get('subject', '')}): {finding.get('summary', '')}"
        page.text("    ", found, "      ", "2")
    page.line()
    root = told.record.folder.root
    if root != "/" and told.programs:
        page.text("  ", _PROGRAMS.format(root=root), "  ")
        page.line()
    for number, (_, summary, became) in enumerate(told.actions, 1):
        page.text(f"  {number:2}. {became:9}  ", summary, " " * 17)
    return page.content()


def _why(told: "RepairRecord") -> str:
    return ", ".join(f["id"] for f in told.findings) or told.problem
