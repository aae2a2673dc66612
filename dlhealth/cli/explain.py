"""`dlhealth explain`."""

import click

from dlhealth.cli import similar, write
from dlhealth.engine.load import load_rules


@click.command("explain")
@click.argument("name", metavar="ID")
def command(name: str) -> None:
    """Explain one problem: what it means, its cause, the repair, and the repair's risk."""
    rules = load_rules().rules
    rule = next((r for r in rules if r.id == name), None)
    if rule is None:
        raise click.BadParameter(
            f"there is no rule {name!r}{similar(name, [r.id for r in rules])}; `dlhealth rules` lists them.",
            param_hint="ID",
        )
    from dlhealth.report.style import current_style
    from dlhealth.report.terminal import render_rule

    write(render_rule(rule, rules, current_style()))
