"""`dlhealth status`."""

import os
import time
from typing import Any

import click

from dlhealth.cli import Status, printable, write
from dlhealth.cli.common import json_option
from dlhealth.host.exec import as_root, run
from dlhealth.service.alerts import load
from dlhealth.service.watch import BOOT_STATE, FOLDER, PUBLIC
from dlhealth.txn.store import Store


@click.command("status")
@json_option
def command(as_json: bool) -> int:
    """What the service knows now: the last check, open findings, and a repair that is under way.

    Exit status: 0 nothing is open, 1 only warnings are, 3 an error is, 6 not known: the service does not check this
    machine, or has not since it was changed.
    """
    # Each of these is for fewer eyes than the one behind it.
    state = load(f"{FOLDER}/state.json") or load(BOOT_STATE) or load(f"{FOLDER}/{PUBLIC}")
    findings = state.get("findings", [])
    store = Store("/")
    try:
        current = store.current() if store.readable else None
    except OSError as problem:
        current = None
        click.echo(printable(store.explain(problem)), err=True)
    waits = current.name if current else ""
    unknown = _unknown(state, store)
    if as_json:
        from dlhealth.report.json import status_to_json

        write(status_to_json(state.get("checked"), findings, waits, unknown))
    else:
        write(_text(state.get("checked"), findings, waits, unknown))
    severities = {f["severity"] for f in findings}
    # What was found stands, also where not everything was checked.
    if unknown and not (severities and state.get("unchecked")):
        return Status.UNKNOWN
    return Status.ERRORS if "error" in severities else Status.WARNINGS if severities else Status.HEALTHY


def _unknown(state: dict[str, Any], store: Store) -> str:
    """Why nobody knows how the machine is now; "" where the service does."""
    if silent := _silent():
        return silent
    if "checked" not in state:
        return state.get("problem", "") or "the service has not checked this machine since it started"
    if state.get("problem"):
        return str(state["problem"])
    if store.changed() > state.get("began", state["checked"]):
        return "a repair or an undo has ended since the last check"
    return ""


def _silent() -> str:
    """Why the service does not check this machine; "" where it runs, or systemd does not and can't be asked."""
    from dlhealth.service.install import running

    if not running():
        return ""
    asked = run(["systemctl", "show", "-p", "LoadState", "-p", "ActiveState", "dlhealth.service"], timeout=10)
    told = dict(line.split("=", 1) for line in asked.stdout.splitlines() if "=" in line)
    if told.get("LoadState") == "not-found":
        return f"the service is not installed. To install it: {as_root('dlhealth service install')}"
    state = told.get("ActiveState", "active")
    if state in ("active", "reloading"):
        return ""
    return f"the service does not run ({state}). See: systemctl status dlhealth.service"


def _text(checked: int | None, findings: list[dict[str, str]], waits: str, unknown: str) -> str:
    from dlhealth.report.style import current_style

    clean = current_style().clean
    lines = [f"Unknown: {clean(unknown)}"] if unknown else []
    if checked is not None:
        lines.append(f"Last check: {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(checked))}")
    roots = [f for f in findings if not f["caused_by"]]
    if unknown and roots:
        lines.append("Open at the last check:")
    for finding in roots:
        when = "at the next boot: " if finding["boot"] else ""
        lines.append(f"{finding['severity']}: {when}{clean(finding['title'])}  [{finding['id']}]")
        lines += [f"  explains: {clean(f['title'])}" for f in findings if finding["id"] in f["caused_by"].split()]
    if not roots and not unknown:
        lines.append("Nothing is open.")
    if os.geteuid():
        lines.append("What concerns a person's own files is shown to root alone; of your own login: dlhealth doctor")
    if waits:
        lines.append(f"Repair {waits} is under way, or waits for a restart: dlhealth show {waits}")
    elif roots:
        lines.append(f"To repair: {as_root('dlhealth fix')}")
    if unknown:
        lines.append("To check now: dlhealth doctor")
    return "\n".join(lines) + "\n"
