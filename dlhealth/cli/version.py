"""`dlhealth version`."""

import os
import sys

import click

from dlhealth import __version__
from dlhealth.engine.load import load_rules
from dlhealth.engine.machine import system_name
from dlhealth.host.root import live_host


@click.command("version")
def command() -> None:
    """Show the versions of dlhealth, its rules, Python and the system."""
    click.echo(f"dlhealth {__version__}, {len(load_rules().rules)} rules")
    click.echo(f"Python {sys.version.split()[0]} ({sys.executable})")
    click.echo(f"{system_name(live_host()) or 'unknown system'}, kernel {os.uname().release}")
