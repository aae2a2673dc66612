"""`dlhealth report`."""

import re
import time
from typing import TYPE_CHECKING

import click

from dlhealth.cli import printable, write
from dlhealth.cli.common import Selection, asked, diagnose, machine_options, root_option, writing
from dlhealth.cli.progress import Progress
from dlhealth.host import NotAMachine, Unreadable
from dlhealth.host.newfile import created
from dlhealth.host.path import told
from dlhealth.host.remote import silence_at
from dlhealth.host.root import RootHost

if TYPE_CHECKING:
    from dlhealth.engine.examine import Examiner
    from dlhealth.engine.facts import Options
    from dlhealth.engine.record import Inventory, Timeline
    from dlhealth.model import Diagnosis

_LIMIT = 16 << 20
"""Bytes of a report that are read."""


@click.command("report")
@root_option
@machine_options
@click.option(
    "--md", "as_markdown", is_flag=True, help="Markdown, for an issue or a forum; on standard output without -o."
)
@click.option(
    "--merge",
    metavar="DIR",
    help="One page of many machines: of the reports in DIR (doctor --json, these pages, archives of dlhealth capture).",
)
@click.option("-o", "--output", metavar="FILE", help="The file to write. [default: dlhealth-HOSTNAME-DATE.html]")
def command(
    root: str,
    users: tuple[str, ...],
    pythons: tuple[str, ...],
    next_boot: bool,
    as_markdown: bool,
    merge: str | None,
    output: str | None,
) -> None:
    """Write a diagnosis as one page: causes, repairs, what happened before, and what this machine is.

    The page is one HTML file that loads nothing from anywhere. Secrets are masked as in `dlhealth capture`. The exit
    status says whether the page was written, not what it says.
    """
    if merge is not None:
        if as_markdown or next_boot or root != "/" or users or pythons:
            raise click.UsageError("--merge takes no other option but -o")
        _merge(merge, output or f"dlhealth-machines-{time.strftime('%Y-%m-%d')}.html")
        return
    from dlhealth.engine import proofs
    from dlhealth.engine.record import inventory_of, repairs_in, timeline_of
    from dlhealth.report.page import html, markdown, pages_of

    request = asked(Selection(root, users=users, pythons=pythons, next_boot=next_boot))
    repairs = repairs_in(request.host.name) if isinstance(request.host, RootHost) else ()

    def work(examiner: "Examiner", options: "Options") -> "tuple[Diagnosis, Timeline, Inventory]":
        diagnosis, facts = examiner.diagnose(options).told, examiner.facts(options)
        return diagnosis, timeline_of(facts, repairs), inventory_of(facts)

    with Progress() as progress:
        diagnosis, timeline, inventory = request.examining(work, progress)
    pages = pages_of(diagnosis, request.repairing, timeline, inventory, proofs.read(request.host))
    text = markdown(pages) if as_markdown else html(pages)
    if output is None and as_markdown:
        write(text)
        return
    path = output if output is not None else _name(diagnosis)
    size = _save(path, text)
    write(
        f"{printable(path)}: {size} KiB\n"
        "Passwords, tokens and values of environment variables are masked; names of users, files and\n"
        "packages are not. Read the page before you share it.\n"
    )


def _merge(folder: str, path: str) -> None:
    from dlhealth.model import count
    from dlhealth.report.overview import overview, page

    merged = overview(*_texts(folder))
    if not merged.machines:
        raise click.BadParameter(f"{folder} has no report of dlhealth", param_hint="--merge")
    size = _save(path, page(merged))
    hit = sum(bool(m.causes) for m in merged.machines)
    write(f"{printable(path)}: {size} KiB; {count(len(merged.machines), 'machine')}, {hit} with a problem\n")
    for name, reason in merged.unread:
        click.echo(printable(f"left out: {name}: {reason}"), err=True)


def _texts(folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """The reports in a directory by name, an archive as the report on its machine; and why others cannot be read."""
    from dlhealth.report.json import to_json

    texts: dict[str, str] = {}
    unread: dict[str, str] = {}
    if silence := silence_at(folder):
        raise click.BadParameter(silence, param_hint="--merge")
    try:
        host = RootHost(folder)
        names = host.listdir("/")
    except (NotAMachine, Unreadable, OSError) as problem:
        raise click.BadParameter(told(problem), param_hint="--merge") from problem
    for name in names:
        status = host.stat(f"/{name}")
        if status is None or status.kind != "file":
            continue
        try:
            if name.endswith((".json", ".html")):
                texts[name] = host.text(f"/{name}", _LIMIT) or ""
            else:
                texts[name] = diagnose(Selection(f"{folder}/{name}"), lambda diagnosis, repairing: to_json(diagnosis))
        except click.ClickException as problem:
            unread[name] = problem.message
        except Unreadable as problem:
            unread[name] = str(problem)
    return texts, unread


def _save(path: str, text: str) -> int:
    """Write a new file; the size in KiB."""
    with writing(path), created(path, 0o644) as file:
        return max(1, file.write(text.encode(errors="backslashreplace")) >> 10)


def _name(diagnosis: "Diagnosis") -> str:
    name = re.sub(r"[^A-Za-z0-9.-]", "", str(diagnosis.machine.get("hostname") or "")) or "machine"
    return f"dlhealth-{name}-{time.strftime('%Y-%m-%d')}.html"
