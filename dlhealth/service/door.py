"""Accepts the connections of the repair socket, and starts a root process for each allowed one.

systemd cannot limit the connections of a Unix socket per user: one user's flood would lock out all others, and each
dropped connection would write a line to the journal. Here the limits are per user, and a refusal is sent only over the
connection itself.
"""

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from dlhealth.host.exec import answer
from dlhealth.records import NamedTuple
from dlhealth.service.request import LINE_LIMIT, peer_of

_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
_AT_ONCE = 2
"""Requests of one user that run at the same time, at most."""
_BURST, _EVERY = 10, 3.0
"""Requests that a user may send at once; after that, one per this many seconds."""
_PROCESSES = 12
"""Requests of all users except root together, at most."""
_LONGEST = 3600.0
"""Seconds. Replacing a driver and building its modules takes long; after this time, something hangs."""
_IDLE = 30.0
"""Seconds without a request after which this process ends; the socket starts it again."""
_SHUT = 1.0
"""Seconds for which a refused user gets no more answers: a flood must be closed faster than it arrives."""
_PER_TURN = 1024
_USERS = 256


class _Worker(NamedTuple):
    """A process that answers one connection."""

    pid: int
    uid: int
    until: float


class _Allowance:
    """How many requests each user may still make now."""

    def __init__(self) -> None:
        self._left: dict[int, tuple[float, float]] = {}

    def take(self, uid: int, now: float) -> bool:
        left, since = self._left.pop(uid, (float(_BURST), now))
        left = min(float(_BURST), left + (now - since) / _EVERY)
        self._left[uid] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _USERS:
            del self._left[next(iter(self._left))]
        return left >= 1


class Door:
    """The state between two connections."""

    def __init__(self, listener: socket.socket, command: Sequence[str]) -> None:
        self._listener = listener
        self._listener.setblocking(False)
        self._command = command
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._workers: dict[int, _Worker] = {}
        self._allowance = _Allowance()
        self._shut: dict[int, float] = {}
        self._stopping = False

    def run(self) -> None:
        """Serve until there was no request for a while, or a signal says stop, and all requests are answered."""
        waker, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # wakes the loop
        self._selector.register(waker, selectors.EVENT_READ)
        last = time.monotonic()
        while self._workers or not (self._stopping or time.monotonic() > last + _IDLE):
            for key, _ in self._selector.select(1.0 if self._workers else _IDLE):
                if key.fileobj == waker:
                    with suppress(BlockingIOError):
                        os.read(waker, 1 << 12)
                elif self._accept():
                    last = time.monotonic()
            self._bury()
            if self._workers:
                last = time.monotonic()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True
        with suppress(KeyError):
            self._selector.unregister(self._listener)
        # A running repair finishes its step and undoes everything.
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGTERM)

    def _accept(self) -> bool:
        """Accept the waiting connections; whether one was allowed."""
        let_in = False
        for _ in range(_PER_TURN):
            try:
                channel, _ = self._listener.accept()
            except OSError:
                break
            with channel:
                let_in |= self._admit(channel)
        return let_in

    def _admit(self, channel: socket.socket) -> bool:
        uid, now = peer_of(channel).uid, time.monotonic()
        if self._shut.get(uid, 0.0) > now:
            return False
        self._shut.pop(uid, None)
        why = self._against(uid, now)
        if not why:
            try:
                pid = answer(self._command, channel.fileno())
            except OSError as error:
                why = f"the request could not be answered: {error.strerror}"
            else:
                self._workers[pid] = _Worker(pid, uid, now + _LONGEST)
                return True
        if uid and len(self._shut) < _USERS:
            self._shut[uid] = now + _SHUT
        _refuse(channel, why)
        return False

    def _against(self, uid: int, now: float) -> str:
        """Why a user's request is refused; "" if it is allowed."""
        theirs = [w for w in self._workers.values() if w.uid == uid]
        others = sum(w.uid != 0 for w in self._workers.values())
        if len(theirs) >= _AT_ONCE or (uid and others >= _PROCESSES):
            return "too many requests are being answered: try again later"
        if uid and not self._allowance.take(uid, now):
            return f"too many requests of user {uid}: try again in {_EVERY:g} seconds"
        return ""

    def _bury(self) -> None:
        now = time.monotonic()
        for worker in [*self._workers.values()]:
            if os.waitpid(worker.pid, os.WNOHANG)[0]:
                del self._workers[worker.pid]
            elif now > worker.until:
                os.kill(worker.pid, signal.SIGTERM)
                self._workers[worker.pid] = worker._replace(until=now + _LONGEST)


def _refuse(channel: socket.socket, why: str) -> None:
    """Send the refusal without waiting for anybody."""
    with suppress(OSError):
        channel.setblocking(False)
        channel.send(json.dumps({"ok": False, "error": why, "later": True}).encode() + b"\n")
        channel.recv(LINE_LIMIT)  # a connection that is closed with something unread loses the answer


def main() -> None:
    """What dlhealth-repair.service runs; systemd hands the listening socket over."""
    listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    listener.set_inheritable(False)
    Door(listener, [sys.executable, "-I", "-m", "dlhealth.service.answer"]).run()


if __name__ == "__main__":
    main()
