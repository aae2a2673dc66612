"""`dlhealth status`."""

import time

import click

from dlhealth.cli import Status, printable, subcommand, write
from dlhealth.cli.common import json_option
from dlhealth.service.alerts import load
from dlhealth.service.watch import BOOT_STATE, FOLDER
from dlhealth.txn.store import Store


@subcommand("status", "What the service knows now.")
@json_option
def command(as_json: bool) -> int:
    """What the service knows now: the last check, open findings, and a repair that is under way.

    Exit status: 0 nothing is open, 1 only warnings are, 3 an error is.
    """
    state = load(f"{FOLDER}/state.json") or load(BOOT_STATE)
    findings = state.get("findings", [])
    store = Store("/")
    try:
        current = store.current() if store.readable else None
    except OSError as problem:
        current = None
        click.echo(printable(store.explain(problem)), err=True)
    waits = current.name if current else ""
    if as_json:
        from dlhealth.report.json import status_to_json

        write(status_to_json(state.get("checked"), findings, waits))
    else:
        write(_text(state.get("checked"), findings, waits))
    severities = {f["severity"] for f in findings}
    return Status.ERRORS if "error" in severities else Status.WARNINGS if severities else Status.HEALTHY


def _text(checked: int | None, findings: list[dict[str, str]], waits: str) -> str:
    from dlhealth.report.style import current_style

    clean = current_style().clean
    if checked is None:
        return "The service has not looked at this machine since it started. Is it installed? dlhealth service status\n"
    lines = [f"Last check: {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(checked))}"]
    roots = [f for f in findings if not f["caused_by"]]
    for finding in roots:
        when = "at the next boot: " if finding["boot"] else ""
        lines.append(f"{finding['severity']}: {when}{clean(finding['title'])}  [{finding['id']}]")
        lines += [f"  explains: {clean(f['title'])}" for f in findings if finding["id"] in f["caused_by"].split()]
    if not roots:
        lines.append("Nothing is open.")
    if waits:
        lines.append(f"Repair {waits} is under way, or waits for a restart: dlhealth show {waits}")
    elif roots:
        lines.append("To repair: sudo dlhealth fix")
    return "\n".join(lines) + "\n"
