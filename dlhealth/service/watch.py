"""The watcher: waits for events, looks at what they concern, tells the journal what has appeared and what is gone.

Unprivileged and small. Looks are made by a process of their own, repairs are asked of another user's.
"""

import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

from dlhealth.host.exec import Started, start
from dlhealth.lean import NamedTuple
from dlhealth.service.alerts import Known, Repeats, load, of_change, save, sign, understood
from dlhealth.service.events import LOOK_AT, Event, Topic
from dlhealth.service.journal import Kind, alert, send
from dlhealth.service.notify import Manager
from dlhealth.service.request import Request, ask
from dlhealth.service.sources import Devices, Files, KernelLog, Source

FOLDER = "/run/dlhealth/watch"
BOOT_STATE = "/run/dlhealth/boot.json"
"""What the check at boot found, so that it is not told a second time."""

_SETTLE = {Topic.PACKAGES: 2.0, Topic.KERNELS: 2.0, Topic.FILES: 0.5}
"""Seconds after which a change of files is looked at: a package is a hundred of them."""
_SHARE = 4.0
"""After a look, none of the same topic for so many times as long as it took: a fifth of one processor at most."""
_LONGEST_PAUSE = 30.0
_BUSY_PAUSE = 5.0
"""Seconds between two looks at whether packages are still being changed: an upgrade touches its files all the time."""
_LOOK_LIMIT = 60.0
_OUTPUT_LIMIT = 4 << 20
_UNSENT = 256
"""Entries that wait for a journal that is being restarted."""


class _Look(NamedTuple):
    """A look that is under way."""

    started: Started
    topics: tuple[Topic, ...]
    only: tuple[str, ...]
    since: float
    output: bytearray


class Watcher:
    """Everything that is known between two events. All times are of the monotonic clock."""

    def __init__(
        self, sources: Iterable[Source], files: Files, folder: str, tell: Callable[[bytes], bool], manager: Manager
    ) -> None:
        self._folder = folder
        self._tell = tell
        self._manager = manager
        self._files = files
        self._selector = selectors.DefaultSelector()
        for source in (*sources, files):
            self._selector.register(source, selectors.EVENT_READ, source)
        saved = load(f"{folder}/state.json") or load(BOOT_STATE)
        self._known = Known(saved.get("findings", ()))
        self._repeats = Repeats()
        self._due: dict[Topic, float] = {}
        self._pause: dict[Topic, tuple[float, float]] = {}
        self._look: _Look | None = None
        self._asked: Request | None = None
        self._to_repair: list[dict[str, str]] = []
        self._unsent: list[bytes] = []
        self._problem = ""
        self._stopping = False

    def run(self) -> None:
        """Until somebody asks to stop."""
        waker, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._selector.register(waker, selectors.EVENT_READ, None)
        self._happened(Event(Topic.START))
        # What the check at boot found stands above the prompts, which wait for this.
        with suppress(OSError):
            save(f"{self._folder}/issue", sign(self._known.findings))
        self._manager.ready()
        while not self._stopping:
            self._turn(self._manager.alive())
        self._manager.stopping()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _turn(self, next_sign_of_life: float | None) -> None:
        """Wait for what comes first, and deal with it."""
        moments = [m for m in (next_sign_of_life, *self._due.values()) if m is not None]
        if self._look:
            moments = [m for m in (next_sign_of_life, self._look.since + _LOOK_LIMIT) if m is not None]
        wait = max(0.0, min(moments) - time.monotonic()) if moments else None
        for key, _ in self._selector.select(wait):
            if isinstance(key.data, _Look):
                self._read_look(key.data)
            elif isinstance(key.data, Request):
                self._answered(key.data)
            elif key.data is not None:
                for event in key.data.read():
                    self._happened(event)
        self._begin_look()
        self._flush()

    def _happened(self, event: Event) -> None:
        now = time.monotonic()
        if event.id and (entry := self._repeats.entry(event, now)):
            self._say(entry)
        earliest, _ = self._pause.get(event.topic, (0.0, 0.0))
        moment = max(now + _SETTLE.get(event.topic, 0.0), earliest)
        self._due[event.topic] = min(moment, self._due.get(event.topic, moment))

    # Looking.

    def _begin_look(self) -> None:
        now = time.monotonic()
        if self._look:
            if now > self._look.since + _LOOK_LIMIT:
                self._end_look(self._look, f"it did not end within {_LOOK_LIMIT:g} seconds")
            return
        topics = tuple(t for t, moment in self._due.items() if moment <= now)
        if not topics:
            return
        for topic in topics:
            del self._due[topic]
        names = [self._concerned(t) for t in topics]
        only = () if not all(names) else tuple(dict.fromkeys(n for some in names for n in some))
        try:
            started = start([sys.executable, "-I", "-m", "dlhealth.service.check", *only])
        except OSError as error:
            self._complain(f"a check could not be started: {error.strerror}")
            self._due.update(dict.fromkeys(topics, now + _LONGEST_PAUSE))
            return
        self._look = _Look(started, topics, only, now, bytearray())
        self._selector.register(started.output, selectors.EVENT_READ, self._look)

    def _concerned(self, topic: Topic) -> tuple[str, ...]:
        if topic is Topic.FILES:
            return tuple(f["id"] for f in self._known.findings)
        return LOOK_AT[topic]

    def _read_look(self, look: _Look) -> None:
        chunk = os.read(look.started.output, 1 << 16)
        look.output.extend(chunk)
        if len(look.output) > _OUTPUT_LIMIT:
            self._end_look(look, "it said too much")
        elif not chunk:
            self._end_look(look, "")

    def _end_look(self, look: _Look, problem: str) -> None:
        self._selector.unregister(look.started.output)
        self._look = None
        ended = look.started.end()
        problem = problem or ended
        try:
            checked = {} if problem else understood(look.output, judged=list, busy=str, problem=str)
        except ValueError as error:
            checked, problem = {}, str(error)
        now = time.monotonic()
        if problem:
            self._complain(f"a check could not be made: {problem}")
        elif checked["busy"]:
            # dpkg's lock, when it is closed, is the event that ends this wait; other programs may hold theirs longer.
            self._due.update(dict.fromkeys(look.topics, now + _LONGEST_PAUSE))
            self._pause.update(dict.fromkeys(look.topics, (now + _BUSY_PAUSE, _BUSY_PAUSE)))
            return
        changed = bool(checked) and self._update(checked, ("",) if look.only else ("", "next"))
        self._rest(look, now, changed)

    def _rest(self, look: _Look, now: float, changed: bool) -> None:
        took = (now - look.since) * _SHARE
        for topic in look.topics:
            earliest, before = self._pause.get(topic, (0.0, 0.0))
            # Who looked long after the last event is not made to wait because of it.
            quiet = now - earliest > _LONGEST_PAUSE
            pause = min(_LONGEST_PAUSE, took if changed or quiet else max(took, before * 2))
            self._pause[topic] = (now + pause, pause)
            if topic in self._due:
                self._due[topic] = max(self._due[topic], now + pause)

    def _update(self, checked: dict[str, Any], boots: Collection[str]) -> bool:
        change = self._known.update(checked["findings"], checked["judged"], boots)
        for entry in of_change(change):
            self._say(entry)
        gone = {(f["id"], f["subject"]) for f in change.gone}
        self._to_repair = [f for f in self._to_repair if (f["id"], f["subject"]) not in gone]
        self._to_repair += [dict(f) for f in change.appeared if f["repair"] and not f["caused_by"] and not f["boot"]]
        self._ask_for_repair()
        self._files.watch({p for f in self._known.findings for p in f["files"].split("\n") if p})
        self._complain(checked["problem"] or self._write_state())
        return bool(change.appeared or change.gone)

    def _complain(self, problem: str) -> None:
        """Of what keeps this from looking; once, not after each look."""
        if problem and problem != self._problem:
            self._say(alert(Kind.NOT_CHECKED, problem, severity="warning"))
        self._problem = problem

    def _write_state(self) -> str:
        """What kept it from being written: a full /run must not end the watcher, who would tell all anew."""
        findings = self._known.findings
        state = {"checked": int(time.time()), "findings": findings}
        try:
            save(f"{self._folder}/state.json", json.dumps(state))
            save(f"{self._folder}/issue", sign(findings))
        except OSError as error:
            return f"what was found can't be written to {self._folder}: {error.strerror}"
        return ""

    # Repairing: one request after the other.

    def _ask_for_repair(self) -> None:
        if self._asked or not self._to_repair:
            return
        finding = self._to_repair.pop(0)
        self._asked = ask("preview", finding["id"], finding["subject"])
        if self._asked:
            self._selector.register(self._asked.channel, selectors.EVENT_READ, self._asked)

    def _answered(self, request: Request) -> None:
        if not request.receive():
            return
        self._selector.unregister(request.channel)
        request.channel.close()
        self._asked = None
        answer = request.answer()
        if request.verb == "preview" and answer.get("allowed"):
            self._asked = ask("apply", request.finding, request.subject, str(answer.get("digest", "")))
            if self._asked:
                self._selector.register(self._asked.channel, selectors.EVENT_READ, self._asked)
        elif request.verb == "apply":
            self._happened(Event(Topic.REPAIR))
        if not self._asked:
            self._ask_for_repair()

    # Telling.

    def _say(self, entry: bytes) -> None:
        if self._unsent or not self._tell(entry):
            self._unsent = [*self._unsent, entry][-_UNSENT:]

    def _flush(self) -> None:
        while self._unsent and self._tell(self._unsent[0]):
            self._unsent.pop(0)


def main() -> None:
    """What dlhealth.service runs."""
    os.umask(0o022)
    watched: list[Source] = []
    missing = []
    for name, make in (("the kernel's log", KernelLog), ("device events", Devices)):
        try:
            watched.append(make())
        except OSError as error:
            missing.append(f"{name}: {error.strerror}")
    if missing:
        from dlhealth.service.log import logger

        logger().warning("not watched", sources=missing)
    Watcher(watched, Files(), FOLDER, send, Manager()).run()
