"""Runs a diagnosis in a child process, so that it ends whatever the machine does.

The read of a file may never return: its disk or server does not answer, and the waiting process cannot do anything
else. The parent only waits for the child. It gives up the path, or the fact, that blocks the child, and starts another
child that diagnoses without it.
"""

import os
import select
import signal
import struct
import sys
import time

# The module pickle also has a copy of everything in Python, which takes longer to load than a diagnosis takes to send.
from _pickle import PickleError, dumps, loads
from collections.abc import Callable, Mapping
from contextlib import suppress
from mmap import mmap
from types import FrameType
from typing import Any, TypeVar, cast

from dlhealth.host.base import Host, OutOfTime, Question, Watch
from dlhealth.host.root import RootHost
from dlhealth.records import NamedTuple

T = TypeVar("T")

NO_TIME = "not checked: no time left"

_STALL = 1.0
"""Seconds that one question may take while the child only waits."""
_CPU_SECONDS = 4.0
"""Processor time for a whole diagnosis, in seconds; the contract is that it ends within five seconds."""
_SECONDS = 12.0
"""For a whole diagnosis, on a machine that is busy with other things."""
_MERCY = 2.0
"""Seconds after that until a child that continues is killed."""
_ATTEMPTS = 6
_POLL = 0.1
_BOUNDED = ("answers", "now", "run")
"""Questions with time limits of their own."""
_BOARD = 4096
_HEADER = struct.Struct("<II")
"""The number of the entry and its length."""
_STOPPING = (signal.SIGTERM, signal.SIGHUP)


class Unfinished(Exception):
    """No diagnosis was finished in time; the message says what it waited for."""


class _At(NamedTuple):
    """The present work of the child: the facts that it builds, the outermost first, and the question that it waits
    for."""

    number: int = 0
    facts: tuple[str, ...] = ()
    question: Question = ()


class _Board(Watch):
    """Where the child writes its present work; the parent can read it even if the child does not answer."""

    def __init__(self, host: Host, given_up: Mapping[str, str]) -> None:
        self._memory = mmap(-1, _BOARD)
        self._host = host
        self._given_up = given_up
        self._facts: list[bytes] = []
        self._number = 0
        self._out_of_time = False

    # The child's side.

    def limit(self) -> None:
        """Let the time run out."""
        for timer, number, seconds in (
            (signal.ITIMER_PROF, signal.SIGPROF, _CPU_SECONDS),
            (signal.ITIMER_REAL, signal.SIGALRM, _SECONDS),
        ):
            signal.signal(number, self._time_is_up)
            signal.setitimer(timer, seconds)

    def _time_is_up(self, number: int, frame: FrameType | None) -> None:
        self._out_of_time = True
        # Otherwise nobody could end it.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)

    def begins(self, fact: str) -> str:
        self._facts.append(fact.encode() + b"\0")
        self._write(())
        return NO_TIME if self._out_of_time else self._given_up.get(fact, "")

    def ends(self) -> None:
        self._facts.pop()
        self._write(())

    def asks(self, question: Question) -> None:
        if question and self._out_of_time:
            raise OutOfTime(question[1], NO_TIME)
        self._write(question)

    def _write(self, question: Question) -> None:
        self._number += 1
        words = b"".join(self._facts)
        if question:
            words += "\0".join(("", *question[:2])).encode(errors="surrogateescape")
        words = words[: _BOARD - _HEADER.size]
        self._memory[: _HEADER.size + len(words)] = _HEADER.pack(self._number, len(words)) + words

    # The parent's side.

    def read(self) -> _At:
        number, length = _HEADER.unpack(self._memory[: _HEADER.size])
        words = self._memory[_HEADER.size : _HEADER.size + length].decode(errors="surrogateescape").split("\0")
        end = words.index("") if "" in words else len(words)
        return _At(number, tuple(words[:end]), tuple(words[end + 1 :]))


def supervised(host: Host, work: Callable[[Watch], T], watch: Watch | None = None, *, answers: bool = False) -> T:
    """The result of `work`. On the running machine it runs in a child: the result must be picklable, and `work` has no
    effect here, except that `host` gets the machine's answers, if `answers` asks for them. `work` follows the diagnosis with the Watch that it
    receives. Raises the exceptions of `work`, and Unfinished."""
    watch = watch or Watch()
    if not (host.live and isinstance(host, RootHost)):
        host.asks = watch.asks
        return work(watch)
    given_up: dict[str, str] = {}
    for _ in range(_ATTEMPTS):
        board = _Board(host, given_up)
        content, at = _attempt(host, work, board, watch, answers)
        if content:
            done, answer, seen = loads(content)
            host.seen.update(seen)
            if not done:
                raise answer
            return cast(T, answer)
        path = at.question[1] if len(at.question) == 2 and at.question[0] not in _BOUNDED else ""
        if path:
            host.give_up(path)
        elif at.facts:
            given_up[at.facts[-1]] = f"not checked: it took more than {_SECONDS:g} seconds"
        else:
            break
    raise Unfinished(f"the diagnosis did not finish ({', '.join((*at.facts, *at.question)) or 'no output'})")


def _attempt(host: Host, work: Callable[[Watch], T], board: _Board, watch: Watch, answers: bool) -> tuple[bytes, _At]:
    """The child's answer, or nothing, and its work at that time."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    # A Ctrl-C must find the child's end prepared: until then, it waits.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *_STOPPING))
    child = os.fork()
    if child == 0:
        _work(host, work, board, writer, answers, mask)
    os.close(writer)
    before = _ended_with(child)
    content = b""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        content = _await(child, reader, board, watch)
        if content:
            os.waitpid(child, 0)  # it is complete
        return content, board.read()
    finally:
        os.close(reader)
        if not content:
            _end(child)
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended_with(child: int) -> dict[signal.Signals, Any]:
    """Make the child end with this process; the previous handlers of these signals."""

    def stop(number: int, frame: FrameType | None) -> None:
        _end(child)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    with suppress(ValueError):  # not the main thread, which alone gets signals
        return {n: signal.signal(n, stop) for n in _STOPPING if signal.getsignal(n) is signal.SIG_DFL}
    return {}


def _work(
    host: Host, work: Callable[[Watch], T], board: _Board, writer: int, answers: bool, mask: set[signal.Signals | int]
) -> None:
    """The life of a child. `mask` are the signals that were blocked before its parent forked."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, *_STOPPING):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        board.limit()
        host.asks = board.asks
        answer: tuple[bool, T | Exception]
        try:
            answer = True, work(board)
        except Exception as error:
            answer = False, _portable(error)
        with open(writer, "wb") as pipe:
            pipe.write(dumps((*answer, host.seen if answers else {}), 5))
        sys.stderr.flush()
    finally:
        os._exit(0)


def _portable(error: Exception) -> Exception:
    """A picklable exception, with the place where it was raised."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    try:
        loads(dumps(error, 5))
    except (PickleError, TypeError, AttributeError):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.place = place  # type: ignore[attr-defined]
    return error


def _await(child: int, reader: int, board: _Board, watch: Watch) -> bytes:
    """The child's whole answer; nothing if it is stuck, or takes too long."""
    content = bytearray()
    deadline = time.monotonic() + _SECONDS + _MERCY
    shown, patience = _At(), _Patience(child)
    while time.monotonic() < deadline:
        if select.select([reader], [], [], _POLL)[0]:
            chunk = os.read(reader, 1 << 20)
            if not chunk:
                return bytes(content)
            content += chunk
            continue
        at = board.read()
        _show(shown, at, watch)
        shown = at
        if patience.is_lost(at):
            break
    return b""


def _show(before: _At, now: _At, watch: Watch) -> None:
    common = 0
    while before.facts[common : common + 1] == now.facts[common : common + 1] != ():
        common += 1
    for _ in before.facts[common:]:
        watch.ends()
    for fact in now.facts[common:]:
        watch.begins(fact)
    if (before.number, before.question) != (now.number, now.question):
        watch.asks(now.question)


class _Patience:
    """Whether the child only waits for the answer to one question."""

    def __init__(self, child: int) -> None:
        self._child = child
        self._before: tuple[int, int] = (0, 0)
        self._since = 0.0

    def is_lost(self, at: _At) -> bool:
        now = time.monotonic()
        waits, used = _state_of(self._child)
        same = waits and (at.number, used) == self._before
        self._before = at.number, used
        if not same:
            self._since = now
        return bool(at.question) and at.question[0] not in _BOUNDED and now - self._since > _STALL


def _state_of(child: int) -> tuple[bool, int]:
    """Whether it waits, and its used processor time, in ticks."""
    try:
        with open(f"/proc/{child}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0] in (b"S", b"D"), int(fields[11]) + int(fields[12])
    except (OSError, IndexError, ValueError):
        return False, 0


def _end(child: int) -> None:
    """A process that hangs in the kernel and cannot be killed is left behind."""
    with suppress(ImportError):
        from dlhealth.host.processes import end_tree

        end_tree(child)
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + 0.2
        while not os.waitpid(child, os.WNOHANG)[0] and time.monotonic() < deadline:
            time.sleep(0.001)
