"""`dlhealth undo`."""

import os

import click

from dlhealth.cli import InTheWay, Status, write
from dlhealth.cli.common import agreed, failure, json_option, show
from dlhealth.cli.history import named, root_option, store_at
from dlhealth.cli.progress import Steps
from dlhealth.engine.repair import tell
from dlhealth.host.exec import as_root
from dlhealth.model import Outcome
from dlhealth.steps.base import Target
from dlhealth.txn.execute import Ended, in_the_way, recover, undo
from dlhealth.txn.store import Busy, Record, Store


@click.command("undo")
@click.argument("name", metavar="[TXN]", required=False)
@root_option
@json_option
@click.option("--yes", is_flag=True, help="Don't ask.")
def command(name: str | None, root: str, as_json: bool, yes: bool) -> int:
    """Undo what a transaction changed. [default: the last one that was applied]

    What somebody changed since is left as it is, and named. With --root, a repair that was begun on that disk and has not
    ended is undone without a question only when TXN names it.

    Exit status: 0 undone, or there was nothing to undo, 1 something could not be undone, 2 wrong usage or another repair
    comes first.
    """
    if os.geteuid():
        raise click.UsageError(f"an undo changes the machine and needs root: {as_root('dlhealth undo')}")
    store = store_at(root)
    try:
        record = named(store, name) if name else _last(store)
    except OSError as problem:
        raise failure(store, problem) from problem
    if record and record.outcome and not record.stands:
        left = (
            "what others changed of it is left to them"
            if record.outcome == Outcome.CONFLICT
            else "it left nothing to undo"
        )
        raise click.BadParameter(f"transaction {record.name} ended as {record.outcome}: {left}", param_hint="TXN")
    if record is None:
        _print(None, as_json)
        return Status.HEALTHY
    if not (yes and as_json):  # a person sees what the question is about
        from dlhealth.report.repairs import render_told
        from dlhealth.report.style import current_style

        show(render_told(tell(record), current_style()), as_json)
    if yes and not name and not record.outcome and store.root != "/":
        raise InTheWay(
            f"repair {record.name} was begun on this disk and has not ended; name it to undo it: {record.name}"
        )
    if not yes and not agreed("Undo this?"):
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
        raise Busy(f"repair {current.name} was begun on this disk and has not ended: undo it first")
    # Only one may be under way; one that was cut off comes first.
    ended = recover(store, Target(store.root, current.id)) if current else None
    if current and current.id == record.id and ended:
        return ended
    if current and current.id != record.id and ended is None:
        raise Busy(f"transaction {current.name} waits for a reboot: undo it first")
    if later := in_the_way(store, record):
        raise Busy(f"transaction {later.name} changed some of the same since: dlhealth undo {later.name} comes first")
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
