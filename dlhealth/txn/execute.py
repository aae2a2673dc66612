"""Carries a plan out as one transaction, and takes one back."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from dlhealth.actions import action_from_json, action_to_json, step_of
from dlhealth.actions.base import CommandFailed, Target
from dlhealth.host.change import NotChangeable
from dlhealth.lean import NamedTuple
from dlhealth.model import Action
from dlhealth.txn.journal import Journal
from dlhealth.txn.store import Record, Store, read_json

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Ended(NamedTuple):
    """How a transaction ended: applied, awaiting-reboot (still active), rolled-back, undone, or conflict (something
    was changed by others since and was left as it is); `said` tells why and what."""

    record: Record
    outcome: str
    said: tuple[str, ...]


def apply(
    store: Store,
    target: Target,
    identity: str,
    actions: Sequence[Action],
    about: dict[str, Any],
    verify: Callable[[], str],
    reboot: bool,
    progress: Callable[[str], None],
) -> Ended:
    """Stage, journal, change, verify; what does not verify is taken back. `verify` answers with what is still wrong,
    empty when all is well. With `reboot` it stays active until `confirm` is called after the next boot. Raises
    NotChangeable or CommandFailed only before the first change."""
    steps = [step_of(a) for a in actions]
    for step in steps:
        step.prepare(target)
    before = [s.observe(target) for s in steps]
    plan = {**about, "actions": [action_to_json(a) for a in actions]}
    record = store.begin(identity, plan, before)
    journal = Journal(record.folder)
    try:
        journal.write("BEGIN", digest=about.get("digest", ""), boot=_boot_id())
        try:
            for number, (step, observed) in enumerate(zip(steps, before, strict=True)):
                progress(step.summary())
                journal.write("INTENT", n=number)
                step.apply(target, observed)
                journal.write("DONE", n=number, after=step.observe(target))
            problem = verify()
        except (OSError, NotChangeable, CommandFailed) as error:
            problem = str(error)
        if reboot and not problem:
            journal.write("WAIT-REBOOT", boot=_boot_id())
            return Ended(record, "awaiting-reboot", ())
        return _conclude(store, target, record, journal, problem)
    finally:
        journal.close()


def confirm(store: Store, target: Target, verify: Callable[[], str]) -> Ended | None:
    """Judge a transaction that waited for a reboot, once the machine has been rebooted; None when there is none, or
    when it has not been."""
    record = store.current()
    if record is None:
        return None
    journal = Journal(record.folder)
    try:
        waiting = journal.find("WAIT-REBOOT")
        if waiting is None or journal.undoing or waiting.fields["boot"] == _boot_id():
            return None
        return _conclude(store, target, record, journal, verify())
    finally:
        journal.close()


def recover(store: Store, target: Target) -> Ended | None:
    """Finish or take back a transaction that was cut off; None when there is none, or one that waits for a reboot.
    May itself be cut off and run again."""
    record = store.current()
    if record is None:
        return None
    journal = Journal(record.folder)
    try:
        if journal.find("WAIT-REBOOT") and not journal.undoing and not journal.find("COMMIT"):
            return None
        committed = journal.find("COMMIT")
        if committed and not journal.undoing:
            outcome = committed.fields["outcome"]
            return Ended(store.end(record, outcome), outcome, ())
        return _take_back(store, target, record, journal, "it was cut off")
    finally:
        journal.close()


def undo(store: Store, target: Target, record: Record) -> Ended:
    """Take back a transaction that was applied, or waits for a reboot, as a transaction of its own would: journaled,
    repeatable."""
    if record.folder != store.active:
        os.rename(record.folder, store.active)
    journal = Journal(store.active)
    try:
        journal.write("UNDO", boot=_boot_id())
        return _take_back(store, target, record._replace(folder=store.active), journal, "")
    finally:
        journal.close()


def _conclude(store: Store, target: Target, record: Record, journal: Journal, problem: str) -> Ended:
    if problem:
        return _take_back(store, target, record, journal, problem)
    journal.write("VERIFIED")
    journal.write("COMMIT", outcome="applied")
    return Ended(store.end(record, "applied"), "applied", ())


def _take_back(store: Store, target: Target, record: Record, journal: Journal, problem: str) -> Ended:
    said = revert(journal, target, record.folder)
    outcome = "conflict" if said else "undone" if journal.undoing else "rolled-back"
    journal.write("COMMIT", outcome=outcome, problem=problem)
    return Ended(store.end(record, outcome), outcome, (*([problem] if problem else []), *said))


def revert(journal: Journal, target: Target, folder: str) -> tuple[str, ...]:
    """Take back every step that was begun, strictly the last first. What somebody else changed since is kept; the
    answer names it."""
    actions = [action_from_json(a) for a in read_json(f"{folder}/plan.json")["actions"]]
    done = {e.fields["n"]: e.fields["after"] for e in journal.events if e.kind == "DONE"}
    settled = {*journal.numbers("REVERTED"), *journal.numbers("CONFLICT")}
    said = [e.fields["what"] for e in journal.events if e.kind == "CONFLICT"]
    for number in sorted(set(journal.numbers("INTENT")) - settled, reverse=True):
        step = step_of(actions[number])
        before = read_json(f"{folder}/pre/{number}.json")
        try:
            now = step.observe(target)
            ours = done[number] if number in done else step.after(target, before)
            if now == before and number in done:
                pass
            elif ours is None or now in (before, ours):
                # Also where nothing is seen to have changed: a step that was cut off may have left a temporary file.
                step.revert(target, before)
            else:
                raise NotChangeable(f"was changed since, and is left as it is: {step.summary()}")
        except (NotChangeable, CommandFailed) as error:
            said.append(str(error))
            journal.write("CONFLICT", n=number, what=str(error))
            continue
        journal.write("REVERTED", n=number)
    return tuple(said)


def _boot_id() -> str:
    try:
        with open(BOOT_ID) as file:
            return file.read().strip()
    except OSError:
        return ""
