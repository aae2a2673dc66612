"""Fixtures for all tests."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from dlhealth.engine.causes import select
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.engine.rule import Rule
from dlhealth.host.locate import host_at
from dlhealth.model import Diagnosis
from dlhealth.probes import Options
from dlhealth.testing import Machine, logs
from tests.fuse import unusable

# Here, and not in a conftest.py of its own: the process that prints what workers of pytest-xdist found loads no other.
pytest_plugins = ("tests.crash.table",)

# How long one example takes says more of the machine that runs the tests than of the code. What a change did must not
# be mixed up with what chance finds: that is looked for where people work, and CI tries the same examples each time.
settings.register_profile("dlhealth", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("dlhealth")

WriteJournal = Callable[[Path, Sequence[Sequence[logs.Entry]]], None]

# What a diagnosis of a directory may start: a reader of foreign journals, nothing else.
ALLOWED_PROGRAMS = ("journalctl",)


def refuse_unless_allowed(program: str) -> None:
    assert os.path.basename(program) in ALLOWED_PROGRAMS, f"a test started {program}"


@pytest.fixture(autouse=True)
def no_real_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Outside the lab, dlhealth itself starts no program of the machine that runs the tests."""
    if not {"lab", "real_programs"} & set(request.keywords):
        from dlhealth.host import exec as door

        # What `run` and `start` call, not the two themselves: many modules hold those by name, whenever imported.
        # `run` looks for its program first, so that one which only this machine does not have is noticed too.
        find, spawn = door.find_program, door._spawn

        def guarded_find(name: str) -> str | None:
            refuse_unless_allowed(name)
            return find(name)

        def guarded_spawn(argv: list[str], *rest: Any) -> int:
            refuse_unless_allowed(argv[0])
            return spawn(argv, *rest)

        monkeypatch.setattr(door, "find_program", guarded_find)
        monkeypatch.setattr(door, "_spawn", guarded_spawn)
    yield


@pytest.fixture(scope="session")
def rules() -> tuple[Rule, ...]:
    loaded = load_rules("/nonexistent")
    assert not loaded.failed
    return loaded.rules


@pytest.fixture
def examine(tmp_path: Path, rules: tuple[Rule, ...]) -> Callable[..., Diagnosis]:
    """Build a machine and diagnose it with all rules, or only some."""

    def run(machine: Machine, *only: str, options: Options | None = None) -> Diagnosis:
        root = tmp_path / "machine"
        if root.exists():
            shutil.rmtree(root)
        root.mkdir()
        machine.build(root)
        chosen = [r for r in rules if r.id in only] if only else select(rules, ())
        return diagnose(chosen, Facts(host_at(str(root)), options or Options()))

    return run


def program(*argv: str) -> str:
    """What a real program prints."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def write_journal() -> WriteJournal:
    """Makes a real journal below a root."""
    if not os.path.exists(logs.JOURNAL_REMOTE):
        pytest.skip("needs systemd-journal-remote")
    return logs.write_journal


@pytest.fixture
def fuse() -> None:
    """For tests that run something beside a FUSE."""
    if why := unusable():
        pytest.skip(why)
