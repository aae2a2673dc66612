"""Where events come from: file descriptors that become readable when something happened, and at no other time."""

import ctypes
import os
import posixpath
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Protocol

from inotify_simple import INotify, flags

from dlhealth.data.login_screen import ALIAS, ETC, MANAGERS, NAMED
from dlhealth.lean import NamedTuple
from dlhealth.service.events import Event, Topic, of_kernel, of_uevent

KERNEL_LOG = "/dev/kmsg"
SESSIONS = "/run/systemd/sessions"
"""One file for each session, kept by logind, for whoever wants to notice them (sd_login_monitor_new(3))."""
SHORT, TRIES, WINDOW = 10.0, 3, 600.0
"""A login loop is so many sessions of one user, each shorter than so many seconds, within so many."""
_BATCH = 1000
"""Kernel records that are read before other sources get their turn."""
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
"""Folders and names of what decides about the next login screen. Other units come and go beside them all the time."""


class Source(Protocol):
    """Something to wait for."""

    def fileno(self) -> int: ...

    def read(self) -> Iterable[Event]:
        """What has happened since it was last read; never waits."""
        ...


class KernelLog:
    """The kernel's log, from now on. Raises OSError where it can't be opened."""

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
                # Lines were overwritten before they were read: what they said can only be found by looking.
                yield Event(Topic.DRIVER)
                yield Event(Topic.GPU)
                continue
            if not record:
                return
            event = of_kernel(record)
            if event:
                yield event


class Devices:
    """Devices that come and go, as the kernel tells them (netlink(7), NETLINK_KOBJECT_UEVENT)."""

    _KERNEL_GROUP = 1

    def __init__(self) -> None:
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
            # Only the kernel is port 0; what a program sends is not taken for its word.
            if sender[0] == 0 and (event := of_uevent(message)):
                yield event


def _without_changes(channel: socket.socket) -> None:
    """Have the kernel keep back what begins with a "c", "change@…": the battery of a laptop says so every few seconds,
    and no device comes or goes with it."""
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
    """Which graphical sessions begin and end, and whose end at once again and again."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._running: dict[str, _Session] = {}
        self._short: dict[str, list[float]] = {}

    def changed(self, name: str, gone: bool, now: float) -> Event | None:
        """One session's file was written, or is gone."""
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
        """Some changes were not told: sessions that ended unseen are forgotten, or one day there is no room for more."""
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
        # One that was there before this is first seen when it is about to end.
        began = fields.get("MONOTONIC", "")
        return _Session(fields["USER"], int(began) / 1e6 if began.isdecimal() else now)


class Files:
    """What is changed in some folders: packages, kernels, sessions, the login screen, and the files that findings were
    about."""

    _CHANGED = flags.CLOSE_WRITE | flags.MOVED_TO | flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.ATTRIB

    def __init__(self, root: str = "") -> None:
        self._root = root
        self._inotify = INotify(nonblocking=True)
        self._sessions = Sessions(root + SESSIONS)
        self._session_folder = self._watch(SESSIONS, flags.MOVED_TO | flags.DELETE)
        # dpkg replaces its status when it is done, and closes its locks when the next may begin.
        dpkg = self._watch("/var/lib/dpkg", flags.MOVED_TO | flags.CLOSE_WRITE)
        boot = self._watch("/boot", flags.MOVED_TO | flags.CLOSE_WRITE | flags.DELETE)
        modules = self._watch("/lib/modules", flags.CREATE | flags.MOVED_TO | flags.DELETE)
        # systemctl makes links, renames them into their places and takes them away; people and debconf write files.
        placed = self._CHANGED & ~flags.ATTRIB
        screen = {folder: self._watch(folder, placed) for folder, _ in _LOGIN_SCREEN}
        self._login_screen = {(screen[folder], name) for folder, name in _LOGIN_SCREEN}
        # A repair or an undo that ends, also a person's.
        history = self._watch("/var/lib/dlhealth/txn/history", flags.MOVED_TO)
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
        return int(self._inotify.fileno())

    def watch(self, paths: Iterable[str]) -> None:
        """From now on these files are watched, and no others that were given before."""
        before = {folder for folder, _ in self._reported}
        self._reported = set()
        for path in sorted(paths)[:_FILES]:
            parent, name = posixpath.split(path)
            # A device is not written to by closing it, and /dev/null is closed all the time.
            mask = self._CHANGED & ~flags.CLOSE_WRITE if parent == "/dev" else self._CHANGED
            self._reported.add((self._watch(parent, mask), name))
            # Of a folder on which something is mounted, the folder above hears nothing: /tmp is often one.
            self._reported.add((self._watch(path, flags.ATTRIB), ""))
        for folder in before - {f for f, _ in self._reported} - self._fixed:
            with suppress(OSError):  # the folder is gone, and the watch with it
                self._inotify.rm_watch(folder)

    def read(self) -> Iterator[Event]:
        now = time.monotonic()
        for change in self._inotify.read(timeout=0):
            if change.mask & flags.Q_OVERFLOW:
                self._sessions.missed()
                yield Event(Topic.PACKAGES)
            elif change.wd == self._session_folder:
                event = self._sessions.changed(change.name, bool(change.mask & flags.DELETE), now)
                if event:
                    yield event
            else:
                if (change.wd, change.name) in self._login_screen:
                    yield Event(Topic.LOGIN_SCREEN)
                if topic := self._topic(change.wd, change.name):
                    yield Event(topic)

    def _topic(self, folder: int, name: str) -> Topic | None:
        for where, prefix, topic in self._topics:
            if folder == where and name.startswith(prefix):
                return topic
        return Topic.FILES if (folder, name) in self._reported else None

    def _watch(self, folder: str, mask: int) -> int:
        try:
            return int(self._inotify.add_watch(self._root + folder, mask | flags.ONLYDIR | flags.MASK_ADD))
        except OSError:
            return -1  # not on this machine
