"""Values of variables with unknown parts.

A value is a string in which three characters, which never occur in start-up files, stand for unknown text: UNKNOWN for
any text, BEFORE for text that is empty or ends in a colon, AFTER for text that is empty or begins with one. So
"\\1/usr/bin:/bin" is a PATH that certainly ends in these two directories.
"""

from dlhealth.lazy import regex

UNKNOWN, BEFORE, AFTER = "\0", "\1", "\2"
_UNKNOWN_PARTS = regex("[\0\1\2]")
_REPEATED = regex("([\0\1\2])\\1+")
_ANY = regex("\1+\2+|\1*\0+\2*")
_GLUED = regex("(?<=[^:\0\1\2])\1|\2(?=[^:\0\1\2])")

Truth = bool | None
"""True, False, or None if unknown."""


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
    """The variables whose every character is known."""
    return [e for e in elements(value) if is_known(e)]


def prepended(value: str) -> str:
    """The value with unknown elements in front of it."""
    return tidy(BEFORE + value)


def tidy(value: str) -> str:
    """Adjacent unknown texts become one; text that may be empty makes the element directly beside it unknown too."""
    return _REPEATED.sub(r"\1", _ANY.sub(UNKNOWN, _GLUED.sub(UNKNOWN, value)))


def join(one: str, other: str) -> str:
    """A value that covers both: their common first and last elements, and unknown text between."""
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
    """The elements, with BEFORE and AFTER as separate elements; `text_of` is the inverse."""
    return value.replace(BEFORE, BEFORE + ":").replace(AFTER, ":" + AFTER).split(":")


def text_of(elements: list[str]) -> str:
    """The value of `tokens`."""
    return tidy(":".join(elements).replace(BEFORE + ":", BEFORE).replace(":" + AFTER, AFTER))
