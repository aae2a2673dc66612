"""`dlhealth rules`."""

import os
import re

import click

from dlhealth.cli import Group, write
from dlhealth.cli.common import json_option
from dlhealth.engine.load import load_rules
from dlhealth.model import Layer


@click.group("rules", cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List everything that dlhealth can find, by layer (the part of the machine)."""
    if context.invoked_subcommand:
        return
    loaded = load_rules()
    if as_json:
        from dlhealth.report.json import rules_to_json

        write(rules_to_json(loaded.rules))
    else:
        from dlhealth.cli.pager import page
        from dlhealth.report.style import current_style
        from dlhealth.report.terminal import render_rules

        page(render_rules(loaded.rules, current_style()))
    for failed in loaded.failed:
        click.echo(f"dlhealth: {failed.id}: {failed.error}", err=True)


@command.command("new")
@click.argument("name", metavar="ID")
@click.option(
    "--layer",
    required=True,
    type=click.Choice([layer.value for layer in Layer]),
    help="The part of the machine that the rule is about.",
)
def new(name: str, layer: str) -> None:
    """Write the beginning of a rule, ready to fill in.

    In a checkout of dlhealth the file goes to the directory of the layer below rules/, elsewhere to the current
    directory. docs/extend.md says how to go on.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)+", name):
        raise click.BadParameter(f"{name!r} must be two or more words of a-z and 0-9 with - between them: my-fault")
    if name in {rule.id for rule in load_rules().rules}:
        raise click.BadParameter(f"there is a rule {name!r} already: dlhealth explain {name}")
    from dlhealth.testing.skeleton import write_skeleton

    try:
        path = write_skeleton(name, Layer(layer), os.getcwd())
    except OSError as error:
        raise click.BadParameter(f"{error.filename}: {(error.strerror or '').lower()}") from error
    write(f"{path}\nIts tests: python -m pytest tests/contract/test_rules.py -k {name}\n")
