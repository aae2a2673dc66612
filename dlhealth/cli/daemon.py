"""`dlhealth daemon`."""

import click


@click.command("daemon")
def command() -> None:
    """Watch this machine and tell the journal what breaks. dlhealth.service runs it."""
    from dlhealth.service.watch import main

    main()
