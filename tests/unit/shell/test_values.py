"""Values with unknown parts, and shell patterns."""

import fnmatch
import re

from hypothesis import given
from hypothesis import strategies as st

from dlhealth.shell import patterns
from dlhealth.shell.values import (
    AFTER,
    BEFORE,
    UNKNOWN,
    elements,
    is_empty,
    is_known,
    join,
    known_elements,
    prepended,
    tidy,
)

PATHS = st.lists(st.sampled_from(["/a", "/b", "/c", ""]), min_size=1, max_size=5).map(":".join)


def covers(value: str, text: str) -> bool:
    regex = "".join({UNKNOWN: ".*", BEFORE: "(?:.*:)?", AFTER: "(?::.*)?"}.get(c) or re.escape(c) for c in value)
    return re.fullmatch(regex, text) is not None


@given(PATHS, PATHS, PATHS)
def test_join_covers_both(a: str, b: str, c: str) -> None:
    both = join(a, b)
    assert covers(both, a)
    assert covers(both, b)
    three = join(both, c)
    assert all(covers(three, text) for text in (a, b, c))
    assert all(e in text.split(":") for e in known_elements(three) for text in (a, b, c))


def test_join_keeps_what_both_have() -> None:
    assert join("/a:/b", "/x:/a:/b") == BEFORE + "/a:/b"
    assert join("/a:/b", "/a:/b:/x") == "/a:/b" + AFTER
    assert join("/a:/x:/b", "/a:/b") == f"/a:{BEFORE}/b"
    assert join("", "/x") == UNKNOWN


def test_elements() -> None:
    assert elements(prepended("/a:/b")) == [UNKNOWN, "/a", "/b"]
    assert known_elements(f"/a{UNKNOWN}:/b") == ["/b"]
    assert not is_known(prepended("/a"))
    assert (is_empty(""), is_empty(UNKNOWN), is_empty(UNKNOWN + "x")) == (True, None, False)


@given(st.text("ab*?[]!-", max_size=8), st.text("ab", max_size=8))
def test_patterns_are_those_of_fnmatch(pattern: str, text: str) -> None:
    if re.search(r"\[[^]]*[\[!-]|\[\]|\[!", pattern):
        return  # where the shells differ from fnmatch, or from each other
    parsed = patterns.parse([(pattern, False)])
    assert parsed is not None
    assert patterns.fits(parsed, text) is fnmatch.fnmatchcase(text, pattern)


@given(
    st.text("ab:", max_size=8),
    st.sampled_from(["#", "##", "%", "%%"]),
    st.sampled_from(["*:", ":*", "a", "*", "a*b", "?"]),
)
def test_strip(text: str, operator: str, pattern: str) -> None:
    parsed = patterns.parse([(pattern, False)])
    whole = [text[:i] if operator[0] == "%" else text[i:] for i in range(len(text) + 1)]
    fitting = [
        left
        for left in whole
        if parsed is not None
        and patterns.fits(parsed, text[len(left) :] if operator[0] == "%" else text[: len(text) - len(left)])
    ]
    best = (min if len(operator) == 2 else max)(fitting, key=len, default=text)
    assert patterns.strip(text, parsed, operator) == best


def test_quoted_characters_are_plain() -> None:
    assert patterns.matches(patterns.parse([("*", True)]), "x") is False
    assert patterns.matches(patterns.parse([("*:", False), ("/a", True), (":*", False)]), f":{UNKNOWN}:/a:") is True
    assert patterns.matches(patterns.parse([("[[:alpha:]]", False)]), "x") is None


def test_an_element_that_unknown_text_may_be_a_part_of_is_not_known() -> None:
    """`${A:+:$A}/r` is /r where A is empty, and has an empty first element where it is not."""
    assert known_elements(tidy(f"{AFTER}/r")) == []
    assert known_elements(tidy(f"/a:/b{AFTER}/r:/c")) == ["/a", "/c"]
    assert known_elements(tidy(f"/a:/b{BEFORE}/r:/c")) == ["/a", "/c"]
    assert known_elements(tidy(f"{BEFORE}/r:/a{AFTER}")) == ["/r", "/a"]
    assert known_elements(tidy(f"/a{AFTER}:/r")) == ["/a", "/r"]
