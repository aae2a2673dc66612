"""Where events come from: a pipe that hands out records as /dev/kmsg does, a real inotify, files that really change."""

import os
import resource
import select
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlhealth.service import sources
from dlhealth.service.events import Event, Topic
from dlhealth.service.sources import SHORT, TRIES, WINDOW, Devices, Files, KernelLog, Sessions, Source

O_DIRECT = os.O_DIRECT
SYSTEMCTL = shutil.which("systemctl") or ""
XID = b"4,%d,1,-;NVRM: Xid (PCI:0000:%02x:00): 79, pid=1, GPU has fallen off the bus.\n"


def readable(source: Source, seconds: float = 0) -> bool:
    return bool(select.select([source], [], [], seconds)[0])


def events(source: Source) -> list[Event]:
    """All that has happened by now."""
    found: list[Event] = []
    while readable(source):
        found += source.read()
    return found


@pytest.fixture
def kernel() -> Iterator[tuple[KernelLog, int]]:
    """A log and where to write its records: a pipe in packet mode keeps them apart, as the kernel does."""
    reader, writer = os.pipe2(O_DIRECT | os.O_CLOEXEC)
    log = KernelLog(f"/proc/self/fd/{reader}")
    os.close(reader)
    os.set_blocking(writer, False)
    yield log, writer
    os.close(writer)
    os.close(log.fileno())


def test_the_kernels_log(kernel: tuple[KernelLog, int]) -> None:
    log, writer = kernel
    assert not readable(log)
    assert list(log.read()) == []  # and it does not wait
    os.write(writer, b"6,1,1,-;usb 1-2: new device\n")
    os.write(writer, XID % (2, 1))
    os.write(writer, b"3,3,1,-;NVRM: API mismatch: the client\n")
    assert [(e.topic, e.subject) for e in events(log)] == [(Topic.GPU, "gpu:0000:01:00.0"), (Topic.DRIVER, "host")]
    assert not readable(log)


def test_a_flood_of_lines_hides_nothing_and_is_read_in_parts(kernel: tuple[KernelLog, int]) -> None:
    log, writer = kernel
    lines = [b"6,%d,1,-;NVRM: nvCheckFailedNoLog: Check failed, line %d\n" % (n, n) for n in range(100_000)]
    for number in range(100):
        lines[number * 997] = XID % (number, number)
    waiting = iter(lines)
    record: bytes | None = next(waiting)
    found: list[Event] = []
    longest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while record is not None or readable(log):
        while record is not None:
            try:
                os.write(writer, record)
            except BlockingIOError:
                break
            record = next(waiting, None)
        started = time.monotonic()
        found += log.read()
        longest = max(longest, time.monotonic() - started)
    assert [e.subject for e in found] == [f"gpu:0000:{n:02x}:00.0" for n in range(100)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 << 10  # KiB
    assert longest < 1


def test_one_reading_takes_a_bounded_number_of_records(
    kernel: tuple[KernelLog, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that other sources, and the watchdog, get their turn whatever the kernel says."""
    log, writer = kernel
    monkeypatch.setattr(sources, "_BATCH", 5)
    for number in range(8):
        os.write(writer, XID % (number, number))
    assert len(list(log.read())) == 5
    assert readable(log)
    assert len(list(log.read())) == 3


def test_lines_that_were_overwritten_are_a_reason_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = KernelLog("/dev/null")
    said: list[bytes | OSError] = [BrokenPipeError(), XID % (1, 1), BlockingIOError()]

    def read(fd: int, size: int) -> bytes:
        one = said.pop(0)
        if isinstance(one, OSError):
            raise one
        return one

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", read)  # no file but the kernel's log does this
        found = list(log.read())
    assert [e.topic for e in found] == [Topic.DRIVER, Topic.GPU, Topic.GPU]
    os.close(log.fileno())


def test_the_kernels_real_log_begins_now() -> None:
    try:
        log = KernelLog()
    except OSError:
        pytest.skip("there is no /dev/kmsg, or this user may not read it")
    assert list(log.read()) == [], "what was said before was read"
    os.close(log.fileno())


def test_without_a_log_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        KernelLog(str(tmp_path / "kmsg"))


def test_devices_listens_to_the_kernel_and_to_nobody_else() -> None:
    try:
        devices = Devices()
    except OSError as error:
        pytest.skip(f"no device events here: {error}")
    assert list(devices.read()) == []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15) as forger:
        message = b"add@/module/nvidia\0ACTION=add\0DEVPATH=/module/nvidia\0SUBSYSTEM=module\0"
        try:
            forger.sendto(message, (devices._socket.getsockname()[0], 0))
        except PermissionError:
            pytest.skip("nobody may forge device events here")
    assert readable(devices, 2), "it did not arrive, so this proves nothing"
    assert list(devices.read()) == []


def test_what_only_changes_wakes_nobody() -> None:
    try:
        devices = Devices()
        for _ in range(20):  # other devices of the machine may come and go meanwhile
            Path("/sys/class/mem/null/uevent").write_text("change")
            if quiet := not readable(devices, 0.3):
                break
            list(devices.read())
        assert quiet
        Path("/sys/class/mem/null/uevent").write_text("add")
    except OSError as error:
        pytest.skip(f"no device events here: {error}")
    assert readable(devices, 2)
    assert list(devices.read()) == []


def test_device_events_that_were_lost_are_a_reason_to_look() -> None:
    """What was lost may have been a card or a module."""
    try:
        devices = Devices()
        devices._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for _ in range(50):
            Path("/sys/class/mem/null/uevent").write_text("add")
    except OSError as error:
        pytest.skip(f"no device events here: {error}")
    assert [e.topic for e in devices.read()] == [Topic.DRIVER, Topic.GPU]
    assert list(devices.read()) == []


# Files.

FOLDERS = (
    *("run/systemd/sessions", "var/lib/dpkg", "boot", "lib/modules", "etc/systemd/system", "etc/X11", "dev"),
    "home/alice",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in FOLDERS:
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def files(root: Path) -> Iterator[Files]:
    made = Files(str(root))
    yield made
    made._inotify.close()


def topics(files: Files) -> set[Topic]:
    return {e.topic for e in events(files)}


def replace(path: Path, text: str = "new") -> None:
    new = path.with_name(f"{path.name}-new" if "dpkg" not in str(path) else "new")
    new.write_text(text)
    new.rename(path)


def test_a_package_was_changed(root: Path, files: Files) -> None:
    replace(root / "var/lib/dpkg/status")
    assert topics(files) == {Topic.PACKAGES}


@pytest.mark.parametrize("name", ["lock", "lock-frontend"])
def test_the_next_may_change_packages(root: Path, files: Files, name: str) -> None:
    with (root / "var/lib/dpkg" / name).open("w"):
        assert topics(files) == set(), "it is still held"
    assert topics(files) == {Topic.PACKAGES}


def test_reading_dpkgs_files_is_no_event(root: Path) -> None:
    for name in ("status", "lock"):
        (root / "var/lib/dpkg" / name).write_text("x")
    files = Files(str(root))
    for name in ("status", "lock"):
        (root / "var/lib/dpkg" / name).read_text()
    assert not readable(files)  # or each look would be the reason for the next
    files._inotify.close()


@pytest.mark.parametrize("name", ["vmlinuz-6.1.0-51-amd64", "initrd.img-6.1.0-51-amd64"])
def test_a_kernel_is_installed_or_removed(root: Path, files: Files, name: str) -> None:
    (root / "boot" / name).write_text("x")
    assert topics(files) == {Topic.KERNELS}
    replace(root / "boot" / name)
    assert topics(files) == {Topic.KERNELS}
    (root / "boot" / name).unlink()
    assert topics(files) == {Topic.KERNELS}


def test_modules_of_a_kernel_come_and_go(root: Path, files: Files) -> None:
    folder = root / "lib/modules/6.1.0-51-amd64"
    folder.mkdir()
    assert topics(files) == {Topic.KERNELS}
    folder.rmdir()
    assert topics(files) == {Topic.KERNELS}


@pytest.mark.parametrize("name", ["display-manager.service", "default.target", "gdm3.service", "lightdm.service"])
def test_who_starts_the_login_screen_is_decided_without_a_package(root: Path, files: Files, name: str) -> None:
    unit = root / "etc/systemd/system" / name
    unit.symlink_to("/dev/null")
    assert topics(files) == {Topic.LOGIN_SCREEN}
    unit.with_name(f".#{name}0123").symlink_to("/lib/systemd/system/lightdm.service")
    assert topics(files) == set()
    unit.with_name(f".#{name}0123").rename(unit)
    assert topics(files) == {Topic.LOGIN_SCREEN}
    unit.rename(unit.with_name(f"{name}.bak"))
    assert topics(files) == {Topic.LOGIN_SCREEN}
    unit.write_text("[Service]\n")
    assert topics(files) == {Topic.LOGIN_SCREEN}
    unit.unlink()
    assert topics(files) == {Topic.LOGIN_SCREEN}


def test_debians_file_names_another_display_manager(root: Path, files: Files) -> None:
    named = root / "etc/X11/default-display-manager"
    named.write_text("/usr/sbin/gdm3\n")
    assert topics(files) == {Topic.LOGIN_SCREEN}
    replace(named, "/usr/sbin/lightdm\n")
    assert topics(files) == {Topic.LOGIN_SCREEN}
    named.read_text()
    assert not readable(files)  # or each look would be the reason for the next


def test_a_finding_about_the_login_screen_is_looked_at_as_others_are_and_the_screen_stays_watched(
    root: Path, files: Files
) -> None:
    alias = root / "etc/systemd/system/display-manager.service"
    files.watch(["/etc/systemd/system/display-manager.service"])
    alias.symlink_to("/dev/null")
    assert topics(files) == {Topic.LOGIN_SCREEN, Topic.FILES}
    files.watch([])
    alias.unlink()
    (root / "etc/X11/default-display-manager").write_text("/usr/sbin/lightdm\n")
    assert [e.topic for e in events(files)] == [Topic.LOGIN_SCREEN] * 3  # gone; made, and written


@pytest.mark.real_programs
@pytest.mark.skipif(not SYSTEMCTL, reason="there is no systemctl")
def test_what_systemctl_does_to_the_login_screen(root: Path, files: Files) -> None:
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for name in ("multi-user.target", "graphical.target"):
        (units / name).write_text("[Unit]\nAllowIsolate=yes\n")
    for name in ("lightdm", "gdm3"):
        (units / f"{name}.service").write_text("[Install]\nAlias=display-manager.service\n")
    (units / "other.service").write_text("[Install]\nWantedBy=multi-user.target\n")
    told = {}
    for words in (
        *("enable lightdm", "disable lightdm", "mask gdm3", "unmask gdm3", "mask display-manager"),
        *("set-default multi-user.target", "set-default graphical.target"),
        *("enable other", "disable other", "mask other", "unmask other"),
    ):
        subprocess.run([SYSTEMCTL, f"--root={root}", *words.split()], check=True, capture_output=True)
        told[words] = topics(files)
    assert told == {words: set() if "other" in words else {Topic.LOGIN_SCREEN} for words in told}


def test_other_units_are_silent(root: Path, files: Files) -> None:
    folder = root / "etc/systemd/system"
    for name in ("ssh.service", "lightdm.service.d", "multi-user.target.wants", "default.target.wants", "xdm"):
        (folder / name).mkdir()
        (folder / name).rmdir()
        (folder / name).symlink_to("/dev/null")
        (folder / name).unlink()
    (root / "etc/X11/xorg.conf").write_text("")
    assert events(files) == []


def test_what_does_not_matter_is_silent(root: Path, files: Files) -> None:
    files.watch(["/etc/environment"])
    for path in ("boot/grub.cfg", "var/lib/dpkg/available", "etc/motd", "home/alice/.bashrc", "etc/environment.swp"):
        (root / path).write_text("x")
        (root / path).unlink()
    assert events(files) == []


def test_a_file_that_a_finding_is_about(root: Path, files: Files) -> None:
    path = root / "etc/environment"
    path.write_text("x")
    files.watch(["/etc/environment", "/home/alice/.profile", "/no/such/folder/file"])
    path.write_text("y")
    assert topics(files) == {Topic.FILES}
    replace(path)
    assert topics(files) == {Topic.FILES}
    path.chmod(0o600)
    assert topics(files) == {Topic.FILES}
    path.unlink()
    assert topics(files) == {Topic.FILES}
    (root / "home/alice/.profile").symlink_to("elsewhere")
    assert topics(files) == {Topic.FILES}


def test_a_folder_that_a_finding_is_about(root: Path, files: Files) -> None:
    (root / "tmp").mkdir()
    files.watch(["/tmp"])
    (root / "tmp").chmod(0o755)
    assert topics(files) == {Topic.FILES}
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o755


def test_other_files_replace_those_that_were_watched(root: Path, files: Files) -> None:
    files.watch(["/etc/environment", "/boot/grub.cfg", "/var/lib/dpkg/info"])
    files.watch(["/home/alice/.bashrc"])
    assert not [e for e in events(files) if e.topic is Topic.FILES]
    (root / "etc/environment").write_text("x")
    (root / "boot/grub.cfg").write_text("x")
    assert events(files) == []
    (root / "home/alice/.bashrc").write_text("x")
    assert topics(files) == {Topic.FILES}
    files.watch([])
    (root / "home/alice/.bashrc").write_text("y")
    assert events(files) == []
    # What is always watched still is, though files in the same directories were let go.
    replace(root / "var/lib/dpkg/status")
    (root / "boot/vmlinuz-1").write_text("x")
    assert topics(files) == {Topic.PACKAGES, Topic.KERNELS}


def test_a_watch_that_is_let_go_costs_nothing_more(root: Path, files: Files) -> None:
    files.watch(["/etc/environment"])
    files.watch([])
    assert events(files) == []  # that the watch is gone
    (root / "etc/motd").write_text("x")
    assert not readable(files)


def test_a_device_that_is_used_is_no_change_of_it(root: Path, files: Files) -> None:
    """Half of all programs close /dev/null."""
    (root / "dev/null").write_text("")
    (root / "dev/nvidia0").write_text("")
    files.watch(["/dev/nvidia0"])
    for name in ("null", "nvidia0"):
        with (root / "dev" / name).open("w"):
            pass
    assert not readable(files)
    (root / "dev/nvidia0").chmod(0o600)
    assert topics(files) == {Topic.FILES}
    (root / "dev/nvidia0").unlink()
    assert topics(files) == {Topic.FILES}


def test_the_number_of_watched_files_is_bounded(root: Path, files: Files) -> None:
    many = [f"/home/u{n:04}/.bashrc" for n in range(2000)]
    for path in many:
        (root / path[1:]).parent.mkdir()
    files.watch(many)
    assert 256 <= len(files._reported) <= 512  # a file, and the directory that it may be


def test_a_machine_without_these_folders(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    files.watch(["/etc/environment"])
    assert events(files) == []
    files._inotify.close()


def test_more_changes_than_the_kernel_keeps_are_a_reason_to_look(root: Path, files: Files) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 1 << 16:
        pytest.skip(f"this machine keeps {limit} changes")
    for number in range(limit // 2 + 10):
        (root / "boot" / f"x{number % 2}").touch()
        (root / "boot" / f"x{number % 2}").unlink()
    assert Topic.PACKAGES in topics(files)


# Sessions.


def session(root: Path, name: str, **fields: str) -> None:
    """As logind writes it: a new file that takes the place of the old one."""
    folder = root / "run/systemd/sessions"
    text = {"UID": "1000", "USER": "alice", "ACTIVE": "1", "TYPE": "x11", "CLASS": "user", "SEAT": "seat0", **fields}
    new = folder / f".#{name}tmp"
    new.write_text("# This is private data. Do not parse.\n" + "".join(f"{k}={v}\n" for k, v in text.items() if v))
    new.rename(folder / name)


def end(root: Path, name: str) -> None:
    (root / "run/systemd/sessions" / name).unlink()


def logins(root: Path, files: Files, times: int, **fields: str) -> list[Event]:
    found = []
    for number in range(times):
        session(root, f"c{number}", **fields)
        found += events(files)
        end(root, f"c{number}")
        found += events(files)
    return [e for e in found if e.topic is not Topic.LOGGED_IN]


def test_who_logs_in_may_have_got_out_of_a_loop(root: Path, files: Files) -> None:
    session(root, "c1")
    assert events(files) == [Event(Topic.LOGGED_IN, subject="user:alice")]
    session(root, "c1", ACTIVE="0")
    session(root, "c2", TYPE="tty")
    session(root, "c3", CLASS="greeter", USER="lightdm")
    assert events(files) == []


def test_a_long_session_that_is_first_seen_when_it_ends_is_not_short(root: Path, files: Files) -> None:
    for began, loop in (("1000000", 0), (str(int(time.monotonic() * 1e6)), 1), ("x", 1)):
        found = logins(root, files, TRIES, MONOTONIC=began, USER=f"user{began}")
        assert len(found) == loop


@pytest.mark.parametrize("kind", ["x11", "wayland"])
def test_three_short_sessions_are_a_login_loop(root: Path, files: Files, kind: str) -> None:
    assert logins(root, files, TRIES - 1, TYPE=kind) == []
    assert logins(root, files, 1, TYPE=kind) == [Event(Topic.LOGIN, subject="user:alice")]


def test_a_session_that_gets_its_display_later(root: Path, files: Files) -> None:
    found = []
    for number in range(3):
        session(root, f"c{number}", TYPE="tty")
        events(files)
        session(root, f"c{number}", TYPE="tty", DISPLAY=":0")
        events(files)
        end(root, f"c{number}")
        found += events(files)
    assert len(found) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"TYPE": "tty", "REMOTE": "1", "REMOTE_HOST": "192.0.2.1"},
        {"TYPE": "tty", "TTY": "tty2"},
        {"TYPE": "x11", "CLASS": "greeter", "USER": "gdm"},
        {"TYPE": "unspecified", "CLASS": "background"},
        {"TYPE": "x11", "CLASS": "manager"},
        {"TYPE": "x11", "USER": ""},
    ],
)
def test_other_sessions_are_none(root: Path, files: Files, fields: dict[str, str]) -> None:
    assert logins(root, files, 5, **fields) == []


def test_short_sessions_of_different_people_are_no_loop(root: Path, files: Files) -> None:
    assert [e for n in range(9) for e in logins(root, files, 1, USER=f"user{n % 5}")] == []


def test_a_session_that_began_before_the_watcher_is_not_judged(root: Path) -> None:
    for number in range(5):
        session(root, f"c{number}")
    files = Files(str(root))
    for number in range(5):
        end(root, f"c{number}")
    assert events(files) == []
    files._inotify.close()


def play(root: Path, lengths: list[float], gap: float) -> list[Event]:
    sessions, now, found = Sessions(str(root / "run/systemd/sessions")), 1000.0, []
    for number, length in enumerate(lengths):
        session(root, f"c{number}")
        found.append(sessions.changed(f"c{number}", False, now))
        found.append(sessions.changed(f"c{number}", True, now + length))
        now += length + gap
    return [e for e in found if e and e.topic is not Topic.LOGGED_IN]


def test_long_sessions_are_none(root: Path) -> None:
    assert play(root, [SHORT] * 5, 1) == []
    assert len(play(root, [SHORT - 0.1] * 3, 1)) == 1


def test_short_sessions_far_apart_are_no_loop(root: Path) -> None:
    assert play(root, [1.0] * 9, WINDOW / 2) == []
    assert len(play(root, [1.0] * 3, WINDOW / 3)) == 1


def test_memory_of_sessions_is_bounded(root: Path) -> None:
    sessions = Sessions(str(root / "run/systemd/sessions"))
    for number in range(400):
        session(root, "c1", USER=f"user{number}")
        sessions.changed("c1", False, 1.0)
        sessions.changed("c1", True, 2.0)
    assert len(sessions._short) <= 256
    for number in range(300):
        session(root, f"s{number}")
        sessions.changed(f"s{number}", False, 3.0)
    assert len(sessions._running) <= 256
    for number in range(300):
        sessions.changed(f"s{number}", True, 4.0)
    assert not sessions._running
    assert len(sessions._short["alice"]) <= TRIES


def test_sessions_whose_end_was_not_told_leave_room_for_others(root: Path) -> None:
    folder = root / "run/systemd/sessions"
    sessions = Sessions(str(folder))
    for number in range(300):
        (folder / f"c{number}").write_text("USER=alice\nTYPE=x11\nCLASS=user\n")
        sessions.changed(f"c{number}", gone=False, now=1000.0)
        (folder / f"c{number}").unlink()
    (folder / "one").write_text("USER=bob\nTYPE=x11\nCLASS=user\n")
    assert sessions.changed("one", gone=False, now=1001.0) is None
    sessions.missed()
    assert sessions.changed("one", gone=False, now=1001.0) == Event(Topic.LOGGED_IN, subject="user:bob")
