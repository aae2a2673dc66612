"""`dlhealth undo`."""

import os

import click

from dlhealth.cli import InTheWay, Status, write
from dlhealth.cli.common import agreed, disk_option, failure, json_option, show
from dlhealth.cli.history import named, store_at
from dlhealth.cli.progress import Steps
from dlhealth.engine.repair import tell
from dlhealth.host.exec import as_root
from dlhealth.model import Outcome
from dlhealth.steps.base import Target
from dlhealth.txn.execute import Ended, in_the_way, recover, undo
from dlhealth.txn.store import Busy, Record, Store


@click.command("undo")
@click.argument("name", metavar="[REPAIR]", required=False)
@disk_option
@json_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(name: str | None, root: str, as_json: bool, yes: bool) -> int:
    """Undo a repair. [default: the last one]

    Files that somebody changed after the repair stay as they are and are listed. To try those again, name the repair.
    With --root and --yes, name an unfinished repair of that disk to undo it.

    Exit status: 0 undone, or nothing to undo, 1 not undone completely, 2 wrong usage or another repair comes first.
    """
    if os.geteuid():
        raise click.UsageError(f"an undo changes the machine and needs root: {as_root('dlhealth undo')}")
    store = store_at(root)
    try:
        record = named(store, name) if name else _last(store)
    except OSError as problem:
        raise failure(store, problem) from problem
    if record and not record.undoable:
        said = f"repair {record.name} ended as {record.outcome}: there is nothing to undo"
        raise click.BadParameter(said, param_hint="REPAIR")
    if record is None:
        _print(None, as_json)
        return Status.HEALTHY
    if not (yes and as_json):  # show a person what the question is about
        from dlhealth.report.repairs import render_told
        from dlhealth.report.style import current_style

        show(render_told(tell(record), current_style()), as_json)
    if yes and not name and not record.outcome and store.root != "/":
        raise InTheWay(f"this disk has an unfinished repair; to undo it, name it: {record.name}")
    if not yes and not agreed("Undo this repair?"):
        return Status.WARNINGS
    try:
        with store.locked(), Steps() as progress:
            progress(f"undoing {record.name}")
            ended = _take_back(store, record)
    except (Busy, OSError) as problem:
        raise failure(store, problem) from problem
    _print(ended, as_json)
    return Status.WARNINGS if ended.outcome is Outcome.CONFLICT else Status.HEALTHY


def _take_back(store: Store, record: Record) -> Ended:
    current = store.current()
    if current and current.id != record.id and store.root != "/":
        raise Busy(f"this disk has an unfinished repair: undo {current.name} first")
    # Only one repair may be active; an interrupted one comes first.
    ended = recover(store, Target(store.root, current.id)) if current else None
    if current and current.id == record.id and ended:
        return ended
    if current and current.id != record.id and ended is None:
        raise Busy(f"repair {current.name} waits for a reboot: undo it first")
    if later := in_the_way(store, record):
        raise Busy(f"repair {later.name} later changed some of the same files: first run dlhealth undo {later.name}")
    return undo(store, Target(store.root, record.id), record)


def _last(store: Store) -> Record | None:
    done = [r for r in store.ended() if r.stands]
    return store.current() or (done[-1] if done else None)


def _print(ended: Ended | None, as_json: bool) -> None:
    if as_json:
        from dlhealth.report.json import undone_to_json

        write(undone_to_json(ended))
    elif ended is None:
        write("There is nothing to undo.\n")
    else:
        from dlhealth.report.repairs import render_ended
        from dlhealth.report.style import current_style

        write(render_ended(ended, tell(ended.record), current_style()))
