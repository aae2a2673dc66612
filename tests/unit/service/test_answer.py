"""Root's side of the repair socket: what it refuses, whom it believes, and what it does on a machine in a directory."""

import functools
import json
import os
import pwd
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth import testing as described
from dlhealth.actions import EditFile
from dlhealth.engine.load import Loaded
from dlhealth.engine.policy import Trigger
from dlhealth.engine.rule import Rule
from dlhealth.host import exec as door
from dlhealth.host.alert import Kind, send
from dlhealth.host.base import Host
from dlhealth.host.root import RootHost
from dlhealth.model import Evidence, Finding, Layer, Plan, Risk, Severity, Stage
from dlhealth.service import answer as answering
from dlhealth.service import boot, unattended
from dlhealth.service.answer import Asked, Refused, parse, receive, serve
from dlhealth.service.request import LINE_LIMIT, ask
from dlhealth.txn.store import Store
from tests.mounts import tmpfs

pytestmark = pytest.mark.real_programs
SYSTEM_PYTHON = "/usr/bin/python3"
SOUND = {"version": 1, "verb": "apply", "finding": "bad-line", "subject": "host", "digest": "0123456789ab"}


def line(**fields: Any) -> bytes:
    return json.dumps({**SOUND, **fields}).encode() + b"\n"


# What is a request.


def test_a_request() -> None:
    assert parse(line()) == Asked("apply", "bad-line", "host", "0123456789ab")
    assert parse(line(verb="preview", digest="")) == Asked("preview", "bad-line", "host", "")
    assert parse(line(verb="undo", finding="", digest="")).verb == "undo"
    assert parse(line(verb="status", finding="", digest="")).verb == "status"


@pytest.mark.parametrize(
    ("request_line", "said"),
    [
        (b"\n", "not valid JSON"),
        (b"{\n", "not valid JSON"),
        (b"\xff\xfe\n", "not valid JSON"),
        (b"[" * 4000 + b"\n", "not valid JSON"),
        (b'{"a":' * 800 + b"\n", "not valid JSON"),
        (b'{"version": ' + b"9" * 4000 + b"}\n", "exactly the fields"),
        (line() + line(), "not valid JSON"),
        (b'{"verb": "status", ' + line()[1:], "not valid JSON"),
        (b"[]\n", "exactly the fields"),
        (b"null\n", "exactly the fields"),
        (line(command="rm"), "exactly the fields"),
        (json.dumps({k: v for k, v in SOUND.items() if k != "digest"}).encode(), "exactly the fields"),
        (line(version="1"), "wrong type"),
        (line(version=True), "wrong type"),
        (line(version=1.0), "wrong type"),
        (line(finding=["bad-line"]), "wrong type"),
        (line(subject=None), "wrong type"),
        (line(digest=0), "wrong type"),
        (line(version=2), "version 1"),
        (line(verb="remove"), "known verbs"),
        (line(verb="APPLY"), "known verbs"),
        (line(finding=""), "not the id of a rule"),
        (line(finding="../../etc/passwd"), "not the id of a rule"),
        (line(finding="bad-line\n"), "not the id of a rule"),
        (line(finding="a" * 100), "not the id of a rule"),
        (line(finding="Bad-Line"), "not the id of a rule"),
        (line(digest=""), "digest"),
        (line(digest="0123456789AB"), "digest"),
        (line(digest="0123456789ab\n"), "digest"),
        (line(digest="0123456789abc"), "digest"),
        (line(verb="preview", digest="x"), "digest"),
    ],
)
def test_what_is_no_request(request_line: bytes, said: str) -> None:
    with pytest.raises(Refused, match=said):
        parse(request_line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
near = st.fixed_dictionaries({name: st.just(value) | json_values for name, value in SOUND.items()})


@given(st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()) | near.map(lambda v: line(**v)))
def test_nothing_that_is_sent_is_an_exception(content: bytes) -> None:
    try:
        asked = parse(content)
    except Refused:
        return
    assert asked.verb in ("preview", "apply", "undo", "status")
    assert len(asked.digest) in (0, 12)


# How it is received.


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def test_a_request_may_come_in_pieces() -> None:
    ours, theirs = pair()
    with ours, theirs:

        def send_slowly() -> None:
            for byte in line():
                theirs.send(bytes([byte]))
                time.sleep(0.001)

        thread = threading.Thread(target=send_slowly)
        thread.start()
        assert receive(ours, 5) == line()
        thread.join()


def test_a_request_of_the_greatest_length() -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.send(b" " * (LINE_LIMIT - 1) + b"\n")
        assert len(receive(ours, 1)) == LINE_LIMIT


@pytest.mark.parametrize("content", [b"x" * (LINE_LIMIT + 1), b"x" * LINE_LIMIT + b"\n", b"x" * 100_000])
def test_a_longer_one_is_refused_without_reading_on(content: bytes) -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.setblocking(False)
        theirs.send(content)
        with pytest.raises(Refused, match="at most 4096 bytes"):
            receive(ours, 1)


def test_who_sends_slowly_is_not_waited_for() -> None:
    ours, theirs = pair()
    with ours, theirs:
        done = threading.Event()

        def drip() -> None:
            while not done.wait(0.02):
                theirs.send(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        started = time.monotonic()
        with pytest.raises(Refused, match=r"within 0\.2 seconds"):
            receive(ours, 0.2)
        assert time.monotonic() - started < 1
        done.set()
        thread.join()


def test_who_leaves_is_not_waited_for() -> None:
    ours, theirs = pair()
    with ours:
        theirs.send(b'{"version"')
        theirs.close()
        with pytest.raises(Refused, match="in the middle of its line"):
            receive(ours, 5)


# A machine in a directory, with one rule.


class BadLine(Rule):
    """Finds bad words in a file; the plan takes the first of them away."""

    id = "bad-line"
    title = "A bad line"
    layer = Layer.ENVIRONMENT
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    risk = Risk.LOW
    reboot = False
    subject = "host"

    def detect(self, host: Host) -> Iterator[Finding]:
        lines = (host.text("/etc/one") or "").splitlines()
        bad = [n for n, text in enumerate(lines) if text.startswith("bad")]
        if bad:
            evidence = Evidence(f"/etc/one:{bad[0] + 1}", lines[bad[0]])
            yield self.finding(self.subject, "There is a bad line", evidence, line=str(bad[0] + 1), old=lines[bad[0]])

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        change = (int(finding.detail["line"]), finding.detail["old"], "good")
        yield Plan("make it good", self.risk, (EditFile("/etc/one", (change,)),), self.reboot)


class Machine:
    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = base / "root"
        (self.root / "etc/dlhealth").mkdir(parents=True)
        described.Machine().package("base-files", "12").build(self.root)  # without records nothing is repaired
        self.one = self.root / "etc/one"
        self.one.write_text("bad\n")
        self.rule = BadLine()
        self.store = Store(str(self.root))
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.journal.bind(str(base / "journal"))
        self.journal.setblocking(False)
        tell = functools.partial(send, path=str(base / "journal"))
        for module in (answering, unattended, boot):
            monkeypatch.setattr(module, "ROOT", str(self.root))
        for module in (answering, boot):
            monkeypatch.setattr(module, "send", tell)
        monkeypatch.setattr(boot, "BOOT_STATE", str(base / "boot.json"))
        monkeypatch.setattr(unattended, "live_host", lambda: RootHost(str(self.root)))
        monkeypatch.setattr("dlhealth.engine.examine.load_rules", lambda: Loaded((self.rule,), ()))
        monkeypatch.setattr(unattended, "STOPPED", str(base / "stopped"))
        monkeypatch.setattr(answering, "WATCHER", "nobody")
        # polkit: notes what it was asked, and whether the store was locked meanwhile.
        self.polkit = base / "polkit"
        self.polkit.mkdir()
        programs = base / "programs"
        programs.mkdir()
        script = programs / "pkcheck"
        script.write_text(
            f'#!/bin/sh\ncd {self.polkit}\necho "$*" >> asked\n'
            f"flock -n {self.store.folder}/lock true 2>/dev/null && echo free >> lock || echo taken >> lock\n"
            "case $2 in $(cat allows)) exit 0;; esac\necho Not authorized. >&2; exit 1\n"
        )
        script.chmod(0o755)
        self.allows("nothing")
        monkeypatch.setattr(door, "PROGRAM_FOLDERS", (str(programs),))

    def allows(self, pattern: str) -> None:
        (self.polkit / "allows").write_text(pattern)

    def asked_polkit(self) -> list[str]:
        try:
            return [words.split()[1] for words in (self.polkit / "asked").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def settings(self, text: str) -> None:
        (self.root / "etc/dlhealth/config.toml").write_text(text)

    def ask(self, verb: str, digest: str = "", finding: str = "bad-line") -> dict[str, Any]:
        """As root."""
        ours, theirs = pair()
        with ours, theirs:
            theirs.send(line(verb=verb, digest=digest, finding=finding, subject=self.rule.subject))
            return serve(ours)

    def ask_as(self, user: str, verb: str, digest: str = "") -> dict[str, Any]:
        """By a process of another user, as the kernel itself says."""
        name = f"dlhealth-test-{os.getpid()}-{time.monotonic_ns()}"
        code = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + sys.argv[1]);"
            " s.sendall(sys.argv[2].encode()); sys.stdin.read()"
        )
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("\0" + name)
            listener.listen(1)
            words = [
                SYSTEM_PYTHON,
                "-I",
                "-S",
                "-c",
                code,
                name,
                line(verb=verb, digest=digest, subject=self.rule.subject).decode(),
            ]
            # It lives while it is asked for: polkit is told of the process.
            with subprocess.Popen(words, user=user, stdin=subprocess.PIPE, cwd="/") as client:
                channel, _ = listener.accept()
                with channel:
                    answer = serve(channel)
                assert client.stdin
                client.stdin.close()
        return answer

    def told(self) -> list[str]:
        kinds: list[str] = []
        while True:
            try:
                entry = self.journal.recv(1 << 18)
            except BlockingIOError:
                return kinds
            kind = next(k for k in Kind if k.value.encode() in entry)
            # journalctl -x prints the name of a field that is not there.
            named = re.findall(r"@(\w+)@", EXPLAINED[kind.value])
            assert [n for n in named if f"{n}=".encode() not in entry] == [], entry
            kinds.append(kind.name)

    def outcomes(self) -> list[str]:
        return [r.outcome for r in self.store.ended()]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path, monkeypatch)
    yield made
    made.journal.close()


_CATALOG = (Path(__file__).parents[3] / "systemd/dlhealth.catalog").read_text()
EXPLAINED = {entry[:32]: entry for entry in _CATALOG.split("\n-- ")[1:]}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
WATCHER, PERSON = "nobody", "daemon"


def test_root_is_shown_a_repair_has_it_done_and_takes_it_back(machine: Machine) -> None:
    shown = machine.ask("preview")
    assert shown["ok"]
    assert shown["allowed"]
    assert (shown["risk"], shown["reboot"], shown["summary"]) == ("low", False, "make it good")
    assert machine.one.read_text() == "bad\n"
    assert machine.outcomes() == []
    assert machine.ask("apply", shown["digest"]) == {"ok": True, "outcome": "applied"}
    assert machine.one.read_text() == "good\n"
    assert machine.told() == ["REPAIRED"]
    assert machine.ask("undo") == {"ok": True, "outcome": "undone"}
    assert machine.one.read_text() == "bad\n"
    assert machine.ask("undo") == {"ok": True, "outcome": "nothing-to-do"}
    assert machine.asked_polkit() == []


def test_another_plan_than_the_one_that_was_shown_is_not_carried_out(machine: Machine) -> None:
    digest = machine.ask("preview")["digest"]
    forged = f"{int(digest, 16) ^ 1:012x}"
    assert "machine has changed" in machine.ask("apply", forged)["error"]
    machine.one.write_text("fine\nbad\n")
    answer = machine.ask("apply", digest)
    assert not answer["ok"]
    assert "machine has changed since the preview" in answer["error"]
    assert machine.one.read_text() == "fine\nbad\n"
    assert machine.outcomes() == []


def test_a_request_that_comes_twice_is_carried_out_once(machine: Machine) -> None:
    digest = machine.ask("preview")["digest"]
    assert machine.ask("apply", digest)["outcome"] == "applied"
    again = machine.ask("apply", digest)
    assert not again.get("allowed")
    assert "outcome" not in again
    assert machine.outcomes() == ["applied"]


def test_what_is_not_found_is_not_repaired(machine: Machine) -> None:
    shown = machine.ask("preview", finding="another-rule")
    assert not shown["allowed"]
    assert "another-rule is not found" in shown["reason"]


def test_status_needs_no_lock_and_changes_nothing(machine: Machine) -> None:
    with machine.store.locked():
        assert machine.ask("status") == {"ok": True, "transaction": ""}


@pytest.mark.parametrize("verb", ["apply", "undo"])
def test_while_another_changes_the_machine_nothing_is_done(machine: Machine, verb: str) -> None:
    with machine.store.locked():
        answer = machine.ask(verb, "0123456789ab")
    assert answer == {"ok": False, "error": "another dlhealth is changing this machine; nothing was changed"}


def test_what_waits_for_a_reboot_comes_first(machine: Machine) -> None:
    with machine.store.locked():
        record = machine.store.begin("abcd", {"actions": [], "findings": []}, [])
    assert machine.ask("status") == {"ok": True, "transaction": record.name}
    assert "waits for a reboot or was interrupted" in machine.ask("preview")["error"]


def test_what_is_refused_is_answered(machine: Machine) -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.send(b"garbage\n")
        assert serve(ours) == {"ok": False, "error": "the request is not valid JSON"}


@as_root
def test_the_watcher_may_what_the_policy_allows_and_polkit_is_not_asked(machine: Machine) -> None:
    shown = machine.ask_as(WATCHER, "preview")
    assert shown["allowed"]
    assert machine.ask_as(WATCHER, "apply", shown["digest"]) == {"ok": True, "outcome": "applied"}
    assert machine.asked_polkit() == []


@as_root
@pytest.mark.parametrize(
    ("settings", "risk", "reason"),
    [
        ('[repair]\nmax_risk = "none"', Risk.LOW, "automatic repair is off"),
        ("[repair]\nmax_attempts = 0", Risk.LOW, "0 allowed"),
        ('[rules]\nignore = ["bad-line"]', Risk.LOW, "is ignored"),
        ("[oops]\nx = 1", Risk.LOW, "automatic repair is off"),
        ("", Risk.MEDIUM, "its risk is medium"),
        ('[repair]\nmax_risk = "medium"', Risk.HIGH, "its risk is high"),
    ],
)
def test_the_watcher_may_no_more_than_that(machine: Machine, settings: str, risk: Risk, reason: str) -> None:
    machine.settings(settings)
    machine.rule.risk = risk
    shown = machine.ask_as(WATCHER, "preview")
    assert not shown["allowed"]
    assert reason in shown["reason"]
    # A watcher that was taken over knows the digest all the same.
    digest = machine.ask("preview")["digest"]
    answer = machine.ask_as(WATCHER, "apply", digest)
    assert "outcome" not in answer
    assert machine.one.read_text() == "bad\n"


@as_root
def test_a_note_is_repaired_by_nobody_but_a_person(machine: Machine) -> None:
    machine.rule.severity = Severity.NOTE
    boot.boot_check()
    assert machine.one.read_text() == "bad\n"
    shown = machine.ask_as(WATCHER, "preview")
    assert not shown["allowed"]
    assert "only on request" in shown["reason"]
    assert "outcome" not in machine.ask_as(WATCHER, "apply", machine.ask("preview")["digest"])
    assert machine.one.read_text() == "bad\n"


@as_root
def test_the_first_look_after_the_installation_only_reports(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unattended, "FOLDER", str(machine.root.parent))
    mark = machine.root.parent / unattended.REPORT_ONLY
    mark.touch()
    assert not machine.ask_as(WATCHER, "preview")["allowed"]
    assert machine.ask("preview")["allowed"]
    mark.unlink()
    assert machine.ask_as(WATCHER, "preview")["allowed"]


@as_root
def test_the_watcher_takes_nothing_back(machine: Machine) -> None:
    machine.ask("apply", machine.ask("preview")["digest"])
    assert machine.ask_as(WATCHER, "undo") == {"ok": False, "error": "only a person may undo a repair"}
    assert machine.one.read_text() == "good\n"


@as_root
def test_what_a_person_took_back_is_not_done_again_unattended(machine: Machine) -> None:
    shown = machine.ask_as(WATCHER, "preview")
    machine.ask_as(WATCHER, "apply", shown["digest"])
    machine.ask("undo")
    assert machine.one.read_text() == "bad\n"
    machine.told()
    again = machine.ask_as(WATCHER, "preview")
    assert not again["allowed"]
    assert "repaired 1 times before" in again["reason"]
    assert machine.told() == ["NOT_REPAIRED"]
    boot.boot_check()
    machine.ask_as(WATCHER, "preview")
    assert "NOT_REPAIRED" not in machine.told(), "once is enough"
    assert machine.ask("preview")["allowed"], "but a person may"
    assert machine.told() == []
    machine.one.write_text("bad in another way\n")
    assert machine.ask_as(WATCHER, "preview")["allowed"], "the evidence is another"


@as_root
def test_what_the_machine_may_have_died_of_is_not_done_again_unattended(machine: Machine) -> None:
    with machine.store.locked():
        fingerprint = unattended.look().diagnosis.findings[0].finding.fingerprint
        about = {"id": "bad-line", "fingerprint": fingerprint, "summary": "make it good"}
        record = machine.store.begin("abcd", {"actions": [], "findings": [about]}, [])
        (Path(record.folder) / "journal").write_text("")
        machine.store.end(record, "rolled-back")
    assert "repaired 1 times before" in machine.ask_as(WATCHER, "preview")["reason"]
    machine.settings("[repair]\nmax_attempts = 2")
    assert machine.ask_as(WATCHER, "preview")["allowed"]


@as_root
def test_while_packages_are_changed_only_a_person_repairs(machine: Machine) -> None:
    described.Machine().locked("/var/lib/dpkg/lock", 4711, "apt").build(machine.root)
    shown = machine.ask_as(WATCHER, "preview")
    assert not shown["allowed"]
    assert shown["later"]
    assert "packages are being changed" in shown["reason"]
    shown = machine.ask("preview")
    assert shown["allowed"]
    assert not shown["later"]


@as_root
def test_a_person_is_asked_for_by_polkit_for_each_thing(machine: Machine) -> None:
    assert "polkit does not allow org.dlhealth.diagnose: Not authorized." in machine.ask_as(PERSON, "preview")["error"]
    machine.allows("org.dlhealth.diagnose")
    shown = machine.ask_as(PERSON, "preview")
    assert shown["allowed"]
    assert "polkit does not allow org.dlhealth.repair-low" in machine.ask_as(PERSON, "apply", shown["digest"])["error"]
    assert machine.one.read_text() == "bad\n"
    machine.allows("org.dlhealth.*")
    assert machine.ask_as(PERSON, "apply", shown["digest"]) == {"ok": True, "outcome": "applied"}
    machine.allows("org.dlhealth.[dr]*")
    assert "polkit does not allow org.dlhealth.undo" in machine.ask_as(PERSON, "undo")["error"]
    assert machine.one.read_text() == "good\n"
    policy = (Path(__file__).parents[3] / "systemd/org.dlhealth.policy").read_text()
    assert all(f'<action id="{action}">' in policy for action in set(machine.asked_polkit()))
    words = (machine.polkit / "asked").read_text().splitlines()[0].split()
    pid, started, uid = words[words.index("--process") + 1].split(",")
    assert uid == str(pwd.getpwnam(PERSON).pw_uid)
    assert int(pid) != os.getpid()
    assert int(started) > 0


@as_root
@pytest.mark.parametrize("risk", [Risk.MEDIUM, Risk.HIGH])
def test_a_greater_risk_needs_a_greater_right(machine: Machine, risk: Risk) -> None:
    machine.rule.risk = risk
    machine.allows("org.dlhealth.[d]*")
    shown = machine.ask_as(PERSON, "preview")
    assert f"org.dlhealth.repair-{risk.value}" in machine.ask_as(PERSON, "apply", shown["digest"])["error"]


@as_root
def test_the_right_to_a_small_repair_is_none_to_one_that_grows_meanwhile(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can change what is looked at, as the owner of a home can, changes it between two looks."""
    machine.rule.risk = Risk.HIGH
    wanted = machine.ask("preview")["digest"]
    machine.allows("org.dlhealth.*[ew]")  # diagnose, repair-low
    looks = iter((Risk.LOW, Risk.HIGH))
    real = unattended.look

    def look() -> unattended.Seen:
        machine.rule.risk = next(looks)
        return real()

    monkeypatch.setattr(answering, "look", look)
    answer = machine.ask_as(PERSON, "apply", wanted)
    assert not answer["ok"]
    assert machine.one.read_text() == "bad\n"
    assert machine.outcomes() == []


@as_root
@pytest.mark.parametrize("verb", ["preview", "undo"])
def test_who_has_no_right_yet_locks_nobody_out(machine: Machine, verb: str) -> None:
    """A person may take two minutes to answer polkit."""
    with machine.store.locked():
        pass
    machine.ask_as(PERSON, verb)
    assert (machine.polkit / "lock").read_text() == "free\n"


@as_root
def test_without_polkit_no_other_user_may_anything(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PROGRAM_FOLDERS", ("/nonexistent",))
    assert "pkcheck is not installed" in machine.ask_as(PERSON, "preview")["error"]


def test_without_the_services_user_nobody_is_the_watcher(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "WATCHER", "no-such-user-here")
    assert answering._trigger(answering.Peer(1, 65534)) is Trigger.TERMINAL


def test_one_connection_as_systemd_hands_it_over() -> None:
    """Standard input is the connection; a refused request touches nothing of this machine."""
    ours, theirs = pair()
    with theirs:
        with ours:
            words = [sys.executable, "-m", "dlhealth.service.answer"]
            process = subprocess.Popen(words, stdin=ours.fileno(), cwd=Path(__file__).parents[3])
        theirs.sendall(line(verb="preview", finding="no such thing"))
        with theirs.makefile("rb") as answers:
            assert json.loads(answers.readline()) == {"ok": False, "error": "the finding is not the id of a rule"}
    assert process.wait(60) == 0, "who asked has left"


# What waited for a restart.


def wait_for_restart(machine: Machine, monkeypatch: pytest.MonkeyPatch, layer: Layer, subject: str = "host") -> None:
    """The repair is done, and the machine was started again."""
    boot_id = machine.root / "boot_id"
    boot_id.write_text("first\n")
    monkeypatch.setattr("dlhealth.txn.execute.BOOT_ID", str(boot_id))
    machine.rule.layer, machine.rule.reboot, machine.rule.subject = layer, True, subject
    assert machine.ask("apply", machine.ask("preview")["digest"])["outcome"] == "awaiting-reboot"
    assert machine.ask("confirm") == {"ok": True, "outcome": "nothing-to-do"}, "it has not been restarted"
    assert machine.told() == ["AWAITING_REBOOT"]
    boot_id.write_text("second\n")


def test_the_check_at_boot_does_not_say_that_a_repair_holds(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has tried to log in, and the driver may not have been asked anything yet."""
    wait_for_restart(machine, monkeypatch, Layer.KERNEL_MODULE)
    boot.boot_check()
    assert machine.store.current()
    assert machine.told() == []
    assert machine.ask("confirm") == {"ok": True, "outcome": "applied"}
    assert machine.told() == ["REPAIRED"]
    assert machine.outcomes() == ["applied"]
    assert machine.ask("confirm") == {"ok": True, "outcome": "nothing-to-do"}


def test_what_did_not_hold_is_taken_back_by_the_check_at_boot(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_restart(machine, monkeypatch, Layer.LOGIN)
    machine.one.write_text("good\nbad\n")
    machine.settings('[repair]\nmax_risk = "none"')
    boot.boot_check()
    assert machine.outcomes() == ["conflict"], "a person has changed the file since"
    assert machine.told() == ["RECOVERED", "APPEARED"]


def session(user: str, seconds: float | None, begin: float = 100.0) -> described.Machine:
    return described.Machine().user(user).login(user, begin=begin, seconds=seconds)


@as_root
@pytest.mark.parametrize("subject", ["host", "user:alice"])
def test_that_a_login_is_repaired_is_only_sure_when_somebody_stays(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, subject: str
) -> None:
    before = described.Machine().says("kernel", "Linux version 6.1.0-50-amd64", seconds=1).user()
    before.login(seconds=900.0).says("kernel", "Linux version 6.1.0-50-amd64", seconds=2000).build(machine.root)
    wait_for_restart(machine, monkeypatch, Layer.LOGIN, subject)
    boot.boot_check()
    nothing_yet = {"ok": True, "outcome": "nothing-to-do"}
    assert machine.ask_as(WATCHER, "confirm") == nothing_yet, "she was in before the restart"
    session("alice", 3.0, 2100).build(machine.root)
    assert machine.ask_as(WATCHER, "confirm") == nothing_yet, "the session ended at once"
    session("bob", 50.0, 2200).build(machine.root)
    another = machine.ask_as(WATCHER, "confirm")
    if subject == "host":
        assert another["outcome"] == "applied"
        return
    assert another == nothing_yet, "it was not the one whose login was repaired"
    session("alice", 50.0, 2300).build(machine.root)
    assert machine.ask_as(WATCHER, "confirm") == {"ok": True, "outcome": "applied"}
    assert machine.told() == ["REPAIRED"]


@as_root
def test_a_login_of_which_nothing_is_known_is_not_sure(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_restart(machine, monkeypatch, Layer.LOGIN)
    assert machine.ask_as(WATCHER, "confirm") == {"ok": True, "outcome": "nothing-to-do"}
    assert machine.store.current()


@as_root
def test_another_person_needs_a_right_to_have_it_judged(machine: Machine) -> None:
    assert "polkit does not allow org.dlhealth.diagnose" in machine.ask_as(PERSON, "confirm")["error"]


# The asker's side.


def test_what_the_watcher_sends_is_what_root_understands(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    assert ask("preview", "bad-line", "host", path=path) is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        request = ask("apply", "bad-line", "file:/etc/größe", "0123456789ab", path)
        assert request
        channel, _ = listener.accept()
        assert parse(receive(channel, 1)) == Asked("apply", "bad-line", "file:/etc/größe", "0123456789ab")
        channel.send(b'{"ok": ')
        assert not request.receive()
        channel.send(b"true}\n")
        assert not request.receive()
        channel.close()
        assert request.receive()
        assert request.answer() == {"ok": True}
        request.channel.close()


# The check at boot.


def test_the_check_at_boot_repairs_what_it_may_and_says_so(machine: Machine, tmp_path: Path) -> None:
    seen = boot.boot_check()
    assert machine.one.read_text() == "good\n"
    assert seen.diagnosis.findings == ()
    assert machine.told() == ["REPAIRED"]
    assert json.loads((tmp_path / "boot.json").read_text())["findings"] == []


def test_a_boot_without_a_problem_is_recorded_as_good(machine: Machine) -> None:
    described.Machine.debian12_gpu().build(machine.root)
    record = machine.root / "var/lib/dlhealth/baseline.json"
    machine.settings('[repair]\nmax_risk = "none"\n')
    boot.boot_check()
    assert not record.exists(), "a problem is open"
    machine.one.write_text("good\n")
    boot.boot_check()
    assert json.loads(record.read_text())["inventory"]["driver"]["loaded"] == "535.261.03"
    assert record.stat().st_mode & 0o777 == 0o600


def test_the_check_at_boot_does_nothing_twice_and_says_so(machine: Machine, tmp_path: Path) -> None:
    boot.boot_check()
    machine.ask("undo")
    assert machine.one.read_text() == "bad\n"
    assert len(boot.boot_check().diagnosis.findings) == 1
    assert machine.one.read_text() == "bad\n"
    assert machine.told() == ["REPAIRED", "NOT_REPAIRED", "APPEARED"]
    assert [f["id"] for f in json.loads((tmp_path / "boot.json").read_text())["findings"]] == ["bad-line"]


@as_root
@pytest.mark.parametrize("before", ["never repaired", "repaired before"])
def test_the_check_at_boot_with_a_full_var_says_what_is_wrong(machine: Machine, tmp_path: Path, before: str) -> None:
    with tmpfs(machine.root / "var", "size=64k"):
        described.Machine().package("base-files", "12").build(machine.root)
        if before == "repaired before":
            with machine.store.locked():
                pass
        with suppress(OSError), (machine.root / "var/filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert [d.finding.id for d in boot.boot_check().diagnosis.findings] == ["bad-line"]
        assert machine.one.read_text() == "bad\n"
        assert machine.told() == ["NOT_REPAIRED", "APPEARED"]
        assert [f["id"] for f in json.loads((tmp_path / "boot.json").read_text())["findings"]] == ["bad-line"]
        (machine.root / "var/filler").unlink()
        boot.boot_check()
        assert machine.one.read_text() == "good\n"


@pytest.mark.parametrize("jump", [-86400, -400 * 86400])
def test_a_clock_that_was_set_back_does_not_repair_twice(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    boot.boot_check()
    machine.one.write_text("bad\n")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    boot.boot_check()
    assert machine.one.read_text() == "bad\n"
    assert machine.outcomes() == ["applied"]


@pytest.mark.parametrize("plan", ["torn", "{}", "[]"])
def test_an_earlier_repair_that_is_damaged_is_named_and_what_is_wrong_is_said_all_the_same(
    machine: Machine, plan: str
) -> None:
    with machine.store.locked():
        record = machine.store.begin("abcd", {"actions": [], "findings": []}, [])
    (Path(record.folder) / "plan.json").write_text(plan)
    boot.boot_check()
    assert machine.told() == ["NOT_REPAIRED", "APPEARED"]
    for verb in ("status", "preview", "apply", "confirm", "undo"):
        answer = machine.ask(verb, "0123456789ab")
        assert not answer["ok"]
        assert f"then move {record.folder} away" in answer["error"]
    assert machine.one.read_text() == "bad\n"


def test_a_history_that_is_damaged_keeps_nobody_from_saying_what_is_wrong(machine: Machine) -> None:
    assert machine.ask("apply", machine.ask("preview")["digest"])["ok"]
    (record,) = machine.store.ended()
    (Path(record.folder) / "plan.json").write_text("torn")
    machine.one.write_text("bad\n")
    assert machine.told() == ["REPAIRED"]
    boot.boot_check()
    assert machine.told() == ["NOT_REPAIRED", "APPEARED"]
    answer = machine.ask("preview")
    assert not answer["ok"]
    assert f"{record.folder} is damaged" in answer["error"]
    assert machine.one.read_text() == "bad\n"


def test_the_check_at_boot_takes_back_what_was_cut_off(machine: Machine) -> None:
    with machine.store.locked():
        record = machine.store.begin("abcd", {"actions": [], "findings": [], "known": []}, [])
        (Path(record.folder) / "journal").write_text("")
    machine.settings('[repair]\nmax_risk = "none"')
    boot.boot_check()
    assert machine.outcomes() == ["rolled-back"]
    assert machine.told() == ["RECOVERED", "APPEARED"]
    assert machine.one.read_text() == "bad\n"


def test_the_check_at_boot_is_given_time_where_something_is_taken_back(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.settings('[repair]\nmax_risk = "none"')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        boot.boot_check()
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        with machine.store.locked():
            record = machine.store.begin("abcd", {"actions": [], "findings": [], "known": []}, [])
            (Path(record.folder) / "journal").write_text("")
        boot.boot_check()
        assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=900000000"
