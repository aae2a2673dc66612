"""The manual pages say what the help says, and programs that read such pages find nothing wrong with them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dlhealth.cli import COMMANDS, commands
from dlhealth.engine.policy import SETTINGS
from dlhealth.engine.rule import Rule
from dlhealth.service.install import POLICY

FOLDER = Path(__file__).parent.parent.parent / "docs/man"
PAGES = sorted(FOLDER.glob("*"))
needs_man = pytest.mark.skipif(
    not (shutil.which("man") and shutil.which("groff")),
    reason="needs man and groff, of the packages man-db and groff-base",
)


def shown(name: str) -> str:
    """A page as a reader sees it, in one line."""
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(FOLDER / name)],
        env={
            "PATH": os.environ["PATH"],
            "MANWIDTH": "1000",
            "LC_ALL": "C.UTF-8",
            "MANROFFOPT": "-c",
            "MANPAGER": "cat",
        },
        capture_output=True,
        check=True,
    )
    assert not done.stderr
    return " ".join(re.sub(".\b", "", done.stdout.decode()).split())


def words(text: str) -> str:
    return " ".join(text.split())


@needs_man
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_shows_it_without_a_warning_on_80_columns(page: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)],
        env={"PATH": os.environ["PATH"], "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_finds_nothing_wrong(page: Path) -> None:
    if not shutil.which("mandoc"):
        pytest.skip("needs mandoc")
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False)
    # The pages bear no date: it would differ each time that they are written.
    assert not [line for line in done.stdout.splitlines() if "missing date" not in line]


def test_each_command_has_its_page() -> None:
    made = {"dlhealth.8", "dlhealth-config.5", *(f"dlhealth-{name}.8" for name in COMMANDS)}
    assert {page.name for page in PAGES} == made


def below(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner
            yield from below(inner, click.Context(inner, context, name))


@needs_man
@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_has_every_option_and_the_whole_help(name: str) -> None:
    context = click.Context(commands, info_name="dlhealth")
    command = commands.get_command(context, name)
    assert command
    page = shown(f"dlhealth-{name}.8")
    assert f"dlhealth-{name} - " in page
    for inner, its in below(command, click.Context(command, context, name)):
        description = words(inner.help or "").partition("Exit status: ")[0].strip()
        assert description in page
        for option in inner.params:
            record = option.get_help_record(its)
            assert not record or f"{record[0]} {words(record[1])}" in page


@needs_man
def test_the_first_page_leads_to_all_others() -> None:
    page = shown("dlhealth.8")
    assert all(f"dlhealth-{name}(8) {text}" in page for name, text in COMMANDS.items())
    assert "EXIT STATUS 0 healthy 1 warnings 2 wrong usage or another repair is running 3 errors" in page


@needs_man
def test_the_page_of_rules_lists_them(rules: tuple[Rule, ...]) -> None:
    page = shown("dlhealth-rules.8")
    assert all(f"{rule.id} {words(rule.title)}" in page for rule in rules)


@needs_man
def test_the_page_of_the_settings_holds_the_installed_file() -> None:
    page = shown("dlhealth-config.5")
    assert words(POLICY) in page
    assert all(f"{section}.{name} {setting.allowed}" in page for (section, name), setting in SETTINGS.items())
