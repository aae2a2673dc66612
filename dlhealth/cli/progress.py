"""Shows long steps on a terminal."""

import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from dlhealth.host.base import Question, Watch
from dlhealth.host.remote import mount_of, mounts_here

_Self = TypeVar("_Self", bound="Progress")

_PATIENCE = 0.5
_LONG = 2.0
"""Seconds of waiting for one file or program after which it is named."""
_WIDTH = 79
_BAR = 30
_ERASE = "\r\033[K"


class Progress(Watch):
    """Follows a diagnosis. Writes one line to standard error, only on a terminal, and only if a step takes longer than
    half a second; the line is erased afterwards."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "")
        self._steps: list[str] = []
        self._since = 0.0
        self._asked, self._asked_since = "", 0.0
        self._drawn = False

    def begins(self, fact: str) -> str:
        self._steps.append(fact)
        self._since = time.monotonic()
        return ""

    def ends(self) -> None:
        self._steps = self._steps[:-1]
        self._since = time.monotonic()

    def asks(self, question: Question) -> None:
        self._asked, self._asked_since = (question[1] if question else ""), time.monotonic()

    def __enter__(self: _Self) -> _Self:
        if self._shows:
            # A thread, because a step that hangs in the kernel cannot report itself.
            from threading import Event, Lock, Thread

            self._ended, self._lock = Event(), Lock()
            self._thread = Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shows:
            self._ended.set()
            self._thread.join()
            self._write("")

    def _words(self) -> str:
        """The step, and the file or program that it waits for."""
        step = f"Checking {in_words(''.join(self._steps[-1:]))}"
        asked = self._asked
        if not asked or time.monotonic() - self._asked_since < _LONG:
            return f"{step} ..."
        kind = f" ({mount_of(asked, mounts_here()).kind})" if asked.startswith("/") else ""
        from dlhealth.report.style import current_style, shortened

        return shortened(f"{step}: {current_style().clean(asked)}{kind} ...", _WIDTH)

    def _write(self, text: str, drawn: bool = False) -> None:
        """Replace the drawn line. `drawn`: the new text will be replaced later, too."""
        with self._lock:
            _say((_ERASE if self._drawn or drawn else "") + text)
            self._drawn = drawn

    def _watch(self) -> None:
        before = 0.0
        while not self._ended.wait(_PATIENCE):
            if self._since == before and self._steps:
                self._write(self._words(), drawn=True)
            before = self._since


def _say(text: str) -> None:
    """Write progress; ignore a closed terminal, a closed pipe or a full disk: a repair must not stop halfway for that."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


class Steps(Progress):
    """Shows each step of a repair on its own line, and on a terminal, below it, how long it has been running."""

    def __call__(self, step: str) -> None:
        from dlhealth.report.style import current_style

        line = f"  {current_style().clean(step)}\n"
        if self._shows:
            self._write(line)
        else:
            _say(line)
        self._steps, self._since = [step], time.monotonic()

    def pause(self) -> None:
        """Stop drawing while somebody else draws."""
        self._steps = []
        if self._shows:
            self._write("")

    def _words(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._since), 60)
        return f"     {f'{minutes} min ' if minutes else ''}{seconds} s ..."


class Stages(Progress):
    """Shows on a terminal which stage of a proof runs, how far it is, and for how long it has been running."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self._begun = 0
        self._part = 0.0

    def begins(self, fact: str) -> str:
        self._begun, self._part = self._begun + 1, 0.0
        return super().begins(fact)

    def done(self, part: float) -> None:
        """Which part of the stage is done, from 0 to 1."""
        self._part = max(0.0, min(1.0, part))

    def _words(self) -> str:
        filled = round(self._part * _BAR)
        bar = f"{'#' * filled}{'-' * (_BAR - filled)}"
        seconds = time.monotonic() - self._since
        return f"{self._begun} of {self._number}: {''.join(self._steps[-1:]):10} [{bar}] {seconds:3.0f} s"


def in_words(name: str) -> str:
    """Words for a fact: "DriverPackages" becomes "driver packages"."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
