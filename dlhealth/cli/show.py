"""`dlhealth show`."""

import click

from dlhealth.cli import write
from dlhealth.cli.common import disk_option, json_option
from dlhealth.cli.history import named, store_at
from dlhealth.engine.repair import tell


@click.command("show")
@click.argument("name", metavar="REPAIR")
@disk_option
@json_option
def command(name: str, root: str, as_json: bool) -> None:
    """Show one repair: the problem, each step, and its result."""
    told = tell(named(store_at(root), name))
    if as_json:
        from dlhealth.report.json import history_to_json

        write(history_to_json([told]))
    else:
        from dlhealth.report.repairs import render_told
        from dlhealth.report.style import current_style

        write(render_told(told, current_style()))
