"""Messages of a service to systemd: ready, stopping, more time, the watchdog's sign of life."""

import os
import time

from sdnotify import SystemdNotifier


class Manager:
    """The service manager that started this process, if one did (sd_notify(3), sd_watchdog_enabled(3))."""

    def __init__(self) -> None:
        self._notifier = SystemdNotifier()
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        self._every = int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None
        self._next = 0.0

    def ready(self) -> None:
        self._notifier.notify("READY=1")

    def needs(self, seconds: int) -> None:
        """Ask for more time to start."""
        self._notifier.notify(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000}")

    def stopping(self) -> None:
        self._notifier.notify("STOPPING=1")

    def alive(self) -> float | None:
        """Send a sign of life if one is due. Returns when the next is due (monotonic); None without a watchdog."""
        if self._every is None:
            return None
        now = time.monotonic()
        if now >= self._next:
            self._notifier.notify("WATCHDOG=1")
            self._next = now + self._every
        return self._next
