"""`dlhealth report`."""

import re
import time

import click

from dlhealth.cli import printable, write
from dlhealth.cli.common import Recorded, Request, machine_options, record
from dlhealth.cli.progress import Progress
from dlhealth.host.newfile import created


@click.command("report")
@machine_options
@click.option(
    "--md", "as_markdown", is_flag=True, help="Markdown, for an issue or a forum; on standard output without -o."
)
@click.option("-o", "--output", metavar="FILE", help="The file to write. [default: dlhealth-HOSTNAME-DATE.html]")
def command(
    root: str,
    users: tuple[str, ...],
    pythons: tuple[str, ...],
    next_boot: bool,
    as_markdown: bool,
    output: str | None,
) -> None:
    """Write a diagnosis as one page: causes, repairs, what happened before, and what this machine is.

    The page is one HTML file that loads nothing from anywhere. Secrets are masked as in `dlhealth capture`. The exit
    status says whether the page was written, not what it says.
    """
    from dlhealth.report.page import html, markdown, pages_of

    with Progress() as progress:
        recorded = record(Request(root, (), users, pythons, next_boot), progress)
    pages = pages_of(recorded.diagnosis, recorded.repairing, recorded.timeline, recorded.inventory)
    text = markdown(pages) if as_markdown else html(pages)
    if output is None and as_markdown:
        write(text)
        return
    path = output if output is not None else _name(recorded)
    try:
        with created(path, 0o644) as file:
            size = file.write(text.encode(errors="backslashreplace"))
    except FileExistsError as error:
        raise click.BadParameter(f"{path} already exists; choose another name", param_hint="-o") from error
    except OSError as error:
        raise click.BadParameter(
            f"{path or 'an empty name'}: {(error.strerror or '').lower()}", param_hint="-o"
        ) from error
    shown = printable(path)
    write(
        f"{shown}: {max(1, size >> 10)} KiB\n"
        "Passwords, tokens and values of environment variables are masked; names of users, files and\n"
        "packages are not. Read the page before you share it.\n"
    )


def _name(recorded: Recorded) -> str:
    name = re.sub(r"[^A-Za-z0-9.-]", "", str(recorded.diagnosis.machine.get("hostname") or "")) or "machine"
    return f"dlhealth-{name}-{time.strftime('%Y-%m-%d')}.html"
