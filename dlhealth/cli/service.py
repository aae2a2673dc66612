"""`dlhealth service`."""

import os
from collections.abc import Callable

import click

from dlhealth.cli import Failure, Group
from dlhealth.host.exec import as_root, run


@click.group("service", cls=Group)
def command() -> None:
    """Install, remove or check the service that watches this machine."""


@command.command()
def install() -> None:
    """Install the service in its own environment, and start it."""
    from dlhealth.service.install import install

    _carried_out(install)


@command.command()
def remove() -> None:
    """Remove the service. Repairs can still be undone."""
    from dlhealth.service.install import remove

    _carried_out(remove)


@command.command()
def status() -> int:
    """Show which units are installed, and whether they run."""
    from dlhealth.service.install import installed_units, running

    units = installed_units()
    if not units:
        click.echo(f"The service is not installed. To install it: {as_root('dlhealth service install')}")
        return 1
    if not running():
        click.echo("The service is installed, but systemd does not run on this machine.")
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
        raise Failure(f"{problem}") from problem
