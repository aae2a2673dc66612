"""That a diagnosis ends whatever the machine does, and says what it could not check."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlhealth.engine.facts import Facts
from dlhealth.host import Host, Unreadable, supervise
from dlhealth.host.base import Watch
from dlhealth.host.root import RootHost, live_host
from dlhealth.host.supervise import Unfinished, supervised
from dlhealth.probes import Options, Unavailable
from tests.fuse import beside

DOCTOR = [sys.executable, "-m", "dlhealth", "doctor"]


def test_what_the_child_finds_and_reads_comes_back() -> None:
    host = live_host()

    def work(watch: Watch) -> tuple[int, str | None]:
        return os.getpid(), host.text("/proc/sys/kernel/ostype")

    child, text = supervised(host, work, answers=True)
    assert child != os.getpid()
    assert text == "Linux\n"
    assert host.seen[("read", "/proc/sys/kernel/ostype")] == b"Linux\n"


def test_a_folder_needs_no_child(tmp_path: Path) -> None:
    assert supervised(RootHost(str(tmp_path)), lambda watch: os.getpid()) == os.getpid()


class Strange(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


@pytest.mark.parametrize(("error", "kind"), [(ValueError("x"), ValueError), (Strange("x", "y"), RuntimeError)])
def test_an_error_comes_back_with_its_place(error: Exception, kind: type[Exception]) -> None:
    def work(watch: Watch) -> None:
        raise error

    with pytest.raises(kind, match="x") as raised:
        supervised(live_host(), work)
    assert f"{__file__}:" in raised.value.place  # type: ignore[attr-defined]


class Slow:
    """A fact that takes its time, by itself."""

    how = "wait"

    @classmethod
    def probe(cls, host: Host) -> "Slow":
        while cls.how == "burn":
            sum(range(1000))
        while cls.how == "wait":
            time.sleep(1)
        while cls.how == "ask":
            host.exists(f"/{time.monotonic()}")
        return cls()


@pytest.mark.parametrize("how", ["burn", "wait", "ask"])
def test_a_fact_that_takes_too_long_is_given_up(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_CPU_SECONDS", 0.3), ("_SECONDS", 0.6), ("_MERCY", 0.3)):
        monkeypatch.setattr(supervise, name, seconds)
    monkeypatch.setattr(Slow, "how", how)
    host = live_host()

    def work(watch: Watch) -> str:
        try:
            Facts(host, Options(), watch).get(Slow)
        except Unavailable as problem:
            return str(problem)
        return "done"

    said = supervised(host, work)
    assert "not checked" in said


def test_what_comes_after_the_time_is_up_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "_CPU_SECONDS", 0.1)
    monkeypatch.setattr(Slow, "how", "")
    host = live_host()

    def work(watch: Watch) -> tuple[str, str]:
        host.exists("/etc")
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        assert host.exists("/etc")  # known already
        with pytest.raises(Unreadable) as unread:
            host.exists("/usr")
        with pytest.raises(Unavailable) as unavailable:
            Facts(host, Options(), watch).get(Slow)
        return str(unread.value), str(unavailable.value)

    assert supervised(host, work) == ("/usr: not checked: no time left", "not checked: no time left")


def test_work_that_never_ends_is_no_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "_SECONDS", 0.2)
    monkeypatch.setattr(supervise, "_MERCY", 0.2)

    def work(watch: Watch) -> None:
        while True:
            time.sleep(1)

    with pytest.raises(Unfinished):
        supervised(live_host(), work)


def test_a_ctrl_c_right_after_the_fork_ends_the_child_too() -> None:
    code = (
        "import os, signal, time; from dlhealth.host.supervise import supervised; from dlhealth.host.root import live_host\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # where this runs in the background, it is ignored
        "fork = os.fork\n"
        "def forked():\n"
        "    child = fork()\n"
        "    if child: print(child, flush=True); os.kill(os.getpid(), signal.SIGINT)\n"
        "    return child\n"
        "os.fork = forked\n"
        "supervised(live_host(), lambda watch: time.sleep(60))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert parent.wait(30) == -signal.SIGINT
        assert ended(child)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_child_ends_with_its_parent(number: signal.Signals) -> None:
    code = (
        "import os, signal, time; from dlhealth.host.root import live_host\n"
        "from dlhealth.host.supervise import supervised\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under nohup, it is ignored
        "def work(watch):\n print(os.getpid(), flush=True); time.sleep(60)\n"
        "supervised(live_host(), work)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.send_signal(number)
        parent.wait(60)
    deadline = time.monotonic() + 10
    while not ended(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended(child)


def ended(process: int) -> bool:
    """Also where it waits for an init that does not care."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.usefixtures("fuse")
@pytest.mark.parametrize("at", ["/home/stuck", "/opt", "/srv", "/usr/share/nvidia"])
def test_doctor_beside_a_file_system_that_does_not_answer(at: str) -> None:
    ended = beside(["--at", at], DOCTOR)
    assert ended.status in (0, 1, 3, 6), ended.stderr


@pytest.mark.usefixtures("fuse")
def test_doctor_names_what_does_not_answer_and_checks_the_rest() -> None:
    silent = beside(["--at", "/home/stuck", "--person", "stuck"], [*DOCTOR, "--json"])
    assert "/home/stuck (fuse.sshfs) does not answer" in silent.stdout
    one_file = ["--at", "/home/stuck", "--person", "stuck", "--file", ".profile", "--stuck", ".bashrc"]
    ended = beside(one_file, [*DOCTOR, "--json"])
    assert "/home/stuck/.bashrc (fuse.sshfs) does not answer" in ended.stdout
    assert "/home/stuck/.profile (fuse.sshfs)" not in ended.stdout


@pytest.mark.usefixtures("fuse")
@pytest.mark.parametrize(
    "command",
    [
        ["fix", "--dry-run"],
        ["capture", "-o", "/home/bundle.tar.gz"],
        ["boot-check", "--next"],
        ["doctor", "--only", "cuda"],
        ["doctor", "--python", "/home/stuck/venv/bin/python"],
    ],
)
def test_every_command_ends(command: list[str]) -> None:
    ended = beside(["--at", "/home/stuck", "--person", "stuck"], [sys.executable, "-m", "dlhealth", *command])
    assert ended.status in (0, 1, 3, 6), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.usefixtures("fuse")
@pytest.mark.parametrize(
    "words",
    [
        ["capture", "-o", "/home/stuck/bundle.tar.gz"],
        ["report", "-o", "/home/stuck/report.html"],
        ["report", "--merge", "/home/stuck", "-o", "/home/merged.html"],
        ["baseline", "save", "--force", "-o", "/home/stuck/baseline.json"],
        ["baseline", "compare", "/home/stuck/baseline.json"],
        ["doctor", "--root", "/home/stuck"],
        ["doctor", "--root", "/home/stuck/bundle.tar.gz"],
        ["fix", "--dry-run", "--root", "/home/stuck"],
        ["undo", "--root", "/home/stuck"],
        ["history", "--root", "/home/stuck"],
    ],
)
def test_a_path_that_a_person_names_may_not_answer(words: list[str]) -> None:
    ended = beside(["--at", "/home/stuck"], [sys.executable, "-m", "dlhealth", *words])
    assert ended.status == 2
    assert "/home/stuck (fuse.sshfs) does not answer" in ended.stderr
