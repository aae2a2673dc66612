"""`dlhealth service`."""

import os
from collections.abc import Callable

import click

from dlhealth.host.exec import as_root, run


@click.group(
    "service",
    short_help="Install, remove or look at the service.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """Install, remove or look at the service that watches this machine."""


@command.command()
def install() -> None:
    """Put the service in place, in an environment of its own, and start it."""
    from dlhealth.service.install import install

    _carried_out(install)


@command.command()
def remove() -> None:
    """Take the service away; what was repaired can still be undone."""
    from dlhealth.service.install import remove

    _carried_out(remove)


@command.command()
def status() -> int:
    """Which units are there, and whether they run."""
    from dlhealth.service.install import installed_units, running

    units = installed_units()
    if not units:
        click.echo(f"The service is not installed. To install it: {as_root('dlhealth service install')}")
        return 1
    if not running():
        click.echo("The service is installed; systemd does not run here.")
        return 1
    for unit in units:
        shown = run(["systemctl", "show", "-P", "ActiveState", "-P", "UnitFileState", unit], timeout=10).stdout.split()
        click.echo(f"{unit:26} {' '.join(shown)}")
    return run(["systemctl", "is-active", "-q", "dlhealth.service"], timeout=10).status or 0


def _carried_out(what: Callable[[Callable[[str], None]], None]) -> None:
    from dlhealth.service.install import NotInstalled

    if os.geteuid():
        raise click.UsageError(f"this changes the machine and needs root: {as_root('dlhealth service install')}")
    try:
        what(lambda text: click.echo(text, err=True))
    except (NotInstalled, OSError) as problem:
        raise click.ClickException(f"{problem}") from problem
