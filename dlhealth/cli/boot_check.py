"""`dlhealth boot-check`."""

import os

import click

from dlhealth.cli import Failure, Status
from dlhealth.cli.common import status_of


@click.command("boot-check")
@click.option(
    "--next", "coming", is_flag=True, help="Only list the problems of the next boot, one line each; change nothing."
)
def command(coming: bool) -> int:
    """Complete repairs that waited for a reboot, check, and repair what the policy allows.

    dlhealth-boot.service runs this command.

    Exit status: as doctor. With --next, it is 3 if the next boot will have no driver or no login screen.
    """
    if coming:
        return _next()
    if os.geteuid():
        raise click.UsageError("this command may repair the machine and needs root. Without root: dlhealth doctor")
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
        click.echo("dlhealth: before you reboot, see: dlhealth doctor --next-boot", err=True)
    return Status.ERRORS if problems else Status.HEALTHY
