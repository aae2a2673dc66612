"""`dlhealth capture`."""

import os
import re
import time

import click

from dlhealth import __version__
from dlhealth.cli import printable, write
from dlhealth.cli.common import writing
from dlhealth.cli.progress import Progress
from dlhealth.engine.examine import Examiner, examining
from dlhealth.engine.facts import Options
from dlhealth.host import Unreadable
from dlhealth.host.base import Host, Watch
from dlhealth.host.root import live_host
from dlhealth.model import timestamp


@click.command("capture")
@click.option("-o", "--output", metavar="FILE", help="The archive to write. [default: dlhealth-HOSTNAME-DATE.tar.gz]")
def command(output: str | None) -> None:
    """Save everything that a diagnosis reads on this machine in one archive.

    `dlhealth doctor --root FILE` diagnoses the archive on any machine. Secrets are masked: passwords, tokens, and values
    of environment variables.
    """
    from dlhealth.host.bundle import write_bundle
    from dlhealth.report.redact import Redactor

    host = live_host()
    with Progress() as progress:
        ask_everything(host, progress)
    path = output if output is not None else f"dlhealth-{_hostname(host)}-{time.strftime('%Y-%m-%d')}.tar.gz"
    about = {"dlhealth": __version__, "time": timestamp()}
    with writing(path, (FileNotFoundError, NotADirectoryError, PermissionError)):
        written = write_bundle(host, path, Redactor(host.seen), about)
    shown = printable(path)
    write(
        f"{shown}: {written.members} files and outputs, {max(1, written.size >> 10)} KiB\n"
        "Values of environment variables, passwords and tokens are masked; names of users,\n"
        "files and packages are not. Read the archive before you share it:\n"
        f"  tar -xzOf {shown} | less\n"
    )
    if os.geteuid():
        click.echo("dlhealth: without root, some files could not be read. Run it as root for a full archive.", err=True)


def ask_everything(host: Host, watch: Watch) -> None:
    """Diagnose for the running kernel and for the next one, so that the host has read everything."""

    def work(examiner: Examiner) -> None:
        for next_boot in (False, True):
            examiner.diagnose(Options(next_boot=next_boot))

    examining(host, work, watch=watch, answers=True)


def _hostname(host: Host) -> str:
    try:
        name = host.text("/proc/sys/kernel/hostname") or ""
    except Unreadable:
        name = ""
    return re.sub(r"[^A-Za-z0-9.-]", "", name) or "machine"
