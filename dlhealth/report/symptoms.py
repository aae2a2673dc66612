"""The problems whose documentation describes what somebody sees."""

import re
from collections.abc import Iterable, Iterator

from dlhealth.engine.rule import Rule
from dlhealth.report.terminal import sections_of

LISTED = "What you see"
"""The section of a rule whose paragraphs are single things that people see."""
_ENOUGH = 5
"""Words in a row that are no coincidence, except for very common ones: the problem with the longest row is named."""
_FEW = 3

Words = tuple[str, ...]


def seen(rule: Rule) -> tuple[str, ...]:
    """What people see of a problem: error texts and descriptions."""
    return tuple(line for name, lines in sections_of(rule.documentation)[1] if name == LISTED for line in lines)


def described(text: str, rules: Iterable[Rule]) -> list[Rule]:
    """The problems of which a whole text is described, or a part of at least three words; if there are none, those with
    the most words in a row in common with it. Numbers are not compared."""
    words = _words(text)
    described = [(rule, _words(line)) for rule in rules for line in seen(rule)]
    whole = [rule for rule, line in described if _holds(words, line) or (len(words) >= _FEW and _holds(line, words))]
    if not whole:
        common = [(rule, _longest_row(words, line)) for rule, line in described]
        most = max((number for _, number in common), default=0)
        whole = [rule for rule, number in common if number == most >= _ENOUGH]
    return list(dict.fromkeys(whole))


def _words(text: str) -> Words:
    return tuple(re.findall(r"[a-z]{2,}", text.lower()))


def _holds(words: Words, part: Words) -> bool:
    size = len(part)
    return size >= _FEW and any(words[n : n + size] == part for n in range(len(words) - size + 1))


def _longest_row(first: Words, second: Words) -> int:
    return max(_rows(first, second), default=0)


def _rows(first: Words, second: Words) -> Iterator[int]:
    """The lengths of the rows of words that both have, row by row of the usual table."""
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0] * (len(second) + 1)
        for n, other in enumerate(second):
            if word == other:
                row[n + 1] = above[n] + 1
                yield row[n + 1]
        above = row
