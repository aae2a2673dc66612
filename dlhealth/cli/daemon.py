"""`dlhealth daemon`."""

import click


@click.command("daemon")
def command() -> None:
    """Watch this machine and log problems in the journal. dlhealth.service runs this command."""
    from dlhealth.service.watch import main

    main()
