"""The generated documentation is that of the commands and rules as they are; the README says what is so."""

import re
import runpy
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent


def test_generated_pages_are_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails: python docs/generate.py"""
    monkeypatch.syspath_prepend(str(PROJECT / "docs"))
    made = runpy.run_path(str(PROJECT / "docs/generate.py"))["pages"]()
    found = [PROJECT / "docs/commands.md", *(PROJECT / "docs/rules").glob("*"), *(PROJECT / "docs/man").glob("*")]
    written = {str(p.relative_to(PROJECT / "docs")): p.read_text() for p in found}
    assert sorted(written) == sorted(made)
    stale = [name for name, text in made.items() if written[name] != text]
    assert not stale


def test_links_lead_somewhere() -> None:
    pages = [PROJECT / "README.md", PROJECT / "ARCHITECTURE.md", *(PROJECT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(PROJECT)}: {target}"
        for page in pages
        for target in re.findall(r"(?<!\\)\]\(([^)#\s]+)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


@pytest.mark.parametrize("name", ["install", "tests"])
def test_ci_runs_the_commands_of_the_readme(name: str) -> None:
    """Each is one line behind a marker that CI looks for."""
    command = (PROJECT / "README.md").read_text().split(f"<!-- {name} -->")[1].split("```")[1].split("\n", 1)[1].strip()
    assert "\n" not in command
    assert command.startswith("apt-get update -q && apt-get install -qy python3-venv")
    assert f"$(line {name})" in (PROJECT / ".ci/run").read_text()
