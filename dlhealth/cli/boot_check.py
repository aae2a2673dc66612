"""`dlhealth boot-check`."""

import os

import click

from dlhealth.cli import Failure, Status
from dlhealth.cli.common import status_of


@click.command("boot-check")
@click.option("--next", "coming", is_flag=True, help="Say in a line each what the next boot will lack; change nothing.")
def command(coming: bool) -> int:
    """Finish what waited for a restart, look, and repair what the policy allows. dlhealth-boot.service runs it.

    Exit status: as doctor. With --next it is 3 where the next boot will lack its driver or its login screen.
    """
    if coming:
        return _next()
    if os.geteuid():
        raise click.UsageError("the check at boot repairs, and needs root; as a plain user: dlhealth doctor")
    from dlhealth.service.boot import boot_check
    from dlhealth.txn.store import Busy, Store

    try:
        return status_of(boot_check().diagnosis)
    except (Busy, OSError) as problem:
        raise Failure(Store("/").explain(problem)) from problem


def _next() -> int:
    from dlhealth.report.style import current_style
    from dlhealth.service.boot import next_boot_problems

    clean = current_style().clean
    problems = next_boot_problems()
    for problem in problems:
        click.echo(f"dlhealth: {clean(problem)}", err=True)
    if problems:
        click.echo("dlhealth: before you restart, see: dlhealth doctor --next-boot", err=True)
    return Status.ERRORS if problems else Status.HEALTHY
