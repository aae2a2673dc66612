"""Says on a terminal what takes long."""

import sys
from types import TracebackType

_PATIENCE = 0.5
_ERASE = "\r\033[K"


class Progress:
    """Called with the name of each step before it begins. Writes to standard error, only on a terminal, and only when
    a step takes longer than half a second; the line is gone afterwards."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._step = ""

    def __call__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> "Progress":
        if self._shows:
            # A thread, because a step that hangs in the kernel does not come back to be asked.
            from threading import Event, Thread

            self._ended = Event()
            self._thread = Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shows:
            self._ended.set()
            self._thread.join()

    def _watch(self) -> None:
        before, drawn = "", False
        while not self._ended.wait(_PATIENCE):
            step = self._step
            if step == before and step:
                sys.stderr.write(f"{_ERASE}Looking at {in_words(step)} ...")
                sys.stderr.flush()
                drawn = True
            before = step
        if drawn:
            sys.stderr.write(_ERASE)
            sys.stderr.flush()


def in_words(name: str) -> str:
    """ "DriverPackages" → "driver packages"."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
