"""`dlhealth boot-check`."""

import os

import click

from dlhealth.cli import Failure, Status
from dlhealth.cli.common import status_of


@click.command("boot-check")
@click.option("--next", "coming", is_flag=True, help="Only say whether a reboot is safe, in one line; change nothing.")
def command(coming: bool) -> int:
    """Complete repairs that waited for a reboot, check, and repair what the policy allows.

    dlhealth-boot.service runs this command.

    Exit status: as doctor. With --next: 0 a reboot is safe, 3 the next boot will have no driver or no login screen, 6 not
    known.
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
    from dlhealth.report.story import Mark
    from dlhealth.report.style import current_style
    from dlhealth.service.boot import next_boot_verdict

    verdict = next_boot_verdict()
    if verdict is None:
        return Status.HEALTHY
    click.echo(f"dlhealth: {current_style().clean(verdict.text)}", err=True)
    if verdict.mark is Mark.WELL:
        return Status.HEALTHY
    click.echo("dlhealth: details: dlhealth doctor --next-boot", err=True)
    return Status.ERRORS if verdict.mark is Mark.ERROR else Status.UNKNOWN
