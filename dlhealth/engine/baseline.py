"""The known-good record: what the machine was when it worked, and what differs since."""

import json
from typing import Any

from dlhealth import __version__
from dlhealth.engine.document import dump
from dlhealth.engine.facts import Facts
from dlhealth.engine.own import FOLDER, keep_file, own_file
from dlhealth.engine.record import Inventory, inventory_of
from dlhealth.host import Host, Unreadable
from dlhealth.host.newfile import created
from dlhealth.model import Difference, Since, timestamp
from dlhealth.records import NamedTuple

NAME = "baseline.json"
PATH = f"{FOLDER}/{NAME}"
SCHEMA = 1
_LIMIT = 4 << 20


class NoBaseline(Exception):
    """There is no known-good record, or it cannot be used."""


class Baseline(NamedTuple):
    """A known-good record: `time` is when it was saved, in UTC."""

    time: str
    inventory: Inventory

    def since(self, now: Inventory) -> Since:
        """What differs now. A section that only one of them has is not compared."""
        found = []
        for section, before in self.inventory.items():
            present = now.get(section)
            for name in dict.fromkeys((*before, *present)) if present is not None else ():
                old, new = before.get(name, ""), (present or {}).get(name, "")
                if old != new:
                    found.append(Difference(section, name, old, new))
        return Since(self.time, tuple(found))


def document(inventory: Inventory) -> str:
    """The record as a file."""
    return dump({"schema": SCHEMA, "dlhealth": __version__, "time": timestamp(), "inventory": inventory})


def place(*, live: bool = True) -> str:
    """The file with the record of a machine."""
    return own_file(NAME, live=live)


def keep(inventory: Inventory, root: str) -> None:
    """Replace the record of the machine in a directory. Raises OSError."""
    keep_file(NAME, document(inventory).encode(), root)


def write(inventory: Inventory, path: str) -> None:
    """Write the record to a new file. Raises OSError, including FileExistsError."""
    with created(path) as file:
        file.write(document(inventory).encode())


def read(host: Host, path: str = "") -> Baseline:
    """The record of a machine, or the one in a file. Raises NoBaseline."""
    path = path or place(live=host.live)
    try:
        text = host.text(path, _LIMIT)
    except Unreadable as problem:
        raise NoBaseline(str(problem)) from problem
    if text is None:
        raise NoBaseline(f"there is no known-good record ({path} does not exist)")
    try:
        return _parsed(json.loads(text))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
        raise NoBaseline(f"{path} is no known-good record of this version of dlhealth, or it is damaged") from problem


def _parsed(record: Any) -> Baseline:
    inventory = {name: dict(pairs) for name, pairs in record["inventory"].items()}
    texts = [t for name, pairs in inventory.items() for t in (name, *pairs, *pairs.values())]
    if record["schema"] != SCHEMA or not all(isinstance(text, str) for text in (record["time"], *texts)):
        raise ValueError
    return Baseline(record["time"], inventory)


def since_good(facts: Facts) -> Since | None:
    """What differs since the known-good record; None without a record that can be read."""
    host: Host = facts.get(Host)
    try:
        baseline = read(host)
    except NoBaseline:
        return None
    return baseline.since(inventory_of(facts))
