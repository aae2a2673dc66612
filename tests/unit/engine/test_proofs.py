"""What became worse since earlier runs of `dlhealth prove`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dlhealth.engine.proofs import MOST, Comparison, Run, compare, keep, on_battery, read
from dlhealth.host.root import RootHost
from dlhealth.model import Difference
from dlhealth.testing import Machine

DRIVER = {"driver": {"loaded": "535.1"}}
NEWER = {"driver": {"loaded": "550.2"}}


def stage(outcome: str = "proved", **figures: float) -> Mapping[str, Any]:
    named = {name.replace("__per_s", "/s").replace("_s", ", s"): value for name, value in figures.items()}
    return {"stage": "load", "outcome": outcome, "text": "", "seconds": 1.0, "figures": named, "curves": {}}


def compared(before: Mapping[str, Any], now: Mapping[str, Any], battery: bool | None = None) -> Comparison:
    return compare(
        [Run("2026-11-01T00:00:00Z", DRIVER, (before,))], Run("2026-12-01T00:00:00Z", NEWER, (now,), battery)
    )


@pytest.mark.parametrize(
    ("figure", "before", "now", "worse"),
    [
        ("images__per_s", 100, 79, True),
        ("images__per_s", 100, 81, False),
        ("images__per_s", 100, 200, False),
        ("train_s", 10, 16, True),
        ("train_s", 10, 14, False),
        ("train_s", 0.1, 0.3, False),  # twice of almost nothing is nothing
        ("time to import_s", 1, 60, False),
        ("temperature", 60, 90, False),
    ],
)
def test_a_figure_is_judged_by_its_unit(figure: str, before: float, now: float, worse: bool) -> None:
    assert bool(compared(stage(**{figure: before}), stage(**{figure: now})).worse) == worse


def test_what_changed_in_between_stands_beside_what_became_worse() -> None:
    found = compared(stage(), stage("failed"))
    assert found.worse[0][:4] == ("load", "", "proved", "failed")
    assert found.differences == (Difference("driver", "loaded", "535.1", "550.2"),)
    assert compared(stage(), stage()) == Comparison((), ())


def test_a_stage_that_could_not_run_is_not_worse() -> None:
    assert not compared(stage(), stage("could not run")).worse


def test_a_battery_makes_no_gpu_worse_but_hides_no_failure() -> None:
    slow = stage(images__per_s=10)
    assert not compared(stage(images__per_s=100), slow, battery=True).worse
    assert compared(stage(), stage("failed"), battery=True).worse


def test_the_last_run_in_which_a_stage_was_proved_counts() -> None:
    runs = [
        Run("2026-11-01T00:00:00Z", DRIVER, (stage(images__per_s=100),)),
        Run("2026-11-02T00:00:00Z", DRIVER, (stage("failed"),)),
    ]
    (worse,) = compare(runs, Run("2026-11-03T00:00:00Z", DRIVER, (stage(images__per_s=50),))).worse
    assert (worse.before, worse.now, worse.time) == ("100", "50", "2026-11-01T00:00:00Z")


def test_runs_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for number in range(MOST + 2):
        keep(read(RootHost("/", live=True)), Run(f"{number}", DRIVER, (stage(images__per_s=1.5),), False))
    runs = read(RootHost("/", live=True))
    assert [run.time for run in runs] == [str(number) for number in range(2, MOST + 2)]
    assert runs[0].stages[0]["figures"] == {"images/s": 1.5}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 1, "runs": [{"time": 1}]}', '{"schema": 9, "runs": []}', "\x00"]
)
def test_a_damaged_file_is_no_history(content: str, tmp_path: Path) -> None:
    root = Machine.debian12().file("/var/lib/dlhealth/proofs.json", content).build(tmp_path)
    assert read(RootHost(str(root))) == ()


@pytest.mark.parametrize(
    ("supplies", "battery"),
    [
        ({"AC": ("Mains", "0"), "BAT0": ("Battery", "")}, True),
        ({"AC": ("Mains", "1"), "BAT0": ("Battery", "")}, False),
        ({"BAT0": ("Battery", "")}, None),
        ({}, None),
    ],
)
def test_on_battery(supplies: dict[str, tuple[str, str]], battery: bool | None, tmp_path: Path) -> None:
    machine = Machine.debian12()
    for name, (kind, online) in supplies.items():
        machine.file(f"/sys/class/power_supply/{name}/type", f"{kind}\n")
        machine.file(f"/sys/class/power_supply/{name}/online", f"{online}\n")
    assert on_battery(RootHost(str(machine.build(tmp_path)))) is battery
