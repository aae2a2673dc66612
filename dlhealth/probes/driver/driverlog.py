"""What NVIDIA's module and the NVSwitches wrote to the kernel log, message by message."""

import re
from collections.abc import Iterable, Iterator

from dlhealth.data.kernel_log import SXID_PATTERN, XID_PATTERN, full_address, recovered
from dlhealth.host import Host
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.records import NamedTuple

NEEDS = 154
"""The Xid that says what a GPU needs to recover."""


class Said(NamedTuple):
    """A message of the kernel log: its lines as one text, with one "NVRM:" at its start. The lines that follow may be of
    other messages: `ends` are the positions in the text where a line ends."""

    text: str
    line: Line
    ends: tuple[int, ...]

    def until(self, position: int) -> str:
        """The text up to the end of the line that has this position."""
        return self.text[: next((end for end in self.ends if end >= position), len(self.text))]


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
        said = f"NVRM: {text}"
        ends = [len(said)]
        for more in following:
            said += f" {more}"
            ends.append(len(said))
        yield Said(said, line, tuple(ends))


class XidEvent(NamedTuple):
    """An error that the driver, or an NVSwitch (`switch`), reported on the newest start; `times` how often the same. `text`,
    `source` and `began` (in seconds) are of the first line."""

    address: str
    number: int
    switch: bool
    fatal: bool
    text: str
    source: str
    times: int
    began: float = 0.0


class XidEvents(NamedTuple):
    """Those of the newest start, each number of each device once, in the order of the log; without the needs (Xid 154)
    that are met."""

    events: tuple[XidEvent, ...]

    @classmethod
    def probe(cls, host: Host, journal: Journal) -> "XidEvents":
        found: dict[tuple[str, int, bool], XidEvent] = {}
        for line in journal.kernel("S?Xid", last_boot=True):
            switch = SXID_PATTERN.search(line.text)
            match = switch or XID_PATTERN.search(line.text)
            if match is None:
                continue
            if not switch and int(match["number"]) == NEEDS and recovered(line.text):
                found.pop((full_address(match["gpu"]), NEEDS, False), None)
                continue
            fatal = bool(switch and switch["fatal"].lower() == "fatal")
            key = (full_address(match["gpu"]), int(match["number"]), bool(switch))
            before = found.get(key)
            found[key] = (
                before._replace(times=before.times + 1)
                if before
                else XidEvent(*key, fatal, line.text.strip()[:300], line.source, 1, line.time)
            )
        return cls(tuple(found.values()))
