"""Programs are bounded, whatever they do. Real programs; the guard of the other tests is off here."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dlhealth.host import exec as door
from dlhealth.host.exec import OUTPUT_LIMIT, as_root, find_program, held, run

pytestmark = pytest.mark.real_programs


def test_output_and_status() -> None:
    output = run(["sh", "-c", "echo out; echo err >&2; exit 3"], 5)
    assert (output.status, output.stdout, output.stderr, output.problem) == (3, "out\n", "err\n", "")


def test_the_environment_of_the_caller_does_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/broken")
    monkeypatch.setenv("PATH", "/broken")
    printed = run(["env"], 5).stdout.splitlines()
    assert "LC_ALL=C.UTF-8" in printed
    assert not [line for line in printed if "broken" in line]


def test_is_killed_at_its_limit_with_all_its_children() -> None:
    started = time.monotonic()
    output = run(["sh", "-c", "sleep 60 & sleep 60"], 0.3)
    assert output.status is None
    assert "did not answer within 0.3 seconds" in output.problem
    assert time.monotonic() - started < 5


def test_what_it_leaves_running_is_not_waited_for() -> None:
    """As a service that a package starts, and that keeps the output of its maintainer script."""
    started = time.monotonic()
    output = run(["sh", "-c", "echo done; sleep 20 &"], 15)
    assert (output.status, output.stdout, output.problem) == (0, "done\n", "")
    assert time.monotonic() - started < 10


def test_closing_its_output_does_not_give_it_more_time() -> None:
    output = run(["sh", "-c", "exec >&- 2>&-; sleep 60"], 0.3)
    assert output.status is None
    assert "did not finish" in output.problem


def test_endless_output_is_cut() -> None:
    output = run(["yes"], 20)
    assert output.status is None
    assert "printed more than" in output.problem
    assert len(output.stdout) <= OUTPUT_LIMIT + (1 << 16)


def test_absent_program() -> None:
    assert run(["no-such-program"], 1).problem == "no-such-program is not installed"
    assert find_program("/no/such") is None
    assert find_program("sh") in ("/usr/bin/sh", "/bin/sh")


class TestHeld:
    """A program that runs as long as something is under way."""

    def ended(self, pid: int) -> bool:
        """Nobody waits for a child of a process that was killed: it may be left as a zombie."""
        for _ in range(100):
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            time.sleep(0.05)
        return False

    def test_it_runs_when_the_block_begins_and_has_ended_when_it_is_left(self, tmp_path: Path) -> None:
        noted = tmp_path / "pid"
        with held(["sh", "-c", f"echo $$ > {noted}; exec cat"], 20) as runs:
            assert runs
            pid = int(noted.read_text())
            assert psutil.pid_exists(pid)
        assert not psutil.pid_exists(pid)

    def test_it_ends_with_an_exception_too(self, tmp_path: Path) -> None:
        noted = tmp_path / "pid"
        with pytest.raises(KeyError), held(["sh", "-c", f"echo $$ > {noted}; exec cat"], 20):
            raise KeyError
        assert not psutil.pid_exists(int(noted.read_text()))

    @pytest.mark.parametrize(
        "argv", [["no-such-program"], ["sh", "-c", "echo Failed to inhibit >&2; exit 1"], ["true"], ["sleep", "60"]]
    )
    def test_what_does_not_run_is_no_error(self, argv: list[str]) -> None:
        started, open_before = time.monotonic(), psutil.Process().num_fds()
        with held(argv, 0.3) as runs:
            assert not runs
        assert time.monotonic() - started < 5
        assert psutil.Process().num_fds() == open_before

    def test_what_can_not_be_started_is_no_error(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        broken.write_text("no program")
        broken.chmod(0o755)
        open_before = psutil.Process().num_fds()
        with held([str(broken)], 5) as runs:
            assert not runs
        assert psutil.Process().num_fds() == open_before

    def test_it_ends_when_its_starter_is_killed_though_another_program_lives_on(self, tmp_path: Path) -> None:
        noted, other = tmp_path / "pid", tmp_path / "other"
        script = (
            "from dlhealth.host.exec import held, start\n"
            f"with held(['sh', '-c', 'echo $$ > {noted}; exec cat'], 20) as runs:\n"
            f"    start(['/bin/sh', '-c', 'echo $$ > {other}.new; mv {other}.new {other}; exec sleep 60'])\n"
            "    print(runs, flush=True)\n"
            "    input()\n"
        )
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
            assert starter.stdout
            assert starter.stdout.readline() == b"True\n"
            while not other.exists():
                time.sleep(0.05)
            starter.kill()
        try:
            assert self.ended(int(noted.read_text()))
        finally:
            os.kill(int(other.read_text()), signal.SIGKILL)


def test_a_command_for_root_can_be_typed_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PROGRAM_FOLDERS", (str(tmp_path),))
    assert as_root("dlhealth fix") == "dlhealth fix"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert as_root("dlhealth fix") == "su -c 'dlhealth fix'"
    (tmp_path / "sudo").touch(mode=0o755)
    assert as_root("dlhealth fix") == "sudo dlhealth fix"
