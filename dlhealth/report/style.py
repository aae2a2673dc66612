"""How a report may be drawn: colours, symbols, width."""

import os
import sys
from collections.abc import Iterator, Mapping

from dlhealth.records import NamedTuple

_WIDEST = 100
"""Columns, at most: longer lines are hard to read."""


class Style(NamedTuple):
    """How to draw. `unicode`: the terminal shows symbols and lines beyond ASCII."""

    colour: bool
    unicode: bool
    width: int

    def paint(self, text: str, code: str) -> str:
        """The text in a colour or weight of ECMA-48 ("1" bold, "31" red …)."""
        return f"\033[{code}m{text}\033[0m" if self.colour and code and text else text

    def clean(self, text: str) -> str:
        """The text as one line that is safe to print: names found on a machine may contain control sequences."""
        if not text.isprintable():
            text = "".join(c if c.isprintable() else _escaped(c) for c in text)
        return text if self.unicode or text.isascii() else text.encode("ascii", "backslashreplace").decode()


def current_style() -> Style:
    """The style for standard output."""
    return style_for(sys.stdout.isatty(), os.environ, _columns())


def _columns() -> int:
    """The width as shutil.get_terminal_size() gives it; importing shutil costs more than all the drawing."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def style_for(terminal: bool, environment: Mapping[str, str], columns: int) -> Style:
    """The style by NO_COLOR (no-color.org), TERM and the locale."""
    kind = environment.get("TERM", "dumb")
    colour = terminal and not environment.get("NO_COLOR") and kind not in ("dumb", "")
    # The font of a Linux console lacks most symbols, whatever the locale.
    unicode = kind != "linux" and _speaks_utf8(environment)
    return Style(colour, unicode, max(40, min(columns, _WIDEST)))


def _speaks_utf8(environment: Mapping[str, str]) -> bool:
    lang = environment.get("LANG", "")
    ctype = environment.get("LC_CTYPE", "")
    if ctype == "C.UTF-8" and lang in ("", "C", "POSIX"):
        # Python itself sets this if the locale is C (PEP 538); the terminal does not know it.
        ctype = ""
    locale = environment.get("LC_ALL") or ctype or lang
    return locale.lower().replace("-", "").endswith("utf8") or ".utf8@" in locale.lower().replace("-", "")


def _escaped(character: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character) or (
        f"\\x{ord(character) - 0xDC00:02x}" if "\udc80" <= character <= "\udcff" else _by_number(ord(character))
    )


def _by_number(number: int) -> str:
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"


def columns(text: str) -> int:
    """The columns that a line fills on a terminal: most Chinese, Japanese and Korean characters fill two, combining marks
    none."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    from unicodedata import category, east_asian_width  # only a few reports need these tables

    if category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def pieces(text: str, width: int) -> Iterator[str]:
    """A line in pieces of at most `width` columns, each character kept."""
    piece, filled = "", 0
    for character in text:
        wide = columns(character)
        if piece and filled + wide > width:
            yield piece
            piece, filled = "", 0
        piece += character
        filled += wide
    yield piece


def shortened(text: str, width: int) -> str:
    """The text, without its middle if it is wider."""
    if columns(text) <= width:
        return text
    half = (width - 3) // 2
    return f"{next(pieces(text, width - 3 - half))}...{next(pieces(text[::-1], half))[::-1]}"


def cut(text: str, width: int) -> str:
    """The text, without its last words if it is wider."""
    if columns(text) <= width:
        return text
    kept = next(pieces(text, width - 3))
    return f"{kept.rpartition(' ')[0] or kept} ..."
