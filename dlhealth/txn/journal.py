"""The write-ahead journal: one line per event, on disk before the announced change happens."""

import json
import os
import zlib
from enum import Enum
from typing import Any

from dlhealth.host.path import naming
from dlhealth.host.private import PrivateFolder
from dlhealth.lazy import regex
from dlhealth.records import NamedTuple
from dlhealth.txn.store import reading

_LIMIT = 256 << 20
"""The most bytes of a journal that are read: a line contains the state of a file, which may be large."""
_STEPS = 10_000
_OUTCOME = regex(r"[a-z-]{1,32}")


class EntryKind(str, Enum):
    """What happened to a transaction, or to one of its steps."""

    BEGIN = "BEGIN"
    INTENT = "INTENT"
    DONE = "DONE"
    REVERT = "REVERT"
    REVERTED = "REVERTED"
    CONFLICT = "CONFLICT"
    WAIT_REBOOT = "WAIT-REBOOT"
    FAILED = "FAILED"
    COMMIT = "COMMIT"
    UNDO = "UNDO"


class Entry(NamedTuple):
    """One line. `kind` is an EntryKind, or a text of a later version of dlhealth."""

    kind: str
    fields: dict[str, Any]


class Journal:
    """An append-only file. A torn last line, as after a power cut or on a full disk, is removed before the next one is
    written: otherwise a recovery would not see what follows. Raises Damaged if it is missing or not a regular file."""

    def __init__(self, folder: PrivateFolder) -> None:
        self._path = f"{folder}/journal"
        with reading(folder):
            content = folder.read("journal", _LIMIT)
            self._fd = folder.open_file("journal", os.O_RDWR)
        os.lseek(self._fd, 0, os.SEEK_END)
        self.events, self._sound = _parse_all(content)
        self._torn = self._sound < len(content)

    def write(self, kind: EntryKind, *, sync: bool = True, **fields: Any) -> None:
        """Add an event. With `sync`, it and all events before it are on disk when this returns. Events whose loss only
        makes a recovery slower do not need that. Raises OSError if it fails."""
        text = json.dumps({"kind": kind, **fields}, sort_keys=True)
        line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        with naming(self._path):
            if self._torn:
                os.ftruncate(self._fd, self._sound)
                os.lseek(self._fd, self._sound, os.SEEK_SET)
            self._torn = True
            view = memoryview(line)
            while view:
                view = view[os.write(self._fd, view) :]
            if sync:
                os.fsync(self._fd)
        self._torn = False
        self._sound += len(line)
        self.events.append(Entry(kind, fields))

    def close(self) -> None:
        os.close(self._fd)

    @property
    def undoing(self) -> bool:
        """Whether an undo of the committed transaction has begun and not ended."""
        kinds = [e.kind for e in self.events if e.kind in (EntryKind.UNDO, EntryKind.COMMIT)]
        return kinds[-1:] == [EntryKind.UNDO]

    @property
    def waiting(self) -> Entry | None:
        """The event that waits for a reboot, until something is decided."""
        return waiting_in(self.events)

    def attempts(self) -> tuple[list[Entry], list[Entry]]:
        """The events up to the last end, and those since: of the present attempt to apply or undo."""
        ends = [number for number, e in enumerate(self.events, 1) if e.kind == EntryKind.COMMIT]
        start = ends[-1] if ends else 0
        return self.events[:start], self.events[start:]

    @property
    def failed(self) -> tuple[str, ...]:
        """The fingerprints of the findings that the repair did not resolve, as noted when it ended."""
        end = self.find(EntryKind.COMMIT)
        return tuple(end.fields.get("failed", ())) if end else ()

    def find(self, kind: EntryKind) -> Entry | None:
        """The last event of a kind."""
        return next((e for e in reversed(self.events) if e.kind == kind), None)

    def numbers(self, kind: EntryKind) -> list[int]:
        """The action numbers of the events of a kind, in the order of the journal."""
        return [e.fields["n"] for e in self.events if e.kind == kind]


def read_entries(folder: PrivateFolder) -> list[Entry]:
    """The events of a transaction, without changing it; none if it has no journal. Raises Damaged."""
    with reading(folder):
        try:
            return _parse_all(folder.read("journal", _LIMIT))[0]
        except FileNotFoundError:
            return []


def waiting_in(events: list[Entry]) -> Entry | None:
    """See `Journal.waiting`."""
    decided = [
        e for e in events if e.kind in (EntryKind.WAIT_REBOOT, EntryKind.FAILED, EntryKind.UNDO, EntryKind.COMMIT)
    ]
    return decided[-1] if decided and decided[-1].kind == EntryKind.WAIT_REBOOT else None


def _parse_all(content: bytes) -> tuple[list[Entry], int]:
    """The valid events, and how many bytes they take. A torn line, as after a power cut, ends them."""
    events: list[Entry] = []
    sound = 0
    for line in content.splitlines(keepends=True):
        event = _parse(line)
        if event is None:
            break
        events.append(event)
        sound += len(line)
    return events, sound


def _parse(line: bytes) -> Entry | None:
    checksum, space, rest = line.partition(b" ")
    if not space or not rest.endswith(b"\n"):
        return None
    text = rest[:-1]
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        fields = json.loads(text)
        event = Entry(fields.pop("kind"), fields)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    return event if _is_sound(event) else None


def _is_sound(event: Entry) -> bool:
    """Whether the fields have the right types: the journal of another machine may be forged."""
    fields = event.fields
    match event.kind:
        case EntryKind.INTENT | EntryKind.DONE | EntryKind.REVERT | EntryKind.REVERTED | EntryKind.CONFLICT:
            sound = type(fields.get("n")) is int and 0 <= fields["n"] < _STEPS
            return sound and isinstance(fields.get("after", {}), dict) and isinstance(fields.get("what", ""), str)
        case EntryKind.COMMIT:
            outcome = fields.get("outcome")
            return isinstance(outcome, str) and bool(_OUTCOME.fullmatch(outcome)) and _is_told(fields)
        case EntryKind.FAILED:
            return set(fields) == {"problem", "failed"} and _is_told(fields)
        case EntryKind.WAIT_REBOOT:
            return isinstance(fields.get("boot"), str)
    return isinstance(event.kind, str)


def _is_told(fields: dict[str, Any]) -> bool:
    failed = fields.get("failed", [])
    return (
        isinstance(fields.get("problem", ""), str) and isinstance(failed, list) and all(type(f) is str for f in failed)
    )
