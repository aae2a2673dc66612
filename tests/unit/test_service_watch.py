"""The watcher as systemd runs it: a process of its own with real sockets, a real inotify and a packet pipe in place of
the kernel's log. Only the program that looks is another: a script that says what the test wants."""

import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dlhealth.service import watch
from dlhealth.service.events import LOOK_AT, Event, Topic
from dlhealth.service.journal import Kind
from dlhealth.service.notify import Manager
from dlhealth.service.sources import SHORT, Files
from dlhealth.txn.store import Store

PROJECT = Path(__file__).parents[2]
RUN = """
import functools, json, sys
from dlhealth.service import watch
from dlhealth.service.journal import send
from dlhealth.service.notify import Manager
from dlhealth.service.sources import Files, KernelLog
given = json.loads(sys.argv[1])
watch._SETTLE = {}
watch._LOOK_LIMIT = 1.0
watch._BUSY_PAUSE = 0.3
watch._LONGEST_PAUSE = given["longest_pause"]
watch._SHARE = given["share"]
watch._BLIND = given["blind"]
watch.WAITING = given["base"] + "/active"
watch.BOOT_STATE = given["base"] + "/boot.json"
watch.ask = functools.partial(watch.ask, path=given["base"] + "/repair")
sys.executable = given["base"] + "/python"
tell = functools.partial(send, path=given["base"] + "/journal")
log = KernelLog(f"/proc/self/fd/{given['log']}")
watch.Watcher([log], Files(given["base"] + "/root"), given["base"] + "/state", tell, Manager()).run()
"""
XID = "NVRM: Xid (PCI:0000:%02x:00): %d, pid=1"


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return answer


def finding(id: str = "a", **more: str) -> dict[str, str]:
    given = {
        "id": id,
        "subject": "host",
        "severity": "error",
        "layer": "login",
        "title": f"{id} is wrong",
        "boot": "",
        "fingerprint": "0123",
        "caused_by": "",
        "files": "",
        "repair": "",
    }
    return {**given, **more}


class Inbox:
    """A datagram socket that is read all the time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, str]] = []
        self._socket: socket.socket | None = None
        self.open()

    def open(self) -> None:
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        threading.Thread(target=self._read, args=(self._socket,), daemon=True).start()

    def close(self) -> None:
        assert self._socket
        self.path.unlink()
        self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self, channel: socket.socket) -> None:
        while data := channel.recv(1 << 18):
            # No test here has a line break in a value.
            self.entries.append(dict(line.split("=", 1) for line in data.decode().splitlines()))
        channel.close()

    def of(self, kind: Kind) -> list[str]:
        return [e["MESSAGE"] for e in list(self.entries) if e.get("MESSAGE_ID") == kind.value]


class Service:
    def __init__(self, base: Path) -> None:
        self.base, self.root, self.state = base, base / "root", base / "state"
        for folder in ("run/systemd/sessions", "var/lib/dpkg", "boot", "lib/modules", "etc"):
            (self.root / folder).mkdir(parents=True)
        self.state.mkdir()
        self.journal, self.manager = Inbox(base / "journal"), Inbox(base / "notify")
        python = base / "python"
        python.write_text(
            f'#!/bin/sh\n[ "$1 $2 $3" = "-I -m dlhealth.service.check" ] || exit 9\nshift 3\n'
            f'echo "$*" >> {shlex.quote(str(base / "looks.log"))}\n. {shlex.quote(str(base / "behaviour"))}\n'
        )
        python.chmod(0o755)
        self.finds()
        self.process: subprocess.Popen[bytes] | None = None
        self._kernel = -1

    def start(
        self, *, share: float = 0.0, longest_pause: float = 30.0, watchdog: str = "", blind: float = 3600.0
    ) -> None:
        reader, self._kernel = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        given = {"base": str(self.base), "log": reader, "share": share, "longest_pause": longest_pause, "blind": blind}
        environment = {"NOTIFY_SOCKET": str(self.base / "notify"), "PYTHONPATH": str(PROJECT)}
        if watchdog:
            environment["WATCHDOG_USEC"] = watchdog
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps(given)], env=environment, pass_fds=[reader]
        )
        os.close(reader)
        wait_for(lambda: {"READY": "1"} in self.manager.entries)

    def stop(self) -> int:
        assert self.process
        os.close(self._kernel)
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(5)
        self.process = None
        return status

    # What the looks say.

    def does(self, script: str) -> None:
        new = self.base / "behaviour.new"
        new.write_text(script)
        new.rename(self.base / "behaviour")

    def finds(self, *findings: dict[str, str], judged: str = "a b c", busy: str = "", problem: str = "") -> None:
        said = {"findings": findings, "judged": judged.split(), "busy": busy, "problem": problem}
        self.does(f"cat <<'END'\n{json.dumps(said)}\nEND\n")

    @property
    def looks(self) -> list[str]:
        try:
            return (self.base / "looks.log").read_text().splitlines()
        except FileNotFoundError:
            return []

    def looked(self, times: int) -> None:
        wait_for(lambda: len(self.looks) >= times and not self._looking())

    def _looking(self) -> bool:
        assert self.process
        return bool(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    # What happens.

    def kernel(self, text: str) -> None:
        os.write(self._kernel, f"4,1,1,-;{text}\n".encode())

    def packages(self) -> None:
        (self.root / "var/lib/dpkg/new").write_text("x")
        (self.root / "var/lib/dpkg/new").rename(self.root / "var/lib/dpkg/status")

    def logs_in(self) -> None:
        new = self.root / "run/systemd/new"
        new.write_text("UID=1000\nUSER=alice\nTYPE=x11\nCLASS=user\n")
        new.rename(self.root / "run/systemd/sessions/2")

    def saved(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.state / "state.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def lives(self) -> bool:
        assert self.process
        return self.process.poll() is None


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    if made.process:
        assert made.lives(), "the watcher ended by itself"
        made.process.kill()
        made.process.wait()


def test_the_manager_hears_of_its_life(service: Service) -> None:
    service.start(watchdog="200000")
    wait_for(lambda: service.manager.entries.count({"WATCHDOG": "1"}) >= 4)
    assert service.stop() == 0
    wait_for(lambda: service.manager.entries[-1] == {"STOPPING": "1"})
    entries = service.manager.entries
    assert entries[0] == {"READY": "1"}
    # Half of what systemd would wait, and not more often.
    assert entries.count({"WATCHDOG": "1"}) < 60


def test_it_looks_at_everything_at_its_start_and_tells_what_it_finds(service: Service) -> None:
    service.finds(finding(), finding("b", caused_by="a"))
    service.start()
    wait_for(lambda: len(service.journal.entries) == 2)
    assert service.journal.of(Kind.APPEARED) == ["a is wrong", "b is wrong (because of a)"]
    assert service.looks == [""]
    wait_for(service.saved)
    assert [f["id"] for f in service.saved()["findings"]] == ["a", "b"]
    assert abs(service.saved()["checked"] - time.time()) < 30
    wait_for((service.state / "issue").exists)
    assert "a is wrong" in (service.state / "issue").read_text()


def test_from_an_event_to_an_alert_and_back(service: Service) -> None:
    service.start()
    service.looked(1)
    assert service.journal.entries == []
    service.finds(finding())
    service.kernel(XID % (1, 79))
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    assert [e["MESSAGE"] for e in service.journal.entries] == [XID % (1, 79), "a is wrong"]
    assert service.journal.entries[0]["DLHEALTH_SUBJECT"] == "gpu:0000:01:00.0"
    assert service.looks[1:] == [" ".join(LOOK_AT[Topic.GPU])]
    service.finds()
    service.packages()
    wait_for(lambda: service.journal.of(Kind.GONE))
    assert service.looks[2:] == [""]
    wait_for(lambda: service.saved()["findings"] == [])
    wait_for(lambda: (service.state / "issue").read_text() == "")


def test_events_of_different_kinds_are_looked_at_together(service: Service) -> None:
    service.start()
    service.looked(1)
    service.does("sleep 0.3\n" + (service.base / "behaviour").read_text())
    service.packages()
    wait_for(lambda: len(service.looks) == 2)
    for number in range(50):
        service.kernel(XID % (number, 31))
        service.kernel("NVRM: loading NVIDIA UNIX x86_64 Kernel Module")
    service.looked(3)
    assert len(service.looks) == 3
    assert set(service.looks[2].split()) == {*LOOK_AT[Topic.GPU], *LOOK_AT[Topic.DRIVER]}


def test_a_file_that_a_finding_is_about_is_looked_at_again_with_its_rule_alone(service: Service) -> None:
    (service.root / "etc/environment").write_text("bad")
    service.finds(finding(files="/etc/environment\n/etc/none"))
    service.start()
    wait_for(service.saved)
    service.finds()
    (service.root / "etc/other").write_text("x")
    (service.root / "etc/environment").write_text("good")
    wait_for(lambda: service.journal.of(Kind.GONE))
    assert service.looks == ["", "a"]
    (service.root / "etc/environment").write_text("whatever")
    time.sleep(0.2)
    assert service.looks == ["", "a"], "what no finding is about any more is still watched"


def test_a_look_at_a_part_says_nothing_of_the_next_boot(service: Service) -> None:
    service.finds(finding(boot="next"))
    service.start()
    wait_for(lambda: service.journal.of(Kind.NEXT_BOOT))
    service.finds()
    service.kernel(XID % (1, 31))
    service.looked(2)
    time.sleep(0.1)
    assert service.journal.of(Kind.GONE) == []
    service.packages()
    wait_for(lambda: service.journal.of(Kind.GONE))


def test_a_look_that_hangs_is_ended_with_all_below_it(service: Service) -> None:
    service.does(f"sleep 600 & echo $! > {service.base}/pid; trap '' TERM; sleep 600")
    service.start(watchdog="300000")
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    assert service.journal.of(Kind.NOT_CHECKED) == ["a check could not be made: it did not end within 1 seconds"]
    pid = (service.base / "pid").read_text().strip()
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])
    service.finds(finding())
    service.packages()
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    assert service.manager.entries.count({"WATCHDOG": "1"}) >= 4


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo garbage", "can't be read"),
        ("true", "can't be read"),
        ("echo null", "can't be read"),
        ("echo '{}'", "can't be read"),
        ("""echo '{"findings": [{}], "judged": [], "busy": "", "problem": ""}'""", "can't be read"),
        ("""echo '{"findings": [], "judged": 3, "busy": "", "problem": ""}'""", "can't be read"),
        ("head -c 300000 /dev/zero | tr '\\0' '['", "can't be read"),
        ("head -c 100 /dev/urandom", "can't be read"),
        ("echo '{\"findings\"'; exit 3", "it ended with status 3"),
        ("kill -9 $$", "it ended with status -9"),
        ("exec yes", "it said too much"),
        ("exec >&-; sleep 600", "it did not end"),
    ],
)
def test_a_look_that_goes_wrong_is_told_once_and_harms_nothing(service: Service, script: str, said: str) -> None:
    service.does(script)
    service.start()
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    (message,) = service.journal.of(Kind.NOT_CHECKED)
    assert message.startswith("a check could not be made: ")
    assert said in message
    service.packages()
    service.looked(2)
    service.finds(finding())
    service.packages()
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    assert len(service.journal.entries) == 2


def test_a_look_that_cannot_be_started_is_made_later(service: Service) -> None:
    """As while `service install` puts a new environment in place of the old."""
    (service.base / "python").rename(service.base / "away")
    service.finds(finding())
    service.start(longest_pause=0.3)
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    assert "could not be started: No such file" in service.journal.of(Kind.NOT_CHECKED)[0]
    (service.base / "away").rename(service.base / "python")
    wait_for(lambda: service.journal.of(Kind.APPEARED))


def test_a_look_that_fails_is_made_again_without_an_event_and_ever_more_rarely(service: Service) -> None:
    service.does("exit 3")
    service.start(longest_pause=0.05)
    moments = []
    for number in range(1, 6):
        service.looked(number)
        moments.append(time.monotonic())
    pauses = [later - sooner for sooner, later in itertools.pairwise(moments)]
    assert pauses[-1] > 0.35
    assert pauses[-1] > 2 * pauses[0]
    service.finds(finding())
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    assert len(service.journal.of(Kind.NOT_CHECKED)) == 1
    looks = len(service.looks)
    time.sleep(0.5)
    assert len(service.looks) == looks, "it goes on although the look was made"
    service.does("exit 3")
    service.packages()
    service.looked(looks + 1)
    started = time.monotonic()
    service.looked(looks + 2)
    assert time.monotonic() - started < 0.35, "the next failure has its first pause again"


def test_a_look_at_a_part_that_fails_is_made_again_at_that_part(service: Service) -> None:
    service.start(longest_pause=0.05)
    service.looked(1)
    service.does("exit 3")
    service.kernel(XID % (1, 31))
    service.looked(2)
    service.finds(finding())
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    assert service.looks == ["", *[" ".join(LOOK_AT[Topic.GPU])] * (len(service.looks) - 1)]


def test_what_keeps_a_look_from_judging_is_told_once(service: Service) -> None:
    service.finds(problem="config.toml: repair.max_risk can't be meant")
    service.start()
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    for number in range(2, 5):
        service.packages()
        service.looked(number)
    assert service.journal.of(Kind.NOT_CHECKED) == ["config.toml: repair.max_risk can't be meant"]


def test_while_packages_are_changed_it_waits(service: Service) -> None:
    service.finds(busy="apt (process 7) is at work")
    service.start()
    service.looked(1)
    started = time.monotonic()
    while time.monotonic() < started + 1:
        service.packages()
        time.sleep(0.01)
    assert 2 <= len(service.looks) <= 6
    assert service.journal.entries == []
    assert service.saved() == {}
    service.finds(finding())
    (service.root / "var/lib/dpkg/lock").write_text("")
    wait_for(lambda: service.journal.of(Kind.APPEARED))


def test_who_keeps_packages_locked_without_dpkg_is_waited_for_too(service: Service) -> None:
    service.finds(busy="packagekitd (process 7) is at work")
    service.start(longest_pause=0.4)
    service.looked(1)
    service.finds(finding())
    wait_for(lambda: service.journal.of(Kind.APPEARED))


def test_who_never_stops_to_change_packages_is_named(service: Service) -> None:
    service.finds(busy="dpkg (process 7) asks a question that nobody sees")
    service.start(longest_pause=0.1, blind=0.3)
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    looks = len(service.looks)
    assert looks >= 3
    service.looked(looks + 2)
    (message,) = service.journal.of(Kind.NOT_CHECKED)
    assert "dpkg (process 7) asks a question" in message
    service.finds(finding())
    wait_for(lambda: service.journal.of(Kind.APPEARED))


def test_looks_take_a_share_of_the_time_however_much_happens(service: Service) -> None:
    service.does("sleep 0.2\n" + (service.base / "behaviour").read_text())
    service.start(share=4.0)
    started = time.monotonic()
    while time.monotonic() < started + 2.5:
        service.packages()
        time.sleep(0.005)
    assert 2 <= len(service.looks) <= 4  # 0.2 + 0.8, then twice as long after each that finds nothing new


def test_alerts_wait_for_a_journal_that_is_restarted_and_keep_their_order(service: Service) -> None:
    service.start()
    service.looked(1)
    service.journal.close()
    texts = [XID % (gpu, 31) for gpu in range(20)]
    for text in texts:
        service.kernel(text)
    service.finds(finding())
    service.packages()
    wait_for(lambda: service.saved().get("findings"))
    service.looked(2)
    time.sleep(0.1)  # whatever follows the look is over: only the next event can bring the alerts on their way
    assert service.journal.entries == []
    service.journal.open()
    service.kernel(XID % (99, 31))
    wait_for(lambda: len(service.journal.entries) == 22)
    assert [e["MESSAGE"] for e in service.journal.entries] == [*texts, "a is wrong", XID % (99, 31)]


def test_a_flood_of_the_kernel_gives_few_alerts_and_few_looks(service: Service) -> None:
    service.start(share=4.0, watchdog="500000")
    service.looked(1)
    for number in range(20_000):
        service.kernel(XID % (number % 8, number % 150))
        service.kernel("NVRM: nvCheckFailedNoLog: Check failed")
    service.packages()
    service.looked(2)
    wait_for(lambda: len(service.journal.entries) >= 64)
    time.sleep(0.2)
    assert len(service.journal.entries) == 64
    assert len(service.looks) <= 20
    memory = Path(f"/proc/{service.process.pid}/status").read_text() if service.process else ""
    assert int(memory.split("VmRSS:")[1].split()[0]) < 64 << 10


def test_where_nothing_happens_it_sleeps(service: Service) -> None:
    service.finds(finding(files="/etc/environment"))
    service.start(watchdog="60000000")
    wait_for((service.state / "issue").exists)
    time.sleep(0.3)
    assert service.process
    folder = Path(f"/proc/{service.process.pid}")

    def woken() -> tuple[str, ...]:
        lines = (folder / "status").read_text().splitlines()
        times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        return (*(line for line in lines if "ctxt_switches" in line), *times)

    before = woken()
    time.sleep(1)
    assert woken() == before
    assert folder.joinpath("task").is_dir()
    assert len(os.listdir(folder / "task")) == 1


# What it remembers.


def test_what_was_told_before_a_restart_is_not_told_again(service: Service) -> None:
    service.finds(finding())
    service.start()
    wait_for(service.saved)
    assert service.stop() == 0
    service.manager.entries.clear()
    service.finds(finding("b"), judged="a b")
    service.start()
    wait_for(lambda: len(service.journal.entries) == 3)
    assert service.journal.of(Kind.APPEARED) == ["a is wrong", "b is wrong"]
    assert service.journal.of(Kind.GONE) == ["No longer so: a is wrong"]


def test_what_the_check_at_boot_told_is_not_told_again(service: Service) -> None:
    (service.base / "boot.json").write_text(json.dumps({"checked": 1, "findings": [finding()]}))
    service.finds(finding())
    service.start()
    wait_for(service.saved)
    assert service.journal.entries == []


@pytest.mark.parametrize("content", ['{"findings": [{"id": "a"}]}', "[]", "torn", '{"findings": 1}'])
def test_what_another_version_left_does_not_keep_it_from_starting(service: Service, content: str) -> None:
    (service.state / "state.json").write_text(content)
    (service.base / "boot.json").write_text(content)
    service.finds(finding())
    service.start()
    wait_for(lambda: service.journal.of(Kind.APPEARED))


def test_a_state_that_cannot_be_written_is_told_once(service: Service) -> None:
    service.state.rmdir()
    service.finds(finding())
    service.start()
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    for number in range(2, 4):
        service.packages()
        service.looked(number)
    time.sleep(0.1)
    assert service.journal.of(Kind.APPEARED) == ["a is wrong"]
    (message,) = service.journal.of(Kind.NOT_CHECKED)
    assert "can't be written" in message


# Asking for repairs.


class Repairer:
    """The other end of the repair socket."""

    def __init__(self, path: Path, *answers: str) -> None:
        self.asked: list[dict[str, Any]] = []
        self._answers = list(answers)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(8)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            channel, _ = self._socket.accept()
            with channel, channel.makefile("rb") as lines:
                self.asked.append(json.loads(lines.readline()))
                if self._answers:
                    channel.sendall(self._answers.pop(0).encode())


def test_a_repair_is_asked_for_with_the_digest_that_was_shown_and_looked_at_afterwards(service: Service) -> None:
    repairer = Repairer(
        service.base / "repair",
        '{"ok": true, "allowed": true, "digest": "0123456789ab"}\n',
        '{"ok": true, "outcome": "applied"}\n',
        '{"ok": true, "allowed": false, "digest": "ffffffffffff"}\n',
    )
    service.finds(finding(repair="low", subject="user:alice"), finding("b", repair="low"))
    service.start()
    wait_for(lambda: len(repairer.asked) == 3)
    service.looked(2)
    time.sleep(0.1)
    common = {"version": 1, "finding": "a", "subject": "user:alice"}
    assert repairer.asked == [
        {**common, "verb": "preview", "digest": ""},
        {**common, "verb": "apply", "digest": "0123456789ab"},
        {"version": 1, "verb": "preview", "finding": "b", "subject": "host", "digest": ""},
    ]
    assert service.looks == ["", ""], "the look after the repair is at everything"


def test_it_asks_only_for_what_can_be_repaired_now(service: Service) -> None:
    repairer = Repairer(service.base / "repair", *["{}"] * 9)
    service.finds(
        finding("a", repair=""),
        finding("b", repair="low", caused_by="a"),
        finding("c", repair="low", boot="next"),
        finding("d", repair="low"),
    )
    service.start()
    wait_for(lambda: repairer.asked)
    time.sleep(0.2)
    assert [r["finding"] for r in repairer.asked] == ["d"]
    service.packages()
    service.looked(2)
    time.sleep(0.1)
    assert len(repairer.asked) == 1, "it asked again for what had not changed"


PREVIEW, APPLIED = '{"ok": true, "allowed": true, "digest": "0123456789ab"}\n', '{"ok": true, "outcome": "applied"}\n'


@pytest.mark.parametrize(
    "refusals",
    [
        ['{"ok": true, "allowed": false, "later": true, "reason": "apt is at work"}\n'],
        ['{"ok": false, "error": "another dlhealth is changing this machine; nothing was changed"}\n'],
        [PREVIEW, '{"ok": false, "error": "the machine has changed since the preview"}\n'],
        [PREVIEW, '{"ok": false, "outcome": "refused"}\n'],
        [""],
    ],
)
def test_a_repair_that_is_refused_for_now_is_asked_for_again(service: Service, refusals: list[str]) -> None:
    repairer = Repairer(service.base / "repair", *refusals, PREVIEW, APPLIED)
    service.finds(finding(repair="low"))
    service.start(longest_pause=0.2)
    wait_for(lambda: len(repairer.asked) == len(refusals) + 2)
    assert [r["verb"] for r in repairer.asked[-2:]] == ["preview", "apply"]
    service.looked(3)  # at the start, before it asked again, and after the repair
    time.sleep(0.7)
    assert len(repairer.asked) == len(refusals) + 2, "it goes on asking for what was done"
    assert len(service.looks) == 3


def test_a_repair_that_is_forbidden_is_not_asked_for_again_until_it_appears_anew(service: Service) -> None:
    forbidden = '{"ok": true, "allowed": false, "later": false}\n'
    repairer = Repairer(service.base / "repair", forbidden, forbidden)
    service.finds(finding(repair="low"))
    service.start(longest_pause=0.1)
    service.looked(1)
    for number in range(2, 5):
        service.packages()
        service.looked(number)
    time.sleep(0.5)
    assert len(service.looks) == 4
    assert len(repairer.asked) == 1
    service.finds()
    service.packages()
    wait_for(lambda: service.journal.of(Kind.GONE))
    service.finds(finding(repair="low"))
    service.packages()
    wait_for(lambda: len(repairer.asked) == 2)


def test_a_repairer_that_comes_later_is_asked_then(service: Service) -> None:
    service.finds(finding(repair="low"), finding("b", repair="low"))
    service.start(longest_pause=0.3)
    wait_for(service.saved)
    repairer = Repairer(service.base / "repair", *[PREVIEW, APPLIED] * 2)
    wait_for(lambda: len(repairer.asked) == 4)
    assert [r["finding"] for r in repairer.asked] == ["a", "a", "b", "b"]


def test_a_consequence_is_asked_for_when_it_has_become_a_cause(service: Service) -> None:
    repairer = Repairer(service.base / "repair", *[PREVIEW, APPLIED] * 2)
    service.finds(finding("a"), finding("b", caused_by="a"))
    service.start()
    service.looked(1)
    service.finds(finding("b", repair="low"))
    service.packages()
    wait_for(lambda: len(repairer.asked) == 2)
    assert repairer.asked[0]["finding"] == "b"


def test_what_the_check_at_boot_could_not_repair_is_asked_for(service: Service) -> None:
    """Before the network was up, for one."""
    (service.base / "boot.json").write_text(json.dumps({"checked": 1, "findings": [finding(repair="low")]}))
    service.finds(finding(repair="low"))
    repairer = Repairer(service.base / "repair", PREVIEW, APPLIED)
    service.start()
    wait_for(lambda: len(repairer.asked) == 2)


def test_what_waits_for_a_restart_is_judged_after_the_start_and_before_anything_else_is_repaired(
    service: Service,
) -> None:
    """Root says whether it held; whether there is something to judge is seen without asking."""
    (service.base / "active").mkdir()
    later = '{"ok": false, "error": "an earlier repair waits for a reboot"}\n'
    repairer = Repairer(
        service.base / "repair", '{"ok": true, "outcome": "nothing-to-do"}\n', later,
        '{"ok": true, "outcome": "applied"}\n', PREVIEW, APPLIED,
    )  # fmt: skip
    service.finds(finding(repair="low"))
    service.start(longest_pause=0.2)
    wait_for(lambda: len(repairer.asked) >= 3)
    (service.base / "active").rmdir()
    wait_for(lambda: len(repairer.asked) == 5)
    assert [r["verb"] for r in repairer.asked] == ["confirm", "preview", "confirm", "preview", "apply"]
    assert repairer.asked[0] == {"version": 1, "verb": "confirm", "finding": "", "subject": "", "digest": ""}


def test_what_was_repaired_of_a_login_is_judged_when_somebody_has_got_in(service: Service) -> None:
    (service.base / "active").mkdir()
    repairer = Repairer(
        service.base / "repair", '{"ok": true, "outcome": "nothing-to-do"}\n', '{"ok": true, "outcome": "applied"}\n'
    )
    service.start()
    wait_for(lambda: repairer.asked)
    service.logs_in()
    wait_for(lambda: len(repairer.asked) == 2)
    assert repairer.asked[1]["verb"] == "confirm"
    assert service.looks[:2] == ["", " ".join(LOOK_AT[Topic.LOGGED_IN])]


def test_where_a_repair_waits() -> None:
    assert Store("/").active == watch.WAITING


@pytest.mark.parametrize(
    "answer", ["", "garbage\n", "[]\n", "null\n", '{"ok": true, "allowed": true}\n', "x" * 200_000]
)
def test_a_repairer_that_answers_nonsense(service: Service, answer: str) -> None:
    repairer = Repairer(service.base / "repair", answer)
    service.finds(finding(repair="low"))
    service.start()
    wait_for(lambda: repairer.asked)
    service.finds()
    service.packages()
    wait_for(lambda: service.journal.of(Kind.GONE))
    assert all(r.get("digest") == "" for r in repairer.asked)


def test_without_a_repairer_it_watches_all_the_same(service: Service) -> None:
    service.finds(finding(repair="low"), finding("b", repair="low"))
    service.start()
    wait_for(service.saved)
    service.finds()
    service.packages()
    wait_for(lambda: len(service.journal.of(Kind.GONE)) == 2)


def test_of_several_logins_the_last_one_is_looked_at_when_it_may_have_lasted(tmp_path: Path) -> None:
    watcher = watch.Watcher([], Files(str(tmp_path)), str(tmp_path), lambda entry: True, Manager())
    moments = []
    for _ in range(2):
        for topic in (Topic.LOGIN, Topic.LOGGED_IN):
            watcher._happened(Event(topic))
        moments.append(dict(watcher._due))
    before, after = moments
    assert after[Topic.LOGIN] == before[Topic.LOGIN]
    assert after[Topic.LOGGED_IN] > before[Topic.LOGGED_IN] > before[Topic.LOGIN] + SHORT
