"""Brace expansion, which bash and zsh do before all other expansions: `~/.{path,aliases}` is two words."""

from itertools import pairwise

from dlhealth.lazy import regex
from dlhealth.shell.sh.syntax import Part, Text, Word

_MARKS = regex(r"[{},]")
_NUMBERS = regex(r"(0|-?[1-9]\d{0,3})\.\.(0|-?[1-9]\d{0,3})")
_MOST = 200
_DEEPEST = 50
"""Braces in a word that are followed, at most."""

_Piece = Part | str
"""Text that is not quoted is cut at braces and commas into strings; the rest stays as it is."""


def expanded(word: Word) -> list[Word] | None:
    """The words that a word becomes; None if that cannot be followed."""
    braces = sum(p.text.count("{") for p in word if isinstance(p, Text) and not p.quoted)
    if not braces:
        return [word]
    if braces > _DEEPEST:
        return None
    pieces: list[_Piece] = []
    for part in word:
        if isinstance(part, Text) and not part.quoted:
            pieces += [t for t in _MARKS.sub(r"\0\g<0>\0", part.text).split("\0") if t]
        else:
            pieces.append(part)
    found = _expand(pieces)
    return None if found is None else [_word(pieces) for pieces in found]


def _expand(pieces: list[_Piece]) -> list[list[_Piece]] | None:
    if "{" not in pieces:
        return [pieces]
    start = pieces.index("{")
    commas, end = _partners(pieces, start)
    if end is None:
        return None if "," in pieces[start:] else [pieces]
    edges = [start, *commas, end]
    parts = [pieces[a + 1 : b] for a, b in pairwise(edges)]
    if not commas:
        items = _range(parts[0])
        inner = _expand(parts[0])
        choices = items or (None if inner is None else [["{", *i, "}"] for i in inner])
    else:
        choices = []
        for part in parts:
            inner = _expand(part)
            choices = None if inner is None or choices is None else [*choices, *inner]
    rest = _expand(pieces[end + 1 :])
    if choices is None or rest is None or len(choices) * len(rest) > _MOST:
        return None
    return [[*pieces[:start], *choice, *after] for choice in choices for after in rest]


def _partners(pieces: list[_Piece], start: int) -> tuple[list[int], int | None]:
    """The commas of a brace and the one that closes it."""
    depth, commas = 0, []
    for position in range(start, len(pieces)):
        piece = pieces[position]
        depth += (piece == "{") - (piece == "}")
        if piece == "," and depth == 1:
            commas.append(position)
        if depth == 0:
            return commas, position
    return commas, None


def _range(pieces: list[_Piece]) -> list[list[_Piece]] | None:
    """`{1..3}`."""
    match = _NUMBERS.fullmatch(pieces[0]) if len(pieces) == 1 and isinstance(pieces[0], str) else None
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    step = 1 if first <= last else -1
    return [[str(n)] for n in range(first, last + step, step)]


def _word(pieces: list[_Piece]) -> Word:
    """Strings side by side are one text again."""
    parts: list[Part] = []
    for piece in pieces:
        if not isinstance(piece, str):
            parts.append(piece)
        elif parts and isinstance(parts[-1], Text) and not parts[-1].quoted:
            parts[-1] = Text(parts[-1].text + piece, False)
        else:
            parts.append(Text(piece, False))
    return tuple(parts)
