"""`dlhealth status`."""

import os
import time

import click

from dlhealth.cli import printable, write
from dlhealth.cli.common import json_option, status_of
from dlhealth.host.exec import as_root
from dlhealth.service.state import ServiceState, read_known


@click.command("status")
@json_option
def command(as_json: bool) -> int:
    """Show what the service knows: its last check, open problems, and an unfinished repair.

    Exit status: 0 no open problems, 1 only warnings, 3 at least one error, 6 not known, because the service does not
    check this machine or has not checked it since a repair.
    """
    known = read_known()
    if known.trouble:
        click.echo(printable(known.trouble), err=True)
    if as_json:
        from dlhealth.report.json import status_to_json

        write(status_to_json(known.checked, known.findings, known.waits, known.unknown))
    else:
        write(_text(known))
    return status_of(known)


def _text(known: ServiceState) -> str:
    from dlhealth.report.style import current_style

    checked, findings, unknown, roots = known.checked, known.findings, known.unknown, known.roots
    clean = current_style().clean
    lines = [f"Unknown: {clean(unknown)}"] if unknown else []
    if checked is not None:
        lines.append(f"Last check: {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(checked))}")
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
    if known.waits:
        lines.append(f"Repair {known.waits} is running or waits for a reboot: dlhealth show {known.waits}")
    elif roots:
        lines.append(f"To repair: {as_root('dlhealth fix')}")
    if unknown:
        lines.append("To check now: dlhealth doctor")
    return "\n".join(lines) + "\n"
