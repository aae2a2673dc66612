"""The watcher as systemd runs it: a process of its own with real sockets, a real inotify and a packet pipe in place of
the kernel's log. Only the program that looks is another: a script that says what the test wants."""

import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dlhealth.host.alert import Kind
from dlhealth.service import watch
from dlhealth.service.events import LOOK_AT, Topic
from dlhealth.testing import Machine
from dlhealth.txn.store import Store
from tests.mounts import tmpfs
from tests.schema import violations

PROJECT = Path(__file__).parents[3]
RUN = """
import functools, json, socket, sys
from dlhealth.host.alert import send
from dlhealth.service.notify import Manager
from dlhealth.service.schedule import Pace
from dlhealth.service.sources import Devices, Files, KernelLog
from dlhealth.service.watch import Settings, Watcher
given = json.loads(sys.argv[1])
base = given["base"]
if given["kills"] == "no":
    from dlhealth.host import exec as door
    door._kill = lambda child: None
settings = Settings(
    folder=base + "/state", boot_state=base + "/boot.json", waiting=base + "/active", prompts=base + "/agetty.reload",
    repair_socket=base + "/repair", python=base + "/python", check_limit=given["look_limit"],
    pace=Pace(
        settle={}, share=given["share"], longest_pause=given["longest_pause"], busy_pause=0.3, blind=given["blind"],
        daily=given["daily"],
    ),
)
log = KernelLog(f"/proc/self/fd/{given['log']}")
# Only the kernel is port 0; the first byte of an abstract address is 0 too.
devices = Devices(socket.socket(fileno=given["devices"]))
tell = functools.partial(send, path=base + "/journal")
Watcher([log, devices], Files(base + "/root"), tell, Manager(), settings).run()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
XID = "NVRM: Xid (PCI:0000:%02x:00): %d, pid=1"


def wait_for(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return answer


def finding(id: str = "a", **more: Any) -> dict[str, Any]:
    given = {
        "id": id,
        "subject": "host",
        "severity": "error",
        "layer": "login",
        "title": f"{id} is wrong",
        "next_boot": False,
        "fingerprint": "0123",
        "caused_by": [],
        "files": [],
        "repair": None,
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
        return [quoted(e["MESSAGE"]) for e in list(self.entries) if e.get("MESSAGE_ID") == kind.value]


def quoted(message: str) -> str:
    """The driver's line that an alert quotes; the whole alert if it quotes none."""
    before, found, line = message.partition("(NVRM: ")
    return f"NVRM: {line[:-1]}" if found and before else message


class Service:
    def __init__(self, base: Path) -> None:
        self.base, self.root, self.state = base, base / "root", base / "state"
        for folder in ("run/systemd/sessions", "var/lib/dpkg", "boot", "lib/modules", "etc/systemd/system"):
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
        self._devices, self._devices_read = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._devices_read.setblocking(False)
        self._devices.bind(f"\0dlhealth-test-{os.getpid()}-{time.monotonic_ns()}")

    def start(
        self,
        *,
        share: float = 0.0,
        longest_pause: float = 30.0,
        watchdog: str = "",
        blind: float = 3600.0,
        daily: float = 86400.0,
        look_limit: float = 30.0,
        kills: str = "yes",
        **environment: str,
    ) -> None:
        reader, self._kernel = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        devices = self._devices_read.fileno()
        given = {"base": str(self.base), "log": reader, "devices": devices}
        given |= {
            "share": share,
            "longest_pause": longest_pause,
            "blind": blind,
            "daily": daily,
            "look_limit": look_limit,
            "kills": kills,
        }
        environment |= {"NOTIFY_SOCKET": str(self.base / "notify"), "PYTHONPATH": str(PROJECT)}
        if watchdog:
            environment["WATCHDOG_USEC"] = watchdog
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps(given)], env=environment, pass_fds=[reader, devices]
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

    def finds(
        self,
        *findings: dict[str, Any],
        judged: str = "a b c",
        rules: str = "a b c d e",
        busy: str = "",
        problem: str = "",
    ) -> None:
        said = {"findings": findings, "judged": judged.split(), "rules": rules.split()}
        said |= {"busy": busy, "problem": problem, "unchecked": ""}
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

    def device(self, action: str) -> None:
        fields = (f"{action}@/devices/pci0000:00/0000:01:00.0", f"ACTION={action}", "SUBSYSTEM=pci", "PCI_ID=10DE:1B06")
        self._devices.send("\0".join(fields).encode())

    def session_begins(self, name: str, user: str) -> None:
        file = self.root / "run/systemd/sessions" / name
        file.with_name(".new").write_text(f"USER={user}\nTYPE=x11\nCLASS=user\n")
        file.with_name(".new").rename(file)

    def session_ends(self, name: str) -> None:
        (self.root / "run/systemd/sessions" / name).unlink()

    def memory(self) -> int:
        """Of the watcher, in KiB."""
        assert self.process
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    def open_files(self) -> int:
        assert self.process
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

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
        assert not violations(state, "state")
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
    service.finds(finding(), finding("b", caused_by=["a"]))
    service.start()
    wait_for(lambda: len(service.journal.entries) == 2)
    assert service.journal.of(Kind.APPEARED) == ["a is wrong", "b is wrong (because of a)"]
    assert service.looks == [""]
    wait_for(service.saved)
    assert [f["id"] for f in service.saved()["findings"]] == ["a", "b"]
    assert abs(service.saved()["checked"] - time.time()) < 30
    wait_for((service.state / "issue").exists)
    assert "a is wrong" in (service.state / "issue").read_text()


def test_prompts_that_are_there_already_are_printed_again_when_what_they_say_changes(service: Service) -> None:
    prompts = service.base / "agetty.reload"
    prompts.touch()

    def touched_since(moment: int) -> bool:
        return prompts.stat().st_mtime_ns > moment

    service.start()
    service.looked(1)
    said = prompts.stat().st_mtime_ns
    service.packages()
    service.looked(2)
    assert not touched_since(said), "nothing has changed"
    service.finds(finding())
    service.packages()
    wait_for(lambda: touched_since(said))
    assert "a is wrong" in (service.state / "issue").read_text()


def test_from_an_event_to_an_alert_and_back(service: Service) -> None:
    service.start()
    service.looked(1)
    assert service.journal.entries == []
    service.finds(finding())
    service.kernel(XID % (1, 79))
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    assert [quoted(e["MESSAGE"]) for e in service.journal.entries] == [XID % (1, 79), "a is wrong"]
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
        service.kernel(XID % (number, 79))
        service.kernel("NVRM: loading NVIDIA UNIX x86_64 Kernel Module")
    service.looked(3)
    assert len(service.looks) == 3
    assert set(service.looks[2].split()) == {*LOOK_AT[Topic.GPU], *LOOK_AT[Topic.DRIVER]}


def test_a_file_that_a_finding_is_about_is_looked_at_again_with_its_rule_alone(service: Service) -> None:
    (service.root / "etc/environment").write_text("bad")
    service.finds(finding(files=["/etc/environment", "/etc/none"]))
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
    service.finds(finding(next_boot=True))
    service.start()
    wait_for(lambda: service.journal.of(Kind.NEXT_BOOT))
    service.finds()
    service.kernel(XID % (1, 79))
    service.looked(2)
    time.sleep(0.1)
    assert service.journal.of(Kind.GONE) == []
    service.packages()
    wait_for(lambda: service.journal.of(Kind.GONE))


def test_a_look_that_hangs_is_ended_with_all_below_it(service: Service) -> None:
    service.does(f"sleep 600 & echo $! > {service.base}/pid; trap '' TERM; sleep 600")
    service.start(watchdog="300000", look_limit=1.0)
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    assert service.journal.of(Kind.NOT_CHECKED) == ["a check failed: it did not finish within 1 seconds"]
    pid = (service.base / "pid").read_text().strip()
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])
    service.finds(finding())
    service.packages()
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    assert service.manager.entries.count({"WATCHDOG": "1"}) >= 4


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo garbage", "its result is not valid"),
        ("true", "its result is not valid"),
        ("echo null", "its result is not valid"),
        ("echo '{}'", "its result is not valid"),
        (
            """echo '{"findings": [{}], "judged": [], "rules": [], "busy": "", "problem": "", "unchecked": ""}'""",
            "its result is not valid",
        ),
        (
            """echo '{"findings": [], "judged": 3, "rules": [], "busy": "", "problem": "", "unchecked": ""}'""",
            "its result is not valid",
        ),
        (
            """echo '{"findings": [], "judged": [], "busy": "", "problem": "", "unchecked": ""}'""",
            "its result is not valid",
        ),
        ("head -c 300000 /dev/zero | tr '\\0' '['", "its result is not valid"),
        ("head -c 100 /dev/urandom", "its result is not valid"),
        ("echo '{\"findings\"'; exit 3", "it ended with status 3"),
        ("kill -9 $$", "it ended with status -9"),
        ("exec yes", "its output was too long"),
        ("exec >&-; sleep 600", "it did not finish"),
    ],
)
def test_a_look_that_goes_wrong_is_told_once_and_harms_nothing(service: Service, script: str, said: str) -> None:
    service.does(script)
    service.start()
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    (message,) = service.journal.of(Kind.NOT_CHECKED)
    assert message.startswith("a check failed: ")
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
    assert "could not start: No such file" in service.journal.of(Kind.NOT_CHECKED)[0]
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
    service.kernel(XID % (1, 79))
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


def test_alerts_wait_for_a_journal_that_is_restarted_and_events_keep_their_order(service: Service) -> None:
    service.start()
    service.looked(1)
    service.journal.close()
    texts = [XID % (gpu, 79) for gpu in range(20)]
    for text in texts:
        service.kernel(text)
    service.finds(finding())
    service.packages()
    wait_for(lambda: service.saved().get("findings"))
    service.looked(2)
    time.sleep(0.1)
    assert service.journal.entries == []
    service.journal.open()
    service.kernel(XID % (99, 79))
    wait_for(lambda: len(service.journal.entries) == 22)
    messages = [quoted(e["MESSAGE"]) for e in service.journal.entries]
    assert [m for m in messages if m != "a is wrong"] == [*texts, XID % (99, 79)]


def test_a_flood_of_the_kernel_gives_few_alerts_and_few_looks(service: Service) -> None:
    service.start(share=4.0, watchdog="500000")
    service.looked(1)
    for number in range(20_000):
        service.kernel(XID % (number % 99, 79))
        service.kernel("NVRM: nvCheckFailedNoLog: Check failed")
    service.packages()
    service.looked(2)
    wait_for(lambda: len(service.journal.entries) >= 64)
    time.sleep(0.2)
    assert len(service.journal.entries) == 64
    assert len(service.looks) <= 20
    assert service.memory() < 64 << 10


def test_where_nothing_happens_it_sleeps(service: Service) -> None:
    service.finds(finding(files=["/etc/environment"]))
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


def test_a_day_after_a_complete_check_the_next_one_needs_no_event(service: Service) -> None:
    service.start(daily=0.2)
    service.looked(3)
    assert set(service.looks) == {""}


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
    assert service.journal.of(Kind.GONE) == ["Resolved: a is wrong"]


def test_what_was_found_by_a_rule_that_is_no_longer_there_is_gone(service: Service) -> None:
    """After an upgrade, or when an administrator has taken his rule away."""
    service.finds(finding(), finding("b"))
    service.start()
    wait_for(lambda: len(service.saved().get("findings", ())) == 2)
    service.finds(finding("b"), judged="b", rules="")  # one did not load: nobody knows which
    service.packages()
    service.looked(2)
    assert service.journal.of(Kind.GONE) == []
    service.finds(judged="c", rules="b c")
    service.packages()
    wait_for(lambda: service.journal.of(Kind.GONE))
    assert service.journal.of(Kind.GONE) == ["Resolved: a is wrong"]
    wait_for(lambda: [f["id"] for f in service.saved()["findings"]] == ["b"])


def test_a_look_that_hung_in_the_kernel_is_buried_when_it_has_ended(service: Service, tmp_path: Path) -> None:
    """A process that can't be killed is left behind, and is nobody else's child."""
    children = service.base / "children"
    service.does(f"echo $$ >> {children}; exec >&-; sleep 3")
    service.start(kills="no")
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    pid = children.read_text().strip()
    wait_for(lambda: "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])
    service.finds()
    service.packages()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


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


def test_the_part_for_everybody_follows_the_schema_too(service: Service) -> None:
    service.finds(finding(), finding(id="b", subject="user:alice"))
    service.start()
    wait_for((service.state / "public.json").exists)
    wait_for(lambda: "checked" in json.loads((service.state / "public.json").read_text()))
    public = json.loads((service.state / "public.json").read_text())
    assert not violations(public, "state")
    assert [f["id"] for f in public["findings"]] == ["a"]


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
    assert "cannot be written" in message


# Asking for repairs.


class Repairer:
    """The other end of the repair socket. An answer may be what makes it."""

    def __init__(self, path: Path, *answers: str | Callable[[], str]) -> None:
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
                    answer = self._answers.pop(0)
                    channel.sendall((answer if isinstance(answer, str) else answer()).encode())


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
        finding("a", repair=None),
        finding("b", repair="low", caused_by=["a"]),
        finding("c", repair="low", next_boot=True),
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


NOT_YET = '{"ok": true, "outcome": "nothing-to-do"}\n'
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
    service.finds(finding("a"), finding("b", caused_by=["a"]))
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


def waiting(service: Service) -> Callable[[], str]:
    """From now on a repair waits for a restart; until root ends it, which comes before the answer that it held."""
    active = service.base / "active"
    active.mkdir()

    def held() -> str:
        active.rmdir()
        return APPLIED

    return held


def test_what_waits_for_a_restart_is_judged_after_the_start_and_before_anything_else_is_repaired(
    service: Service,
) -> None:
    """Root says whether it held; whether there is something to judge is seen without asking."""
    later = '{"ok": false, "error": "an earlier repair waits for a reboot"}\n'
    repairer = Repairer(service.base / "repair", NOT_YET, later, waiting(service), PREVIEW, APPLIED)
    service.finds(finding(repair="low"))
    service.start(longest_pause=0.2)
    wait_for(lambda: len(repairer.asked) == 5)
    assert [r["verb"] for r in repairer.asked] == ["confirm", "preview", "confirm", "preview", "apply"]
    assert repairer.asked[0] == {"version": 1, "verb": "confirm", "finding": "", "subject": "", "digest": ""}


def test_what_was_repaired_of_a_login_is_judged_when_somebody_has_got_in(service: Service) -> None:
    repairer = Repairer(service.base / "repair", NOT_YET, waiting(service))
    service.start()
    wait_for(lambda: repairer.asked)
    service.logs_in()
    wait_for(lambda: len(repairer.asked) == 2)
    assert repairer.asked[1]["verb"] == "confirm"
    assert service.looks[:2] == ["", " ".join(LOOK_AT[Topic.LOGGED_IN])]


def test_where_a_repair_waits() -> None:
    assert str(Store("/").active) == watch.WAITING


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


def test_a_login_screen_that_is_disabled_is_looked_at_as_logins_are(service: Service) -> None:
    alias = service.root / "etc/systemd/system/display-manager.service"
    alias.symlink_to("/lib/systemd/system/lightdm.service")
    service.start()
    service.looked(1)
    (alias.parent / "ssh.service").symlink_to("/dev/null")
    alias.unlink()
    service.looked(2)
    assert service.looks == ["", " ".join(LOOK_AT[Topic.LOGIN_SCREEN])]


# It lives for years.


def one_round(service: Service, number: int) -> None:
    """An event of each kind, about something else each time; findings come and go."""
    for line in (
        XID % (number % 256, number % 150),
        "NVRM: API mismatch: the client has the version 570.86",
        f"usb 1-1: new device number {number}, module nothing",
        f"NVRM: GPU at PCI:0000:{number % 256:02x}:00: GPU-{number:08x}",
    ):
        service.kernel(line)
    service.device("remove" if number % 2 else "add")
    service.session_begins(f"c{number}", f"user{number // 3 % 300}")
    if number:
        service.session_ends(f"c{number - 1}")
    (service.root / f"lib/modules/6.1.{number}").mkdir()
    (service.root / f"boot/vmlinuz-6.1.{number}").write_text("x")
    (service.root / "etc/environment").write_text(str(number))
    service.packages()
    if number % 10 == 0:
        files = ["/etc/environment", f"/etc/{number}"]
        people = [finding("a", subject=f"user:user{n}", files=files, title=f"{number} " + "x" * 200) for n in range(5)]
        service.finds(*people, finding("b", title="y" * (number % 100))) if number % 20 else service.finds()


def test_its_memory_after_a_days_events_is_that_of_the_start(service: Service) -> None:
    service.start()
    service.looked(1)
    numbers = itertools.count()

    def rounds(least: int, looks: int) -> None:
        """A slow machine looks less often."""
        for number in numbers:
            one_round(service, number)
            if number == 500:
                service.journal.close()
            if number == 600:
                service.journal.open()
            time.sleep(0.002)
            if number >= least and len(service.looks) >= looks:
                return

    rounds(100, 10)
    before, open_before = service.memory(), service.open_files()
    rounds(1100, 30)
    after = service.memory()
    assert service.lives()
    assert wait_for(lambda: service.open_files() <= open_before)
    assert after <= 1.1 * before, f"{before} KiB, then {after} KiB"


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
/* Two numbers in a file: how far the wall clock was set, and how long the machine has slept, in seconds. */
static long off(int which) {
  long given[2] = {0, 0};
  FILE *file = fopen(getenv("DLHEALTH_CLOCK"), "r");
  if (file) { if (fscanf(file, "%ld %ld", &given[0], &given[1]) != 2) given[0] = given[1] = 0; fclose(file); }
  return given[which];
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += off(0);
  if (clock == CLOCK_BOOTTIME) now->tv_sec += off(1);
  return status;
}
"""
DAY = 86400


class Clock:
    """A library in front of the C library, which every program of the test has loaded."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
        (folder / "clock.c").write_text(CLOCK)
        library = folder / "clock.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "clock.c", "-ldl"], check=True)
        self._file = folder / "clock"
        self.environment = {"LD_PRELOAD": str(library), "DLHEALTH_CLOCK": str(self._file)}
        self.set()

    def set(self, wall: int = 0, slept: int = 0) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{wall} {slept}")
        new.rename(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def test_the_clock_of_these_tests(clock: Clock) -> None:
    clock.set(wall=-DAY, slept=2 * DAY)
    words = [
        sys.executable,
        "-c",
        "import time; print(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=clock.environment)
    wall, boot, monotonic = map(float, done.stdout.split())
    assert abs(wall - time.time() + DAY) < 60
    assert abs(boot - time.clock_gettime(time.CLOCK_BOOTTIME) - 2 * DAY) < 60
    assert abs(monotonic - time.monotonic()) < 60


@pytest.mark.parametrize("jump", [-DAY, DAY, -400 * DAY, 400 * DAY])
def test_a_wall_clock_that_is_set_repeats_no_alert_loses_none_and_breaks_no_pause(
    service: Service, clock: Clock, jump: int
) -> None:
    def finds(*findings: dict[str, str]) -> None:
        """In a look that takes long enough to be paused after."""
        service.finds(*findings)
        service.does("sleep 0.1\n" + (service.base / "behaviour").read_text())

    finds()
    service.start(share=4.0, watchdog="400000", **clock.environment)
    service.kernel(XID % (1, 79))
    finds(finding())
    service.packages()
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    clock.set(wall=jump)
    before = service.manager.entries.count({"WATCHDOG": "1"})
    service.kernel(XID % (1, 79))
    service.kernel(XID % (2, 48))
    service.packages()
    wait_for(lambda: len(service.journal.of(Kind.DRIVER_EVENT)) == 2)
    clock.set()
    service.kernel(XID % (1, 79))
    finds(finding(), finding("b"))
    service.packages()
    wait_for(lambda: len(service.journal.of(Kind.APPEARED)) == 2)
    assert service.journal.of(Kind.APPEARED) == ["a is wrong", "b is wrong"]
    assert service.journal.of(Kind.DRIVER_EVENT) == [XID % (1, 79), XID % (2, 48)]
    time.sleep(0.5)
    started, looks = time.monotonic(), len(service.looks)
    clock.set(wall=jump)
    while time.monotonic() < started + 1.5:
        service.packages()
        time.sleep(0.01)
    assert 1 <= len(service.looks) - looks <= 5, "without a pause they would be 15"
    assert service.manager.entries.count({"WATCHDOG": "1"}) >= before + 4


def test_a_login_loop_while_the_wall_clock_is_set(service: Service, clock: Clock) -> None:
    service.start(**clock.environment)
    service.looked(1)
    for number, jump in enumerate((0, DAY, -DAY)):
        clock.set(wall=jump)
        service.session_begins(f"c{number}", "alice")
        time.sleep(0.2)
        service.session_ends(f"c{number}")
    wait_for(lambda: "login" in service.looks)


def test_a_machine_that_slept(service: Service, clock: Clock) -> None:
    """The look that was under way goes on, and what happened before is worth telling again."""
    service.does("sleep 0.4\n" + (service.base / "behaviour").read_text())
    service.start(watchdog="400000", **clock.environment)
    wait_for(lambda: len(service.looks) == 1)
    service.kernel(XID % (1, 79))
    wait_for(lambda: service.journal.of(Kind.DRIVER_EVENT))
    clock.set(wall=8 * 3600, slept=8 * 3600)
    service.kernel(XID % (1, 79))
    service.looked(2)
    assert service.journal.of(Kind.DRIVER_EVENT) == [XID % (1, 79)] * 2
    assert service.journal.of(Kind.NOT_CHECKED) == []


@as_root
def test_a_thousand_findings_while_the_journal_is_away_are_all_told(service: Service) -> None:
    service.finds()
    service.start()
    wait_for(lambda: service.looks)
    service.journal.close()
    names = [f"f{n}" for n in range(1000)]
    service.finds(*(finding(name) for name in names))
    service.kernel(XID % (1, 79))
    wait_for(lambda: len(service.saved().get("findings", ())) == 1000)
    service.journal.open()
    wait_for(lambda: len(service.journal.of(Kind.APPEARED)) == 1000)
    assert sorted(service.journal.of(Kind.APPEARED)) == sorted(f"{name} is wrong" for name in names)


def test_a_full_disk_below_its_state(service: Service) -> None:
    with tmpfs(service.state, "size=64k"):
        filler = service.state / "filler"
        service.start()
        service.looked(1)
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        service.finds(finding())
        service.packages()
        wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
        assert "no space left on device" in service.journal.of(Kind.NOT_CHECKED)[0].lower()
        service.finds(finding(), finding("b"))
        service.packages()
        wait_for(lambda: len(service.journal.of(Kind.APPEARED)) == 2)
        assert len(service.journal.of(Kind.NOT_CHECKED)) == 1
        filler.unlink()
        service.packages()
        wait_for(lambda: [f["id"] for f in service.saved().get("findings", ())] == ["a", "b"])
        wait_for(lambda: "b is wrong" in (service.state / "issue").read_text())
        assert service.stop() == 0


LOOK = """
import json, os, sys
from dlhealth.engine import examine
from dlhealth.engine.load import Loaded, load_rules
from dlhealth.host.exec import run
from dlhealth.host.root import RootHost
from dlhealth.service import check as module

class Running(RootHost):
    def _run(self, program, arguments, timeout):
        return run([program, *arguments], timeout, environment=json.loads(os.environ["DLHEALTH_NVML"]))

loaded = load_rules("/nonexistent")
wanted = [r for r in loaded.rules if r.id == "gpu-driver-hung"]
examine.load_rules = lambda: Loaded((*wanted, *module_of_tests()), ())
module.live_host = lambda: Running(os.environ["DLHEALTH_ROOT"], live=True)
module.main(())
"""


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the stand-in for the library that asks the driver."""
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    source = PROJECT / "tests/lab/nvml/stand_in.c"
    name = "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True)
    return folder


RAISES = """
from dlhealth.api import Evidence, Layer, Rule, Severity, Stage
class Raising(Rule):
    id = "raising"
    title = "Never found"
    layer, stage, severity = Layer.RUNTIME, Stage.REBOOT, Severity.ERROR
    def detect(self):
        raise ZeroDivisionError("the rule's own")
def module_of_tests():
    return [Raising()] if os.environ.get("DLHEALTH_RAISES") else []
"""


def looks_for_real(service: Service, nvml: Path, script: str, raises: str = "") -> None:
    """The whole look, with the real child that asks NVML, at a machine whose driver is loaded."""
    machine = Machine.debian12_gpu().file("/proc/driver/nvidia/gpus/0000:01:00.0/information")
    machine.file("/dev/nvidiactl").file("/dev/nvidia0").build(service.base / "machine")
    (service.base / "script").write_text(script)
    (service.base / "look.py").write_text(LOOK.replace("module.main(())", "") + RAISES + "module.main(())\n")
    for_nvml = json.dumps({"LD_LIBRARY_PATH": str(nvml), "DLHEALTH_NVML_SCRIPT": str(service.base / "script")})
    service.does(
        f"export DLHEALTH_NVML={shlex.quote(for_nvml)} DLHEALTH_ROOT={service.base / 'machine'} DLHEALTH_RAISES={raises}\n"
        f"PYTHONPATH={PROJECT} exec {sys.executable} {service.base / 'look.py'}\n"
    )


NVML_SOUND = (
    "driver 535.261.03\nnvml 12.535.261.03\ncuda 12020\ndevice 00000000:01:00.0 6.1 NVIDIA GeForce GTX 1080 Ti\n"
)


def test_a_driver_that_hangs_below_it_is_named_and_the_watcher_goes_on(service: Service, nvml: Path) -> None:
    looks_for_real(service, nvml, f"{NVML_SOUND}hang nvmlInitWithFlags\n")
    service.start(watchdog="400000")
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    (message,) = service.journal.of(Kind.APPEARED)
    assert "does not answer: nvmlInit does not return" in message
    # The child was given two seconds; meanwhile the manager heard ten times that all is well.
    assert service.manager.entries.count({"WATCHDOG": "1"}) >= 6
    looks_for_real(service, nvml, NVML_SOUND)
    service.kernel("NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x65:1860)")
    wait_for(lambda: service.journal.of(Kind.GONE))
    assert service.journal.of(Kind.NOT_CHECKED) == []


def test_the_health_of_the_cards_is_kept_for_who_asks(service: Service, nvml: Path) -> None:
    looks_for_real(service, nvml, f"{NVML_SOUND}value nvmlDeviceGetTemperature 44\n")
    service.start()
    wait_for(service.saved)
    assert service.saved()["cards"] == {"0000:01:00.0": {"temperature": 44}}
    assert json.loads((service.state / "public.json").read_text())["cards"] == service.saved()["cards"]


def test_a_driver_that_answers_nonsense_is_no_finding_and_no_end(service: Service, nvml: Path) -> None:
    looks_for_real(service, nvml, f"{NVML_SOUND}nonsense nvmlSystemGetDriverVersion\nnonsense nvmlDeviceGetName\n")
    service.start()
    wait_for(service.saved)
    assert service.saved()["findings"] == []
    looks_for_real(service, nvml, f"{NVML_SOUND}segfault nvmlDeviceGetUUID\n")
    service.packages()
    service.looked(2)
    assert service.lives()


def test_a_rule_that_raises_is_named_and_the_others_judge(service: Service, nvml: Path) -> None:
    looks_for_real(service, nvml, f"{NVML_SOUND}hang nvmlInitWithFlags\n", raises="yes")
    service.start()
    wait_for(lambda: service.journal.of(Kind.APPEARED))
    wait_for(lambda: service.journal.of(Kind.NOT_CHECKED))
    assert service.journal.of(Kind.NOT_CHECKED) == ["the rule raising failed: ZeroDivisionError: the rule's own"]
