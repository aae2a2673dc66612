"""The generated documentation is that of the commands and rules as they are; the README says what is so."""

import os
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlhealth import __version__
from dlhealth.cli import COMMANDS

PROJECT = Path(__file__).parent.parent.parent


def test_generated_pages_are_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails: python docs/generate.py"""
    monkeypatch.syspath_prepend(str(PROJECT / "docs"))
    made = runpy.run_path(str(PROJECT / "docs/generate.py"))["pages"]()
    folders = ("completions", "man", "rules")
    found = [PROJECT / "docs/commands.md", *(p for name in folders for p in (PROJECT / "docs" / name).glob("*"))]
    written = {str(p.relative_to(PROJECT / "docs")): p.read_text() for p in found}
    assert sorted(written) == sorted(made)
    stale = [name for name, text in made.items() if written[name] != text]
    assert not stale


def test_the_site_has_every_page() -> None:
    """The hook adds those of docs/rules."""
    pages = {p.name for p in (PROJECT / "docs").glob("*.md")} | {p.name for p in PROJECT.glob("*.md")} - {"README.md"}
    named = set(re.findall(r"^ +- (?:.*: )?([\w.]+\.md)$", (PROJECT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named - {"index.md"} == pages


def test_links_lead_somewhere() -> None:
    pages = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
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


PAGES = [*PROJECT.glob("*.md"), *(PROJECT / ".github").rglob("*.md"), *(PROJECT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`(?:sudo )?dlhealth ([a-z][a-z-]*)", page.read_text()))
    assert named <= set(COMMANDS)


def test_a_reported_problem_comes_with_what_is_needed_to_reproduce_it() -> None:
    (template,) = (PROJECT / ".github/ISSUE_TEMPLATE").glob("*.md")
    assert {"version", "capture", "history"} <= set(re.findall(r"dlhealth ([a-z]+)", template.read_text()))


def test_the_changes_of_this_version_are_listed() -> None:
    assert f"\n## {__version__}" in (PROJECT / "CHANGELOG.md").read_text()


def code(page: str) -> tuple[list[str], list[str]]:
    """The blocks and the words in the typeface of code."""
    text = (PROJECT / page).read_text()
    return re.findall(r"```.*?```", text, re.DOTALL), re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def test_the_readme_is_one_screen() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 60


def test_the_chinese_readme_says_the_same() -> None:
    """The same commands, headings, entries and links, in the same order."""

    def form(page: str, pattern: str) -> list[str]:
        return re.findall(pattern, (PROJECT / page).read_text(), re.MULTILINE)

    assert code("README.zh.md") == code("README.md")
    for pattern in (r"^#+(?= )", r"^(?:\d+\.|-)(?= )", r"^<!-- .* -->$", r"(?<=\]\()(?!README)[^)]+"):
        assert form("README.zh.md", pattern) == form("README.md", pattern), pattern


@pytest.fixture
def screenshot(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[..., Any]]:
    pytest.importorskip("rich", reason="needs rich, of the extra [docs]")
    monkeypatch.syspath_prepend(str(PROJECT / "docs"))
    return runpy.run_path(str(PROJECT / "docs/screenshot.py"))


@pytest.mark.real_programs
def test_the_picture_shows_what_doctor_prints(screenshot: dict[str, Callable[..., Any]]) -> None:
    """When this fails: python docs/screenshot.py"""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("script"):
        pytest.skip("needs root, unshare and script")

    def lines(svg: str) -> list[str]:
        # What could not run depends on the machine.
        return [line for line in screenshot["shown"](svg) if "checks could not run" not in line]

    drawn = (PROJECT / "docs/screenshot.svg").read_text()
    assert lines(drawn) == lines(screenshot["picture"](screenshot["printed"]()))
    assert "://" not in re.sub(r'xmlns="[^"]*"|<!--.*?-->', "", drawn)
