"""Who is let in at the repair socket: a real socket, real users, and a program that answers slowly."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlhealth.service.door import _Allowance

PROJECT = Path(__file__).parents[3]
RUN = """
import socket, sys
from dlhealth.service import door
door._IDLE = float(sys.argv[2])
door.Door(socket.socket(fileno=int(sys.argv[1])), [sys.argv[3]]).run()
"""
ANSWERS = """#!/bin/sh
echo x >> {log}
read -r line
sleep {seconds}
printf '{{"ok": true}}\\n' >&0
"""
FLOOD = """
import os, socket, sys, time
os.setuid(30001)
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    channel = socket.socket(socket.AF_UNIX)
    try:
        channel.connect(sys.argv[1])
        channel.sendall(b"x\\n")
    except OSError:
        pass
    channel.close()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


class Running:
    def __init__(self, folder: Path, idle: float, seconds: float) -> None:
        folder.chmod(0o755)
        self.path, self.log = folder / "socket", folder / "log"
        program = folder / "answers"
        program.write_text(ANSWERS.format(log=self.log, seconds=seconds))
        program.chmod(0o755)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        self.path.chmod(0o666)
        listener.listen(4096)
        words = [sys.executable, "-c", RUN, str(listener.fileno()), str(idle), str(program)]
        self.process = subprocess.Popen(words, cwd=PROJECT, pass_fds=[listener.fileno()])
        listener.close()

    def ask(self, uid: int = 0) -> dict[str, object]:
        code = (
            f"import os, socket; os.setuid({uid}); c = socket.socket(socket.AF_UNIX)\n"
            f"c.connect({str(self.path)!r}); c.settimeout(20)\ntry: c.sendall(b'x\\n')\nexcept OSError: pass\n"
            "try: print(c.makefile().readline() or '{}')\nexcept OSError: print('{}')"
        )
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    def ask_until_refused(self, uid: int) -> list[dict[str, object]]:
        """The answers to requests of one process, which sends them faster than one in three seconds on any machine."""
        code = (
            f"import os, socket, time; os.setuid({uid})\n"
            "for number in range(300):\n"
            f"    c = socket.socket(socket.AF_UNIX); c.connect({str(self.path)!r}); c.settimeout(20)\n"
            "    try: c.sendall(b'x\\n'); line = c.makefile().readline()\n"
            "    except OSError: line = ''\n"
            "    print(line.strip() or '{}')\n"
            "    if 'too many requests of' in line: break\n"
            "    time.sleep(0.1)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=600, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    @property
    def started(self) -> int:
        return len(self.log.read_text().split()) if self.log.exists() else 0


@pytest.fixture
def running(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Running]]:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("test_", "popen-", "pytest-")):
            folder.chmod(0o755)
    made: list[Running] = []
    yield made
    for one in made:
        one.process.kill()
        one.process.wait()


@as_root
def test_a_flood_of_one_user_keeps_nobody_else_out(running: list[Running], tmp_path: Path) -> None:
    door = Running(tmp_path, 60, 0.05)
    running.append(door)
    assert door.ask() == {"ok": True}
    floods = [subprocess.Popen([sys.executable, "-c", FLOOD, str(door.path), "60"]) for _ in range(4)]
    try:
        time.sleep(1)
        before = door.started
        for uid in (0, 30002, 0, 0):
            assert door.ask(uid) == {"ok": True}
        # The ten that anybody may make, one each three seconds, and those four.
        assert before <= 10 + 1 + 20
    finally:
        for flood in floods:
            flood.kill()
            flood.wait()
    assert door.process.poll() is None


@as_root
def test_who_asks_too_often_is_told_so(running: list[Running], tmp_path: Path) -> None:
    door = Running(tmp_path, 60, 0)
    running.append(door)
    refused = door.ask_until_refused(30001)[-1]
    assert "too many requests of user 30001" in str(refused["error"])
    assert refused["later"]
    assert door.ask(30003) == {"ok": True}


def test_it_ends_when_nobody_asks_and_not_before_all_is_answered(running: list[Running], tmp_path: Path) -> None:
    door = Running(tmp_path, 0.2, 1)
    running.append(door)
    assert door.ask() == {"ok": True}
    assert door.process.wait(120) == 0  # a busy machine


def test_who_is_stopped_stops_what_is_at_work(running: list[Running], tmp_path: Path) -> None:
    door = Running(tmp_path, 60, 60)
    running.append(door)
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(str(door.path))
    channel.sendall(b"x\n")
    deadline = time.monotonic() + 20
    while not door.started and time.monotonic() < deadline:
        time.sleep(0.05)
    door.process.send_signal(signal.SIGTERM)
    assert door.process.wait(120) == 0  # a busy machine


def test_an_allowance_fills_again() -> None:
    allowance = _Allowance()
    assert [allowance.take(1, 0.0) for _ in range(11)] == [True] * 10 + [False]
    assert allowance.take(2, 0.0)
    assert not allowance.take(1, 2.9)
    assert allowance.take(1, 3.1)
    for uid in range(5000):
        allowance.take(uid, 4.0)
    assert len(allowance._left) <= 256
