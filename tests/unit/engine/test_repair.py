"""From a diagnosis to a proved repair: what is chosen, what is left to a person, what is taken back, what waits."""

import calendar
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from pytest_mock import MockerFixture

from dlhealth import __version__
from dlhealth.actions import (
    AptInstall,
    ByHand,
    ChangeMode,
    EditFile,
    LoadModules,
    MoveAside,
    Reboot,
    ReloadModules,
    SetAlternative,
    UpdateInitramfs,
    WriteFile,
    action_to_json,
)
from dlhealth.engine.choose import Chosen, Limits, Repair, choose, merge
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.engine.repair import RepairRecord, carry_out, confirm_after_reboot, tell, tried
from dlhealth.engine.rule import Rule
from dlhealth.host.base import Host
from dlhealth.host.root import RootHost
from dlhealth.model import (
    TIME_FORMAT,
    Action,
    Diagnosis,
    Evidence,
    Finding,
    Layer,
    Plan,
    Risk,
    Severity,
    Stage,
    Unknown,
)
from dlhealth.probes import Options, Unavailable
from dlhealth.steps.base import CommandFailed, Target
from dlhealth.testing import Machine
from dlhealth.txn.execute import NotPrepared, undo
from dlhealth.txn.journal import Journal
from dlhealth.txn.store import Store, read_json

EDIT = EditFile("/etc/one", ((1, "bad", "good"),))


def fault(
    identity: str,
    *ladder: Plan,
    file: str = "/etc/one",
    severity: Severity = Severity.ERROR,
    explains: tuple[str, ...] = (),
    stage: Stage = Stage.ENVIRONMENT,
) -> Rule:
    """A rule that finds "bad" in a file."""

    class Fault(Rule):
        def detect(self, host: Host) -> Iterator[Finding]:
            if "bad" in (host.text(file) or ""):
                yield self.finding("host", f"{file} is bad", Evidence(file, "bad"))

        def remedies(self, finding: Finding) -> Iterator[Plan]:
            yield from ladder

    rule = Fault()
    rule.id, rule.severity, rule.explains, rule.stage, rule.layer = identity, severity, explains, stage, Layer.LOGIN
    return rule


class Patient:
    def __init__(self, root: Path, *rules: Rule) -> None:
        self.rules = {rule.id: rule for rule in rules}
        self.root = root
        (root / "etc").mkdir()
        # What is not known to be Debian is left to a person.
        (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
        (root / "var/lib/dpkg").mkdir(parents=True, exist_ok=True)
        (root / "var/lib/dpkg/status").write_text("Package: dpkg\nStatus: install ok installed\nVersion: 1\n")
        for name in ("one", "two"):
            (root / "etc" / name).write_text("bad\n")
        self.store = Store(str(root))

    def look(self) -> Diagnosis:
        return diagnose(list(self.rules.values()), Facts(RootHost(str(self.root)), Options()))

    def choose(self, limits: Limits | None = None) -> Repair:
        return choose(self.look(), self.rules, Facts(RootHost(str(self.root)), Options()), limits or Limits())

    def repair(self, limits: Limits | None = None) -> tuple[str, tuple[str, ...]]:
        with self.store.locked():
            ended = carry_out(
                self.choose(limits), self.look(), self.store, str(self.root), self.look, lambda text: None
            )
        return ended.outcome, ended.said

    def text(self, name: str = "one") -> str:
        return (self.root / "etc" / name).read_text()


def low(*actions: Action, **fields: bool) -> Plan:
    return Plan("do it", Risk.LOW, actions, **fields)


def test_the_mildest_plan_that_is_allowed_is_chosen(tmp_path: Path) -> None:
    ladder = (
        low(ByHand("Ask the owner")),
        low(AptInstall(("x",)), network=True),
        Plan("edit", Risk.MEDIUM, (EDIT,)),
        Plan("move", Risk.HIGH, (MoveAside("/etc/one"),)),
    )
    patient = Patient(tmp_path, fault("one-bad", *ladder))
    assert patient.choose().actions == (AptInstall(("x",)),)
    assert patient.choose(Limits(offline=True)).actions == (EDIT,)
    left = patient.choose(Limits(Risk.LOW, offline=True)).left
    assert [(x.finding.id, x.reason, x.by_hand) for x in left] == [
        ("one-bad", "it has steps that only a person can do", (ByHand("Ask the owner"),))
    ]


@pytest.mark.parametrize(
    ("ladder", "defect"),
    [
        (None, "TypeError"),
        ([None], "TypeError: remedies must yield plans"),
        ([low(cast(Action, "rm"))], "AttributeError: 'str' object has no attribute 'summary'"),
    ],
)
def test_a_rule_that_cannot_say_how_is_named_and_the_others_are_repaired(
    tmp_path: Path, ladder: Any, defect: str
) -> None:
    broken = fault("broken")
    broken.remedies = lambda finding: ladder
    patient = Patient(tmp_path, broken, fault("one-bad", low(EDIT)))
    repair = patient.choose()
    assert [c.finding.id for c in repair.chosen] == ["one-bad"]
    (left,) = repair.left
    assert left.finding.id == "broken"
    assert left.reason.startswith("the rule broken has a defect: remedies: ")
    assert defect in left.reason
    assert patient.repair() == ("applied", ())


@pytest.mark.parametrize(
    ("plan", "limits", "reason"),
    [
        (Plan("edit", Risk.HIGH, (EDIT,)), Limits(), "its risk is high; to allow it: --max-risk high"),
        (low(AptInstall(("x",)), network=True), Limits(offline=True), "it needs the network"),
        (
            low(Reboot()),
            Limits(live=False),
            "this works only on the running machine: start it, then run dlhealth fix there",
        ),
    ],
)
def test_why_something_is_left(plan: Plan, limits: Limits, reason: str, tmp_path: Path) -> None:
    repair = Patient(tmp_path, fault("one-bad", plan)).choose(limits)
    assert [x.reason for x in repair.left] == [reason]
    assert not repair.chosen
    assert not repair.actions


def test_no_remedy_is_said(tmp_path: Path) -> None:
    repair = Patient(tmp_path, fault("one-bad")).choose()
    assert [x.reason for x in repair.left] == ["dlhealth has no repair for this"]


def test_a_consequence_is_never_repaired_while_its_cause_stands(tmp_path: Path) -> None:
    two = EditFile("/etc/two", ((1, "bad", "good"),))
    rules = fault("cause-bad", low(EDIT), explains=("effect-bad",)), fault("effect-bad", low(two), file="/etc/two")
    patient = Patient(tmp_path, *rules)
    assert patient.choose().actions == (EDIT,)
    assert patient.choose(Limits(wanted=frozenset({"effect-bad"}))).actions == (EDIT,)


def test_a_note_is_repaired_only_when_it_is_named(tmp_path: Path) -> None:
    patient = Patient(tmp_path, fault("one-bad", low(EDIT), severity=Severity.NOTE))
    assert patient.choose() == Repair((), (), ())
    assert patient.choose(Limits(wanted=frozenset({"one-bad"}))).actions == (EDIT,)


def test_of_what_a_rule_found_twice_one_subject_can_be_meant(tmp_path: Path) -> None:
    class Both(Rule):
        def detect(self, host: Host) -> Iterator[Finding]:
            for name in ("one", "two"):
                yield self.finding(f"file:{name}", f"{name} is bad", Evidence(f"/etc/{name}", "bad"))

        def remedies(self, finding: Finding) -> Iterator[Plan]:
            yield low(EditFile(finding.evidence[0].source, ((1, "bad", "good"),)))

    cause, both = fault("cause-bad", low(UpdateInitramfs("6.1")), explains=("effect-bad",)), Both()
    both.id, both.severity, both.stage, both.layer = "both-bad", Severity.ERROR, Stage.ENVIRONMENT, Layer.LOGIN
    patient = Patient(tmp_path, cause, fault("effect-bad"), both)
    for wanted, subject, expected in (
        ("both-bad", "file:two", [EditFile("/etc/two", EDIT.changes)]),
        ("both-bad", "", [EDIT, EditFile("/etc/two", EDIT.changes)]),
        ("both-bad", "file:three", []),
        ("effect-bad", "host", [UpdateInitramfs("6.1")]),
        ("effect-bad", "file:one", []),
    ):
        assert list(patient.choose(Limits(wanted=frozenset({wanted}), subject=subject)).actions) == expected


def test_repairs_go_in_the_order_of_their_stages(tmp_path: Path) -> None:
    two = EditFile("/etc/two", ((1, "bad", "good"),))
    patient = Patient(
        tmp_path,
        fault("late-bad", low(EDIT), stage=Stage.APPLICATIONS),
        fault("soon-bad", low(two), file="/etc/two", stage=Stage.DISK),
    )
    assert patient.choose().actions == (two, EDIT)


def test_actions_are_merged() -> None:
    first = low(EditFile("/f", ((1, "a", "b"),)), UpdateInitramfs("6.1"), Reboot())
    second = low(EditFile("/f", ((3, "c", None),)), WriteFile("/g", "x"), UpdateInitramfs("6.1"))
    assert merge([first, second]) == (
        EditFile("/f", ((1, "a", "b"), (3, "c", None))),
        WriteFile("/g", "x"),
        UpdateInitramfs("6.1"),
    )


def test_plans_that_disagree_about_a_file_go_one_after_the_other(tmp_path: Path) -> None:
    patient = Patient(tmp_path, fault("a-bad", low(EDIT)), fault("b-bad", low(MoveAside("/etc/one"))))
    repair = patient.choose()
    assert repair.actions == (EDIT,)
    assert [(x.finding.id, x.reason) for x in repair.left] == [
        ("b-bad", "another repair changes the same file: run dlhealth fix again")
    ]


@pytest.mark.parametrize(
    ("changes", "together"),
    [
        (((2, "bad", "better"),), True),
        (((1, "bad", "good"), (2, "bad", None)), True),
        (((1, "bad", "better"),), False),
        (((2, "bad", "good"), (1, "bad", None)), False),
    ],
)
def test_edits_of_one_file_go_together_unless_they_make_different_things_of_a_line(
    changes: tuple[tuple[int, str, str | None], ...], together: bool, tmp_path: Path
) -> None:
    patient = Patient(
        tmp_path, fault("a-bad", low(EDIT)), fault("b-bad", low(EditFile("/etc/one", changes), network=True))
    )
    (tmp_path / "etc/one").write_text("bad\nbad\n")
    repair = patient.choose()
    assert [c.finding.id for c in repair.chosen] == ["a-bad", "b-bad"][: 1 + together]
    assert repair.actions == (
        (EditFile("/etc/one", tuple(dict.fromkeys((*EDIT.changes, *changes)))),) if together else (EDIT,)
    )
    assert repair.network == together


def test_only_what_dlhealth_writes_itself_can_disagree(tmp_path: Path) -> None:
    one, two = SetAlternative("cc", "/usr/bin/gcc-12"), SetAlternative("c++", "/usr/bin/gcc-12")
    patient = Patient(tmp_path, fault("a-bad", low(one)), fault("b-bad", low(two)))
    assert patient.choose().actions == (one, two)


def test_what_helps_is_applied_told_and_undone(tmp_path: Path) -> None:
    patient = Patient(tmp_path, fault("one-bad", low(EDIT)))
    assert patient.repair() == ("applied", ())
    assert patient.text() == "good\n"
    assert patient.choose() == Repair((), (), ())
    (record,) = patient.store.ended()
    told = tell(record)
    assert [(k, o) for k, _, o in told.actions] == [("edit-file", "done")]
    assert [f["id"] for f in told.findings] == ["one-bad"]
    assert undo(patient.store, Target(str(tmp_path), record.id), record).outcome == "undone"
    assert patient.text() == "bad\n"
    assert [o for _, _, o in tell(patient.store.ended()[0]).actions] == ["reverted"]


def test_what_is_told_of_a_repair_in_each_state_of_its_actions(tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    actions = [action_to_json(EditFile(f"/etc/{n}", ((1, "bad", "good"),))) for n in range(5)]
    plan = {"actions": actions, "time": "2026-11-20T07:00:00Z", "findings": [{"id": "one-bad"}]}
    with patient.store.locked():
        record = patient.store.begin("abcd", plan, [])
    assert tell(record) == RepairRecord(record, plan["time"], "", ({"id": "one-bad"},), tell(record).actions)
    journal = Journal(record.folder)
    for number, kinds in enumerate((("DONE",), ("DONE", "REVERTED"), ("CONFLICT",), ())):
        journal.write("INTENT", n=number)
        for kind in kinds:
            journal.write(kind, n=number, **({"problem": "a first one"} if kind == "DONE" else {}))
    journal.write("FAILED", problem="the disk is full", failed=[])
    journal.write("COMMIT", outcome="conflict")
    journal.close()
    told = tell(record)
    assert told.problem == "the disk is full"
    assert told.actions[0][:2] == ("edit-file", "/etc/0: line 1 becomes: good")
    assert [became for _, _, became in told.actions] == ["done", "reverted", "conflict", "begun", "not begun"]


def test_what_is_kept_of_a_repair(tmp_path: Path) -> None:
    patient = Patient(tmp_path, fault("one-bad", low(EDIT)))
    digest = patient.choose().digest
    patient.repair()
    (record,) = patient.store.ended()
    plan = read_json(record.folder, "plan.json")
    assert (plan["dlhealth"], plan["digest"]) == (__version__, digest)
    assert abs(calendar.timegm(time.strptime(plan["time"], TIME_FORMAT)) - time.time()) < 60
    (finding,) = plan["findings"]
    assert {k: finding[k] for k in ("id", "subject", "title", "severity", "summary", "reboot")} == {
        "id": "one-bad",
        "subject": "host",
        "title": "/etc/one is bad",
        "severity": "error",
        "summary": "do it",
        "reboot": False,
    }


def test_what_does_not_help_is_taken_back_and_not_tried_again(tmp_path: Path) -> None:
    useless = low(EditFile("/etc/one", ((1, "bad", "bad indeed"),)))
    two = EditFile("/etc/two", ((1, "bad", "good"),))
    patient = Patient(tmp_path, fault("one-bad", useless), fault("two-bad", low(two), file="/etc/two"))
    assert patient.repair() == ("rolled-back", ("one-bad (host) remains",))
    assert (patient.text("one"), patient.text("two")) == ("bad\n", "bad\n")
    failed = tried(patient.store)
    repair = patient.choose(Limits(tried=failed))
    assert repair.actions == (two,)
    assert "did not help before" in repair.left[0].reason
    assert patient.choose(Limits(tried=failed, wanted=frozenset({"one-bad"}))).actions == useless.actions
    assert not patient.choose(Limits(given_up=failed, wanted=frozenset({"one-bad"}))).actions


def test_what_did_not_help_is_not_tried_again_also_where_others_kept_it_from_being_taken_back(tmp_path: Path) -> None:
    useless = low(EditFile("/etc/one", ((1, "bad", "bad indeed"),)))
    patient = Patient(tmp_path, fault("one-bad", useless))
    looks = patient.look

    def look() -> Diagnosis:
        (tmp_path / "etc/one").write_text("bad, says somebody else\n")
        return looks()

    with patient.store.locked():
        ended = carry_out(patient.choose(), looks(), patient.store, str(tmp_path), look, lambda text: None)
    assert ended.outcome == "conflict"
    assert {summary for _, summary in tried(patient.store)} == {"do it"}


def test_what_breaks_something_else_is_taken_back(tmp_path: Path) -> None:
    harm = low(EDIT, WriteFile("/etc/three", "bad\n"))
    patient = Patient(tmp_path, fault("one-bad", harm), fault("three-bad", file="/etc/three"))
    assert patient.repair() == ("rolled-back", ("three-bad (host) is new",))
    assert not (tmp_path / "etc/three").exists()
    assert len(tried(patient.store)) == 1


def test_a_relative_path_is_refused_before_anything_changes(tmp_path: Path) -> None:
    patient = Patient(tmp_path, fault("one-bad", low(MoveAside("etc/one"))))
    with pytest.raises(NotPrepared, match=r"^etc/one is not an absolute path$"):
        patient.repair()
    assert patient.text() == "bad\n"


def lines(identity: str, word: str, new: str | None = "good", *, subject: str = "host", shut: str = "") -> Rule:
    """A rule that finds each line of /etc/one that is a word, unless a line before shuts what follows off; it repairs
    those that it has something `new` for."""

    class Lines(Rule):
        def detect(self, host: Host) -> Iterator[Finding]:
            for number, line in enumerate((host.text("/etc/one") or "").split("\n"), 1):
                if shut and line == shut:
                    return
                if line.startswith(word):
                    yield self.finding(
                        subject, f"line {number} is bad", Evidence(f"/etc/one:{number}", line), line=f"{number} {line}"
                    )

        def remedies(self, finding: Finding) -> Iterator[Plan]:
            number, line = finding.detail["line"].split(" ", 1)
            if new is not None and "by hand" not in line:
                yield low(EditFile("/etc/one", ((int(number), line, new),)))

    rule = Lines()
    rule.id, rule.severity, rule.stage, rule.layer = identity, Severity.ERROR, Stage.ENVIRONMENT, Layer.LOGIN
    return rule


def test_what_a_person_has_to_repair_does_not_deny_what_was_repaired_beside_it(tmp_path: Path) -> None:
    """One rule may find several lines of one person's files."""
    patient = Patient(tmp_path, lines("word", "bad"))
    (tmp_path / "etc/one").write_text("bad\nbad by hand\n")
    assert patient.repair() == ("applied", ())
    assert patient.text() == "good\nbad by hand\n"
    patient.rules["word"] = lines("word", "bad", "bad still")
    (tmp_path / "etc/one").write_text("bad\nbad by hand\n")
    assert patient.repair() == ("rolled-back", ("word (host) remains",))


def test_who_did_harm_is_blamed_and_the_rest_may_be_tried_again(tmp_path: Path) -> None:
    harm = fault("one-bad", low(EDIT, WriteFile("/etc/three", "bad\n")))
    patient = Patient(
        tmp_path, harm, fault("three-bad", file="/etc/three"), lines("alice-s", "bad", subject="user:alice")
    )
    (tmp_path / "etc/one").write_text("bad\nbad\n")
    assert patient.repair() == ("rolled-back", ("three-bad (host) is new",))
    assert {summary for _, summary in tried(patient.store)} == {"do it"}
    (fingerprint,) = {one for one, _ in tried(patient.store)}
    (finding,) = [d.finding for d in patient.look().findings if d.finding.id == "one-bad"]
    assert fingerprint == finding.fingerprint


def test_what_stood_behind_the_repaired_in_the_same_file_is_no_harm_when_it_can_be_repaired_there(
    tmp_path: Path,
) -> None:
    """As behind a quote that was left open, or in a file that nobody could read."""
    shut = lines("open", "open", "closed")
    patient = Patient(tmp_path, shut, lines("behind", "bad", shut="open"))
    (tmp_path / "etc/one").write_text("open\nbad\n")
    assert patient.repair() == ("applied", ())
    assert patient.repair() == ("applied", ())
    assert patient.text() == "closed\ngood\n"
    patient.rules["behind"] = lines("behind", "bad", None, shut="open")
    (tmp_path / "etc/one").write_text("open\nbad\n")
    assert patient.repair() == ("rolled-back", ("behind (host) is new",))


def test_a_link_that_its_owner_made_is_edited_where_it_leads(tmp_path: Path) -> None:
    """As into a directory of dotfiles; a link to what is another's is left."""
    patient = Patient(tmp_path, fault("one-bad", low(EDIT)))
    (tmp_path / "etc/one").rename(tmp_path / "etc/own")
    (tmp_path / "etc/one").symlink_to("own")
    assert patient.choose().actions == (EDIT._replace(path="/etc/own"),)
    assert patient.repair() == ("applied", ())
    assert ((tmp_path / "etc/one").is_symlink(), patient.text("own")) == (True, "good\n")
    (tmp_path / "etc/own").write_text("bad\n")
    os.chown(tmp_path / "etc/one", 1000, 1000, follow_symlinks=False)
    assert patient.choose().actions == (EDIT,)
    with pytest.raises(NotPrepared, match=r"/etc/one is a link to own: edit its target"):
        patient.repair()


@pytest.mark.parametrize("live_step", [Reboot(), LoadModules(("nvidia",)), ReloadModules(("nvidia",))])
def test_what_goes_when_the_modules_are_loaded_anew_is_no_harm(live_step: Action, tmp_path: Path) -> None:
    """As when a driver of another version is installed beside the one that runs."""
    switch = Plan(
        "switch", Risk.HIGH, (EDIT, WriteFile("/etc/three", "bad\n"), WriteFile("/etc/four", "bad\n")), reboot=True
    )
    pending = fault("pending", low(live_step), file="/etc/three", explains=("follows-from-it",))
    patient = Patient(tmp_path, fault("one-bad", switch), pending, fault("follows-from-it", file="/etc/four"))
    assert patient.repair(Limits(Risk.HIGH)) == ("awaiting-reboot", ())


@pytest.mark.parametrize(
    ("machine", "old"),
    [
        (Machine.ubuntu2404().gpu().ubuntu_driver("580.95.05", loaded=False), "590.48.01"),
        (Machine.debian12().gpu().debian_driver("535.309.01", loaded=False), "535.261.03"),
    ],
)
def test_a_new_driver_beside_the_old_one_that_runs_is_kept(machine: Machine, old: str, tmp_path: Path) -> None:
    """The real rules, on the machine as a repair leaves it before its reboot."""
    machine.loaded_driver(old).build(tmp_path)
    rules = load_rules("/nonexistent").rules

    def look() -> Diagnosis:
        return diagnose(rules, Facts(RootHost(str(tmp_path)), Options()))

    assert "driver-library-version-mismatch-after-upgrade" in {f.id for f in look().root_causes}
    done = Chosen(
        Finding("old-driver", "host", Severity.ERROR, Layer.PACKAGING, "", ()), Plan("", Risk.HIGH, (), reboot=True)
    )
    store = Store(str(tmp_path))
    with store.locked():
        nothing_wrong_before = Diagnosis((), 0, (), (), {})
        ended = carry_out(Repair((done,), (), ()), nothing_wrong_before, store, str(tmp_path), look, lambda text: None)
    assert (ended.outcome, ended.said) == ("awaiting-reboot", ())


@pytest.mark.real_programs
def test_what_can_not_even_begin_changes_nothing(tmp_path: Path) -> None:
    patient = Patient(tmp_path, fault("one-bad", low(EDIT, AptInstall(("x",)))))
    with pytest.raises(CommandFailed, match="do not run here"):
        patient.repair()
    assert patient.text() == "bad\n"
    assert patient.store.ended() == []
    assert patient.store.current() is None


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """When the machine is kept from being switched off, as a repair meets it."""
    heard: list[str] = []

    @contextmanager
    def noted(argv: Sequence[str], timeout: float) -> Iterator[bool]:
        assert argv[:3] == ("systemd-inhibit", "--what=shutdown:sleep", "--mode=block")
        assert argv[-1] == "cat"
        heard.append("held")
        yield False  # as where there is no logind
        heard.append("let go")

    monkeypatch.setattr("dlhealth.engine.repair.held", noted)
    return heard


def carried_out(patient: Patient, events: list[str]) -> None:
    with patient.store.locked():
        carry_out(patient.choose(), patient.look(), patient.store, str(patient.root), patient.look, events.append)


@pytest.mark.parametrize("helps", [True, False])
def test_the_running_machine_stays_up_from_the_first_step_to_the_proof(
    helps: bool, tmp_path: Path, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Live(Target):
        def __init__(self, folder: str, mark: str) -> None:
            super().__init__(folder, mark)
            self.live = True

    monkeypatch.setattr("dlhealth.engine.repair.Target", Live)
    patient = Patient(tmp_path, fault("one-bad", low(MoveAside("/etc/one" if helps else "/etc/two"))))
    look = patient.look
    monkeypatch.setattr(patient, "look", lambda: (events.append("looked"), look())[1])
    carried_out(patient, events)
    stepped, proved, *taken_back, let_go = events[events.index("held") + 1 :]
    assert stepped.startswith("[1/1] ")
    assert (proved, let_go) == ("looked", "let go")
    assert taken_back == ([] if helps else ["undoing everything: one-bad (host) remains"])
    assert [r.outcome for r in patient.store.ended()] == ["applied" if helps else "rolled-back"]


def test_another_root_may_be_switched_off(tmp_path: Path, events: list[str]) -> None:
    carried_out(Patient(tmp_path, fault("one-bad", low(EDIT))), events)
    assert "held" not in events


@pytest.mark.parametrize(("helps", "outcome"), [(True, "applied"), (False, "rolled-back")])
def test_across_a_reboot(helps: bool, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    monkeypatch.setattr("dlhealth.txn.execute.BOOT_ID", str(boot))
    change = EDIT if helps else ChangeMode("/etc/one", 0o600)
    patient = Patient(tmp_path, fault("one-bad", Plan("edit", Risk.LOW, (change,), reboot=True)))
    mode = (tmp_path / "etc/one").stat().st_mode
    assert patient.repair() == ("awaiting-reboot", ())
    with patient.store.locked():
        assert confirm_after_reboot(patient.store, str(tmp_path), patient.look) is None
        boot.write_text("second\n")
        if helps:
            assert confirm_after_reboot(patient.store, str(tmp_path), patient.look, lambda: False) is None
            assert patient.store.current(), "what is not sure yet goes on waiting"
        ended = confirm_after_reboot(patient.store, str(tmp_path), patient.look, lambda: helps)
    assert ended
    assert ended.outcome == outcome
    assert patient.text() == ("good\n" if helps else "bad\n")
    assert (tmp_path / "etc/one").stat().st_mode == mode
    assert confirm_after_reboot(patient.store, str(tmp_path), patient.look) is None


def test_a_remedy_that_can_not_be_known_does_not_keep_others_from_being_repaired(tmp_path: Path) -> None:
    class Gone(NamedTuple):
        @classmethod
        def probe(cls, host: Host) -> "Gone":
            raise Unavailable("nobody can tell")

    blind = fault("a-blind", low(EDIT), stage=Stage.DISK)
    type(blind).remedies = lambda self, finding, gone: iter(())  # type: ignore[assignment]
    type(blind).remedies.__annotations__.update(finding=Finding, gone=Gone)
    repair = Patient(tmp_path, blind, fault("b-two", low(WriteFile("/etc/two", "good\n")), file="/etc/two")).choose()
    assert [c.finding.id for c in repair.chosen] == ["b-two"]
    assert [(x.finding.id, x.reason) for x in repair.left] == [("a-blind", "nobody can tell")]


def test_what_needs_a_reboot_needs_none_on_a_disk_that_does_not_run(tmp_path: Path) -> None:
    patient = Patient(tmp_path, fault("one-bad", low(EDIT, Reboot(), reboot=True)))
    live, disk = patient.choose(), patient.choose(Limits(live=False))
    assert (live.reboot, disk.reboot) == (True, False)
    assert live.actions == disk.actions == (EDIT,)
    assert [c.plan.actions for c in disk.chosen] == [(EDIT,)]


def test_the_digest_is_that_of_what_will_be_done(tmp_path: Path) -> None:
    plan = Patient(tmp_path, fault("one-bad", low(EDIT))).choose()
    same = Repair(plan.chosen, (), (EditFile("/etc/one", ((1, "bad", "good"),)),))
    other = Repair(plan.chosen, (), (EditFile("/etc/one", ((1, "bad", "better"),)),))
    assert plan.digest == same.digest != other.digest
    assert re.fullmatch("[0-9a-f]{12}", plan.digest)
    assert (plan.risk, plan.network, Repair((), (), ()).risk) == (Risk.LOW, False, Risk.LOW)


def test_what_was_tried_is_left_with_the_way_to_try_it_again(tmp_path: Path) -> None:
    patient = Patient(tmp_path, fault("one-bad", low(EDIT)))
    (found,) = patient.look().findings
    before = frozenset({(found.finding.fingerprint, "do it")})
    assert [x.reason for x in patient.choose(Limits(tried=before)).left] == [
        "the same repair did not help before; to try it again: dlhealth fix one-bad"
    ]
    assert patient.choose(Limits(tried=before, wanted=frozenset({"one-bad"}))).actions == (EDIT,)
    assert [x.reason for x in patient.choose(Limits(given_up=before, wanted=frozenset({"one-bad"}))).left] == [
        "its repair did not help and was undone"
    ]


class TestNotProved:
    """A rule that can't check any more proves nothing."""

    @staticmethod
    def blind(subject: str = "host", before: str = "", after: str = "the file is unreadable") -> Rule:
        """A rule that finds "bad" in a file; beside it, it could not check something before, and something afterwards."""

        class Blind(Rule):
            def detect(self, host: Host) -> Iterator[Finding | Unknown]:
                bad = "bad" in (host.text("/etc/one") or "")
                if bad:
                    yield self.finding("user:alice", "/etc/one is bad", Evidence("/etc/one", "bad"))
                if reason := before if bad else after:
                    if reason == "all of it":
                        raise Unavailable(reason)
                    if reason == "a defect":
                        raise ValueError(reason)
                    yield Unknown(reason, subject)

            def remedies(self, finding: Finding) -> Iterator[Plan]:
                yield low(EDIT)

        rule = Blind()
        rule.id, rule.severity, rule.stage, rule.layer = "one-bad", Severity.ERROR, Stage.ENVIRONMENT, Layer.LOGIN
        return rule

    @pytest.mark.parametrize(
        ("subject", "before", "after", "outcome"),
        [
            ("host", "", "the file is unreadable", "not-proved"),
            ("user:alice", "", "the file is unreadable", "not-proved"),
            ("user:bob", "", "the file is unreadable", "applied"),
            ("host", "needs root", "needs root", "applied"),
            ("host", "needs root", "no time left", "not-proved"),
            ("host", "", "all of it", "not-proved"),
            ("host", "", "a defect", "not-proved"),
            ("host", "needs root", "", "applied"),
        ],
    )
    @pytest.mark.parametrize("kept", [True, False])
    def test_it_is_an_end_of_its_own(
        self, tmp_path: Path, subject: str, before: str, after: str, outcome: str, kept: bool
    ) -> None:
        patient = Patient(tmp_path, self.blind(subject, before, after))
        asked: list[str] = []

        def keep(problem: str) -> bool:
            asked.append(problem)
            return kept

        with patient.store.locked():
            ended = carry_out(
                patient.choose(), patient.look(), patient.store, str(tmp_path), patient.look, lambda text: None, keep
            )
        if outcome == "applied":
            assert (ended.outcome, asked, patient.text()) == ("applied", [], "good\n")
            return
        assert len(asked) == 1
        assert asked[0].startswith("one-bad (user:alice) can no longer be checked: ")
        assert after in asked[0]
        assert (ended.outcome, patient.text()) == (("not-proved", "good\n") if kept else ("rolled-back", "bad\n"))
        if kept:
            target = Target(str(tmp_path), ended.record.id)
            with patient.store.locked():
                assert undo(patient.store, target, patient.store.ended()[-1]).outcome == "undone"
            assert patient.text() == "bad\n"

    def test_nobody_to_ask_means_that_it_is_undone_and_not_tried_again(self, tmp_path: Path) -> None:
        patient = Patient(tmp_path, self.blind())
        assert patient.repair()[0] == "rolled-back"
        assert len(tried(patient.store)) == 1


class TestNextStart:
    """What shows only after the next start of a machine whose disk is repaired from another one."""

    @staticmethod
    def lasting(patient: Patient) -> Rule:
        """A rule that goes by a log, which still tells of the last start."""

        class Lasting(Rule):
            def detect(self, host: Host) -> Iterator[Finding]:
                if "bad" in (host.text("/etc/two") or ""):
                    yield self.finding("host", "the last start failed", Evidence("/etc/two", "bad"))

            def remedies(self, finding: Finding) -> Iterator[Plan]:
                yield low(EDIT, reboot=True)

        rule = Lasting()
        rule.id, rule.severity, rule.stage, rule.layer = "start-failed", Severity.ERROR, Stage.ENVIRONMENT, Layer.LOGIN
        return rule

    def test_it_waits_for_that(self, tmp_path: Path, mocker: MockerFixture) -> None:
        patient = Patient(tmp_path)
        patient.rules = {"start-failed": self.lasting(patient)}
        assert patient.repair(Limits(live=False)) == ("awaiting-reboot", ())
        assert patient.text() == "good\n"
        mocker.patch("dlhealth.txn.execute.BOOT_ID", "/proc/sys/kernel/random/uuid")  # another at each look
        (tmp_path / "etc/two").write_text("good\n")
        with patient.store.locked():
            ended = confirm_after_reboot(patient.store, str(tmp_path), patient.look)
        assert ended and ended.outcome == "applied"

    def test_what_can_be_seen_at_once_waits_for_nothing(self, tmp_path: Path) -> None:
        patient = Patient(tmp_path, fault("one-bad", low(EDIT, reboot=True)))
        assert patient.repair(Limits(live=False))[0] == "applied"

    def test_what_no_start_would_show_is_undone(self, tmp_path: Path) -> None:
        patient = Patient(tmp_path, fault("one-bad", low(WriteFile("/etc/three", "x\n"))))
        assert patient.repair(Limits(live=False))[0] == "rolled-back"

    def test_new_harm_is_undone_all_the_same(self, tmp_path: Path) -> None:
        patient = Patient(tmp_path)
        harm = fault("harm", file="/etc/harm")
        patient.rules = {"start-failed": self.lasting(patient), "harm": harm}
        patient.rules["start-failed"].remedies = lambda finding: [low(WriteFile("/etc/harm", "bad\n"), reboot=True)]
        assert patient.repair(Limits(live=False))[0] == "rolled-back"
