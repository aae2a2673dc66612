"""Whether the machine's clock is behind: apt's lists carry the date at which a server signed them."""

import re

from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.records import NamedTuple

_HEAD = 2048
"""Bytes in which a Release file has its date."""
_DATE = regex(r"^Date: \w{3}, +(\d{1,2}) (\w{3}) (\d{4}) (\d\d):(\d\d):(\d\d) (?:UTC|GMT|\+0000)", re.MULTILINE)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Clock(NamedTuple):
    """`now` is what the clock says, `signed` the newest date in apt's lists (both in seconds since the epoch), `source`
    the list that has it, `date` its text."""

    now: float
    signed: float
    source: str
    date: str

    @property
    def behind(self) -> float:
        """By how many seconds it is behind at least; negative where nothing shows that."""
        return self.signed - self.now

    @classmethod
    def probe(cls, host: Host) -> "Clock":
        now = host.now()
        if now is None:
            raise Unavailable("the clock of a machine that does not run cannot be checked")
        from datetime import datetime, timezone

        newest: tuple[float, str, str] | None = None
        for path in (*host.glob("/var/lib/apt/lists/*InRelease"), *host.glob("/var/lib/apt/lists/*_Release")):
            try:
                found = _DATE.search((host.head(path, _HEAD) or b"").decode(errors="replace"))
                if not found:
                    continue
                day, year, hour, minute, second = (int(found[n]) for n in (1, 3, 4, 5, 6))
                date = datetime(year, _MONTHS.index(found[2]) + 1, day, hour, minute, second, tzinfo=timezone.utc)
            except (Unreadable, ValueError):  # ValueError: not a date
                continue
            signed = date.timestamp()
            newest = max(newest or (signed, path, found[0]), (signed, path, found[0]))
        if newest is None:
            raise Unavailable("apt has no lists whose date could be compared with the clock")
        return cls(now, *newest)
