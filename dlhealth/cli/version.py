"""`dlhealth version`."""

import os
import sys

import click

from dlhealth import __version__
from dlhealth.data import CURRENT
from dlhealth.engine.load import load_rules
from dlhealth.engine.machine import system_name
from dlhealth.host.root import live_host


@click.command("version")
def command() -> None:
    """Show the versions of dlhealth, its data, Python and the system.

    The data are the tables of drivers, GPUs and CUDA versions; dlhealth may not know what appeared after their date.
    """
    click.echo(f"dlhealth {__version__}, {len(load_rules().rules)} rules, data of {CURRENT}")
    click.echo(f"Python {sys.version.split()[0]} ({sys.executable})")
    click.echo(f"{system_name(live_host()) or 'unknown system'}, kernel {os.uname().release} ({os.uname().machine})")
