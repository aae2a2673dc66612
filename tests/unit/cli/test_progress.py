"""What a person at a terminal sees while a diagnosis takes long, on a real pseudo terminal."""

import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from dlhealth.cli import progress
from dlhealth.cli.progress import Progress, Steps, in_words

ERASE = "\r\033[K"


class Terminal:
    """Standard error is its one end; what was drawn comes out of the other."""

    def __init__(self) -> None:
        self._end, inner = os.openpty()
        self.stream = open(inner, "w")  # noqa: SIM115  (closed by the fixture)

    def drawn(self, until: Callable[[str], bool] | None = None) -> str:
        """What came so far; with `until`, as soon as it holds, within five seconds."""
        limit, text = time.monotonic() + 5, ""
        while True:
            left = limit - time.monotonic() if until and not until(text) else 0
            if not select.select([self._end], [], [], max(0.0, left))[0]:
                return text
            text += os.read(self._end, 4096).decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self._end)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=made.stream))  # pytest itself sets sys.stderr
    monkeypatch.setattr(progress, "_PATIENCE", 0.02)
    yield made
    made.close()


def test_a_step_that_takes_long_is_named_and_the_line_is_gone_afterwards(terminal: Terminal) -> None:
    with Progress() as shown:
        shown.begins("DriverPackages")
        drawn = terminal.drawn(lambda text: "..." in text)
        assert drawn.startswith(f"{ERASE}Checking driver packages ...")
    assert terminal.drawn(lambda text: text.endswith(ERASE)).endswith(ERASE)


def test_each_long_step_takes_the_place_of_the_one_before(terminal: Terminal) -> None:
    with Progress() as shown:
        for step in ("Journal", "Packages"):
            shown.begins(step)
            drawn = terminal.drawn(lambda text, step=step: step.lower() in text)
            assert f"{ERASE}Checking {step.lower()} ..." in drawn


def test_a_fact_that_needed_another_is_named_again(terminal: Terminal) -> None:
    with Progress() as shown:
        shown.begins("Environments")
        shown.begins("Users")
        terminal.drawn(lambda text: "users" in text)
        shown.ends()
        assert "Checking environments ..." in terminal.drawn(lambda text: "environments" in text)


def test_what_is_waited_for_is_named_with_its_file_system(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LONG", 0.1)
    with Progress() as shown:
        shown.begins("Environments")
        shown.asks(("read", "/proc/\x1b" + 200 * "x" + "/version"))
        drawn = terminal.drawn(lambda text: "version" in text)
    line = drawn.rpartition(ERASE)[2].strip()
    assert line.startswith(r"Checking environments: /proc/\x1bxxx")
    assert line.endswith("xxx/version (proc) ...")
    assert len(line) == 79


def test_steps_that_are_done_in_time_draw_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 30.0)
    started = time.monotonic()
    with Progress() as shown:
        shown.begins("Journal")
    assert terminal.drawn() == ""
    assert time.monotonic() - started < 10  # the end is not waited for


def test_nothing_is_drawn_before_the_first_step(terminal: Terminal) -> None:
    with Progress():
        time.sleep(0.2)
    assert terminal.drawn() == ""


def test_the_line_is_gone_also_when_a_step_fails(terminal: Terminal) -> None:
    with pytest.raises(ValueError, match="broken"), Progress() as shown:
        shown.begins("Journal")
        terminal.drawn(lambda text: "journal" in text)
        raise ValueError("broken")
    assert terminal.drawn(lambda text: text.endswith(ERASE)).endswith(ERASE)
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("(_watch)")]


def test_a_stream_that_is_no_terminal_gets_nothing_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    before = threading.active_count()
    with Progress() as shown:
        shown.begins("Journal")
        assert threading.active_count() == before
        time.sleep(0.1)
    assert stream.getvalue() == ""


def test_a_step_of_a_repair_stays_and_its_time_is_told_below_it(terminal: Terminal) -> None:
    with Steps() as shown:
        shown("[1/2] dkms install nvidia/535.1 -k 6.1")
        drawn = terminal.drawn(lambda text: "s ..." in text)
        assert drawn.startswith(f"  [1/2] dkms install nvidia/535.1 -k 6.1\r\n{ERASE}     0 s ...")
        shown("[2/2] ldconfig")
        assert f"{ERASE}  [2/2] ldconfig\r\n" in terminal.drawn(lambda text: "ldconfig" in text)
        shown.pause()
        terminal.drawn()
        time.sleep(0.1)
        assert terminal.drawn() == ""
    assert "ldconfig" not in terminal.drawn()


def test_minutes_are_told_as_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Steps() as shown:
        shown("[1/1] dkms install")
        shown._since -= 125
        assert shown._words() == "     2 min 5 s ..."
    assert stream.getvalue() == "  [1/1] dkms install\n"


def test_a_terminal_that_was_closed_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    end, inner = os.openpty()
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    stream = open(inner, "w")  # noqa: SIM115
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    with Steps() as shown:
        os.close(end)
        shown("[1/2] dkms install")
        time.sleep(0.05)
        shown("[2/2] ldconfig")
    with pytest.raises(OSError, match="Input/output error"):
        stream.close()


def test_a_terminal_that_can_erase_nothing_gets_lines_alone(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Progress() as checks:
        checks.begins("Journal")
        time.sleep(0.1)
    with Steps() as steps:
        steps("ldconfig")
        time.sleep(0.1)
    assert terminal.drawn() == "  ldconfig\r\n"


def test_the_name_of_a_file_is_no_command_to_the_terminal(terminal: Terminal) -> None:
    with Steps() as shown:
        shown("move /home/alice/\x1b]0;new title\x07 aside")
        drawn = terminal.drawn(lambda text: "aside" in text)
    assert drawn.startswith(r"  move /home/alice/\x1b]0;new title\x07 aside")


@pytest.mark.parametrize(
    ("name", "words"), [("DriverPackages", "driver packages"), ("Gpus", "gpus"), ("", ""), ("ld cache", "ld cache")]
)
def test_the_name_of_a_fact_in_words(name: str, words: str) -> None:
    assert in_words(name) == words
