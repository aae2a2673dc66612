"""`dlhealth status`."""

import os
import time
from collections.abc import Sequence
from typing import Any

import click

from dlhealth.cli import Status, printable, write
from dlhealth.cli.common import json_option
from dlhealth.host.exec import as_root, run
from dlhealth.model import OpenProblem, Severity
from dlhealth.service.alerts import load
from dlhealth.service.watch import BOOT_STATE, FOLDER, PUBLIC
from dlhealth.txn.store import Store


@click.command("status")
@json_option
def command(as_json: bool) -> int:
    """Show what the service knows: its last check, open problems, and an unfinished repair.

    Exit status: 0 no open problems, 1 only warnings, 3 at least one error, 6 not known, because the service does not
    check this machine or has not checked it since a repair.
    """
    # The first are for root only; the last is for everybody.
    state = load(f"{FOLDER}/state.json") or load(BOOT_STATE) or load(f"{FOLDER}/{PUBLIC}")
    findings = state.get("findings", ())
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
    severities = {f.severity for f in findings}
    # Found problems count, even if some checks could not run.
    if unknown and not (severities and state.get("unchecked")):
        return Status.UNKNOWN
    return Status.ERRORS if Severity.ERROR in severities else Status.WARNINGS if severities else Status.HEALTHY


def _unknown(state: dict[str, Any], store: Store) -> str:
    """Why the machine's state is not known now; "" if the service knows it."""
    if silent := _silent():
        return silent
    if "checked" not in state:
        return state.get("problem", "") or "the service has not checked this machine since it started"
    if state.get("problem"):
        return str(state["problem"])
    if store.changed() > state.get("began", state["checked"]):
        return "a repair or an undo ended after the last check"
    return ""


def _silent() -> str:
    """Why the service does not check this machine; "" if it runs, or if systemd does not run and cannot be asked."""
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
    return f"the service does not run ({state}). Details: systemctl status dlhealth.service"


def _text(checked: int | None, findings: Sequence[OpenProblem], waits: str, unknown: str) -> str:
    from dlhealth.report.style import current_style

    clean = current_style().clean
    lines = [f"Unknown: {clean(unknown)}"] if unknown else []
    if checked is not None:
        lines.append(f"Last check: {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(checked))}")
    roots = [f for f in findings if not f.caused_by]
    if unknown and roots:
        lines.append("Open at the last check:")
    for finding in roots:
        when = "at the next boot: " if finding.next_boot else ""
        lines.append(f"{finding.severity}: {when}{clean(finding.title)}  [{finding.id}]")
        lines += [f"  explains: {clean(f.title)}" for f in findings if finding.id in f.caused_by]
    if not roots and not unknown:
        lines.append("No open problems.")
    if os.geteuid():
        lines.append("Problems in personal files are shown only to root. To check your own login: dlhealth doctor")
    if waits:
        lines.append(f"Repair {waits} is running or waits for a reboot: dlhealth show {waits}")
    elif roots:
        lines.append(f"To repair: {as_root('dlhealth fix')}")
    if unknown:
        lines.append("To check now: dlhealth doctor")
    return "\n".join(lines) + "\n"
