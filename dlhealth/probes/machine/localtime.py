"""The local times of a machine, as its programs write them into their logs without a zone."""

import io
from typing import TYPE_CHECKING

from dlhealth.host import Host, Unreadable

if TYPE_CHECKING:
    from datetime import tzinfo


class LocalTime:
    """Converts local times by /etc/localtime of the machine. Without that file, or without a machine, they are UTC.

    The file is read at the first conversion: few logs have times without a zone.
    """

    def __init__(self, host: Host | None = None) -> None:
        self._host = host
        self._zone: tzinfo | None = None
        self._readable = False

    @property
    def known(self) -> bool:
        """Whether the machine says which zone it has."""
        self._read_once()
        return self._readable

    def seconds(self, year: int, month: int, day: int, hour: int, minute: int, second: int) -> float | None:
        """Seconds since the epoch; None if there is no such time."""
        from datetime import datetime

        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=self._read_once()).timestamp()
        except (ValueError, OverflowError):
            return None

    def year(self, seconds: float) -> int:
        """The year of a moment."""
        from datetime import datetime

        return datetime.fromtimestamp(seconds, self._read_once()).year

    def minute(self, seconds: float) -> str:
        """A moment as a person reads it."""
        from datetime import datetime

        return datetime.fromtimestamp(seconds, self._read_once()).strftime("%Y-%m-%d %H:%M")

    def _read_once(self) -> "tzinfo":
        if self._zone is None:
            self._zone = self._read()
        return self._zone

    def _read(self) -> "tzinfo":
        from datetime import timezone

        try:
            content = self._host.read("/etc/localtime") if self._host else None
        except Unreadable:
            content = None
        if not content:
            return timezone.utc
        from zoneinfo import ZoneInfo

        try:
            zone = ZoneInfo.from_file(io.BytesIO(content))
        except Exception:  # of many kinds for a damaged file, struct.error among them
            return timezone.utc
        self._readable = True
        return zone
