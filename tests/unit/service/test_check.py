"""One look of the watcher: what it says of a machine, and when it says nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dlhealth.engine.load import Loaded
from dlhealth.engine.rule import Rule
from dlhealth.host.base import Host
from dlhealth.host.root import RootHost
from dlhealth.model import Evidence, Failed, Finding, Layer, Plan, Severity, Stage
from dlhealth.probes import Options
from dlhealth.service.check import Checked, check
from dlhealth.testing import Machine


class Login(Rule):
    """What the rules here have in common."""

    title = "A rule of the tests"
    layer = Layer.LOGIN
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR


class BadFile(Login):
    id = "bad-file"

    def detect(self, host: Host) -> Iterator[Finding]:
        if host.exists("/etc/bad"):
            yield self.finding("host", "It is bad", Evidence("/etc/bad", "is there"))

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield from ()


class WhileItLooks(Login):
    """Something happens to the machine during the look."""

    id = "while-it-looks"

    def __init__(self, root: Path, happens: Machine) -> None:
        self._root, self._happens = root, happens

    def detect(self, host: Host) -> Iterator[Finding]:
        self._happens.build(self._root)
        yield from ()


class Crashing(Login):
    id = "crashing"

    def detect(self, options: Options) -> Iterator[Finding]:
        raise KeyError("missing")


APT = Machine().locked("/var/lib/dpkg/lock-frontend", 4711, "apt-get")


def looked(
    machine: Machine, root: Path, monkeypatch: pytest.MonkeyPatch, *rules: Rule, only: tuple[str, ...] = ()
) -> Checked:
    machine.file("/etc/bad").build(root)
    monkeypatch.setattr("dlhealth.engine.examine.load_rules", lambda: Loaded((BadFile(), *rules), ()))
    return check(lambda: RootHost(str(root)), only)


@pytest.mark.parametrize("only", [(), ("bad-file",), ("login",)])
def test_while_packages_are_changed_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: tuple[str, ...]
) -> None:
    assert looked(Machine(), tmp_path, monkeypatch, only=only).findings
    checked = looked(APT, tmp_path, monkeypatch, only=only)
    assert "apt-get (process 4711)" in checked.busy
    assert checked == Checked(busy=checked.busy)


@pytest.mark.parametrize("only", [(), ("login",)])
def test_a_change_that_begins_during_the_look_is_waited_for_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: tuple[str, ...]
) -> None:
    checked = looked(Machine(), tmp_path, monkeypatch, WhileItLooks(tmp_path, APT), only=only)
    assert checked.busy
    assert checked == Checked(busy=checked.busy)


class BadText(BadFile):
    id = "bad-text"

    def detect(self, host: Host) -> Iterator[Finding]:
        yield self.finding("host", "a line says \x1b[2J\nMESSAGE=all is well\x9b", Evidence("/etc/bad", "is there"))


def test_what_a_file_says_is_no_command_to_whoever_reads_the_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bad,) = (f for f in looked(Machine(), tmp_path, monkeypatch, BadText()).findings if f.id == "bad-text")
    assert bad.title.isprintable()
    assert "MESSAGE=all is well" in bad.title


def test_a_rule_that_raises_is_named_and_judges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = looked(Machine(), tmp_path, monkeypatch, Crashing())
    assert [f.id for f in checked.findings] == ["bad-file"]
    assert checked.judged == ("bad-file",)
    assert "crashing failed: KeyError: 'missing'" in checked.problem


def test_a_rule_that_was_taken_away_is_no_reason_not_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = looked(Machine(), tmp_path, monkeypatch, only=("was-here", "bad-file"))
    assert [f.id for f in checked.findings] == ["bad-file"]
    assert checked.rules == ("bad-file",)
    assert looked(Machine(), tmp_path, monkeypatch, only=("was-here",)) == Checked(rules=("bad-file",))


def test_a_rule_that_does_not_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dlhealth.engine.examine.load_rules", lambda: Loaded((BadFile(),), (Failed("mine", "SyntaxError"),))
    )
    checked = check(lambda: RootHost(str(Machine().file("/etc/bad").build(tmp_path))), ())
    assert [f.id for f in checked.findings] == ["bad-file"]
    assert "mine failed: SyntaxError" in checked.problem
    assert checked.rules == (), "it may be one that found something before"
