"""Shows a long report page by page, on a terminal where somebody reads it."""

import os
import sys
from contextlib import suppress

from dlhealth.cli import write
from dlhealth.host.exec import feed, find_program

_LESS = "FRX"
"""Options of less: print a text that fits and end, show colours, leave the last page on the screen."""


def page(text: str) -> None:
    """Print a text; through a pager if it is longer than the screen. The pager is that of $PAGER, or less."""
    command = _command(text) if _has_reader() else []
    if not command or not _shown(command, text.encode(sys.stdout.encoding, "backslashreplace")):
        write(text)


def _has_reader() -> bool:
    """Whether a person can answer the pager: a program in the background would stop it, and a pipe would not end it."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") in ("dumb", ""):
        return False
    with suppress(OSError):
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()
    return False


def _command(text: str) -> list[str]:
    """The pager's command line; empty if the text fits on the screen, or if there is no pager."""
    rows = os.get_terminal_size(sys.stdout.fileno()).lines
    if not rows or text.count("\n") < rows:  # a terminal without a size shows everything
        return []
    chosen = os.environ.get("PAGER")
    shell, less = find_program("sh"), find_program("less")
    if chosen is None:
        return [less] if less else []
    return [shell, "-c", chosen] if shell and chosen.strip() not in ("", "cat") else []


def _shown(command: list[str], text: bytes) -> bool:
    """Run the pager to its end; False if it could not show the text."""
    environment = {"LESS": _LESS, **os.environ}
    if "SUDO_UID" in os.environ:
        environment["LESSSECURE"] = "1"  # no commands and no editor as root
    return feed(command, text, environment) == 0
