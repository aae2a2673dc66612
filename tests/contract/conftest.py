"""Where these tests work, and what holds in all of them."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import dlhealth.report.json as documents
from tests.memory import tmp_path
from tests.schema import violations

__all__ = ["tmp_path"]


@pytest.fixture(autouse=True)
def documents_follow_their_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each JSON document that a test prints is compared with docs/schema, where jsonschema is installed."""
    dump = documents.dump

    def compared(document: dict[str, Any]) -> str:
        text = dump(document)
        wrong = violations(json.loads(text))
        assert not wrong
        return text

    if find_spec("jsonschema"):
        monkeypatch.setattr(documents, "dump", compared)


@pytest.fixture
def readable_checkout() -> None:
    """Another user runs dlhealth's files in the test."""
    folder = Path(__file__).resolve().parents[2]
    if not all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents)):
        pytest.skip("needs a checkout that every user may read")
