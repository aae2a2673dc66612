"""Runs a plan as one transaction, and undoes one."""

import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from dlhealth.actions import action_from_json, action_to_json, changed_path, needs_programs
from dlhealth.host.change import ABSENT, NotChangeable, State, need_changeable
from dlhealth.host.path import told
from dlhealth.host.private import PrivateFolder
from dlhealth.model import Action, Outcome
from dlhealth.records import NamedTuple
from dlhealth.steps import step_of
from dlhealth.steps.base import CommandFailed, CopyGone, DiskFull, FileStep, Observed, PathStep, Step, Target
from dlhealth.steps.locks import program_of
from dlhealth.steps.reach import out_of_reach
from dlhealth.txn.journal import EntryKind, Journal, read_entries
from dlhealth.txn.store import Busy, Damaged, Record, Store, read_json, reading, reading_plan

BOOT_ID = "/proc/sys/kernel/random/boot_id"
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NotVerified(Exception):
    """The repair ran and did not help. `failed` are the fingerprints of the remaining findings, none if it did harm
    instead."""

    def __init__(self, problem: str, failed: Sequence[str]) -> None:
        super().__init__(problem)
        self.failed = tuple(failed)


class NotProved(NotVerified):
    """The repair ran, but its result cannot be checked."""


class NotYet(Exception):
    """Only the next boot of the machine can show whether the repair helped."""


class NotPrepared(CommandFailed):
    """Some actions cannot work here and now, as was found before the first change; `problems` says why."""

    def __init__(self, problems: Mapping[Action, str]) -> None:
        super().__init__("; ".join(dict.fromkeys(problems.values())))
        self.problems = problems


class Stopped(Exception):
    """Somebody asked dlhealth to end."""


class Ended(NamedTuple):
    """How a transaction ended: applied, not-proved (applied, but nothing could check whether it helped),
    awaiting-reboot (still active), rolled-back, undone, or conflict (something could not be undone, for example because
    somebody else changed it since); `said` gives details. For a repair that was undone, `problem` is the reason, and
    `action` the failed one, None if all actions ran. For an applied one, `problem` says that somebody asked for an end
    meanwhile."""

    record: Record
    outcome: Outcome
    said: tuple[str, ...]
    problem: Exception | None = None
    action: Action | None = None


def apply(
    store: Store,
    target: Target,
    identity: str,
    actions: Sequence[Action],
    about: dict[str, Any],
    verify: Callable[[], None],
    reboot: bool,
    progress: Callable[[str], None],
    hold: Callable[[], AbstractContextManager[object]] = nullcontext,
    keep: Callable[[str], bool] = lambda problem: False,
) -> Ended:
    """Stage, journal, change, verify, and undo everything that cannot be verified. `verify` raises NotVerified,
    NotProved (then `keep` decides whether the repair stays) or NotYet. After NotYet, or with `reboot`, the transaction
    stays active until `confirm` is called after the next boot. `hold` is held from the first change to the last.
    Staging can be interrupted, because downloads may take long. A signal that asks to stop takes effect between two
    steps, and everything is undone. Raises NotPrepared only before the first change."""
    steps = [step_of(a) for a in actions]
    for action, step in zip(actions, steps, strict=True):
        if needs_programs(action):
            progress(f"preparing: {step.summary()}")
        try:
            step.prepare(target)
        except CommandFailed as error:
            raise NotPrepared({action: str(error)}) from error
    before = _observe(actions, steps, target)
    plan = {**about, "actions": [action_to_json(a) for a in actions]}
    record = store.begin(identity, plan, before)
    journal = Journal(record.folder)
    try:
        with hold(), _signals_deferred() as stopped:
            # Synced with the first INTENT: before that, there is nothing to undo.
            journal.write(EntryKind.BEGIN, sync=False, digest=about.get("digest", ""), boot=_boot_id())
            failing: Action | None = None
            try:
                for number, (step, observed) in enumerate(zip(steps, before, strict=True)):
                    failing = actions[number]
                    progress(f"[{number + 1}/{len(steps)}] {step.summary()}")
                    journal.write(EntryKind.INTENT, n=number)
                    step.apply(target, observed)
                    journal.write(EntryKind.DONE, sync=False, n=number, after=step.observe(target))
                    failing = None
                    if stopped:
                        raise Stopped(f"stopped by {signal.Signals(stopped[0]).name}")
                outcome = _judged(verify, reboot, keep)
                if any(needs_programs(a) for a in actions):
                    target.settle_all()
            except (OSError, NotChangeable, CommandFailed, NotVerified, Stopped) as error:
                progress(f"undoing everything: {told(error)}")
                return _take_back(store, target, record, journal, error)._replace(problem=error, action=failing)
            if outcome is Outcome.AWAITING_REBOOT:
                journal.write(EntryKind.WAIT_REBOOT, boot=_boot_id())
                return Ended(record, outcome, ())
            return _commit(store, record, journal, outcome)._replace(problem=Stopped() if stopped else None)
    finally:
        journal.close()


def _judged(verify: Callable[[], None], reboot: bool, keep: Callable[[str], bool]) -> Outcome:
    """The outcome of a repair that stays. Raises NotVerified for one that does not."""
    try:
        verify()
    except NotYet:
        return Outcome.AWAITING_REBOOT
    except NotProved as error:
        if not keep(str(error)):
            raise
        return Outcome.AWAITING_REBOOT if reboot else Outcome.NOT_PROVED
    return Outcome.AWAITING_REBOOT if reboot else Outcome.APPLIED


def _observe(actions: Sequence[Action], steps: Sequence[Step[Any]], target: Target) -> list[Observed]:
    """The state that each step will find: if an earlier step changes the same path, its result. Raises NotPrepared with
    all files that differ from the plan or cannot be read."""
    expected: dict[str, Observed] = {}
    before = []
    problems: dict[Action, str] = {}
    for action, step in zip(actions, steps, strict=True):
        try:
            if isinstance(step, PathStep):
                need_changeable(target.root, step.path)
            if isinstance(step, FileStep):
                observed = expected[step.path] if step.path in expected else step.observe(target)
                expected[step.path] = step.after(target, observed)
            else:
                observed = step.observe(target)
                if isinstance(step, PathStep):
                    expected[step.path] = ABSENT.to_json()
            before.append(observed)
        except (OSError, NotChangeable, CommandFailed) as error:
            problems[action] = told(error)
    if problems:
        raise NotPrepared(problems)
    return before


def confirm(
    store: Store,
    target: Target,
    verify: Callable[[], None],
    sure: Callable[[], bool] = lambda: True,
    keep: Callable[[str], bool] | None = None,
) -> Ended | None:
    """Check a transaction that waited for a reboot, after the reboot; None if there is none, or no reboot yet. One that
    seems to have helped keeps waiting until that is `sure`. So does one that cannot be checked, if nobody can decide
    whether to `keep` it."""
    record = store.current()
    if record is None:
        return None
    journal = Journal(record.folder)
    try:
        waiting = journal.waiting
        if waiting is None or waiting.fields["boot"] == _boot_id():
            return None
        _within_reach(target, record)
        with _signals_deferred():
            try:
                outcome = _judged(verify, False, keep or (lambda problem: False))
            except NotVerified as error:
                if isinstance(error, NotProved) and keep is None:
                    return None
                return _take_back(store, target, record, journal, error)
            return _commit(store, record, journal, outcome) if sure() else None
    finally:
        journal.close()


def recover(store: Store, target: Target) -> Ended | None:
    """Finish or undo an interrupted transaction; None if there is none, or if it waits for a reboot. May itself be
    interrupted and run again. Raises Busy if one of its programs still runs, or if a changed path cannot be reached."""
    record = store.current()
    if record is None:
        return None
    journal = Journal(record.folder)
    try:
        if journal.waiting:
            return None
        committed = journal.find(EntryKind.COMMIT)
        if committed and not journal.undoing:
            outcome = Outcome(committed.fields["outcome"])
            return Ended(store.end(record, outcome), outcome, ())
        _none_at_work(target, record.name)
        _within_reach(target, record)
        failed = journal.find(EntryKind.FAILED)
        problem = NotVerified(**failed.fields) if failed else Stopped("it was interrupted")
        with _signals_deferred():
            return _take_back(store, target, record, journal, problem)
    finally:
        journal.close()


def undo(store: Store, target: Target, record: Record) -> Ended:
    """Undo a transaction that was applied, that waits for a reboot, or that was not undone completely. The undo is journaled and repeatable like a
    transaction. Raises Damaged before any change, and Busy like `recover`."""
    if record.folder == store.active:
        _none_at_work(target, record.name)
    else:
        _check(record.folder)
    _within_reach(target, record)
    if record.folder != store.active:
        record = store.reopen(record)
    journal = Journal(record.folder)
    try:
        with _signals_deferred():
            journal.write(EntryKind.UNDO, boot=_boot_id())
            return _take_back(store, target, record, journal, None)
    finally:
        journal.close()


def _none_at_work(target: Target, name: str) -> None:
    """Raises Busy while a program that a killed dlhealth started still runs: its later changes would not be undone."""
    if program := program_of(target):
        raise Busy(f"{program}, started by repair {name}, is still running: wait until it ends, then try again")


def _within_reach(target: Target, record: Record) -> None:
    """Raises Busy if something would stay only because it cannot be reached from here. Otherwise it would count as
    somebody else's change, and the transaction would be closed."""
    with reading_plan(record) as plan:
        begun = {e.fields["n"] for e in read_entries(record.folder) if e.kind == EntryKind.INTENT}
        actions = [action_from_json(plan["actions"][n]) for n in sorted(begun)]
    for problem in out_of_reach(target, actions).values():
        raise Busy(f"repair {record.name} cannot be undone from here: {problem}")


def in_the_way(store: Store, record: Record) -> Record | None:
    """The last of the later transactions that changed one of the same paths: it must be undone first, because this one
    could not be undone completely before. Raises Damaged."""
    ours = _changes(record)
    later = [r for r in store.ended() if r.stands and r.sequence > record.sequence]
    return next((r for r in reversed(later) if _changes(r) & ours), None)


def steps_of(record: Record) -> tuple[str, ...]:
    """What a transaction does, one line for each step. Raises Damaged."""
    with reading_plan(record) as plan:
        return tuple(action_from_json(a).summary() for a in plan["actions"])


def _changes(record: Record) -> set[str]:
    """The paths that a transaction changed; all changes by programs count as one path."""
    with reading_plan(record) as plan:
        return {changed_path(action_from_json(a)) for a in plan["actions"]}


def _check(folder: PrivateFolder) -> None:
    """Raises Damaged if the record of an applied transaction is incomplete: it would be called undone, and stay active
    for ever, so that no other could begin."""
    events = read_entries(folder)
    if not any(e.kind == EntryKind.COMMIT for e in events):
        raise Damaged(folder, "its journal has no end")
    _kept(folder, {e.fields["n"] for e in events if e.kind == EntryKind.INTENT})


def _kept(
    folder: PrivateFolder, numbers: Collection[int]
) -> tuple[dict[int, Step[Any]], dict[int, Observed], set[int]]:
    """The steps with these numbers and what each observed; and the numbers of all steps of the plan that need programs.
    Raises Damaged."""
    with reading(folder):
        actions = [action_from_json(a) for a in read_json(folder, "plan.json")["actions"]]
        steps = {n: step_of(actions[n]) for n in numbers}
        programs = {n for n, action in enumerate(actions) if needs_programs(action)}
        observed = {n: dict(read_json(folder / "pre", f"{n}.json")) for n in numbers}
        for n in numbers:
            if isinstance(steps[n], FileStep):
                State.from_json(observed[n])
        return steps, observed, programs


def _commit(store: Store, record: Record, journal: Journal, outcome: Outcome) -> Ended:
    journal.write(EntryKind.COMMIT, outcome=outcome)
    return Ended(store.end(record, outcome), outcome, ())


def _take_back(store: Store, target: Target, record: Record, journal: Journal, problem: Exception | None) -> Ended:
    failed = problem.failed if isinstance(problem, NotVerified) else journal.failed
    if isinstance(problem, NotVerified):
        # From here on it waits for no reboot, and the failed repair is known even if the undo is interrupted.
        journal.write(EntryKind.FAILED, problem=str(problem), failed=failed)
    said = revert(journal, target, record.folder)
    outcome = Outcome.CONFLICT if said else Outcome.UNDONE if journal.undoing else Outcome.ROLLED_BACK
    journal.write(EntryKind.COMMIT, outcome=outcome, problem=told(problem) if problem else "", failed=failed)
    return Ended(store.end(record, outcome), outcome, (*([told(problem)] if problem else []), *said))


def revert(journal: Journal, target: Target, folder: PrivateFolder) -> tuple[str, ...]:
    """Undo every step that was begun, strictly the last first. Later changes by somebody else are kept, and named in
    the result. A further undo, after one that ended as conflict, tries those again."""
    earlier, events = journal.attempts()
    begun = set(journal.numbers(EntryKind.INTENT))
    undone = {e.fields["n"] for e in earlier if e.kind == EntryKind.REVERTED}
    steps, kept, programs = _kept(folder, begun)
    done = {e.fields["n"]: e.fields["after"] for e in journal.events if e.kind == EntryKind.DONE}
    reverting = set(journal.numbers(EntryKind.REVERT))
    settled = {e.fields["n"] for e in events if e.kind in (EntryKind.REVERTED, EntryKind.CONFLICT)}
    said = [e.fields["what"] for e in events if e.kind == EntryKind.CONFLICT]
    for number in sorted(begun - undone - settled, reverse=True):
        step, before = steps[number], kept[number]
        # Programs run one after the other. A step that was interrupted, forward or backward, has neither the state
        # before nor the state after it.
        cut_off = number in programs and (number not in done or number in reverting)
        try:
            if cut_off or _is_changed(step, target, before, done.get(number)):
                if number in programs and not cut_off:
                    journal.write(EntryKind.REVERT, n=number)
                # Copies are made before a program begins: if an interrupted step lacks one, it was never made.
                with nullcontext() if number in done else suppress(CopyGone):
                    step.revert(target, before)
        except DiskFull as error:
            raise OSError(str(error)) from error  # nothing is settled: the next start tries again
        except (NotChangeable, CommandFailed, PermissionError, NotADirectoryError, *_ODD) as error:
            # Also a path that was made immutable, that is on a server where root has no rights, that a user replaced
            # meanwhile, or that has a forged record: to try again at once would not help, and would prevent the undo
            # of everything else.
            said.append(_not_undone(step, error))
            journal.write(EntryKind.CONFLICT, n=number, what=said[-1])
            continue
        journal.write(EntryKind.REVERTED, sync=False, n=number)
    if programs:
        target.settle_all()
    # Its owner may have changed a file that an earlier undo restored; what programs changed is checked again.
    unchecked = {e.fields["n"] for e in journal.attempts()[1] if e.kind == EntryKind.CONFLICT} | (undone - programs)
    return (*said, *_left(target, {n: (steps[n], kept[n]) for n in sorted(begun - unchecked)}))


_ODD = (ValueError, LookupError, TypeError, AttributeError)


class _ChangedSince(NotChangeable):
    """Somebody else changed it after the step."""


def _not_undone(step: Step[Any], error: Exception) -> str:
    if isinstance(error, _ChangedSince):
        return str(error)
    return f"not undone: {step.summary()}: {'its record is damaged' if isinstance(error, _ODD) else told(error)}"


def _left(target: Target, undone: Mapping[int, tuple[Step[Any], Observed]]) -> Iterator[str]:
    """What differs from before. If several steps changed a path, the first has its original state."""
    seen: set[str] = set()
    for step, before in undone.values():
        path = step.path if isinstance(step, PathStep) else ""
        if path and path in seen:
            continue
        seen.add(path)
        try:
            left = step.left(target, before)
            for what in (*left[:_NAMED], *[f"and {len(left) - _NAMED} more"] * (len(left) > _NAMED)):
                yield f"not undone: {step.summary()}: {what}"
        except (OSError, NotChangeable, CommandFailed, *_ODD) as error:
            yield f"{step.summary()}: could not be checked after the undo ({told(error)})"


_NAMED = 5
"""The most details of one step that are named; the others are counted."""


def _is_changed(step: Step[Any], target: Target, before: Observed, after: Observed | None) -> bool:
    """Whether there is something to undo; `after` is the state that the step left, None if it was interrupted. Raises
    NotChangeable if somebody else changed it since."""
    now = step.observe(target)
    if step.same(now, before):
        return after is None  # it may have left a temporary file
    if after is None and isinstance(step, PathStep):
        after = step.after(target, before)
    if after is None or not step.same(now, after):
        raise _ChangedSince(f"changed by somebody else since, left as it is: {step.summary()}")
    return True


@contextmanager
def _signals_deferred() -> Iterator[list[int]]:
    """Only note signals that ask to end. Running programs do not get them: an interrupted dpkg helps nobody."""
    heard: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: heard.append(number)) for number in _STOPPING}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _boot_id() -> str:
    try:
        with open(BOOT_ID) as file:
            return file.read().strip()
    except OSError:
        return ""
