"""Machines with many people, many findings and many devices: the work grows with their number, and nothing is lost."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis
from dlhealth.probes import Options
from dlhealth.report.json import to_json
from dlhealth.report.story import story_of
from dlhealth.report.style import Style
from dlhealth.report.terminal import Detail, render
from dlhealth.testing import Machine

PLAIN = Style(colour=False, unicode=True, width=80)
FEW, MANY = 12, 48
FAULTS = {
    "login-loop-broken-path-environment": (".profile", "export PATH=/usr/local/cuda/bin\n"),
    "ld-library-path-malformed": (".bashrc", "export LD_LIBRARY_PATH=/usr/local/cuda/lib64,/opt/x:$LD_LIBRARY_PATH\n"),
    "login-loop-profile-script-error": (".profile", ". /opt/ros/noetic/setup.sh\n"),
    "cuda-visible-devices-wrong": (".bashrc", "export CUDA_VISIBLE_DEVICES=none\n"),
}


def people(count: int, *faults: str) -> Machine:
    """Everybody has the same faults."""
    machine = Machine.debian12_gpu()
    for number in range(count):
        name = f"user{number}"
        machine.user(name, 2000 + number)
        if "login-loop-profile-script-error" in faults:
            for attempt in range(4):
                machine.login(name, begin=1000.0 + 200 * number + 30 * attempt, seconds=2.0)
        for fault in faults:
            file, line = FAULTS[fault]
            machine.append(f"/home/{name}/{file}", line)
    return machine


def diagnosed(machine: Machine, folder: Path, rules: tuple[Rule, ...]) -> Diagnosis:
    folder.mkdir()
    machine.build(folder)
    return diagnose(rules, Facts(RootHost(str(folder)), Options()), whole=True)


def calls(machine: Machine, folder: Path, rules: tuple[Rule, ...]) -> Counter[str]:
    """How often each function is called for a diagnosis and its reports."""
    folder.mkdir()
    machine.build(folder)
    counted: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            code = frame.f_code
            counted[f"{code.co_filename}:{code.co_firstlineno} {code.co_name}"] += 1
        elif event == "c_call":
            counted[f"{frame.f_code.co_filename}:{frame.f_lineno} {argument.__name__}"] += 1

    sys.setprofile(count)
    try:
        diagnosis = diagnose(rules, Facts(RootHost(str(folder)), Options()), whole=True)
        render(story_of(diagnosis), PLAIN)
        to_json(diagnosis)
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize("fault", FAULTS)
def test_the_work_grows_with_the_number_of_people(fault: str, tmp_path: Path, rules: tuple[Rule, ...]) -> None:
    few = calls(people(FEW, fault), tmp_path / "few", rules)
    many = calls(people(MANY, fault), tmp_path / "many", rules)
    growth = MANY / FEW
    assert [n for n, times in many.items() if times > 1000 and times > 1.3 * growth * few[n]] == []


def test_no_finding_of_many_is_lost(tmp_path: Path, rules: tuple[Rule, ...]) -> None:
    diagnosis = diagnosed(people(MANY, *FAULTS), tmp_path / "root", rules)
    listed = json.loads(to_json(diagnosis))["findings"]
    for fault in FAULTS:
        assert len({f["subject"] for f in listed if f["id"] == fault}) >= MANY, fault


def test_one_problem_of_many_people_is_reported_once(tmp_path: Path, rules: tuple[Rule, ...]) -> None:
    fault = "login-loop-broken-path-environment"
    machine = people(5, fault).user("other", 1999).append("/home/other/.profile", "export PATH=/opt/bin\n")
    story = story_of(diagnosed(machine, tmp_path / "root", rules))
    text = render(story, PLAIN)
    assert text.count(f"{fault}, user:user0") == 1
    assert "4 other people have the same problem: user1, user2, user3, user4" in text
    assert f"{fault}, user:other" in text
    full = render(story, PLAIN, Detail.VERBOSE)
    assert all(f"{fault}, user:user{number}" in full for number in range(5))
    assert "and 4 other people" in render(story, PLAIN, Detail.QUIET)
