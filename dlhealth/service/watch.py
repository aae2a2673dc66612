"""The watcher: waits for events, checks what they concern, and logs new and resolved problems in the journal.

Unprivileged and small. Checks run in their own process; repairs are requested from a root process.
"""

import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from dlhealth.host.alert import Kind, alert, send
from dlhealth.host.exec import Started, start
from dlhealth.host.newfile import replace
from dlhealth.records import NamedTuple
from dlhealth.service.alerts import SCHEMA, Known, Repeats, load, of_change, public, sign, understood
from dlhealth.service.asking import Asking
from dlhealth.service.events import LOOK_AT, Event, Topic
from dlhealth.service.notify import Manager
from dlhealth.service.request import SOCKET, Request
from dlhealth.service.schedule import Pace, Patience, Schedule
from dlhealth.service.sources import Devices, Files, KernelLog, Source

FOLDER = "/run/dlhealth/watch"
BOOT_STATE = "/run/dlhealth/boot.json"
"""What the check at boot found, so that it is not reported a second time."""
PUBLIC = "public.json"
"""The part of state.json that everybody may read; only root reads the whole."""
REPORT_ONLY = "report-only"
"""Exists from the installation until the first check has ended: that one repairs nothing."""
PROMPTS = "/run/agetty.reload"
"""Touching this file makes the text consoles print their prompts again (agetty(8), --reload)."""
WAITING = "/var/lib/dlhealth/txn/active"
"""Exists while a repair waits for a reboot (`Store.active`; importing its module would cost memory)."""

_SHOWS_IF_IT_HELD = {Topic.START, Topic.LOGGED_IN, Topic.REPAIR}
"""After these, a repair that waited for a reboot can be judged."""
_OUTPUT_LIMIT = 4 << 20
_UNSENT = 256
"""Entries about events that wait while the journal restarts, at most; those about findings are made again."""
_TELL_AGAIN = 0.5
"""Seconds until a journal that accepts no entries is tried again."""


class _Look(NamedTuple):
    """A running check."""

    started: Started
    topics: tuple[Topic, ...]
    only: tuple[str, ...]
    since: float
    began: float
    """By the wall clock."""
    output: bytearray


def _bury() -> None:
    """Collect checks that hung in the kernel when they were killed and ended later: otherwise they would count as
    processes of the service forever."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


class Settings(NamedTuple):
    """The files of the watcher, the Python that checks, and how often it does; `check_limit` in seconds."""

    folder: str = FOLDER
    boot_state: str = BOOT_STATE
    waiting: str = WAITING
    prompts: str = PROMPTS
    repair_socket: str = SOCKET
    python: str = sys.executable
    check_limit: float = 60.0
    pace: Pace = Pace()


class Watcher:
    """The state between two events. It measures time without the wall clock, which people and NTP set."""

    def __init__(
        self,
        sources: Iterable[Source],
        files: Files,
        tell: Callable[[bytes], bool],
        manager: Manager,
        settings: Settings = Settings(),  # noqa: B008  (immutable)
    ) -> None:
        self._settings = settings
        self._tell = tell
        self._manager = manager
        self._files = files
        self._selector = selectors.DefaultSelector()
        for source in (*sources, files):
            self._selector.register(source, selectors.EVENT_READ, source)
        saved = load(f"{settings.folder}/state.json") or load(settings.boot_state)
        self._known = Known.of(saved)
        self._repeats = Repeats()
        self._schedule = Schedule(settings.pace)
        self._look: _Look | None = None
        self._look_again = Patience(settings.pace.longest_pause, settings.pace.blind)
        self._busy_since = 0.0
        self._asking = Asking(settings.repair_socket, self._wait_for, self._not_now, self._asked)
        self._ask_again = Patience(settings.pace.longest_pause, settings.pace.wanted)
        self._reports_only = os.path.lexists(f"{settings.folder}/{REPORT_ONLY}")
        self._unsent: list[bytes] = []
        self._tell_at = 0.0
        self._problem = str(saved.get("problem", ""))
        self._unchecked = ""
        self._complete: dict[str, Any] = {name: saved[name] for name in ("run", "skipped", "cards") if name in saved}
        self._checked: int | None = saved.get("checked")
        self._began: float = saved.get("began", 0.0)
        self._sign: str | None = None
        self._stopping = False

    def run(self) -> None:
        """Watch until a signal says stop."""
        waker, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._selector.register(waker, selectors.EVENT_READ, None)
        self._happened(Event(Topic.START))
        with suppress(OSError):  # the first check reports it
            self._put_up(sign(public(self._known.findings)))
        self._manager.ready()
        while not self._stopping:
            self._turn(self._manager.alive())
        self._manager.stopping()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _turn(self, next_sign_of_life: float | None) -> None:
        """Wait for the next event or moment, and handle it."""
        moments = [m for m in (next_sign_of_life, *self._schedule.moments) if m is not None]
        if self._look:
            moments = [m for m in (next_sign_of_life, self._look.since + self._settings.check_limit) if m is not None]
        if self._tell_at:
            moments.append(self._tell_at)
        wait = max(0.0, min(moments) - time.monotonic()) if moments else None
        for key, _ in self._selector.select(wait):
            if isinstance(key.data, _Look):
                self._read_look(key.data)
            elif isinstance(key.data, Request):
                self._read_answer(key.data)
            elif key.data is not None:
                for event in key.data.read():
                    self._happened(event)
        self._begin_look()
        self._flush()

    def _happened(self, event: Event) -> None:
        # After a suspend, events are reported again; BOOTTIME counts the time asleep. All waiting pauses while asleep.
        if event.id and (entry := self._repeats.entry(event, time.clock_gettime(time.CLOCK_BOOTTIME))):
            self._say(entry)
        self._schedule.happened(event.topic, time.monotonic())

    # Checks.

    def _begin_look(self) -> None:
        now = time.monotonic()
        if self._look:
            if now > self._look.since + self._settings.check_limit:
                from dlhealth.host.processes import end_tree

                end_tree(self._look.started.pid)  # its programs have their own sessions
                self._end_look(self._look, f"it did not finish within {self._settings.check_limit:g} seconds")
            return
        topics = self._schedule.take(now)
        if not topics:
            return
        _bury()
        names = [self._concerned(t) for t in topics]
        only = () if not all(names) else tuple(dict.fromkeys(n for some in names for n in some))
        try:
            started = start([self._settings.python, "-I", "-m", "dlhealth.service.check", *only])
        except OSError as error:
            self._complain(f"a check could not start: {error.strerror}")
            self._schedule.try_again(topics, now + self._look_again.next())
            return
        self._look = _Look(started, topics, only, now, time.time(), bytearray())
        self._selector.register(started.output, selectors.EVENT_READ, self._look)

    def _concerned(self, topic: Topic) -> tuple[str, ...]:
        if topic is Topic.FILES:
            return tuple(f.id for f in self._known.findings)
        return LOOK_AT[topic]

    def _read_look(self, look: _Look) -> None:
        chunk = os.read(look.started.output, 1 << 16)
        look.output.extend(chunk)
        if len(look.output) > _OUTPUT_LIMIT:
            self._end_look(look, "its output was too long")
        elif not chunk:
            self._end_look(look, "")

    def _end_look(self, look: _Look, problem: str) -> None:
        self._selector.unregister(look.started.output)
        self._look = None
        ended = look.started.end()
        problem = problem or ended
        try:
            checked = (
                {}
                if problem
                else understood(look.output, judged=list, rules=list, busy=str, problem=str, unchecked=str)
            )
        except ValueError as error:
            checked, problem = {}, str(error)
        now = time.monotonic()
        if problem:
            self._complain(f"a check failed: {problem}")
            self._schedule.try_again(look.topics, now + self._look_again.next())
        elif checked["busy"]:
            self._schedule.busy(look.topics, now)
            self._busy_since = self._busy_since or now
            if now - self._busy_since > self._settings.pace.blind:
                self._complain(f"no check for over an hour, because packages are being changed: {checked['busy']}")
            return
        if checked and not look.only:
            self._schedule.checked_all(now)
        changed = bool(checked) and self._update(checked, look)
        self._schedule.rest(look.topics, look.since, now, changed=changed)

    def _update(self, checked: dict[str, Any], look: _Look) -> bool:
        self._look_again.reset()
        self._busy_since = 0.0
        rules = checked["rules"]
        without_rule = [f.id for f in self._known.findings if rules and f.id not in rules]
        judged = [*checked["judged"], *without_rule]
        change = self._known.update(checked["findings"], judged, next_boot=not look.only)
        self._asking.forget((*change.appeared, *change.gone))
        if Topic.REPAIR in look.topics:
            self._asking.forgive()
        if change.appeared:
            self._ask_again.reset()
        held = not _SHOWS_IF_IT_HELD.isdisjoint(look.topics)
        self._ask(confirm=held and os.path.exists(self._settings.waiting))
        self._files.watch({p for f in self._known.findings for p in f.files})
        self._checked, self._began = int(time.time()), look.began
        self._unchecked = checked["unchecked"]
        if not look.only and rules:
            decided = len(checked["judged"])
            self._complete = {"run": decided, "skipped": len(rules) - decided, "cards": checked.get("cards", {})}
        unwritten = self._write_state()
        left_out = f"some checks could not run completely: {self._unchecked}" if self._unchecked else ""
        self._complain(checked["problem"] or left_out or unwritten)
        return bool(change.appeared or change.gone)

    def _complain(self, problem: str) -> None:
        """Report once, not after each check, what keeps the service from checking."""
        if problem == self._problem:
            return
        if problem:
            self._say(alert(Kind.NOT_CHECKED, problem, severity="warning"))
        self._problem = problem
        self._write_state()

    def _write_state(self) -> str:
        """Save the state; returns why that failed, or "". A full /run must not end the watcher: it would report
        everything again."""
        state: dict[str, Any] = {"problem": self._problem, "unchecked": self._unchecked, **self._complete}
        if self._checked is not None:
            state.update(checked=self._checked, began=self._began)
        common = public(self._known.findings)
        try:
            self._save("state.json", json.dumps({**self._known.saved(), **state}), mode=0o600)
            self._save(PUBLIC, json.dumps({"schema": SCHEMA, "findings": [f._asdict() for f in common], **state}))
            self._put_up(sign(common))
        except OSError as error:
            return f"results cannot be written to {self._settings.folder}: {error.strerror}"
        return ""

    def _save(self, name: str, text: str, mode: int = 0o644) -> None:
        replace(f"{self._settings.folder}/{name}", text.encode(), mode)

    def _put_up(self, text: str) -> None:
        """Show a text above the prompts of the text consoles, including those that are already on screen."""
        if text == self._sign:
            return
        self._save("issue", text)
        self._sign = text
        with suppress(OSError):  # no console, or an old agetty: its next prompt shows the text
            os.utime(self._settings.prompts)

    # Repairs.

    def _ask(self, *, confirm: bool) -> None:
        """Ask the root process for repairs."""
        if self._reports_only:
            # The first check has ended, and `service install` has printed the policy.
            self._reports_only = False
            with suppress(OSError):
                os.unlink(f"{self._settings.folder}/{REPORT_ONLY}")
            return
        self._asking.go_on(self._known.findings, confirm=confirm)

    def _wait_for(self, request: Request) -> None:
        self._selector.register(request.channel, selectors.EVENT_READ, request)

    def _read_answer(self, request: Request) -> None:
        if request.receive():
            self._selector.unregister(request.channel)
            request.channel.close()
            self._asking.answered(request)

    def _not_now(self) -> None:
        self._schedule.try_again([Topic.REPAIR], time.monotonic() + self._ask_again.next())

    def _asked(self, changed: bool) -> None:
        self._ask_again.reset()
        if changed:
            self._happened(Event(Topic.REPAIR))

    # Alerts.

    def _say(self, entry: bytes) -> None:
        if self._unsent or not self._tell(entry):
            self._unsent = [*self._unsent, entry][-_UNSENT:]

    def _flush(self) -> None:
        """Send the journal what it does not have yet."""
        now = time.monotonic()
        if self._tell_at > now:
            return
        while self._unsent and self._tell(self._unsent[0]):
            self._unsent.pop(0)
        waiting = of_change(self._known.untold())
        told = 0
        while not self._unsent and told < len(waiting) and self._tell(waiting[told].entry):
            self._known.was_told(waiting[told])
            told += 1
        self._tell_at = now + _TELL_AGAIN if self._unsent or told < len(waiting) else 0.0
        if told:
            self._write_state()


def main() -> None:
    """Run the watcher; dlhealth.service starts this."""
    os.umask(0o022)
    watched: list[Source] = []
    missing = []
    for name, make in (("the kernel log", KernelLog), ("device events", Devices)):
        try:
            watched.append(make())
        except OSError as error:
            missing.append(f"{name}: {error.strerror}")
    if missing:
        from dlhealth.service.log import logger

        logger().warning(
            f"cannot watch {'; '.join(missing)}. Problems that only show there are found at the next check"
        )
    Watcher(watched, Files(), send, Manager()).run()
