"""Programs are bounded, whatever they do. Real programs; the guard of the other tests is off here."""

import time

import pytest

from dlhealth.host.exec import OUTPUT_LIMIT, find_program, run

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


def test_closing_its_output_does_not_give_it_more_time() -> None:
    output = run(["sh", "-c", "exec >&- 2>&-; sleep 60"], 0.3)
    assert output.status is None
    assert "did not end" in output.problem


def test_endless_output_is_cut() -> None:
    output = run(["yes"], 20)
    assert output.status is None
    assert "printed more than" in output.problem
    assert len(output.stdout) <= OUTPUT_LIMIT + (1 << 16)


def test_absent_program() -> None:
    assert run(["no-such-program"], 1).problem == "no-such-program is not installed"
    assert find_program("/no/such") is None
    assert find_program("sh") in ("/usr/bin/sh", "/bin/sh")
