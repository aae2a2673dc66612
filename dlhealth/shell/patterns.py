"""Shell patterns: `*`, `?` and bracket expressions."""

import re

from dlhealth.records import NamedTuple
from dlhealth.shell.values import Truth, is_known

_LONGEST = 1500
"""Characters. A longer text is not matched: no PATH is so long, and the time would grow with its square."""


class Set(NamedTuple):
    """A bracket expression: pairs of first and last character."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool


Pattern = list[str | Set]
"""One character each; "*" and "?" are wildcards, an escaped character has a backslash before it."""


def parse(pieces: list[tuple[str, bool]]) -> Pattern | None:
    """From pieces of (text, quoted). None if it has unknown parts, or something that differs between shells."""
    chars = [(char, quoted) for text, quoted in pieces for char in text]
    if len(chars) > _LONGEST or not all(is_known(char) for char, _ in chars):
        return None
    pattern: Pattern = []
    i = 0
    while i < len(chars):
        char, quoted = chars[i]
        i += 1
        if quoted:
            pattern.append("\\" + char)
        elif char == "[":
            end = _end_of_set(chars, i)
            if end is None:
                pattern.append("\\[")
                continue
            found = _set("".join(c for c, _ in chars[i:end]))
            if found is None:
                return None
            pattern.append(found)
            i = end + 1
        elif char in "*?":
            if not (char == "*" and pattern and pattern[-1] == "*"):
                pattern.append(char)
        elif char == "\\" and i < len(chars):
            pattern.append("\\" + chars[i][0])
            i += 1
        else:
            pattern.append("\\" + char)
    return pattern


def _end_of_set(chars: list[tuple[str, bool]], start: int) -> int | None:
    """Where the `]` is; the first character inside may itself be one."""
    first = start + (start < len(chars) and chars[start][0] in "!^")
    return next((j for j in range(first + 1, len(chars)) if chars[j] == ("]", False)), None)


def _set(body: str) -> Set | None:
    negated = body[0] in "!^"
    body = body[1:] if negated else body
    if "[" in body or "\\" in body:
        return None  # character classes, and everything that shells read differently
    ranges = []
    for first, last in re.findall(r"(.)(?:-(.))?", body, re.DOTALL):
        ranges.append((first, last or first))
    return Set(tuple(ranges), negated)


def fits(pattern: Pattern, text: str) -> bool:
    """Whether the pattern fits the whole text. Takes time as the product of both lengths at most."""
    i = j = 0
    star, mark = -1, 0
    while j < len(text):
        if i < len(pattern) and pattern[i] == "*":
            star, mark = i, j
            i += 1
        elif i < len(pattern) and _one(pattern[i], text[j]):
            i, j = i + 1, j + 1
        elif star >= 0:
            mark += 1
            i, j = star + 1, mark
        else:
            return False
    return all(piece == "*" for piece in pattern[i:])


def _one(piece: str | Set, char: str) -> bool:
    if isinstance(piece, Set):
        return any(first <= char <= last for first, last in piece.ranges) is not piece.negated
    return piece == "?" or piece[1:] == char


def matches(pattern: Pattern | None, text: str) -> Truth:
    """Whether the pattern matches a text with unknown parts."""
    if pattern is None or len(text) > _LONGEST:
        return None
    if is_known(text):
        return fits(pattern, text)
    if pattern == ["*"]:
        return True
    inner = pattern[1:-1]
    if len(pattern) > 2 and pattern[0] == pattern[-1] == "*" and all(isinstance(t, str) and len(t) == 2 for t in inner):
        wanted = "".join(t[1] for t in inner if isinstance(t, str))
        if any(wanted in run for run in re.split("[\0\1\2]", text)):
            return True
    return False if _contradicts(pattern, text) else None


def _contradicts(pattern: Pattern, text: str) -> bool:
    """Whether the known beginning or end of a text excludes a match, whatever its unknown parts are."""
    runs = re.split("[\0\1\2]", text)
    literal = all(isinstance(piece, str) and len(piece) == 2 for piece in pattern)
    for pieces, known in ((pattern, runs[0]), (pattern[::-1], runs[-1][::-1])):
        if literal and len(known) > len(pieces):
            return True
        for piece, char in zip(pieces, known, strict=False):
            if piece == "*":
                break
            if not _one(piece, char):
                return True
    return False


def strip(text: str, pattern: Pattern | None, operator: str) -> str | None:
    """The result of `${name#pattern}` and similar ones (`##`, `%`, `%%`); None if unknown."""
    stars = pattern.count("*") if pattern else 0
    if pattern is None or len(text) > _LONGEST or not is_known(text) or (stars > 2 and len(text) > 300):
        return None
    cuts = range(len(text) + 1)
    if operator in ("##", "%"):
        cuts = cuts[::-1]
    for cut in cuts:
        if operator[0] == "#" and fits(pattern, text[:cut]):
            return text[cut:]
        if operator[0] == "%" and fits(pattern, text[cut:]):
            return text[:cut]
    return text
