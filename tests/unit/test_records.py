"""Our NamedTuple is typing's in all that the project uses; a pattern is re's."""

import fnmatch
import inspect
import pickle
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.__main__ import cleandoc
from dlhealth.lazy import fits, regex
from dlhealth.records import NamedTuple


class Point(NamedTuple):
    """A place."""

    x: int
    y: int = 2
    names: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.x + self.y

    @classmethod
    def origin(cls) -> "Point":
        return cls(0, 0)


def test_it_is_a_tuple_with_names() -> None:
    point = Point(1, names=("a",))
    assert point == (1, 2, ("a",))
    assert (point.x, point.y, point.names, point.total) == (1, 2, ("a",), 3)
    assert tuple(point) == (1, 2, ("a",))
    assert hash(point) == hash((1, 2, ("a",)))
    assert repr(point) == "Point(x=1, y=2, names=('a',))"
    assert Point.origin() < point
    assert Point._fields == ("x", "y", "names")
    assert Point.__doc__ == "A place."


def test_it_is_replaced_and_never_changed() -> None:
    point = Point(1)
    assert point._replace(y=5) == (1, 5, ())
    assert point._asdict() == {"x": 1, "y": 2, "names": ()}
    assert Point._make([3, 4, ()]) == Point(3, 4)
    assert pickle.loads(pickle.dumps(point)) == point
    with pytest.raises(AttributeError):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        point.z = 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [((), {}), ((1, 2, (), 4), {}), ((1,), {"z": 1}), ((1,), {"x": 1})])
def test_wrong_arguments(arguments: tuple[tuple[object, ...], dict[str, object]]) -> None:
    with pytest.raises(TypeError, match="Point takes x, y, names"):
        Point(*arguments[0], **arguments[1])  # type: ignore[arg-type]


def test_a_pattern_is_compiled_when_it_is_used() -> None:
    word = regex(r"(\w+)=", re.IGNORECASE)
    found = word.match("A=1")
    assert found is not None
    assert found[1] == "A"
    assert word.pattern == r"(\w+)="
    assert regex(rb"\d+").findall(b"1 22") == [b"1", b"22"]
    with pytest.raises(re.error):
        regex("(").search("x")


@given(st.text("ab*", max_size=8), st.text("ab*", max_size=10))
def test_shell_patterns_mean_what_fnmatch_says(pattern: str, name: str) -> None:
    assert fits(name, pattern) == fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize(("pattern", "name"), [("lib?uda", "libcuda"), ("cuda-[0-9]*", "cuda-12"), ("[!a]*", "a")])
def test_other_wildcards_are_understood_too(pattern: str, name: str) -> None:
    assert fits(name, pattern) == fnmatch.fnmatchcase(name, pattern)


def test_a_postponed_module_is_imported_when_it_is_used() -> None:
    code = """
from dlhealth.lazy import postpone
import sys
sys.modules.pop("colorsys", None)
postpone("colorsys")
import colorsys
assert not vars(colorsys).get("__file__")
assert colorsys.rgb_to_hsv(1, 1, 1) == (0, 0, 1)
assert sys.modules["colorsys"].__file__
from colorsys import hsv_to_rgb
assert hsv_to_rgb is colorsys.hsv_to_rgb
postpone("colorsys")
assert sys.modules["colorsys"].__file__
sys.modules.pop("keyword", None)
postpone("keyword", iskeyword="known without it")
import keyword
from keyword import iskeyword
assert keyword.iskeyword == iskeyword == "known without it"
assert sys.modules["keyword"] is keyword
assert "in" in keyword.kwlist
assert sys.modules["keyword"] is not keyword
try:
    colorsys.nothing
except AttributeError:
    print("good")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "good\n"


@pytest.mark.parametrize(
    "text",
    ["", "one line", "  one line  ", "a\n    b\n      c\n\n    d\n", "\n\n  a\n  b\n\n", "a\n\tb\n   \n\tc", "\n \n"],
)
def test_help_is_cleaned_as_click_would_do_it(text: str) -> None:
    assert cleandoc(text) == inspect.cleandoc(text)


def test_the_command_line_starts_without_the_modules_that_parse_python() -> None:
    code = "import sys; sys.argv = ['dlhealth', 'doctor', '--help']; from dlhealth.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    assert "Find what is wrong" in done.stdout
    assert "click.core" in done.stderr
    assert not {"inspect", "ast", "tokenize", "platform"} & {line.split()[-1] for line in done.stderr.splitlines()}
