"""Fixtures for all tests."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from dlhealth.engine.diagnose import diagnose, select
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.engine.rule import Rule
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis
from dlhealth.probes import Options
from dlhealth.testing import Machine

# How long one example takes says more of the machine that runs the tests than of the code.
settings.register_profile("dlhealth", deadline=None)
settings.load_profile("dlhealth")

# What a diagnosis of a folder may start: a reader of foreign journals, nothing else.
ALLOWED_PROGRAMS = ("journalctl",)


@pytest.fixture(autouse=True)
def no_real_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Outside the lab, dlhealth itself starts no program of the machine that runs the tests."""
    if not {"lab", "real_programs"} & set(request.keywords):
        from dlhealth.host import exec as door

        real = door.run

        def guarded(argv: Sequence[str], *args: object, **kwargs: object) -> object:
            assert argv[0] in ALLOWED_PROGRAMS, f"a test started {argv}"
            return real(argv, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(door, "run", guarded)
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
        return diagnose(chosen, Facts(RootHost(str(root)), options or Options()))

    return run


def program(*argv: str) -> str:
    """What a real program prints."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
