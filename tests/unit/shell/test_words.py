"""The end of a word, in scripts with and without errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.shell.fish.syntax import Parser
from dlhealth.shell.sh.syntax import Simple, parse
from dlhealth.shell.words import next_substitution, word_end

PIECES = [
    "a", "/usr/bin:", "$PATH", "${A:-b c}", "${A%%'}'}", "'b c'", '"b $(echo "c d") e"', '"\\" b"', "\\ ", "$(echo ')')",
    "`echo b c`", "$'b\\' c'", "=", "{b,c}", '"${A:-"b c"}"', "$(echo $(echo b))",
]  # fmt: skip
FISH = ["a", "/usr/bin", "$PATH", "'b \\' c'", '"b $HOME c"', "\\ ", "b\\'c", "''"]


@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join), st.sampled_from(["", " more", "; b", "\n"])
)
def test_it_is_where_a_shell_ends_the_word(word: str, rest: str) -> None:
    script = parse(f"x {word}", "bash")
    (line,) = script.lines
    assert script.problem is None
    assert isinstance(line[0], Simple)
    assert len(line[0].words) == 2
    assert word_end(word + rest, 0, "sh") == len(word)


@given(
    st.lists(st.sampled_from(FISH), min_size=1, max_size=6).map("".join), st.sampled_from(["", " more", "; b", "\n"])
)
def test_fish_ends_it_in_the_same_place(word: str, rest: str) -> None:
    parser = Parser(word + rest)
    parser.word()
    assert word_end(word + rest, 0, "fish") == parser.i == len(word)


@given(st.text(alphabet="ab $`'\"\\(){}\n;#", max_size=60), st.sampled_from(["sh", "fish", "csh"]))
def test_every_text_has_an_end(text: str, dialect: str) -> None:
    assert 0 <= word_end(text, 0, dialect) <= len(text) + 1
    position = 0
    while (found := next_substitution(text, position)) is not None:
        assert position <= found[0] < found[1] <= len(text) + 1
        position = found[1]


@pytest.mark.parametrize("opened", ["'", '"', "`", "$(", "${", "$'"])
def test_what_is_left_open_reaches_to_the_end(opened: str) -> None:
    text = f"a{opened}b c; d"
    assert word_end(text, 0, "sh") >= len(text)
