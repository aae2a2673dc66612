"""`dlhealth prove`."""

import sys
from collections.abc import Sequence

import click

from dlhealth.cli import Status, write
from dlhealth.cli.common import Request, diagnose, json_option
from dlhealth.cli.progress import Progress
from dlhealth.model import Diagnosis, Finding
from dlhealth.prove.errors import ERRORS, NO_DEVICE, NO_LIBRARY
from dlhealth.prove.records import Proof, Result
from dlhealth.prove.runner import Wanted, chosen_stages, prove
from dlhealth.prove.stages import ORDER

_NO_GPU = (NO_DEVICE, -1)


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
@click.option("--yes", is_flag=True, help="Do not ask before a GPU is used on which another program may compute.")
@json_option
def command(stage: str | None, until: str | None, gpu: int | None, seconds: float, yes: bool, as_json: bool) -> int:
    """Test in stages whether the GPU works.

    Each stage runs in a process of its own with a time limit, and ends as proved, failed or could not run. If one fails,
    doctor runs and names the problem that explains it.

    Exit status: 0 everything is proved, 2 wrong usage, 3 a stage failed, 6 not known because a stage could not run, 70
    internal error.
    """
    if stage and until:
        raise click.UsageError("--stage and --until exclude each other")
    wanted = Wanted(chosen_stages(stage, until), gpu, seconds)
    results = list(prove(wanted, lambda use: yes or _agreed(use), _begins))
    failed = next((r for r in results if r.outcome is Proof.FAILED), None)
    causes: Sequence[Finding] = ()
    if failed:
        diagnosis = _diagnosis()
        causes = explaining(failed, diagnosis)
        if failed.code in _NO_GPU and not causes and not diagnosis.machine["gpus"]:
            lacks = failed._replace(outcome=Proof.NOT_RUN, text=f"no NVIDIA GPU was found; {failed.text}")
            results = [lacks if r is failed else r for r in results]
            results = [r._replace(text=r.text.replace("driver failed", "driver could not run")) for r in results]
    if as_json:
        from dlhealth.report.prove import proof_to_json

        write(proof_to_json(results, causes))
    else:
        from dlhealth.report.prove import render_proof
        from dlhealth.report.style import current_style

        write(render_proof(results, causes, current_style()))
    return _status(results)


def _status(results: Sequence[Result]) -> Status:
    outcomes = {r.outcome for r in results}
    if Proof.FAILED in outcomes:
        return Status.ERRORS
    return Status.UNKNOWN if Proof.NOT_RUN in outcomes else Status.HEALTHY


def _agreed(use: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return click.confirm(f"{use}. Use it all the same?", default=False, err=True)


def _begins(stage: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"{stage} ...", err=True)


def _diagnosis() -> Diagnosis:
    with Progress() as progress:
        return diagnose(Request(), progress)[0]


def explaining(failed: Result, diagnosis: Diagnosis) -> Sequence[Finding]:
    """The findings that explain a failed stage: those that can cause its error code, with the causes of these."""
    ids = set(NO_LIBRARY) if failed.code < 0 else set(ERRORS[failed.code].causes) if failed.code in ERRORS else set()
    for found in diagnosis.findings:
        if found.finding.id in ids:
            ids |= set(found.caused_by)
    return [found.finding for found in diagnosis.findings if found.finding.id in ids]
