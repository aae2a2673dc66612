"""`dlhealth daemon`."""

from dlhealth.cli import subcommand


@subcommand("daemon", "What dlhealth.service runs.")
def command() -> None:
    """Watch this machine and tell the journal what breaks. dlhealth.service runs it."""
    from dlhealth.service.watch import main

    main()
