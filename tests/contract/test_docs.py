"""The generated documentation is that of the commands and rules as they are; the README says what is so."""

import re
import runpy
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent


def test_generated_pages_are_fresh() -> None:
    """When this fails: python docs/generate.py"""
    made = runpy.run_path(str(PROJECT / "docs/generate.py"))["pages"]()
    found = [PROJECT / "docs/commands.md", *(PROJECT / "docs/rules").glob("*")]
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


def test_the_test_command_of_the_readme_is_what_ci_runs() -> None:
    command = (PROJECT / "README.md").read_text().split("<!-- tests -->")[1].split("```")[1].split("\n", 1)[1].strip()
    assert "\n" not in command
    assert command.startswith("python3 -m venv .venv && ")
    assert "README.md" in (PROJECT / ".ci/run").read_text()
