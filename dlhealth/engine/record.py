"""What a machine is and what happened on it: for a report, and to compare with a record of when it worked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from dlhealth.engine.facts import Facts, Unavailable
from dlhealth.host import Host, Unreadable
from dlhealth.judgements.inventory import SECTIONS
from dlhealth.model import TIME_FORMAT, Event, EventKind
from dlhealth.records import NamedTuple

T = TypeVar("T")
Inventory = Mapping[str, Mapping[str, str]]
"""Section → name → version or value. A section that could not be read is missing."""
_EVENTS = 300
"""Events of one source in a timeline; the newest are kept."""


class Timeline(NamedTuple):
    """What happened, the oldest first, with local times. `missing` says which sources could not be read, `left` how many
    older events there are, `zone` which time zone the times are in."""

    events: tuple[tuple[str, Event], ...]
    missing: tuple[str, ...]
    left: int
    zone: str


def inventory_of(facts: Facts) -> Inventory:
    """What the machine is."""
    sections = {name: _tried(facts, section) for name, section in SECTIONS.items()}
    return {name: dict(pairs) for name, (pairs, _) in sections.items() if pairs is not None}


def repairs_in(root: str) -> tuple[Event, ...]:
    """The repairs of a machine that this user may read."""
    from calendar import timegm
    from time import strptime

    from dlhealth.engine.repair import tell
    from dlhealth.txn.store import Store

    store, events = Store(root), []
    try:
        records = store.ended()
    except OSError:
        return ()
    for record in records:
        told = tell(record)
        try:
            seconds = float(timegm(strptime(told.time, TIME_FORMAT)))
        except ValueError:
            continue
        findings = tuple(f"{f['id']}: {f.get('title', '')}" for f in told.findings)
        events.append(
            Event(
                seconds,
                EventKind.REPAIR,
                f"dlhealth repair {record.name}: {record.outcome}",
                findings,
                "dlhealth history",
            )
        )
    return tuple(events)


def timeline_of(facts: Facts, repairs: Sequence[Event] = ()) -> Timeline:
    """What happened on the machine; `repairs` are those of dlhealth."""
    from dlhealth.judgements.timeline import SOURCES
    from dlhealth.probes.machine.localtime import LocalTime

    clock = LocalTime(facts.get(Host))
    events = list(repairs[-_EVENTS:])
    missing, left = [], len(repairs[:-_EVENTS])
    for name, source in SOURCES.items():
        found, problem = _tried(facts, source)
        newest = sorted(found or (), key=lambda event: event.time)
        events += newest[-_EVENTS:]
        left += len(newest[:-_EVENTS])
        if problem:
            missing.append(f"{name}: {problem}")
    ordered = sorted(events, key=lambda event: event.time)
    zone = "the machine's time zone" if clock.known else "UTC, because the machine's time zone is not known"
    return Timeline(tuple((clock.minute(e.time), e) for e in ordered), tuple(missing), left, zone)


def _tried(facts: Facts, source: Callable[..., Any]) -> tuple[list[Any] | None, str]:
    """What a source yields, None if it yields nothing for a reason; and that reason."""
    found: list[Any] = []
    try:
        for item in facts.call(source):
            found.append(item)
    except (Unavailable, Unreadable) as problem:
        return found or None, str(problem)
    except Exception as error:  # a defect must not hide the rest
        return found or None, type(error).__name__
    return found, ""
