"""Sources of events: file descriptors that become readable only when something happened."""

import ctypes
import os
import posixpath
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Protocol

from dlhealth.data.login_screen import ALIAS, ETC, MANAGERS, NAMED
from dlhealth.records import NamedTuple
from dlhealth.service.events import Event, Topic, of_kernel, of_uevent
from dlhealth.service.inotify import Change, Inotify

KERNEL_LOG = "/dev/kmsg"
SESSIONS = "/run/systemd/sessions"
"""One file per session, written by logind (sd_login_monitor_new(3))."""
SHORT, TRIES, WINDOW = 10.0, 3, 600.0
"""A login loop: TRIES sessions of one user, each shorter than SHORT seconds, within WINDOW seconds."""
_BATCH = 1000
"""Kernel records to read before other sources get their turn."""
_USERS = 256
"""Users whose short sessions are remembered."""
_FILES = 256
_SO_ATTACH_FILTER = 26
"""socket(7); Python has no name for it."""
_LOGIN_SCREEN = {
    posixpath.split(path)
    for path in (
        ALIAS,
        NAMED,
        f"{ETC}/default.target",
        *(f"{ETC}/{manager}.service" for manager in MANAGERS),
    )
}
"""The files that decide about the next login screen, as (directory, name). Other units change beside them all the time."""


class Source(Protocol):
    """Something to wait for."""

    def fileno(self) -> int: ...

    def read(self) -> Iterable[Event]:
        """The events since the last read; never waits."""
        ...


class KernelLog:
    """The kernel log, from now on. Raises OSError if it cannot be opened."""

    def __init__(self, path: str = KERNEL_LOG) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):  # a pipe, in which there is nothing old
            os.lseek(self._fd, 0, os.SEEK_END)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> Iterator[Event]:
        for _ in range(_BATCH):
            try:
                record = os.read(self._fd, 8192)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # Lines were overwritten before they were read: only a check can find what they said.
                yield Event(Topic.DRIVER)
                yield Event(Topic.GPU)
                continue
            if not record:
                return
            event = of_kernel(record)
            if event:
                yield event


class Devices:
    """Devices that appear and disappear, as reported by the kernel (netlink(7), NETLINK_KOBJECT_UEVENT)."""

    _KERNEL_GROUP = 1

    def __init__(self, channel: socket.socket | None = None) -> None:
        """`channel` is read instead of the kernel's own socket."""
        if channel:
            self._socket = channel
            return
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 15)
        self._socket.setblocking(False)
        _without_changes(self._socket)
        self._socket.bind((0, self._KERNEL_GROUP))

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[Event]:
        for _ in range(_BATCH):
            try:
                message, sender = self._socket.recvfrom(8192)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: more came than fits
                yield Event(Topic.DRIVER)
                yield Event(Topic.GPU)
                return
            # The kernel sends from port 0; ignore messages of programs.
            if sender[0] == 0 and (event := of_uevent(message)):
                yield event


def _without_changes(channel: socket.socket) -> None:
    """Make the kernel drop messages that begin with "c" ("change@…"): a laptop's battery sends one every few seconds, and
    no device appears or disappears with it."""
    code = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x30, 0, 0, 0),  # load the first byte
            (0x15, 0, 1, ord("c")),  # if it is this one,
            (0x06, 0, 0, 0),  # nothing of it,
            (0x06, 0, 0, 0xFFFFFFFF),  # else all
        )
    )
    program = ctypes.create_string_buffer(code, len(code))
    channel.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(code) // 8, ctypes.addressof(program))
    )


class _Session(NamedTuple):
    user: str
    started: float


class Sessions:
    """Graphical sessions that begin and end, and users whose sessions end at once again and again."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._running: dict[str, _Session] = {}
        self._short: dict[str, list[float]] = {}

    def changed(self, name: str, gone: bool, now: float) -> Event | None:
        """Note that a session's file was written or removed."""
        if not gone:
            if name not in self._running and len(self._running) < _FILES:
                session = self._graphical(name, now)
                if session:
                    self._running[name] = session
                    return Event(Topic.LOGGED_IN, subject=f"user:{session.user}")
            return None
        session = self._running.pop(name, None)
        if session is None or now - session.started >= SHORT:
            return None
        recent = [t for t in self._short.pop(session.user, []) if now - t < WINDOW]
        if len(self._short) >= _USERS:
            self._short.pop(next(iter(self._short)))
        self._short[session.user] = [*recent[1 - TRIES :], now] if TRIES > 1 else [now]
        if len(self._short[session.user]) < TRIES:
            return None
        return Event(Topic.LOGIN, subject=f"user:{session.user}")

    def missed(self) -> None:
        """Forget sessions that ended unnoticed, because some changes were lost; otherwise the table would fill up."""
        self._running = {n: s for n, s in self._running.items() if os.path.exists(f"{self._folder}/{n}")}

    def _graphical(self, name: str, now: float) -> _Session | None:
        try:
            with open(f"{self._folder}/{name}", errors="replace") as file:
                fields = dict(line.rstrip("\n").split("=", 1) for line in file.read(8192).splitlines() if "=" in line)
        except OSError:
            return None
        graphical = fields.get("TYPE") in ("x11", "wayland", "mir") or fields.get("DISPLAY")
        if not graphical or fields.get("CLASS") != "user" or not fields.get("USER"):
            return None
        # A session older than this process is first seen when it is about to end.
        began = fields.get("MONOTONIC", "")
        return _Session(fields["USER"], int(began) / 1e6 if began.isdecimal() else now)


class Files:
    """Changes in some directories: packages, kernels, sessions, the login screen, and the files of findings."""

    _CHANGED = Change.CLOSE_WRITE | Change.MOVED_TO | Change.CREATE | Change.DELETE | Change.MOVED_FROM | Change.ATTRIB

    def __init__(self, root: str = "") -> None:
        self._root = root
        self._inotify = Inotify()
        self._sessions = Sessions(root + SESSIONS)
        self._session_folder = self._watch(SESSIONS, Change.MOVED_TO | Change.DELETE)
        # dpkg replaces its status when it is done, and closes its locks when the next may begin.
        dpkg = self._watch("/var/lib/dpkg", Change.MOVED_TO | Change.CLOSE_WRITE)
        boot = self._watch("/boot", Change.MOVED_TO | Change.CLOSE_WRITE | Change.DELETE)
        modules = self._watch("/lib/modules", Change.CREATE | Change.MOVED_TO | Change.DELETE)
        # systemctl creates, renames and removes links; people and debconf write files.
        placed = self._CHANGED & ~Change.ATTRIB
        screen = {folder: self._watch(folder, placed) for folder, _ in _LOGIN_SCREEN}
        self._login_screen = {(screen[folder], name) for folder, name in _LOGIN_SCREEN}
        # A repair or an undo that ends, also one that a person started.
        history = self._watch("/var/lib/dlhealth/txn/history", Change.MOVED_TO)
        self._topics: tuple[tuple[int, str, Topic], ...] = (
            (dpkg, "status", Topic.PACKAGES),
            (dpkg, "lock", Topic.PACKAGES),
            (boot, "vmlinuz", Topic.KERNELS),
            (boot, "initrd", Topic.KERNELS),
            (modules, "", Topic.KERNELS),
            (history, "", Topic.REPAIR),
        )
        self._fixed = {self._session_folder, dpkg, boot, modules, history, *screen.values()}
        self._reported: set[tuple[int, str]] = set()

    def fileno(self) -> int:
        return self._inotify.fileno()

    def watch(self, paths: Iterable[str]) -> None:
        """Watch these files from now on, instead of those given before."""
        before = {folder for folder, _ in self._reported}
        self._reported = set()
        for path in sorted(paths)[:_FILES]:
            parent, name = posixpath.split(path)
            # Closing a device does not change it, and /dev/null is closed all the time.
            mask = self._CHANGED & ~Change.CLOSE_WRITE if parent == "/dev" else self._CHANGED
            self._reported.add((self._watch(parent, mask), name))
            # The directory above a mount point sees no changes of its mode: /tmp is often a mount point.
            self._reported.add((self._watch(path, Change.ATTRIB), ""))
        for folder in before - {f for f, _ in self._reported} - self._fixed:
            with suppress(OSError):  # the directory is gone, and its watch with it
                self._inotify.rm_watch(folder)

    def read(self) -> Iterator[Event]:
        now = time.monotonic()
        for change in self._inotify.read():
            if change.what & Change.Q_OVERFLOW:
                self._sessions.missed()
                yield Event(Topic.PACKAGES)
            elif change.watch == self._session_folder:
                event = self._sessions.changed(change.name, bool(change.what & Change.DELETE), now)
                if event:
                    yield event
            else:
                if (change.watch, change.name) in self._login_screen:
                    yield Event(Topic.LOGIN_SCREEN)
                if topic := self._topic(change.watch, change.name):
                    yield Event(topic)

    def _topic(self, folder: int, name: str) -> Topic | None:
        for where, prefix, topic in self._topics:
            if folder == where and name.startswith(prefix):
                return topic
        return Topic.FILES if (folder, name) in self._reported else None

    def _watch(self, folder: str, mask: int) -> int:
        try:
            return self._inotify.add_watch(self._root + folder, mask | Change.ONLYDIR | Change.MASK_ADD)
        except OSError:
            return -1  # not on this machine
