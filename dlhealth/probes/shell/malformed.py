"""What is wrong with an element of PATH or LD_LIBRARY_PATH, judged from the value that a line really gives."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from dlhealth.probes.shell.values import elements, is_known

LISTS = ("PATH", "LD_LIBRARY_PATH")


class Problem(NamedTuple):
    """A malformed line about one of the variables. `source` is "path:LINE"; `kind` is one of the kinds that the rule
    ld-library-path-malformed knows; `text` says it in words, `shows` is the part of the line or value that is meant."""

    source: str
    variable: str
    kind: str
    shows: str
    text: str


def problems(source: str, name: str, before: str, after: str) -> Iterator[Problem]:
    """What is wrong with the elements that `after` has and `before` has not: the first that is malformed, and whether
    there is an empty one."""
    old = elements(before) if before else []
    added = [e for e in dict.fromkeys(elements(after)) if is_known(e) and e not in old]
    if not after:
        return
    if "" in added:
        text = "an empty element stands for the current folder"
        yield Problem(source, name, "empty-element", after if is_known(after) else name, text)
    for element in added:
        if found := _problem(element, after):
            kind, text = found
            yield Problem(source, name, kind, element, text)
            return


def _problem(element: str, value: str) -> tuple[str, str] | None:
    if "\r" in element:
        return "carriage-return", "the line ends as on Windows, with a carriage return that becomes part of the value"
    if value.count("{") != value.count("}") and ("{" in element or "}" in element):
        return "unbalanced-braces", "a brace too many or too few stays in the value as text"
    if "$" in element or "`" in element or "\\" in element or ("${" in value and "}" in element):
        return "literal-expansion", "a variable is written where it is not expanded, so its name stays as text"
    if '"' in element or "'" in element:
        return "literal-quote", "a quote stays in the value as text"
    if element != element.strip():
        return "space", "a space beside the colon becomes part of the folder's name"
    if element in LISTS:
        return "missing-dollar", f"{element} without a dollar sign is a folder's name, not the variable"
    if re.match(rf"(export\s+)?({'|'.join(LISTS)})\s*=", element):
        return "nested-assignment", "an assignment stands within the value"
    if re.match(r"/\S*[;,]/", element):
        return "wrong-separator", "folders are separated by something else than a colon"
    return None
