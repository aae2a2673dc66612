"""`dlhealth history`, and the parts that `show` and `undo` also use."""

import os

import click

from dlhealth.cli import InTheWay, write
from dlhealth.cli.common import disk_option, failure, json_option, store_of
from dlhealth.engine.repair import tell
from dlhealth.host.exec import as_root
from dlhealth.txn.store import Record, Store


@click.command("history")
@disk_option
@json_option
def command(root: str, as_json: bool) -> None:
    """List all repairs: when, why, and how they ended."""
    kept = [tell(record) for record in records(store_at(root))]
    if as_json:
        from dlhealth.report.json import history_to_json

        write(history_to_json(kept))
    else:
        from dlhealth.report.repairs import render_history
        from dlhealth.report.style import current_style

        write(render_history(kept, current_style()))


def store_at(root: str) -> Store:
    """The repairs of a machine. Raises click.UsageError if they cannot be read."""
    store = store_of(root)
    if not store.readable and not os.geteuid():
        raise InTheWay(f"{store.folder} cannot be listed: it, or a directory above it, is a link or not a directory")
    if not store.readable:
        raise click.UsageError(f"only root may read {store.folder}: {as_root('dlhealth history')}")
    return store


def records(store: Store) -> list[Record]:
    """All repairs, including the active one, the oldest first."""
    try:
        current = store.current()
    except OSError:
        current = Record(store.active, 0, "damaged", "")  # its remains are shown as damaged
    try:
        ended = store.ended()
    except OSError as problem:
        raise failure(store, problem) from problem
    return [*ended, *([current] if current else [])]


def named(store: Store, name: str) -> Record:
    """The repair with this number, id or both. Raises click.BadParameter."""
    for record in records(store):
        if name in (record.name, str(record.sequence), record.id):
            return record
    raise click.BadParameter(f"there is no repair {name!r}; `dlhealth history` lists them", param_hint="REPAIR")
