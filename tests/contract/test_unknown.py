"""What could not be checked accuses nobody: a machine with a part out of sight gets no problem that it did not have."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host import Host, Unreadable
from dlhealth.host.base import Question
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis, Finding, Health, Risk, Severity, Unknown, kind_of
from dlhealth.probes import Options, Unavailable
from dlhealth.testing import Machine, Scenario
from tests.rules import RULES

FOLDERS = (
    "/etc", "/usr", "/usr/lib/modules", "/lib/modules", "/boot", "/proc", "/sys", "/var", "/var/log", "/var/lib/dpkg",
    "/var/lib/dpkg/info", "/var/lib/dkms", "/run", "/home", "/root",
)  # fmt: skip
"""Each holds a source of facts."""
SHARE = 8
"""A faulty machine loses what its rule needs, and every so many of the other facts and of the directories; the next
machine loses the next ones."""
_BY_RISK = list(Risk)
Choice = Callable[[list[Any]], list[Any]]


def remove_kernel(root: Path) -> None:
    for part in ("usr/lib/modules", "boot", "var/lib/dkms"):
        shutil.rmtree(root / part)


HEALTHY = {
    "debian": Machine.debian12_gpu(),
    "ubuntu": Machine.ubuntu2404_gpu(),
    "runfile": Machine.ubuntu1604_runfile(),
    "toolkit": Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn().python_environment(torch="2.3.0+cu121"),
    "without a GPU": Machine.debian12(),
    "container": Machine.ubuntu2404_gpu()
    .file("/run/systemd/container", "lxc\n")
    .without_package("nvidia-driver-550")
    .without_package("nvidia-dkms-550")
    .without_package("nvidia-kernel-source-550")
    .without_package("nvidia-utils-550")
    .do(remove_kernel),
}
FAULTY = [
    pytest.param(number, next(s for s in rule.scenarios() if s.finds), id=rule.id) for number, rule in enumerate(RULES)
]


def wanted(function: Callable[..., Any]) -> list[Any]:
    """The facts that a probe or a rule asks for itself."""
    given = [kind for name, kind in function.__annotations__.items() if name != "return"]
    return [get_args(kind)[0] if isinstance(kind, UnionType) else kind for kind in given]


@cache
def needed(kind: Any) -> frozenset[Any]:
    """A fact, and all facts that it is made from."""
    return frozenset({kind}).union(*map(needed, wanted(kind.probe))) if hasattr(kind, "probe") else frozenset({kind})


NEEDS = {rule.id: frozenset[Any]().union(*map(needed, wanted(rule.detect))) for rule in RULES}


class Without(Facts):
    """The facts of a machine when one of them can't be checked; those that do not need it are not built again."""

    def __init__(self, whole: Facts, lacking: type) -> None:
        super().__init__(whole.get(Host), whole.get(Options))
        self._known = {kind: fact for kind, fact in whole._known.items() if lacking not in needed(kind)}
        self._known[lacking] = Unavailable("removed by the test")


class Remembered:
    """A rule whose facts are all as before, so that it says the same."""

    def __init__(self, rule: Rule, facts: Facts) -> None:
        self._rule = rule
        self._said: list[Finding | Unknown] | Unavailable
        try:
            self._said = list(facts.call(rule.detect))
        except Unavailable as problem:
            self._said = problem

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def detect(self) -> list[Finding | Unknown]:
        if isinstance(self._said, Unavailable):
            raise self._said
        return self._said


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_machine_stays_healthy_whatever_is_not_seen(name: str, tmp_path: Path) -> None:
    check(Scenario(name, HEALTHY[name]), lambda facts: facts, FOLDERS, tmp_path)


@pytest.mark.parametrize(("number", "scenario"), FAULTY)
def test_a_faulty_machine_gets_no_other_fault_by_what_is_not_seen(
    number: int, scenario: Scenario, tmp_path: Path
) -> None:
    def share(facts: list[Any]) -> list[Any]:
        turn = facts[number % SHARE :: SHARE]
        return [kind for kind in facts if kind in turn or kind in NEEDS[RULES[number].id]]

    check(scenario, share, FOLDERS[number % SHARE :: SHARE], tmp_path)


def check(scenario: Scenario, chosen: Choice, folders: tuple[str, ...], place: Path) -> None:
    """Remove facts and directories, one at a time, and compare with the whole machine."""
    root, options = place / "machine", Options(next_boot=scenario.next_boot)
    root.mkdir()
    scenario.machine.build(root)
    facts = Facts(RootHost(str(root)), options)
    whole = diagnose(RULES, facts)
    remembered = {rule.id: Remembered(rule, facts) for rule in RULES}
    for kind in chosen(sorted((k for k in facts._known if hasattr(k, "probe")), key=lambda k: k.__name__)):
        rules: list[Any] = [rule if kind in NEEDS[rule.id] else remembered[rule.id] for rule in RULES]
        compare(whole, diagnose(rules, Without(facts, kind)), kind.__name__)
    for folder in folders:
        for lacking in without(root / folder.lstrip("/"), place / "aside"):
            compare(whole, diagnose(RULES, Facts(RootHost(str(root)), options)), str(lacking))


def without(folder: Path, aside: Path) -> Iterator[Path]:
    """Once without a directory, where it is one."""
    if folder.is_dir() and not folder.is_symlink():
        os.rename(folder, aside)
        yield folder
        os.rename(aside, folder)


def compare(whole: Diagnosis, part: Diagnosis, lacking: str) -> None:
    """No new root cause and no plan that does more. What a fault explains is known: with its cause out of sight it may
    come to the front, as what it is, but with no riskier repair."""
    assert not part.failed, lacking
    known = {d.finding.id for d in whole.findings}
    riskiest = max((_BY_RISK.index(d.remedy.risk) for d in whole.findings if d.remedy), default=0)
    steps = {kind_of(a) for d in whole.findings if d.remedy for a in d.remedy.actions}
    for found in part.findings:
        if found.finding.severity is Severity.NOTE or found.caused_by:
            continue
        assert found.finding.id in known, f"without {lacking}: {found.finding.title}"
        plan = found.remedy
        before = [d for d in whole.findings if d.finding.id == found.finding.id and not d.caused_by]
        if plan and before and not found.by_hand:
            assert {kind_of(a) for a in plan.actions} <= steps | {"by-hand", "reboot"}, f"without {lacking}: {plan}"
            assert _BY_RISK.index(plan.risk) <= riskiest, f"without {lacking}: {plan}"


class Watched(RootHost):
    """A host that notes which paths each fact asks for; one of them may be unreadable."""

    def __init__(self, root: str, unreadable: str = "") -> None:
        super().__init__(root)
        self.facts: list[type] = []
        self.asked: dict[type, set[str]] = {}
        self._unreadable = unreadable

    def _ask(self, question: Question, answer: Callable[[], Any]) -> Any:
        for fact in self.facts:
            self.asked.setdefault(fact, set()).update(question[1:2])
        if self._unreadable in question[1:2]:
            raise Unreadable(self._unreadable, "Input/output error")
        return super()._ask(question, answer)


class Noted(Facts):
    """Facts that say which of them asks."""

    def get(self, kind: type) -> Any:
        host: Watched = self._known[Host]
        host.facts.append(kind)
        try:
            return super().get(kind)
        finally:
            host.facts.pop()


UNREADABLE = {
    "debian": ("/usr/lib/x86_64-linux-gnu/libGLX_nvidia.so.0",),
    "toolkit": ("/usr/local/cuda/bin", "/usr/local/cuda/targets/x86_64-linux/lib", "/usr/local/cuda/lib64"),
    "container": ("/run/systemd/container",),
    "switched off": ("/usr/lib/modprobe.d/blacklist-nvidia.conf",),
}
"""Paths that are always tried; of all others that a diagnosis reads, every twelfth."""
SWITCHED_OFF = (
    Machine.ubuntu2404().gpu(driver="").ubuntu_driver(loaded=False)
    .file("/usr/bin/prime-select").file("/usr/lib/modprobe.d/blacklist-nvidia.conf", "blacklist nvidia\n")
)  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_path_that_cant_be_read_accuses_nobody(name: str, tmp_path: Path) -> None:
    {**HEALTHY, "switched off": SWITCHED_OFF}[name].build(tmp_path)
    host, options = Watched(str(tmp_path)), Options()
    facts = Noted(host, options)
    whole = diagnose(RULES, facts)
    asked = {kind: set(paths) for kind, paths in host.asked.items()}
    remembered = {rule.id: Remembered(rule, facts) for rule in RULES}
    every = sorted(set().union(*asked.values()))
    assert set(UNREADABLE[name]) <= set(every)
    for path in (*UNREADABLE[name], *every[::12]):
        blind = Watched(str(tmp_path), path)
        blind.seen.update({question: seen for question, seen in host.seen.items() if path not in question[1:2]})
        asking = {kind for kind, paths in asked.items() if path in paths}
        part = Facts(blind, options)
        part._known.update({k: fact for k, fact in facts._known.items() if k is not Host and not needed(k) & asking})
        rules: list[Any] = [rule if NEEDS[rule.id] & asking else remembered[rule.id] for rule in RULES]
        compare(whole, diagnose(rules, part), path)


def test_a_rule_that_crashes_is_no_proof_of_health(tmp_path: Path) -> None:
    Machine.debian12_gpu().build(tmp_path)
    healthy = diagnose(RULES, Facts(RootHost(str(tmp_path)), Options()))
    assert healthy.health is Health.HEALTHY

    class Crashing(type(RULES[0])):  # type: ignore[misc]
        def detect(self, host: Host) -> Iterator[object]:
            raise ValueError("a defect")

    crashed = diagnose([*RULES[1:], Crashing()], Facts(RootHost(str(tmp_path)), Options()))
    assert [f.id for f in crashed.failed] == [RULES[0].id]
    assert crashed.health is Health.UNKNOWN
    assert crashed.doubt == "1 check failed"


@pytest.mark.parametrize("folders", [(), ("etc", "usr", "var")])
def test_an_empty_tree_is_not_healthy(folders: tuple[str, ...], tmp_path: Path) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    diagnosis = diagnose(RULES, Facts(RootHost(str(tmp_path)), Options()))
    assert not diagnosis.findings
    assert diagnosis.health is Health.UNKNOWN
