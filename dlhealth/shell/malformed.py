"""Mistakes in an element of PATH or LD_LIBRARY_PATH, found in the value that a line really gives."""

import re
from collections.abc import Iterator

from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.records import NamedTuple
from dlhealth.shell.values import elements, is_known

LISTS = ("PATH", "LD_LIBRARY_PATH")
_TYPESET = "\u201c\u201d\u201e\u2018\u2019"
"""What word processors and web pages make of quotes."""
HARD_BLANK = "\u00a0"
"""The blank that web pages put between words to keep them on one line."""
_SETS = regex(
    r"\s*(?:(?:export\s+)?(PATH|LD_LIBRARY_PATH)=|(?:setenv|set(?:\s+-\w+)*)\s+(PATH|LD_LIBRARY_PATH)\s|(?:set\s+)?path\s*\+?=)"
)
"""A line that sets one of the lists, in any shell."""
_AT_COLON = r"[ \t]*:[ \t]*(?=[/$~])"


class Problem(NamedTuple):
    """A malformed line about one of the variables. `kind` is one of the kinds that the rule
    ld-library-path-malformed knows; `text` says it in words, `shows` is the part of the line or value that is meant."""

    source: Place
    variable: str
    kind: str
    shows: str
    text: str


def set_behind(lines: list[str], number: int) -> tuple[int, str] | None:
    """The number of the first line behind another one that sets one of the lists, and its name."""
    for position, text in enumerate(lines[number:], number + 1):
        if sets := _SETS.match(text):
            return position, sets[1] or sets[2] or "PATH"
    return None


def problems(source: Place, name: str, before: str, after: str) -> Iterator[tuple[Problem, str]]:
    """What is wrong with the elements that `after` has and `before` has not, each with that element: the first that is
    malformed, and whether there is an empty one."""
    old = elements(before) if before else []
    added = [e for e in dict.fromkeys(elements(after)) if is_known(e) and e not in old]
    if not after:
        return
    if "" in added:
        text = "an empty element means the current directory"
        yield Problem(source, name, "empty-element", after if is_known(after) else name, text), ""
    if before and is_known(before) and is_known(after) and _glued(before, after):
        text = "a colon is missing, so two directories become one"
        glued = next((e for e in elements(after) if e not in old), "")
        yield Problem(source, name, "missing-colon", after, text), glued
    for element in added:
        if found := _problem(element, after):
            kind, text = found
            yield Problem(source, name, kind, element, text), element
            return


def _glued(before: str, after: str) -> bool:
    """Whether a directory stands directly before or after the previous value of the variable."""
    if before.startswith("/") and after.endswith(before):
        return bool(re.search(r"/[\w./+-]*\w$", after.removesuffix(before)))
    return after.startswith(f"{before}/") and not before.endswith((":", "/"))


def _problem(element: str, value: str) -> tuple[str, str] | None:
    if "\r" in element:
        return "carriage-return", "the line has a Windows line ending, whose carriage return becomes part of the value"
    if value.count("{") != value.count("}") and ("{" in element or "}" in element):
        return "unbalanced-braces", "a brace is missing or superfluous and stays in the value as text"
    if "$" in element or "`" in element or "\\" in element or ("${" in value and "}" in element):
        return "literal-expansion", "a variable stands where it is not expanded, so its name stays as text"
    if any(quote in element for quote in _TYPESET):
        return (
            "literal-quote",
            "a typographic quotation mark, as in web pages, is not a quote and stays in the value as text",
        )
    if '"' in element or "'" in element:
        return "literal-quote", "a quote stays in the value as text"
    if element != element.strip():
        return "space", "a space beside the colon becomes part of the directory's name"
    if element in LISTS:
        return "missing-dollar", f"{element} without a dollar sign is a directory's name, not the variable"
    if re.match(rf"(export\s+)?({'|'.join(LISTS)})\s*=", element):
        return "nested-assignment", "the value contains another assignment"
    if re.match(r"/\S*[;,]/", element):
        return "wrong-separator", "another character than a colon separates the directories"
    return None


def corrected(line: str, variable: str, kind: str) -> str:
    """The line as it was meant, "" if that is not clear."""
    line = line.rstrip("\r")
    if kind == "carriage-return":
        return line
    if kind == "space-around-equals":
        if re.match(r"\s*setenv\s", line):
            return re.sub(rf"\b{variable}\s*=\s*(?=\S)", f"{variable} ", line, count=1)
        plain = re.sub(rf"\b{variable}\s*=\s*(?=\S)", f"{variable}=", line, count=1)
        return plain if plain != line else re.sub(_AT_COLON, ":", line)
    if kind == "export-keyword":
        return re.sub(r"^(\s*)export\s+", r"\1", line)
    if kind == "missing-dollar":
        if listed := re.fullmatch(rf"(\s*set\s+(?:-\w+\s+)*{variable}(?:\s+/\S+)+\s+)({variable}\s*)", line):
            return f"{listed[1]}${listed[2]}"  # fish
        return re.sub(rf"(?<=[=:\"]){variable}(?=[:\"]|\s|$)", f"${variable}", line)
    if kind == "missing-colon":
        plain = re.sub(rf"(?<=[\w/])(?=\$(?:{variable}\b|\{{{variable}\}}))", ":", line)
        # csh reads $PATH:/ as a modifier.
        itself = rf"\{{{variable}\}}" if re.match(r"\s*setenv\s", line) else rf"(?:{variable}|\{{{variable}\}})"
        plain = re.sub(rf"(\${itself}[\"']?)(?=/)", r"\1:", plain)
        return re.sub(rf"\b({variable}\+=[\"']?)(?=/)", r"\1:", plain)
    if kind == "space":
        if HARD_BLANK in line:
            return re.sub(rf"(?<=[=:\"]){HARD_BLANK}+|{HARD_BLANK}+(?=[:\"]|\s*$)", "", line)
        return re.sub(_AT_COLON, ":", line)
    if kind == "hard-blank":
        return corrected(line.replace(HARD_BLANK, " "), variable, "space-around-equals")
    if kind == "literal-expansion":
        plain = line.replace("\\$", "$")
        return plain if plain != line else re.sub(r"'([^']*\$[^']*)'", r'"\1"', line)
    if kind == "unbalanced-braces":
        return _balanced(line)
    if kind == "open-quote":
        return _closed(line)
    if kind == "literal-quote":
        plain = re.sub(f"[{_TYPESET}]", '"', line)
        return plain if plain != line and plain.count('"') % 2 == 0 else ""
    if kind == "wrong-separator":
        return re.sub(r"(?<=[\w/])[;,] ?(?=[/$])", ":", line)
    if kind == "empty-element":
        return _without_empty(line)
    return ""


def _balanced(line: str) -> str:
    surplus = line.count("}") - line.count("{")
    if surplus == 1:
        head, _, tail = line.rpartition("}")
        return head + tail
    if surplus == -1:
        end = re.search(r"[\"']?\s*$", line)
        position = end.start() if end else len(line)
        return line[:position] + "}" + line[position:]
    return ""


def _closed(line: str) -> str:
    for quote in "\"'":
        if line.count(quote) == 1:
            head, _, tail = line.partition(quote)
            # A quote at the very end has no partner: it goes. One at the front gets its partner, so that
            # variables in between are expanded.
            if not tail.strip():
                return head
            return f'{head}"{tail.rstrip()}"' if "$" in tail else line.rstrip() + quote
    return ""


def _without_empty(line: str) -> str:
    """`a:$X` with $X not set becomes `a${X:+:$X}`; colons side by side become one."""
    line = re.sub(r"(?<=[^:=\"'])::+(?=[^:\s])", ":", line)
    line = re.sub(r"(=[\"']?):+", r"\1", line)
    line = re.sub(r":+([\"']?\s*)$", r"\1", line)
    line = re.sub(r":\$(?:\{(\w+)\}|(\w+))([\"']?\s*)$", r"${\1\2:+:$\1\2}\3", line)
    return re.sub(r"=([\"']?)\$(?:\{(\w+)\}|(\w+)):", r"=\1${\2\3:+$\2\3:}", line)
