"""How a report may be drawn: colours, symbols, width."""

import os
import sys
from collections.abc import Mapping

from dlhealth.lean import NamedTuple

_WIDEST = 100
"""Columns. Longer lines are hard to read."""


class Style(NamedTuple):
    """`unicode` says whether symbols and lines beyond ASCII can be shown."""

    colour: bool
    unicode: bool
    width: int

    def paint(self, text: str, code: str) -> str:
        """Text in a colour or weight of ECMA-48 ("1" bold, "31" red …)."""
        return f"\033[{code}m{text}\033[0m" if self.colour and code and text else text

    def clean(self, text: str) -> str:
        """One line that is safe to print: what was found on a machine may hold control sequences."""
        if not text.isprintable():
            text = "".join(c if c.isprintable() else _escaped(c) for c in text)
        return text if self.unicode or text.isascii() else text.encode("ascii", "backslashreplace").decode()


def current_style() -> Style:
    """What standard output can show."""
    return style_for(sys.stdout.isatty(), os.environ, _columns())


def _columns() -> int:
    """As shutil.get_terminal_size() has it; importing shutil costs more than the whole drawing."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def style_for(terminal: bool, environment: Mapping[str, str], columns: int) -> Style:
    """By NO_COLOR (no-color.org), TERM and the locale."""
    kind = environment.get("TERM", "dumb")
    colour = terminal and not environment.get("NO_COLOR") and kind not in ("dumb", "")
    # The font of a Linux console lacks most symbols, whatever the locale.
    unicode = kind != "linux" and _speaks_utf8(environment)
    return Style(colour, unicode, max(40, min(columns, _WIDEST)))


def _speaks_utf8(environment: Mapping[str, str]) -> bool:
    lang = environment.get("LANG", "")
    ctype = environment.get("LC_CTYPE", "")
    if ctype == "C.UTF-8" and lang in ("", "C", "POSIX"):
        # Python itself sets this where the locale is C (PEP 538); the terminal knows nothing of it.
        ctype = ""
    locale = environment.get("LC_ALL") or ctype or lang
    return locale.lower().replace("-", "").endswith("utf8") or ".utf8@" in locale.lower().replace("-", "")


def _escaped(character: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character) or (
        f"\\x{ord(character) - 0xDC00:02x}" if "\udc80" <= character <= "\udcff" else _by_number(ord(character))
    )


def _by_number(number: int) -> str:
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"


def shortened(text: str, width: int) -> str:
    """With its middle left out where it is longer."""
    if len(text) <= width:
        return text
    half = (width - 3) // 2
    return f"{text[: width - 3 - half]}...{text[-half:]}"
