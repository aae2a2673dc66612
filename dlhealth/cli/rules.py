"""`dlhealth rules`."""

import click

from dlhealth.cli import subcommand, write
from dlhealth.cli.common import json_option
from dlhealth.engine.load import load_rules


@subcommand("rules", "List everything that can be found.")
@json_option
def command(as_json: bool) -> None:
    """List everything that can be found, by layer."""
    loaded = load_rules()
    if as_json:
        from dlhealth.report.json import rules_to_json

        write(rules_to_json(loaded.rules))
    else:
        from dlhealth.report.style import current_style
        from dlhealth.report.terminal import render_rules

        write(render_rules(loaded.rules, current_style()))
    for failed in loaded.failed:
        click.echo(f"dlhealth: {failed.id}: {failed.error}", err=True)
