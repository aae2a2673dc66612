"""Where transactions live: one may be active, the others are history.

```
/var/lib/dlhealth/txn/active/      plan.json   journal   pre/N.json
/var/lib/dlhealth/txn/history/SEQ-ID-OUTCOME/             the same, when it has ended
```
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dlhealth.host.mounts import Mounts
from dlhealth.host.path import Root, told
from dlhealth.host.private import PrivateFolder
from dlhealth.lazy import regex
from dlhealth.model import Outcome
from dlhealth.records import NamedTuple

FOLDER = "/var/lib/dlhealth/txn"
_ID = "[0-9a-f]{1,64}"
_ENDED = regex(rf"([0-9]{{1,9}})-({_ID})-([a-z-]{{1,32}})")
_IS_ID = regex(_ID)
_LAST = 999_999_999
_LIMIT = 128 << 20
"""Bytes of a JSON file that are read: a file of `host.change.SIZE_LIMIT` bytes fits."""


class Busy(Exception):
    """Another dlhealth is changing this machine."""


class Damaged(OSError):
    """The record of a transaction cannot be read: it is torn, forged, or of another version. Nothing was changed."""

    def __init__(self, folder: PrivateFolder, error: object) -> None:
        said = f"{type(error).__name__}: {told(error)}" if isinstance(error, Exception) else error
        super().__init__(
            f"{folder} is damaged or of another version of dlhealth ({said}): dlhealth cannot undo its changes. "
            f"Restore by hand the files whose copies are in {folder}/pre, if it has any, then move {folder} away."
        )


@contextmanager
def reading(folder: PrivateFolder) -> Iterator[None]:
    """Raises Damaged if the record of a transaction is missing, has another format, or is not a regular file."""
    try:
        yield
    except PermissionError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(folder, error) from error
    except OSError as error:
        if isinstance(error, Damaged) or error.errno not in _NO_RECORD:
            raise
        raise Damaged(folder, error) from error


_NO_RECORD = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.EMLINK, errno.EISDIR)


class Record(NamedTuple):
    """The stored form of a transaction. `outcome` is empty while it is active."""

    folder: PrivateFolder
    sequence: int
    id: str
    outcome: str

    @property
    def name(self) -> str:
        return f"{self.sequence}-{self.id}"

    @property
    def stands(self) -> bool:
        """Whether its changes are still in effect."""
        return self.outcome in (Outcome.APPLIED, Outcome.NOT_PROVED)

    @property
    def undoable(self) -> bool:
        """Whether an undo can do something, also where an earlier one could not undo everything."""
        return not self.outcome or self.stands or self.outcome == Outcome.CONFLICT


class Store:
    """The transactions of one machine. Only root may read them: they contain copies of the changed files."""

    def __init__(self, root_folder: str) -> None:
        self.root = root_folder.rstrip("/") or "/"
        self.folder = PrivateFolder(self.root, FOLDER)
        self.active = self.folder / "active"
        self.history = self.folder / "history"

    @property
    def readable(self) -> bool:
        """Whether this user may read them; True for a machine on which nothing was changed yet."""
        try:
            self.folder.names()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock. Raises Busy at once if somebody else has it."""
        self.folder.make()
        self.history.make()
        with suppress(FileExistsError):
            self.folder.create("lock")
        fd = self.folder.open_file("lock", os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise Busy("another dlhealth is changing this machine") from error
        try:
            yield
        finally:
            os.close(fd)

    def begin(self, identity: str, plan: dict[str, Any], before: list[dict[str, Any]]) -> Record:
        """Write everything that an undo of the plan needs to disk. From here on the transaction is active."""
        staging = self.folder / "staging"
        staging.clear()
        kept = staging / "pre"
        kept.make()
        sequence = 1 + max((r.sequence for r in self.ended()), default=0)
        _write_json(staging, "plan.json", {**plan, "id": identity, "sequence": sequence})
        for number, observed in enumerate(before):
            _write_json(kept, f"{number}.json", observed)
        # The journal's name must be on disk before any announced change.
        staging.create("journal")
        kept.sync()
        staging.sync()
        self.folder.rename("staging", self.folder, "active")
        return Record(self.active, sequence, identity, "")

    def reopen(self, record: Record) -> Record:
        """Make a finished transaction active again, before its undo begins."""
        self.history.rename(record.folder.path.rpartition("/")[2], self.folder, "active")
        return record._replace(folder=self.active)

    def end(self, record: Record, outcome: Outcome) -> Record:
        """Move the active transaction to the history, by one rename."""
        name = f"{record.sequence:06d}-{record.id}-{outcome}"
        self.folder.rename("active", self.history, name)
        return Record(self.history / name, record.sequence, record.id, outcome)

    def current(self) -> Record | None:
        """The active transaction, if there is one. Raises Damaged."""
        with reading(self.active):
            if not _names(self.active):
                return None
            plan = read_json(self.active, "plan.json")
            identity, sequence = plan["id"], plan["sequence"]
            if not isinstance(identity, str) or not _IS_ID.fullmatch(identity):
                raise ValueError(f"{identity!r:.80} is not the id of a repair")
            if type(sequence) is not int or not 0 < sequence <= _LAST:
                raise ValueError(f"{sequence!r:.80} is not the number of a repair")
            return Record(self.active, sequence, identity, "")

    def changed(self) -> float:
        """When the last repair or undo ended, by the wall clock; 0 if none did, or if this user may not read it."""
        try:
            return os.stat(self.history).st_mtime if self.ended() else 0.0
        except OSError:
            return 0.0

    def out_of_reach(self) -> str:
        """Why another machine's transactions cannot be used here, "" if they can."""
        if mount := Mounts(Root(self.root)).over(FOLDER):
            return mount.told(self.root)
        if self.root != "/" and _is_same(self.folder, PrivateFolder("/", FOLDER)):
            return f"{self.folder} belongs to this machine and is mounted there: undo its repairs without --root"
        return ""

    def explain(self, problem: Exception) -> str:
        """What went wrong, and what state that leaves."""
        if isinstance(problem, Busy):
            return f"{problem}; nothing was changed"
        if isinstance(problem, Damaged):
            return str(problem)
        with suppress(OSError):
            if "plan.json" in self.active.names():
                when = "when dlhealth fix runs again" + (", or at the next boot" if self.root == "/" else "")
                return f"{told(problem)}; the unfinished repair is undone {when}"
        return f"{told(problem)}; no change was left unfinished"

    def ended(self) -> list[Record]:
        """All finished transactions, the oldest first."""
        found = [(m, name) for name in _names(self.history) if (m := _ENDED.fullmatch(name))]
        return sorted(Record(self.history / name, int(m[1]), m[2], m[3]) for m, name in found)


def _names(folder: PrivateFolder) -> list[str]:
    try:
        return folder.names()
    except FileNotFoundError:
        return []


def _is_same(one: PrivateFolder, other: PrivateFolder) -> bool:
    try:
        with one.opened() as first, other.opened() as second:
            return os.path.samestat(os.fstat(first), os.fstat(second))
    except OSError:
        return False


def _write_json(folder: PrivateFolder, name: str, content: Any) -> None:
    folder.create(name, json.dumps(content, sort_keys=True).encode())


def read_json(folder: PrivateFolder, name: str) -> Any:
    return json.loads(folder.read(name, _LIMIT))


@contextmanager
def reading_plan(record: Record) -> Iterator[dict[str, Any]]:
    """What a transaction was to do. Raises Damaged, also if the content is not valid."""
    with reading(record.folder):
        yield dict(read_json(record.folder, "plan.json"))
