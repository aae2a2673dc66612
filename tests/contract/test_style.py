"""No text that a user reads contains a construction that stops an average reader."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlhealth.engine.load import load_rules
from dlhealth.engine.rule import Rule

PROJECT = Path(__file__).parent.parent.parent
UNFINISHED = ("driver_libraries", "packaging")
"""Folders of rules whose texts are still to be rewritten."""
BANNED = re.compile(
    r"\b(anew|shall|of which|what is there|who does|by then|is to be|affair|can't be told|put back|(take|taken|takes) back"
    r"|no longer so|to be had|make way|nowhere|carr(y|ied|ies) out)\b",
    re.IGNORECASE,
)
RULES = [r for r in load_rules("/nonexistent").rules if type(r).__module__.split(".")[-2] not in UNFINISHED]
FILES = [p for p in (PROJECT / "rules").rglob("*.py") if p.parent.name not in UNFINISHED]
TEXTS = {"Plan": 0, "ByHand": 0, "Unknown": 0, "finding": 1, "Scenario": 0}
"""By the name of a call in a rule: which of its arguments is printed."""


def _texts(path: Path) -> Iterator[str]:
    """The fixed parts of the printed texts of a rule, each with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            continue
        position = TEXTS.get(node.func.id if isinstance(node.func, ast.Name) else node.func.attr)
        if position is None or len(node.args) <= position:
            continue
        for part in ast.walk(node.args[position]):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield f"{path.name}:{part.lineno}: {part.value}"


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_a_rule_is_documented_in_plain_words(rule: Rule) -> None:
    text = " ".join(f"{rule.title}\n{rule.documentation}".split())
    assert not [match[0] for match in BANNED.finditer(text)]


def test_findings_and_repairs_use_plain_words() -> None:
    assert not [text for path in FILES for text in _texts(path) if BANNED.search(text)]


def test_help_uses_plain_words() -> None:
    assert not [line for line in (PROJECT / "docs/commands.md").read_text().splitlines() if BANNED.search(line)]
