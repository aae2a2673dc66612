"""`dlhealth fix`."""

import os
from collections.abc import Mapping
from functools import partial
from shlex import join
from typing import TYPE_CHECKING

import click

from dlhealth.actions import changed_path
from dlhealth.cli import InTheWay, Status, printable, write
from dlhealth.cli.common import (
    Selection,
    agreed,
    chosen_rules,
    diagnosis_options,
    disk_option,
    examine,
    failure,
    show,
    status_of,
    store_of,
)
from dlhealth.cli.progress import Progress, Steps
from dlhealth.engine.choose import Limits, Repair, choose
from dlhealth.engine.examine import Examined
from dlhealth.engine.load import load_rules
from dlhealth.engine.repair import carry_out, confirm_after_reboot, in_rounds, tell, tried
from dlhealth.host.exec import as_root
from dlhealth.model import Action, Diagnosis, Health, Outcome, Risk
from dlhealth.records import NamedTuple
from dlhealth.report.style import current_style
from dlhealth.steps.base import CommandFailed, DiskFull, Target
from dlhealth.txn.execute import Ended, NotPrepared, Stopped, recover
from dlhealth.txn.journal import read_entries, waiting_in
from dlhealth.txn.store import Busy, Record, Store

if TYPE_CHECKING:
    from dlhealth.cli.prove import Proved

_ROUNDS = 5
_PROVES = ("driver", "compute")
"""The stages of a proof after a repair."""

_STATUS = {
    Outcome.NOT_PROVED: Status.NOT_PROVED,
    Outcome.AWAITING_REBOOT: Status.AFTER_REBOOT,
    Outcome.ROLLED_BACK: Status.ROLLED_BACK,
    Outcome.CONFLICT: Status.ROLLED_BACK,
}


@click.command("fix")
@click.argument("ids", metavar="[ID|LAYER]...", nargs=-1)
@disk_option
@diagnosis_options
@click.option("--dry-run", is_flag=True, help="Only print the plan, with each command and each changed line.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--max-risk",
    type=click.Choice([r.value for r in Risk]),
    default=Risk.MEDIUM.value,
    show_default=True,
    help="The highest allowed risk of a repair.",
)
@click.option("--offline", is_flag=True, help="Only repairs that need no network.")
@click.option(
    "--prove",
    "proves",
    is_flag=True,
    help="After the repair, also test that the GPU computes (dlhealth prove --until compute).",
)
def command(
    ids: tuple[str, ...],
    root: str,
    only: tuple[str, ...],
    users: tuple[str, ...],
    pythons: tuple[str, ...],
    next_boot: bool,
    as_json: bool,
    dry_run: bool,
    yes: bool,
    max_risk: str,
    offline: bool,
    proves: bool,
) -> int:
    """Diagnose, show the plan, ask, repair, and check again. A repair that does not help is undone.

    With IDs or layers, it repairs only these problems and their causes. If the test of --prove fails, the repair stays: its
    problem is resolved, and another one is left.

    Exit status: 0 healthy or everything is repaired, 1 only warnings remain, 2 wrong usage or another repair comes
    first, 3 an error remains, 4 a reboot finishes the repair, 5 the repair failed and was rolled back, 6 not known: too
    little could be checked, 7 not proved: repaired, but the checks can no longer run, or the test could not, 70 internal error.
    """
    request = Selection(root, only, users, pythons, next_boot)
    loaded = load_rules()
    chosen_rules(loaded, ids, "ID")  # reports an unknown name before anything else
    names = {*ids, *only}
    # Replace a layer by all its rules: an empty set would mean everything.
    wanted = frozenset(r.id for r in loaded.rules if names & {r.id, r.layer.value})
    if proves and (dry_run or root != "/"):
        raise click.UsageError("--prove tests the running machine after its repair: without --dry-run and --root")
    store = store_of(root)
    if os.geteuid() and not dry_run:
        raise click.UsageError(
            f"a repair changes the machine and needs root: {as_root('dlhealth fix')} (or add --dry-run)"
        )
    limits = Limits(Risk(max_risk), offline, store.root == "/", wanted=wanted)
    session = _Session(request, store, limits, as_json)
    if dry_run:
        outcome = session.plan_only()
    else:
        try:
            with session.store.locked():
                outcome = session.repair(yes)
        except BrokenPipeError:  # the reader of the report is gone
            raise
        except (Busy, OSError) as problem:
            raise failure(session.store, problem) from problem
    proved = _prove(pythons, yes) if proves and outcome in (Outcome.APPLIED, Outcome.NOTHING) else None
    if proves and outcome is Outcome.AWAITING_REBOOT:
        click.echo(f"To test the GPU after the reboot: dlhealth prove --until {_PROVES[-1]}", err=True)
    return session.report(outcome, proved)


def _prove(pythons: tuple[str, ...], yes: bool) -> "Proved":
    from dlhealth.cli.prove import proving
    from dlhealth.prove.runner import Wanted

    return proving(Wanted(_PROVES, None, 1.0), Selection(pythons=pythons), yes=yes, keep=True)


class _Shown(NamedTuple):
    """The last diagnosis, and the repair chosen for it."""

    examined: Examined
    repair: Repair


class _Session:
    """One run of `fix`: rounds from diagnosis to proof until nothing remains that may be repaired."""

    def __init__(self, request: Selection, store: Store, limits: Limits, as_json: bool) -> None:
        self._request = request
        self._json = as_json
        self.store = store
        self._limits = limits
        self._planned = Repair((), (), ())
        self._diagnosis: Diagnosis | None = None
        self._outcomes = [Outcome.NOTHING]
        self._ended: list[Ended] = []
        self._given_up: set[tuple[str, str]] = set()
        self._refused: dict[str, str] = {}
        self._taken_back: set[str] = set()

    def plan_only(self) -> Outcome:
        """Show the plan without changing anything."""
        shown = self._look(tried(self.store) if self.store.readable else frozenset())
        self._show(shown.repair, asks=False)
        return Outcome.PLANNED if shown.repair.chosen else Outcome.NOTHING

    def repair(self, yes: bool) -> Outcome:
        """Repair until nothing remains that may be repaired."""
        if waiting := self._settle(yes):
            return waiting
        in_rounds(_ROUNDS, lambda: self._look(tried(self.store)), lambda shown: self._attempt(shown, yes))
        return max(self._outcomes)

    def _attempt(self, shown: _Shown, yes: bool) -> bool:
        """Show, ask and run one round; whether another may help."""
        chosen = shown.repair.chosen
        if not chosen and self._ended:
            return False
        planned = self._planned
        self._show(shown.repair, asks=bool(chosen) and not yes)
        if not chosen:
            return False
        if not yes and not agreed(_question(shown.repair)):
            self._outcomes.append(Outcome.DECLINED)
            return False
        outcome = self._carry_out(shown, yes)
        self._outcomes.append(outcome)
        if outcome in (Outcome.CONFLICT, Outcome.AWAITING_REBOOT) or self._stopped():
            return False
        if outcome is Outcome.REFUSED:
            # A repair that cannot begin does not stop the others.
            left = [c for c in chosen if c.finding.fingerprint not in self._refused]
            if not left or len(left) == len(chosen):
                return False
            self._planned = planned
        return True

    def report(self, outcome: Outcome, proved: "Proved | None" = None) -> int:
        """Print how it ended, and what was proved afterwards; returns the exit status."""
        diagnosis = self._diagnosis or self._examine().diagnosis
        if outcome is Outcome.ROLLED_BACK and not self._taken_back & {
            d.finding.fingerprint for d in diagnosis.findings
        }:
            outcome = Outcome.APPLIED  # the next plan helped
        if self._json:
            from dlhealth.report.json import repair_to_json

            write(repair_to_json(outcome, self._planned, self._ended, diagnosis, proved.results if proved else None))
        elif self._ended or (outcome is Outcome.NOTHING and not self._planned.left):
            # Otherwise everything is on the screen already.
            from dlhealth.report.repairs import render_remaining

            write(render_remaining(diagnosis, current_style(), waiting=outcome is Outcome.AWAITING_REBOOT))
        if proved and not self._json:
            from dlhealth.report.prove import render_proof

            write(render_proof(*proved, current_style()))
        status = self._status(outcome, diagnosis)
        if not proved or proved.status is Status.HEALTHY:
            return status
        return Status.ERRORS if Status.ERRORS in (status, proved.status) else Status.NOT_PROVED

    def _status(self, outcome: Outcome, diagnosis: Diagnosis) -> Status:
        """The exit status of the repair alone."""
        only_driver = diagnosis.health is Health.UNKNOWN and diagnosis.doubt == diagnosis.without_driver
        if only_driver and outcome in (Outcome.APPLIED, Outcome.NOTHING):
            return Status.HEALTHY  # everything is repaired, also on a machine without a driver
        return _STATUS.get(outcome) or status_of(diagnosis)

    def _settle(self, yes: bool) -> Outcome | None:
        """Finish an earlier repair. Returns AWAITING_REBOOT if it still waits for a reboot: for the disk of another
        machine, only that machine's boot can show whether it helped. Raises InTheWay if a person does not agree."""
        current = self.store.current()
        if current is None:
            return None
        here = self.store.root == "/"
        if not here and not waiting_in(read_entries(current.folder)):
            self._agree_to_settle(current, yes)
        ended = recover(self.store, Target(self.store.root, current.id))
        if ended is None and here:
            keep = partial(_kept, yes=yes)
            ended = confirm_after_reboot(self.store, self.store.root, lambda: self._examine().diagnosis, keep=keep)
        if ended is None:
            name = current.name
            start = "systemctl reboot" if here else "start the machine from its own disk"
            undo = join(("dlhealth", "undo", name, *(() if here else ("--root", self.store.root))))
            click.echo(printable(f"Transaction {name} waits for a reboot: {start} (or: {undo})"), err=True)
            self._ended.append(Ended(current, Outcome.AWAITING_REBOOT, ()))
            return Outcome.AWAITING_REBOOT
        self._say(ended)
        return None

    def _agree_to_settle(self, current: Record, yes: bool) -> None:
        """Show an unfinished repair of another machine's disk to a person: the disk may claim anything."""
        from dlhealth.report.repairs import render_told

        show(render_told(tell(current), current_style()), self._json)
        if yes or not agreed("This disk has an unfinished repair. Finish it now, or undo it if it did not help?"):
            command = join(("dlhealth", "undo", current.name, "--root", self.store.root))
            raise InTheWay(f"this disk has the unfinished repair {current.name}. To undo it first: {command}")

    def _examine(self) -> Examined:
        with Progress() as progress:
            examined = examine(self._request, progress)
        self._diagnosis = examined.diagnosis
        return examined

    def _look(self, failed: frozenset[tuple[str, str]]) -> _Shown:
        examined = self._examine()
        limits = self._limits._replace(tried=failed, given_up=frozenset(self._given_up), refused=self._refused)
        return _Shown(examined, choose(examined.diagnosis, examined.rules, examined.facts, limits))

    def _show(self, repair: Repair, asks: bool) -> None:
        before = self._planned
        self._planned = Repair(before.chosen + repair.chosen, repair.left, before.actions + repair.actions, repair.live)
        if asks or not self._json:  # before a question, show what it is about
            from dlhealth.report.repairs import render_repair

            show(render_repair(repair, current_style(), self.store.root), self._json)

    def _carry_out(self, shown: _Shown, yes: bool) -> Outcome:
        def look() -> Diagnosis:
            progress.pause()
            return self._examine().diagnosis

        def keep(problem: str) -> bool:
            progress.pause()
            return _kept(problem, yes=yes)

        repair, before, progress = shown.repair, shown.examined.diagnosis, Steps()
        try:
            with progress:
                ended = carry_out(repair, before, self.store, self.store.root, look, progress, keep)
        except NotPrepared as problem:
            click.echo(printable(f"dlhealth: {problem}\nNothing was changed."), err=True)
            self._refused.update(_reasons(repair, problem.problems))
            return Outcome.REFUSED
        self._say(ended)
        if ended.outcome is Outcome.ROLLED_BACK:
            self._learn(repair, ended)
        return ended.outcome

    def _stopped(self) -> bool:
        """Whether somebody stopped the repair, and wants no other one now."""
        return bool(self._ended) and isinstance(self._ended[-1].problem, Stopped)

    def _learn(self, repair: Repair, ended: Ended) -> None:
        """Give up only the repair that did not help, if that is known; the others are tried again."""
        self._taken_back |= {c.finding.fingerprint for c in repair.chosen}
        chosen = {c.finding.fingerprint: (c.finding.fingerprint, c.plan.summary) for c in repair.chosen}
        if ended.action is None:
            self._given_up |= set(chosen.values()) & tried(self.store) or set(chosen.values())
            return
        reasons = _reasons(repair, {ended.action: ended.said[0]})
        if isinstance(ended.problem, CommandFailed) and not isinstance(ended.problem, DiskFull):
            self._given_up |= {chosen[fingerprint] for fingerprint in reasons}
        else:
            self._refused.update(reasons)

    def _say(self, ended: Ended) -> None:
        self._ended.append(ended)
        self._diagnosis = None
        if not self._json:
            from dlhealth.report.repairs import render_ended

            write(render_ended(ended, tell(ended.record), current_style()))


def _reasons(repair: Repair, problems: Mapping[Action, str]) -> dict[str, str]:
    """Why repairs that contain one of these actions cannot run, by the fingerprint of the finding."""
    return {
        chosen.finding.fingerprint: why
        for action, why in problems.items()
        for chosen in repair.chosen
        # Edits of one file were merged.
        if any(a == action or changed_path(a) == changed_path(action) != "" for a in chosen.plan.actions)
    }


def _kept(problem: str, *, yes: bool) -> bool:
    """Whether to keep a repair that no check can verify any more."""
    click.echo(printable(f"Not proved: {problem}"), err=True)
    return yes or agreed("Keep the repair anyway? Otherwise it is undone.")


def _question(repair: Repair) -> str:
    steps = len(repair.actions)
    if not steps:
        return "Wait for the next reboot, and verify the repair then?"
    return f"Run {'this step' if steps == 1 else f'these {steps} steps'}?"
