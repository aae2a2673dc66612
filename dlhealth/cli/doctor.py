"""`dlhealth doctor`."""

import click

from dlhealth.cli import Status
from dlhealth.cli.common import Request, diagnosis_options, examine, write
from dlhealth.cli.progress import Progress
from dlhealth.model import Severity

_STATUS = {
    None: Status.HEALTHY,
    Severity.NOTE: Status.HEALTHY,
    Severity.WARNING: Status.WARNINGS,
    Severity.ERROR: Status.ERRORS,
}


@click.command("doctor")
@diagnosis_options
def command(
    root: str, only: tuple[str, ...], users: tuple[str, ...], pythons: tuple[str, ...], next_boot: bool, as_json: bool
) -> int:
    """Diagnose. Reads only, changes nothing, needs no root.

    Exit status: 0 healthy, 1 warnings only, 2 wrong usage, 3 at least one error, 70 dlhealth itself failed.
    """
    with Progress() as progress:
        diagnosis = examine(Request(root, only, users, pythons, next_boot), progress).diagnosis
    if as_json:
        from dlhealth.report.json import to_json

        write(to_json(diagnosis))
    else:
        from dlhealth.report.style import current_style
        from dlhealth.report.terminal import render

        write(render(diagnosis, current_style()))
    return _STATUS[diagnosis.worst]
