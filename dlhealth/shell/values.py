"""Values of variables of which parts may not be known.

A value is a string in which three characters, that no environment value of a start-up file has, stand for unknown text:
UNKNOWN for any text, BEFORE for text that is empty or ends in a colon, AFTER for text that is empty or begins with one.
So "\\1/usr/bin:/bin" is a PATH that certainly ends in these two folders.
"""

from dlhealth.lazy import regex

UNKNOWN, BEFORE, AFTER = "\0", "\1", "\2"
_UNKNOWN_PARTS = regex("[\0\1\2]")
_REPEATED = regex("([\0\1\2])\\1+")
_ANY = regex("\1+\2+|\1*\0+\2*")
_GLUED = regex("(?<=[^:\0\1\2])\1|\2(?=[^:\0\1\2])")

Truth = bool | None
"""True, False, or None where it can't be told."""


def is_known(value: str) -> bool:
    """Whether there is no unknown part."""
    return _UNKNOWN_PARTS.search(value) is None


def is_empty(value: str) -> Truth:
    """Whether the text is empty."""
    if not value:
        return True
    return None if not _UNKNOWN_PARTS.sub("", value) else False


def elements(value: str) -> list[str]:
    """Of a list with colons; an unknown element stands for any number of elements."""
    return value.replace(BEFORE, UNKNOWN + ":").replace(AFTER, ":" + UNKNOWN).split(":")


def known_elements(value: str) -> list[str]:
    """Those of which every character is known."""
    return [e for e in elements(value) if is_known(e)]


def prepended(value: str) -> str:
    """The value with unknown elements in front of it."""
    return tidy(BEFORE + value)


def tidy(value: str) -> str:
    """Unknown text beside unknown text is one; what may be empty and stands directly beside text of an element makes
    that unknown, too."""
    return _REPEATED.sub(r"\1", _ANY.sub(UNKNOWN, _GLUED.sub(UNKNOWN, value)))


def join(one: str, other: str) -> str:
    """A value that covers both: the elements that they begin and end with, and what is between unknown."""
    if one == other:
        return one
    a, b = tokens(one), tokens(other)
    shorter = min(len(a), len(b))
    front = 0
    while front < shorter and a[front] == b[front]:
        front += 1
    back = 0
    while back < shorter - front and a[-1 - back] == b[-1 - back]:
        back += 1
    head, tail = a[:front], a[len(a) - back :]
    if tail:
        return text_of([*head, BEFORE, *tail])
    return text_of([*head, AFTER]) if head else UNKNOWN


def tokens(value: str) -> list[str]:
    """The elements, where BEFORE and AFTER are elements of their own; `text_of` is the way back."""
    return value.replace(BEFORE, BEFORE + ":").replace(AFTER, ":" + AFTER).split(":")


def text_of(elements: list[str]) -> str:
    """The value of `tokens`."""
    return tidy(":".join(elements).replace(BEFORE + ":", BEFORE).replace(":" + AFTER, AFTER))
