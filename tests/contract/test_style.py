"""The texts that people read are plain English: ordinary words, short sentences, one word per concept."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlhealth.engine.rule import Rule
from tests.rules import RULES

PROJECT = Path(__file__).parent.parent.parent
BANNED = re.compile(
    r"\b(anew|shall|of which|what is there|who does|by then|is to be|affair|(can't|cannot) be told|put back"
    r"|(take|taken|takes|taking|took) back|no longer so|to be had|can't be had|make way|nowhere"
    r"|carr(y|ied|ies|ying) out|is at work)\b",
    re.IGNORECASE,
)
"""Constructions that stop an average reader."""
ODD_COMMENT = re.compile(
    r"\b(anew|shall|what is there|who does|affair|(can't|cannot) be told|put back|(take|taken|takes|taking|took) back"
    r"|no longer so|to be had|can't be had|make way|carr(y|ied|ies|ying) out|is at work)\b",
    re.IGNORECASE,
)
"""The same for docstrings and comments, whose readers know the code."""
FOLDER = re.compile(r"\b[Ff]olders?\b")
SENTENCE = re.compile(r"(?<=[.?!:;])\s+|\n")
LONGEST = 26
"""Words of a printed sentence; a value that is filled in counts as one."""
LONGEST_OF_DOCUMENTS = 32
LONGEST_TITLE = 90
"""Columns of a rule's title."""

RULE_FILES = sorted((PROJECT / "rules").rglob("*.py"))
SOURCES = [
    p
    for p in sorted((PROJECT / "dlhealth").rglob("*.py"))
    if "testing" not in p.parts and p.name not in ("redact.py", "redact_shell.py")
]
"""Their strings may be printed. What hides secrets prints nothing."""
DOCUMENTS = [
    *sorted(PROJECT.glob("*.md")),
    *sorted((PROJECT / "docs").glob("*.md")),
    *sorted((PROJECT / ".github").rglob("*.md")),
]
UNITS = sorted((PROJECT / "systemd").glob("*.*"))
PRINTED = {"Plan": 0, "ByHand": 0, "Unknown": 0, "finding": 1, "Scenario": 0}
"""By the name of a call in a rule: which of its arguments is printed."""
PATTERNS = ("regex", "compile", "match", "fullmatch", "search", "sub", "findall", "finditer", "split")
"""Calls whose strings are patterns."""


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _texts_of_rule(path: Path) -> Iterator[str]:
    """The fixed parts of the printed texts of a rule, each with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        position = PRINTED.get(_name(node))
        if position is None or len(node.args) <= position:
            continue
        for part in ast.walk(node.args[position]):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield f"{path.name}:{part.lineno}: {part.value}"


def _texts_of_source(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each string of a module that looks like a sentence, without docstrings and patterns."""
    tree = ast.parse(path.read_text())
    parts: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            parts.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts.update(node.values)
        elif isinstance(node, ast.FormattedValue) and node.format_spec:
            parts.add(node.format_spec)
        elif isinstance(node, ast.Call) and _name(node) in PATTERNS:
            parts.update(part for argument in node.args for part in ast.walk(argument))
    for node in ast.walk(tree):
        if node in parts:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        # A text with a group is a pattern of what another program prints.
        if re.search(r"[A-Za-z]{2,} [a-zX]", text) and not re.search(r"\(\?[:P]", text):
            yield node.lineno, text


def _remarks(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring and comment of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, " ".join(node.value.value.split())
    with tokenize.open(path) as text:
        for token in tokenize.generate_tokens(text.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def _paragraphs(path: Path) -> Iterator[str]:
    """The text of a document without literal blocks and tables, a paragraph or list entry at a time."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", path.read_text(), flags=re.DOTALL)
    for paragraph in re.split(r"\n\n|\n- |\n\d+\. ", text):
        if not paragraph.lstrip().startswith("|"):
            yield " ".join(paragraph.split())


def _too_long(text: str, limit: int) -> list[str]:
    return [sentence for sentence in SENTENCE.split(text) if len(sentence.split()) > limit]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_a_rule_is_documented_in_plain_words(rule: Rule) -> None:
    text = " ".join(f"{rule.title}\n{rule.documentation}".split())
    assert not [match[0] for match in BANNED.finditer(text)]


def test_titles_fit_into_two_lines() -> None:
    assert not [rule.title for rule in RULES if len(rule.title) > LONGEST_TITLE]


def test_findings_and_repairs_use_plain_words() -> None:
    assert not [text for path in RULE_FILES for text in _texts_of_rule(path) if BANNED.search(text)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_what_a_module_prints_is_plain_and_short(path: Path) -> None:
    odd = [
        f"{line}: {text}"
        for line, text in _texts_of_source(path)
        if BANNED.search(text) or FOLDER.search(text) or _too_long(text, LONGEST)
    ]
    assert not odd


@pytest.mark.parametrize("path", [*SOURCES, *RULE_FILES], ids=lambda p: str(p.relative_to(PROJECT)))
def test_remarks_use_plain_words(path: Path) -> None:
    assert not [f"{line}: {text}" for line, text in _remarks(path) if ODD_COMMENT.search(text)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_documents_use_plain_words(path: Path) -> None:
    assert not [x for x in path.read_text().splitlines() if BANNED.search(x) or FOLDER.search(x)]
    if path.name != "commands.md":  # generated from the help, whose strings are checked above
        assert not [sentence for text in _paragraphs(path) for sentence in _too_long(text, LONGEST_OF_DOCUMENTS)]


def test_the_service_uses_plain_words() -> None:
    """The alerts' explanations, the units' descriptions and polkit's questions."""
    lines = [line for path in UNITS for line in path.read_text().splitlines()]
    assert not [line for line in lines if BANNED.search(line) or FOLDER.search(line)]
