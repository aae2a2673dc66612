"""`dlhealth explain`."""

import re
from collections.abc import Sequence

import click

from dlhealth.cli import similar
from dlhealth.engine.load import load_rules
from dlhealth.engine.rule import Rule


@click.command("explain")
@click.argument("name", metavar="ID")
def command(name: str) -> None:
    """Explain one problem: what it means, its cause, the repair, and the repair's risk.

    ID may also be a number that the driver or an NVSwitch reported, such as xid-79 or sxid-20034.

    Instead of ID, paste the error text of a program, in quotes: dlhealth lists the problems that it can come from.
    """
    rules = load_rules().rules
    rule, known = next((r for r in rules if r.id == name), None), None
    if rule is None and (number := re.fullmatch(r"(s?)xid[ -]?(\d{1,5})", name.lower(), re.ASCII)):
        from dlhealth.data.kernel_log import sxid, xid

        known = sxid(int(number[2]), fatal=True) if number[1] else xid(int(number[2]))
        rule = next((r for r in rules if r.id == known.fault), None)
    if rule is None:
        possible = _possible(name, rules)
        if len(possible) > 1:
            _list(possible)
            return
        rule = possible[0] if possible else None
    if rule is None:
        raise click.BadParameter(
            f"there is no rule {name!r}{similar(name, [r.id for r in rules])}; `dlhealth rules` lists them.",
            param_hint="ID",
        )
    from dlhealth.cli.pager import page
    from dlhealth.report.style import current_style
    from dlhealth.report.terminal import render_number, render_rule

    style = current_style()
    page((render_number(known, style) if known else "") + render_rule(rule, rules, style))


def _possible(text: str, rules: Sequence[Rule]) -> list[Rule]:
    """The problems that a text belongs to: known error texts first, then what the rules' pages describe."""
    from dlhealth.data.error_texts import problems_of
    from dlhealth.report.symptoms import described

    by_id = {r.id: r for r in rules}
    known = [by_id[i] for i in problems_of(text) if i in by_id]
    return list(dict.fromkeys([*known, *described(text, rules)]))


def _list(possible: list[Rule]) -> None:
    from dlhealth.cli.pager import page
    from dlhealth.report.style import current_style
    from dlhealth.report.terminal import render_possible

    page(render_possible(possible, current_style()))
