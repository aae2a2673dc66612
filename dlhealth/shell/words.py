"""Finds where words end in a script of any shell, also in one with errors.

The parsers of this directory stop at what a shell would not accept. What hides secrets must not stop: this accepts every
text, and an open quote reaches to the end.
"""

import re

from dlhealth.lazy import regex

_DEEPEST = 30
_PLAIN = regex(r"[^\s;&|<>()'\"\\$`]+")


def dialect_of(path: str) -> str:
    """The dialect: "fish", "csh", or "sh" for all the others."""
    name = path.rpartition("/")[2]
    if name.endswith(".fish") or "/fish/" in path:
        return "fish"
    if name.endswith(("csh", ".tcshrc", ".cshrc")) or name in (".login", ".logout", "csh.cshrc", "csh.login"):
        return "csh"
    return "sh"


def word_end(text: str, i: int, dialect: str, depth: int = 0, until: str = "") -> int:
    """The end of the word that begins at `i`. With `until`, the position of that character outside quotes."""
    while i < len(text):
        c = text[i]
        if until and c == until:
            return i
        if match := _PLAIN.match(text, i):
            if until and until in match[0]:
                return i + match[0].index(until)
            i = match.end()
        elif c == "\\":
            i += 2
        elif c == "'":
            i = _quoted_end(text, i, dialect)
        elif c == '"':
            i = _double_quoted_end(text, i, dialect, depth)
        elif c == "`":
            end = text.find("`", i + 1)
            i = len(text) if end < 0 else end + 1
        elif text.startswith("$'", i) and dialect == "sh":
            match = regex(r"\$'(?:[^'\\]|\\.)*'?", re.DOTALL).match(text, i)
            i = match.end() if match else i + 2
        elif text.startswith(("$(", "${"), i):
            i = _nested_end(text, i, dialect, depth)
        elif c == "(" and until == ")":
            i = min(word_end(text, i + 1, dialect, depth + 1, ")") + 1, len(text)) if depth < _DEEPEST else len(text)
        elif until or c == "$":
            i += 1
        else:
            return i
    return len(text)


def _nested_end(text: str, i: int, dialect: str, depth: int) -> int:
    """The end of `$(…)` or `${…}`."""
    if depth > _DEEPEST:
        return len(text)
    closing = ")" if text[i + 1] == "(" else "}"
    return min(word_end(text, i + 2, dialect, depth + 1, closing) + 1, len(text))


def _quoted_end(text: str, i: int, dialect: str) -> int:
    pattern = {"fish": r"'(?:[^'\\]|\\.)*'?", "csh": r"'[^'\n]*'?"}.get(dialect, r"'[^']*'?")
    match = regex(pattern, re.DOTALL).match(text, i)
    return match.end() if match else i + 1


def _double_quoted_end(text: str, i: int, dialect: str, depth: int) -> int:
    i += 1
    while i < len(text):
        c = text[i]
        if c == '"':
            return i + 1
        if c == "\n" and dialect == "csh":
            return i
        if c == "\\":
            i += 2
        elif c == "`":
            end = text.find("`", i + 1)
            i = len(text) if end < 0 else end + 1
        elif text.startswith(("$(", "${"), i):
            i = _nested_end(text, i, dialect, depth + 1)
        else:
            i += 1
    return len(text)


def next_substitution(text: str, i: int) -> tuple[int, int, int] | None:
    """The next `$(…)` or backquotes: start, end of its commands, and length of its opening."""
    while i < len(text):
        if text[i] == "\\":
            i += 2
        elif text.startswith("$(", i) and not text.startswith("$((", i):
            return i, word_end(text, i + 2, "sh", 1, ")"), 2
        elif text[i] == "`":
            end = text.find("`", i + 1)
            return i, len(text) if end < 0 else end, 1
        else:
            i += 1
    return None
