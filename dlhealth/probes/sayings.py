"""The lines of the kernel log that mean something for NVIDIA's driver, by the table in data/kernel_log.py."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from dlhealth.data import load
from dlhealth.data.kernel_log import SAYINGS, SXID, XID
from dlhealth.host import Host
from dlhealth.lean import NamedTuple, regex
from dlhealth.model import Severity
from dlhealth.probes.journal import Journal, Line

_FLAGS = re.ASCII | re.IGNORECASE
XID_PATTERN = regex(XID, _FLAGS)
SXID_PATTERN = regex(SXID, _FLAGS)
SXID_FAULT = "nvswitch-sxid-errors"


class Saying(NamedTuple):
    """One row of the table."""

    name: str
    pattern: "re.Pattern[str]"
    fault: str
    layer: str
    topic: str
    advice: str


@cache
def sayings() -> Mapping[str, Saying]:
    """The table, by name, in its order."""
    return {
        name: Saying(name, regex(pattern, _FLAGS), fault, layer, topic, advice)
        for name, (pattern, fault, layer, topic, advice) in SAYINGS.items()
    }


class Xid(NamedTuple):
    """What is known of an Xid number: NVIDIA's name of it, the fault here and its layer, how severe, and what to do."""

    number: int
    name: str
    fault: str
    layer: str
    severity: Severity
    advice: str


@cache
def xid(number: int) -> Xid:
    """A number that the catalogue does not have is one that the driver reports and nobody explains: a warning."""
    table = load("xids")
    unknown: dict[str, Any] = {"xid": number, "name": "", "action": "CONTACT_SUPPORT", "fault": "xid-other"}
    row = next((r for r in table["rows"] if r["xid"] == number), unknown)
    action, fault = table["actions"][row["action"]], row["fault"]
    return Xid(number, row["name"], fault, table["layers"][fault], Severity(action["severity"]), action["do"])


def full_address(text: str) -> str:
    """A PCI address in full: NVIDIA's messages leave out the function, and sometimes shorten the domain."""
    domain, _, rest = (text if text.count(":") == 2 else f"0:{text}").lower().partition(":")
    return f"{int(domain or '0', 16):04x}:{rest if '.' in rest else rest + '.0'}"


class Said(NamedTuple):
    """A message of the kernel log: its lines as one text, with one "NVRM:" at its start."""

    text: str
    line: Line


def messages(lines: Iterable[Line]) -> Iterator[Said]:
    """The messages in which NVIDIA's module speaks. It prints one in several lines, each of which begins with "NVRM:";
    a journal keeps them as one record, rsyslog as many, so the lines that follow are read with it."""
    parts = [
        (" ".join(found[1].split()), line)
        for line in lines
        for part in line.text.replace("#012", "\n").split("\n")
        if (found := re.search(r"NVRM:?\s*(.*)", part))
    ]
    for number, (text, line) in enumerate(parts):
        following = [t for t, li in parts[number + 1 : number + 6] if li.boot == line.boot]
        yield Said(f"NVRM: {' '.join([text, *following])}", line)


class XidEvent(NamedTuple):
    """An error that the driver, or an NVSwitch (`switch`), reported on the newest start; `times` how often the same."""

    address: str
    number: int
    switch: bool
    fatal: bool
    text: str
    source: str
    times: int


class XidEvents(NamedTuple):
    """Those of the newest start, each number of each device once, in the order of the log."""

    events: tuple[XidEvent, ...]

    @classmethod
    def probe(cls, host: Host, journal: Journal) -> "XidEvents":
        found: dict[tuple[str, int, bool], XidEvent] = {}
        for line in journal.kernel("S?Xid", last_boot=True):
            switch = SXID_PATTERN.search(line.text)
            match = switch or XID_PATTERN.search(line.text)
            if match is None:
                continue
            fatal = bool(switch and switch["fatal"].lower() == "fatal")
            key = (full_address(match["gpu"]), int(match["number"]), bool(switch))
            before = found.get(key)
            found[key] = (
                before._replace(times=before.times + 1)
                if before
                else XidEvent(*key, fatal, line.text.strip()[:300], line.source, 1)
            )
        return cls(tuple(found.values()))
