"""`dlhealth prove`."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from dlhealth.cli import Status, printable, write
from dlhealth.cli.common import Selection, asked, diagnose, json_option
from dlhealth.cli.progress import Progress, Stages
from dlhealth.host.path import told
from dlhealth.model import GPU, Diagnosis, State, timestamp
from dlhealth.prove.environments import Environment
from dlhealth.prove.errors import NO_DEVICE, suspects
from dlhealth.prove.records import Proof, Result
from dlhealth.prove.runner import Asker, Wanted, chosen_stages, prove, settings
from dlhealth.prove.stages import ORDER
from dlhealth.records import NamedTuple
from dlhealth.report.prove import NOT_ASKED, Explanation, render_proof

if TYPE_CHECKING:
    from dlhealth.engine.proofs import Comparison, Run


@click.command("prove")
@click.option("--stage", type=click.Choice(ORDER), help="Run only this stage.")
@click.option("--until", type=click.Choice(ORDER), help="Run the stages up to this one. [default: all]")
@click.option("--gpu", type=click.IntRange(0, 255), metavar="N", help="Use only this GPU, as nvidia-smi counts them.")
@click.option(
    "--time",
    "seconds",
    type=click.FloatRange(1, 3600),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How many seconds a load lasts.",
)
@click.option(
    "--python",
    "exes",
    multiple=True,
    metavar="EXE",
    help="Use this Python environment (repeatable). [default: those with a framework that doctor finds]",
)
@click.option("--data", default="", metavar="DIR", help="Train with the files of MNIST or Fashion-MNIST in DIR.")
@click.option("--video", default="", metavar="FILE|N", help="Run the detector also on this video, or on camera N.")
@click.option("--yes", is_flag=True, help="Do not ask before a GPU is used on which another program may compute.")
@click.option("--no-history", is_flag=True, help="Do not keep the result.")
@json_option
def command(
    stage: str | None,
    until: str | None,
    gpu: int | None,
    seconds: float,
    exes: tuple[str, ...],
    data: str,
    video: str,
    yes: bool,
    no_history: bool,
    as_json: bool,
) -> int:
    """Test in stages whether the GPU works.

    Each stage runs in a process of its own with a time limit, and ends as proved, on the CPU only, failed or could not
    run. If one fails, doctor runs and names the problem that explains it. The result is kept, so that the next run says
    what became worse, and what changed in between.

    Exit status: 0 everything is proved on the GPU, 2 wrong usage, 3 a stage failed, 6 not known because a stage could not
    run or used only the CPU, 70 internal error.
    """
    if stage and until:
        raise click.UsageError("--stage and --until exclude each other")
    wanted = Wanted(chosen_stages(stage, until), gpu, seconds, data and os.path.abspath(data), _video(video), exes)
    proved = proving(wanted, Selection(pythons=exes), yes=yes, keep=not no_history)
    if as_json:
        from dlhealth.report.prove import proof_to_json

        write(proof_to_json(*proved))
    else:
        from dlhealth.report.style import current_style

        write(render_proof(*proved, current_style()))
    return proved.status


class Proved(NamedTuple):
    """How the stages ended, what the doctor says of a failed one, what became worse than in earlier runs, and what else
    is worth knowing of the GPUs."""

    results: tuple[Result, ...]
    explained: Explanation
    run: "Run"
    comparison: "Comparison"
    notes: tuple[str, ...]

    @property
    def status(self) -> Status:
        """The exit status."""
        outcomes = {r.outcome for r in self.results}
        if Proof.FAILED in outcomes:
            return Status.ERRORS
        return Status.HEALTHY if outcomes == {Proof.PROVED} else Status.UNKNOWN


def proving(wanted: Wanted, selection: Selection, *, yes: bool, keep: bool) -> Proved:
    """Run the stages. `yes` uses a GPU without a question, `keep` keeps the result."""
    machine = _Machine(selection)
    results = []
    with Stages(len(wanted.stages)) as progress:
        asker = Asker(
            lambda use: yes or _agreed(use), machine.has_gpu, progress.begins, progress.done, machine.environments
        )
        for result in prove(wanted, asker):
            progress.ends()
            results.append(result)
    failed = next((r for r in results if r.outcome is Proof.FAILED), None)
    explained = explaining(failed, *machine.diagnosed()) if failed else NOT_ASKED
    run, comparison = machine.compared([r.document() for r in results], keep=keep)
    notes = settings(wanted.gpu) if any(r.outcome is not Proof.NOT_RUN for r in results) else ()
    return Proved(tuple(results), explained, run, comparison, notes)


def _video(source: str) -> str:
    return source if source.isdecimal() or not source else os.path.abspath(source)


def _agreed(use: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return click.confirm(f"{use}. Use it anyway?", default=False, err=True)


class _Machine:
    """What the doctor says of this machine, when somebody asks."""

    def __init__(self, request: Selection) -> None:
        self._request = request
        self._before: Diagnosis | None = None

    def diagnosed(self) -> tuple[Diagnosis, str]:
        """A new diagnosis, because a stage can leave traces in the kernel log; and the command that would repair it."""
        with Progress() as progress:
            told = diagnose(self._request, lambda diagnosis, repairing: (diagnosis.told, repairing), progress)
        self._before = told[0]
        return told

    def environments(self) -> Sequence[Environment] | None:
        """The Python environments with a framework; None if they cannot be read."""
        from dlhealth.engine.interpreters import interpreters

        with Progress() as progress:
            known = asked(self._request)
            found = known.examining(lambda examiner, options: interpreters(examiner.facts(options)), progress)
        return None if found is None else [Environment(*one) for one in found]

    def compared(self, stages: Sequence[Mapping[str, Any]], *, keep: bool) -> "tuple[Run, Comparison]":
        """The run with these results, and what became worse than in earlier runs. `keep` adds it to them."""
        from dlhealth.engine import proofs
        from dlhealth.engine.record import inventory_of

        known = asked(Selection())  # the inventory of a run does not depend on which environments it used
        with Progress() as progress:
            inventory = known.examining(lambda examiner, options: inventory_of(examiner.facts(options)), progress)
        before = proofs.read(known.host)
        run = proofs.Run(timestamp(), inventory, tuple(stages), proofs.on_battery(known.host))
        if keep and any(stage["outcome"] != Proof.NOT_RUN.value for stage in stages):
            try:
                proofs.keep(before, run)
            except OSError as problem:
                click.echo(printable(f"dlhealth: the result is not kept: {told(problem)}"), err=True)
        return run, proofs.compare(before, run)

    def has_gpu(self) -> bool | None:
        """Whether this machine has an NVIDIA GPU, also one that is missing from the bus; None if that is unknown."""
        diagnosis = self._before or self.diagnosed()[0]
        if explaining(Result("", Proof.FAILED, "", suspects=suspects(NO_DEVICE)), diagnosis).causes:
            return True
        state = next((area.state for area in diagnosis.areas if area.name == GPU), State.UNKNOWN)
        return None if state is State.UNKNOWN else state is not State.ABSENT


def explaining(failed: Result, diagnosis: Diagnosis, repairing: str = "") -> Explanation:
    """What the doctor knows of the problems that can cause a failure, of their causes, and of the environment that
    failed. A problem of one Python environment explains nothing of another."""
    here = [
        d
        for d in diagnosis.findings
        if not d.finding.subject.startswith("python:") or d.finding.subject in failed.about
    ]
    ids = set(failed.suspects)
    for found in here:
        if found.finding.id in ids:
            ids |= set(found.caused_by)
    causes = tuple(found.finding for found in here if found.finding.id in ids)
    related = tuple(d.finding for d in here if d.finding.subject in failed.about and d.finding.id not in ids)
    return Explanation(causes, tuple(s.id for s in diagnosis.skipped if s.id in failed.suspects), repairing, related)
