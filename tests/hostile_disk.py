"""A disk whose transaction store somebody forged."""

import json
import zlib
from pathlib import Path
from typing import Any

from dlhealth.engine.repair import tell
from dlhealth.steps.base import Target
from dlhealth.txn.execute import recover, undo
from dlhealth.txn.store import Damaged, Store

FILE = {"kind": "file", "content": "b2xk", "mode": 0o644, "uid": 0, "gid": 0, "attributes": []}


def line(kind: str, **fields: object) -> bytes:
    text = json.dumps({"kind": kind, **fields}, sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


class Disk:
    """`victim` lies outside of the disk's root."""

    def __init__(self, base: Path) -> None:
        self.root, self.victim = base / "disk", base / "victim"
        self.store = self.root / "var/lib/dlhealth/txn"
        self.active = self.store / "active"
        (self.active / "pre").mkdir(parents=True)
        (self.root / "etc").mkdir()
        self.victim.write_text("precious")
        self.plan: dict[str, Any] = {"id": "abc", "sequence": 1, "actions": [], "findings": []}
        self.journal = line("BEGIN", digest="", boot="")
        self.before: dict[int, Any] = {}

    def step(self, before: Any, **action: object) -> None:
        number = len(self.plan["actions"])
        self.plan["actions"].append(action)
        self.before[number] = before
        self.journal += line("INTENT", n=number)

    def write(self) -> None:
        (self.active / "plan.json").write_text(json.dumps(self.plan))
        (self.active / "journal").write_bytes(self.journal)
        for number, before in self.before.items():
            (self.active / f"pre/{number}.json").write_text(json.dumps(before))

    def all_that_reads_it(self) -> None:
        """What history, show, fix, undo and recover do with it; each may refuse."""
        store = Store(str(self.root))
        for act in (lambda: self._recover(store), lambda: self._undo(store), lambda: self._tell(store)):
            try:
                act()
            except (OSError, Damaged):
                continue

    def _recover(self, store: Store) -> None:
        with store.locked():
            if current := store.current():
                recover(store, Target(str(self.root), current.id))

    def _undo(self, store: Store) -> None:
        with store.locked():
            for record in [*store.ended(), *filter(None, [store.current()])]:
                undo(store, Target(str(self.root), record.id), record)

    def _tell(self, store: Store) -> None:
        for record in [*store.ended(), *filter(None, [store.current()])]:
            tell(record)
