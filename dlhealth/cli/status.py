"""`dlhealth status`."""

import time

import click

from dlhealth.cli import Status, printable, subcommand, write
from dlhealth.cli.common import json_option
from dlhealth.host.exec import as_root, run
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
    silent = _silent()
    if as_json:
        if silent:
            click.echo(silent, err=True)
        from dlhealth.report.json import status_to_json

        write(status_to_json(state.get("checked"), findings, waits))
    else:
        write(_text(state.get("checked"), findings, waits, silent))
    severities = {f["severity"] for f in findings}
    return Status.ERRORS if "error" in severities else Status.WARNINGS if severities else Status.HEALTHY


def _silent() -> str:
    """Why the service tells nothing new; nothing where it runs, or systemd does not and can't be asked."""
    from dlhealth.service.install import running

    if not running():
        return ""
    asked = run(["systemctl", "show", "-p", "LoadState", "-p", "ActiveState", "dlhealth.service"], timeout=10)
    told = dict(line.split("=", 1) for line in asked.stdout.splitlines() if "=" in line)
    if told.get("LoadState") == "not-found":
        return f"The service is not installed. To install it: {as_root('dlhealth service install')}"
    state = told.get("ActiveState", "active")
    if state in ("active", "reloading"):
        return ""
    return f"The service does not run ({state}), what it knew may be old: systemctl status dlhealth.service"


def _text(checked: int | None, findings: list[dict[str, str]], waits: str, silent: str) -> str:
    from dlhealth.report.style import current_style

    clean = current_style().clean
    if checked is None:
        nothing = "The service has not looked at this machine since it started."
        return f"{silent or f'{nothing} Is it installed? dlhealth service status'}\n"
    lines = [f"Last check: {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(checked))}"]
    if silent:
        lines.append(silent)
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
        lines.append(f"To repair: {as_root('dlhealth fix')}")
    return "\n".join(lines) + "\n"
