"""Where transactions live: one may be active, the others are history.

```
/var/lib/dlhealth/txn/active/      plan.json   journal   pre/N.json
/var/lib/dlhealth/txn/history/SEQ-ID-OUTCOME/             the same, when it has ended
```
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dlhealth.host.mounts import Mounts
from dlhealth.host.path import Root, naming, told
from dlhealth.lean import NamedTuple, regex

FOLDER = "/var/lib/dlhealth/txn"
_PARENTS = ("/var", "/var/lib", "/var/lib/dlhealth", FOLDER)
_ENDED = regex(r"(\d+)-([0-9a-f]+)-([a-z-]+)")


class Busy(Exception):
    """Another dlhealth is changing this machine."""


class Damaged(OSError):
    """What is kept of a transaction can't be read: it is torn, or another version's. Nothing was done."""

    def __init__(self, folder: str, error: object) -> None:
        said = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
        super().__init__(
            f"{folder} is damaged or of another version of dlhealth ({said}): its changes can't be taken back by it. "
            f"Put back by hand what {folder}/pre has of the files as they were, then move {folder} away."
        )


@contextmanager
def reading(folder: str) -> Iterator[None]:
    """Raises Damaged for JSON of any shape, or none, where there is to be what is kept of a transaction."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(folder, error) from error


class Record(NamedTuple):
    """A transaction as it is kept. `outcome` is empty while it is active."""

    folder: str
    sequence: int
    id: str
    outcome: str

    @property
    def name(self) -> str:
        return f"{self.sequence}-{self.id}"


class Store:
    """The transactions of one machine. What is in it is root's alone: it holds copies of what was changed."""

    def __init__(self, root_folder: str) -> None:
        self._root = root_folder.rstrip("/")
        self.root = self._root or "/"
        self.folder = self._root + FOLDER
        self.active = f"{self.folder}/active"
        self.history = f"{self.folder}/history"

    @property
    def readable(self) -> bool:
        """Whether this user may see what is in it; a machine on which nothing was changed yet has none."""
        try:
            os.listdir(self.folder)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one. Raises Busy at once when somebody else is."""
        for part in (*_PARENTS, *(f"{FOLDER}/{name}" for name in ("active", "history", "staging"))):
            if os.path.islink(self._root + part):
                # On a disk that is not this machine's, a link could lead the store anywhere.
                raise OSError(f"{part} of {self.root} is a link")
        os.makedirs(os.path.dirname(self.folder), exist_ok=True)
        for folder in (self.folder, self.history):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        fd = os.open(f"{self.folder}/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
        """Put on disk all that is needed to take the plan back. From here on the transaction is active."""
        staging = f"{self.folder}/staging"
        shutil.rmtree(staging, ignore_errors=True)
        os.makedirs(f"{staging}/pre", mode=0o700)
        sequence = 1 + max((r.sequence for r in self.ended()), default=0)
        write_json(f"{staging}/plan.json", {**plan, "id": identity, "sequence": sequence})
        for number, observed in enumerate(before):
            write_json(f"{staging}/pre/{number}.json", observed)
        # The journal's name has to be on disk before anything that it announces is done.
        os.close(os.open(f"{staging}/journal", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        sync_folder(f"{staging}/pre")
        sync_folder(staging)
        os.rename(staging, self.active)
        sync_folder(self.folder)
        return Record(self.active, sequence, identity, "")

    def reopen(self, record: Record) -> Record:
        """Make one that has ended the active one again, before anything of it is taken back."""
        os.rename(record.folder, self.active)
        sync_folder(self.folder)
        return record._replace(folder=self.active)

    def end(self, record: Record, outcome: str) -> Record:
        """Make the active transaction history, by one rename."""
        ended = f"{self.history}/{record.sequence:06d}-{record.id}-{outcome}"
        os.rename(self.active, ended)
        sync_folder(self.history)
        sync_folder(self.folder)
        return Record(ended, record.sequence, record.id, outcome)

    def current(self) -> Record | None:
        """The active transaction, if there is one. Raises Damaged."""
        if not _names(self.active):
            return None
        with reading(self.active):
            plan = read_json(f"{self.active}/plan.json")
            return Record(self.active, int(plan["sequence"]), str(plan["id"]), "")

    def out_of_reach(self) -> str:
        """Why another machine's transactions can't be seen here, "" where they can."""
        mount = Mounts(Root(self.root)).over(FOLDER)
        return mount.told(self.root) if mount else ""

    def explain(self, problem: Exception) -> str:
        """What went wrong, and what that leaves."""
        if isinstance(problem, Busy):
            return f"{problem}; nothing was changed"
        if isinstance(problem, Damaged):
            return str(problem)
        if os.path.isfile(f"{self.active}/plan.json"):
            return f"{told(problem)}; what was begun is taken back when dlhealth fix runs again, or at the next boot"
        return f"{told(problem)}; nothing is left half done"

    def ended(self) -> list[Record]:
        """All transactions that have ended, the oldest first."""
        found = [(m, name) for name in _names(self.history) if (m := _ENDED.fullmatch(name))]
        return sorted(Record(f"{self.history}/{name}", int(m[1]), m[2], m[3]) for m, name in found)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def write_json(path: str, content: Any) -> None:
    """A new file, on disk when this returns."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with naming(path), open(fd, "w") as file:
        json.dump(content, file, sort_keys=True)
        file.flush()
        os.fsync(fd)


def read_json(path: str) -> Any:
    with open(path) as file:
        return json.load(file)


@contextmanager
def reading_plan(record: Record) -> Iterator[dict[str, Any]]:
    """What a transaction was to do. Raises Damaged, also for what the block does not find in it."""
    with reading(record.folder):
        yield dict(read_json(f"{record.folder}/plan.json"))


def sync_folder(path: str) -> None:
    """Put the names in a folder on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with naming(path):
            os.fsync(fd)
    finally:
        os.close(fd)
