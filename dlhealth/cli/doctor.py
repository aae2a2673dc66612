"""`dlhealth doctor`."""

import click

from dlhealth.cli import Status, write
from dlhealth.cli.common import Selection, diagnose, diagnosis_options, root_option, status_of
from dlhealth.cli.progress import Progress
from dlhealth.model import Diagnosis


@click.command("doctor")
@root_option
@diagnosis_options
@click.option("-v", "--verbose", is_flag=True, help="Also list the checks that could not run, with the reasons.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the verdict and a line for each cause.")
def command(
    root: str,
    only: tuple[str, ...],
    users: tuple[str, ...],
    pythons: tuple[str, ...],
    next_boot: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> int:
    """Find what is wrong with a machine, and why. Changes nothing and needs no root.

    On a terminal, a report that is longer than the screen is shown by $PAGER, or by less; PAGER=cat prints it.

    Exit status: 0 healthy, 1 warnings only, 2 wrong usage, 3 at least one error, 6 not known because too little could be
    checked, 70 internal error.
    """

    def shown(diagnosis: Diagnosis, repairing: str) -> tuple[str, Status]:
        if as_json:
            from dlhealth.report.json import to_json

            return to_json(diagnosis), status_of(diagnosis)
        from dlhealth.report.story import story_of
        from dlhealth.report.style import current_style
        from dlhealth.report.terminal import Detail, render

        detail = Detail.VERBOSE if verbose else Detail.QUIET if quiet else Detail.NORMAL
        return render(story_of(diagnosis, repairing), current_style(), detail), status_of(diagnosis)

    with Progress() as progress:
        text, status = diagnose(Selection(root, only, users, pythons, next_boot), shown, progress)
    if as_json:
        write(text)
    else:
        from dlhealth.cli.pager import page

        page(text)
    return status
