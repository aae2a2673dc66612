"""What `dlhealth rules new` writes is a rule in form: only what its author has to think of is missing."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlhealth.cli import Status, run
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import rules_of
from dlhealth.engine.rule import BUILT_IN, Rule
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis, Layer
from dlhealth.probes import Options
from dlhealth.testing import Scenario

PROJECT = Path(__file__).parents[3]
SECTIONS = ["What you see", "Why", "Repair", "What the repair risks", "By hand"]


def loaded(path: Path, name: str) -> Rule:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (rule,) = rules_of(module)
    return rule


@pytest.mark.parametrize("checkout", [True, False])
def test_a_new_rule_is_one_in_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], checkout: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    name, path = "my_rule", tmp_path / "gpu_melts_slowly.py"
    if checkout:
        (tmp_path / "rules/kernel_module").mkdir(parents=True)
        name, path = f"{BUILT_IN}.kernel_module.gpu_melts_slowly", tmp_path / "rules/kernel_module/gpu_melts_slowly.py"
    assert run(["rules", "new", "gpu-melts-slowly", "--layer", "kernel-module"]) == Status.HEALTHY
    assert capsys.readouterr().out.startswith(f"{path}\n")
    rule = loaded(path, name)
    assert (rule.id, rule.layer, type(rule).__name__) == ("gpu-melts-slowly", Layer.KERNEL_MODULE, "GpuMeltsSlowly")
    lines = rule.documentation.splitlines()
    assert lines[0].endswith(".")
    assert [line for line in lines if line in SECTIONS] == SECTIONS
    for check in (["format", "--check"], ["check"]):
        argv = [sys.executable, "-m", "ruff", *check, "--config", str(PROJECT / "pyproject.toml"), str(path)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_faults_of_a_new_rule_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["rules", "new", "gpu-melts-slowly", "--layer", "runtime"]) == Status.HEALTHY
    rule = loaded(tmp_path / "gpu_melts_slowly.py", "my_rule")

    def holds(number: int, scenario: Scenario) -> bool:
        root = tmp_path / str(number)
        root.mkdir()
        scenario.machine.build(root)
        diagnosis: Diagnosis = diagnose([rule], Facts(RootHost(str(root)), Options()))
        assert not diagnosis.failed
        found, skipped = bool(diagnosis.findings), bool(diagnosis.skipped)
        return (found, skipped) == (bool(scenario.finds), scenario.unknown)

    scenarios = list(rule.scenarios())
    assert [s for n, s in enumerate(scenarios) if not holds(n, s)] == [s for s in scenarios if s.finds]
    assert len([s for s in scenarios if s.finds]) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["Melts", "--layer", "runtime"], "'Melts' must be two or more words of a-z and 0-9"),
        (["../up-there", "--layer", "runtime"], "must be two or more words"),
        (["boot-partition-full", "--layer", "packaging"], "there is a rule 'boot-partition-full' already"),
        (["gpu-melts-slowly"], "Missing option '--layer'"),
        (["is-there", "--layer", "runtime"], "is_there.py: file exists"),
    ],
)
def test_what_can_not_be_a_new_rule(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "is_there.py").touch()
    assert run(["rules", "new", *arguments]) == Status.USAGE
    assert says in " ".join(capsys.readouterr().err.split())
    assert os.listdir(tmp_path) == ["is_there.py"]
