"""The results of `dlhealth prove` that were kept, and what became worse since."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlhealth.engine.baseline import Baseline
from dlhealth.engine.document import dump
from dlhealth.engine.own import keep_file, own_file
from dlhealth.engine.record import Inventory
from dlhealth.host import Host, Unreadable
from dlhealth.model import Difference
from dlhealth.records import NamedTuple

NAME = "proofs.json"
SCHEMA = 1
MOST = 50
"""Runs that are kept."""
_LIMIT = 16 << 20
_PROVED, _CPU_ONLY, _FAILED = "proved", "on the CPU only", "failed"
_SLOWER = 0.8
"""A speed below this part of the earlier one is slower."""
_LONGER, _MORE = 1.5, 1.0
"""A time is longer if it is so many times the earlier one, and so many seconds more."""
_UNSTEADY = ("time to import, s", "time to load, s")
"""Times that depend on what is in the cache of the disk."""


class Run(NamedTuple):
    """One run: when it ended, in UTC; what the machine was; the results of the stages, as in `prove --json`; and whether
    the machine ran on its battery, None if that is unknown."""

    time: str
    inventory: Inventory
    stages: tuple[Mapping[str, Any], ...]
    battery: bool | None = None


class Worse(NamedTuple):
    """Something that was better in an earlier run of `time`: a stage, or one of its figures ("" for the stage itself)."""

    stage: str
    figure: str
    before: str
    now: str
    time: str


class Comparison(NamedTuple):
    """What became worse since earlier runs, and what changed on the machine in between."""

    worse: tuple[Worse, ...]
    differences: tuple[Difference, ...]


def read(host: Host) -> tuple[Run, ...]:
    """The kept runs of a machine, the oldest first; none if there is no file, or a damaged one."""
    try:
        document = json.loads(host.text(own_file(NAME, live=host.live), _LIMIT) or "{}")
        return tuple(_run(run) for run in document["runs"]) if document.get("schema") == SCHEMA else ()
    except (Unreadable, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ()


def _run(record: Any) -> Run:
    inventory = {str(name): {str(k): str(v) for k, v in pairs.items()} for name, pairs in record["inventory"].items()}
    return Run(str(record["time"]), inventory, tuple(_stage(s) for s in record["stages"]), record.get("battery"))


def _stage(record: Any) -> Mapping[str, Any]:
    return {
        "stage": str(record["stage"]),
        "outcome": str(record["outcome"]),
        "text": str(record["text"]),
        "seconds": float(record["seconds"]),
        "figures": {str(name): float(value) for name, value in record["figures"].items()},
        "curves": {str(name): [float(value) for value in values] for name, values in record["curves"].items()},
    }


def keep(before: Sequence[Run], run: Run) -> None:
    """Add a run to the file. Raises OSError."""
    runs = [r._asdict() for r in (*before[-MOST + 1 :], run)]
    keep_file(NAME, dump({"schema": SCHEMA, "runs": runs}).encode())


def on_battery(host: Host) -> bool | None:
    """Whether the machine has a mains adapter and that is unplugged; None if it has none, or that is unknown."""
    folder = "/sys/class/power_supply"
    try:
        supplies = [f"{folder}/{name}" for name in host.listdir(folder)]
        mains = [s for s in supplies if (host.text(f"{s}/type") or "").strip() == "Mains"]
        states = {(host.text(f"{s}/online") or "").strip() for s in mains}
    except Unreadable:
        return None
    return None if not states <= {"0", "1"} or not states else "1" not in states


def compare(before: Sequence[Run], now: Run) -> Comparison:
    """What became worse than in the last run in which a stage was proved."""
    worse: list[Worse] = []
    base: Run | None = None
    for stage in now.stages:
        found = _last_proved(before, str(stage["stage"]))
        if found is None:
            continue
        run, earlier = found
        new = list(_worse(run, earlier, stage, speeds=not (run.battery or now.battery)))
        base = base or (run if new else None)
        worse += new
    differences = Baseline(base.time, base.inventory).since(now.inventory).differences if base else ()
    return Comparison(tuple(worse), differences)


def _last_proved(runs: Sequence[Run], stage: str) -> tuple[Run, Mapping[str, Any]] | None:
    return next(
        ((r, s) for r in reversed(runs) for s in r.stages if s["stage"] == stage and s["outcome"] == _PROVED), None
    )


def _worse(run: Run, earlier: Mapping[str, Any], stage: Mapping[str, Any], *, speeds: bool) -> Iterator[Worse]:
    name = str(stage["stage"])
    if stage["outcome"] in (_FAILED, _CPU_ONLY):
        yield Worse(name, "", _PROVED, str(stage["outcome"]), run.time)
    elif stage["outcome"] == _PROVED and speeds:
        for figure, value in stage["figures"].items():
            old = earlier["figures"].get(figure)
            if old is not None and _is_worse(figure, old, value):
                yield Worse(name, figure, f"{old:.4g}", f"{value:.4g}", run.time)


def _is_worse(figure: str, before: float, now: float) -> bool:
    """By the unit at the end of the name of a figure."""
    if figure.endswith("/s"):
        return now < _SLOWER * before
    times = figure.endswith(", s") and not figure.endswith(_UNSTEADY)
    return times and now > _LONGER * before and now > before + _MORE
