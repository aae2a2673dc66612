"""`dlhealth metrics`."""

import click

from dlhealth.cli import write
from dlhealth.host.newfile import replace
from dlhealth.host.path import told
from dlhealth.service.state import read_known


@click.command("metrics")
@click.option("-o", "--output", "path", metavar="FILE", help="Replace FILE in one step, instead of printing.")
@click.option("--users", is_flag=True, help="Name users, and files outside the system's directories.")
def command(path: str | None, users: bool) -> None:
    """Print what the service knows in the text format of Prometheus.

    It checks nothing. dlhealth-metrics.path runs it after each check for the textfile collector of node_exporter. Only
    root sees problems in personal files, and the repairs.
    """
    from dlhealth.service.metrics import exposition  # half of what this command costs

    text = exposition(read_known(), users=users)
    if path is None:
        write(text.decode())
        return
    try:
        replace(path, text)
    except OSError as error:
        why = (error.strerror or told(error)).lower()
        raise click.UsageError(f"{path}: {why}: the metrics were not written") from error
