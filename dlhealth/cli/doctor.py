"""`dlhealth doctor`."""

from dlhealth.cli import subcommand, write
from dlhealth.cli.common import Request, diagnosis_options, examine, status_of
from dlhealth.cli.progress import Progress


@subcommand("doctor", "Find what is wrong, and why; change nothing.")
@diagnosis_options
def command(
    root: str, only: tuple[str, ...], users: tuple[str, ...], pythons: tuple[str, ...], next_boot: bool, as_json: bool
) -> int:
    """Diagnose. Reads only, changes nothing, needs no root.

    Exit status: 0 healthy, 1 warnings only, 2 wrong usage, 3 at least one error, 6 too little could be checked
    to say, 70 dlhealth itself failed.
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
    return status_of(diagnosis)
