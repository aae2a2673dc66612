"""Repairs as a person reads them: what will be done, what was done, what was done before."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from shlex import quote

from dlhealth.actions import EditFile, MoveAside, WriteFile, needs_programs
from dlhealth.engine.choose import Repair
from dlhealth.engine.repair import Told, tell
from dlhealth.model import Action, Diagnosis, Outcome, Severity
from dlhealth.report.style import Style
from dlhealth.report.terminal import SIGNS, WELL, Page, count
from dlhealth.txn.execute import Ended

_ADVICE = {
    Outcome.APPLIED: "Verified: the checks that found it ran again and find it no more. To undo it: dlhealth undo {name}{root}",
    Outcome.NOT_PROVED: "Not proved: whether it helped could not be checked. To undo it: dlhealth undo {name}{root}",
    Outcome.AWAITING_REBOOT: "{start}. The next dlhealth fix {there} keeps the repair if it helped, or undoes it.",
    Outcome.ROLLED_BACK: "Undone: what it had changed is as it was before.",
    Outcome.UNDONE: "What it had changed is as it was before.",
    Outcome.CONFLICT: "What is named above was left as it is; the rest is as it was before.",
}
_SIGNS = {
    Outcome.APPLIED: WELL,
    Outcome.UNDONE: WELL,
    Outcome.AWAITING_REBOOT: WELL,
    Outcome.NOT_PROVED: SIGNS[Severity.WARNING],
}
_COLOURS = {Outcome.APPLIED: "32", Outcome.UNDONE: "32", Outcome.AWAITING_REBOOT: "33", Outcome.NOT_PROVED: "33"}


def render_repair(repair: Repair, style: Style, root: str = "/") -> str:
    """The plan: each repair, each step with what changes in a file, risk, needs; and what is left to a person. `root` is
    the folder of the machine."""
    page = Page(style)
    if repair.chosen:
        needs = [f"risk {repair.risk.value}", *["the network"] * repair.network, *["a reboot"] * repair.reboot]
        steps = count(len(repair.actions), "step") if repair.actions else "only a restart"
        page.line(style.paint(f"Plan: {steps} ({', needs '.join(needs)})", "1"))
        for chosen in repair.chosen:
            page.line()
            page.text("  ", chosen.finding.title, "  ")
            page.text("    ", f"{chosen.finding.id}: {chosen.plan.summary}", "      ", "2")
        page.line()
        for first, actions in _together(repair.actions):
            if len(actions) == 1:
                _step(page, style, f"  {first:2}. ", actions[0])
            else:
                _moved(page, f"  {first:2}. to {first + len(actions) - 1}. ", actions)
        if repair.reboot:
            page.text("      ", "then, when you choose: systemctl reboot")
        if root != "/" and any(map(needs_programs, repair.actions)):
            page.line()
            page.text("  ", _PROGRAMS.format(root=root), "  ")
    if repair.left:
        page.line()
        page.line(style.paint("Not repaired by this", "1"))
        for left in repair.left:
            page.text("  ", left.finding.title)
            page.text("    ", f"{left.finding.id}: {left.reason}", "      ", "2")
            for text in left.by_hand:
                page.text("      by hand: ", text)
    return page.content() if repair.chosen or repair.left else ""


_PROGRAMS = (
    "This runs programs of the disk in {root} as root. They are confined: they see neither the processes, the devices nor "
    "the other files of this machine, and get the network only to download packages."
)


def _step(page: Page, style: Style, first: str, action: Action) -> None:
    if isinstance(action, EditFile):
        page.text(first, f"edit {action.path}")
        for number, old, new in action.changes:
            page.line(style.paint(style.clean(f"        - {number}: {old}"), "31"))
            if new is not None:
                page.line(style.paint(style.clean(f"        + {number}: {new}"), "32"))
    elif isinstance(action, WriteFile):
        page.text(first, f"write {action.path}")
        for line in action.text.splitlines():
            page.line(style.paint(style.clean(f"        + {line}"), "32"))
    else:
        page.text(first, action.summary())


_MANY = 4


def _together(actions: Sequence[Action]) -> Iterator[tuple[int, Sequence[Action]]]:
    """Number of the first, and steps that are told in one: many files of one folder that are moved aside."""

    def folder(numbered: tuple[int, Action]) -> str:
        number, action = numbered
        return action.path.rpartition("/")[0] if isinstance(action, MoveAside) else str(number)

    for _, group in groupby(enumerate(actions, 1), folder):
        steps = list(group)
        if len(steps) < _MANY:
            yield from ((number, [action]) for number, action in steps)
        else:
            yield steps[0][0], [action for _, action in steps]


def _moved(page: Page, first: str, actions: Sequence[Action]) -> None:
    paths = [a.path for a in actions if isinstance(a, MoveAside)]
    folder = paths[0].rpartition("/")[0]
    page.text(first, f"move {len(paths)} files of {folder} aside (kept in /var/lib/dlhealth):", " " * 6)
    page.text("        ", " ".join(p.rpartition("/")[2] for p in paths))


def render_ended(ended: Ended, style: Style) -> str:
    """How one transaction ended."""
    page = Page(style)
    sign = page.sign(_SIGNS.get(ended.outcome, SIGNS[Severity.ERROR]))
    colour = _COLOURS.get(ended.outcome, "31")
    margin = " " * (len(sign) + 1)
    head = f"Transaction {ended.record.name}: {ended.outcome.replace('-', ' ')}"
    page.text(f"{style.paint(sign, colour)} ", head, margin, f"1;{colour}", len(sign) + 1)
    for line in ended.said:
        page.text(margin, line, f"{margin}  ")
    for finding in tell(ended.record).findings if ended.outcome is Outcome.APPLIED else ():
        page.text(margin, f"no longer found: {finding['id']} ({finding['subject']})", f"{margin}  ")
    root = ended.record.folder.root
    where = f" --root {quote(root)}" if root != "/" else ""  # without it, the command would be about this machine
    start = (
        f"To finish it, start the machine from the disk in {root}" if where else "Reboot to finish it: systemctl reboot"
    )
    there = "on it" if where else "after that"
    page.text(margin, _ADVICE[ended.outcome].format(name=ended.record.name, root=where, start=start, there=there))
    return page.content()


def render_remaining(diagnosis: Diagnosis, style: Style, *, waiting: bool) -> str:
    """What is still wrong, a line each; `waiting` for a restart, which may cure it."""
    page = Page(style)
    if not diagnosis.root_causes:
        partly = len({s.id for s in diagnosis.skipped} | {f.id for f in diagnosis.failed})
        beside = f" {count(partly, 'check')} could not run completely; dlhealth doctor lists them." if partly else ""
        page.text("", f"No problems found.{beside}")
    for finding in diagnosis.root_causes:
        page.text("", f"Still there{' before the restart' if waiting else ''}: {finding.id}: {finding.title}", "  ")
    return page.content()


def render_history(told: Sequence[Told], style: Style) -> str:
    """A line for each transaction, the newest last."""
    page = Page(style)
    for one in told:
        line = f"{one.record.name:14}  {one.time}  {(one.record.outcome or 'active'):15}  {_why(one)}"
        page.line(style.clean(line))
    if not told:
        page.line("dlhealth has not changed anything on this machine.")
    return page.content()


def render_told(told: Told, style: Style) -> str:
    """One transaction in full."""
    page = Page(style)
    head = f"Transaction {told.record.name}: {told.record.outcome or 'active'}"
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


def _why(told: Told) -> str:
    return ", ".join(f["id"] for f in told.findings) or told.problem
