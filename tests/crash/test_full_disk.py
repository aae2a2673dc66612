"""The disk is full, breaks or becomes read-only at every write of a transaction: once it is good again, the next start
leaves the machine as it was or as planned; what is told is one line."""

import builtins
import errno
import fcntl
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count as numbers
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from dlhealth.actions import ChangeOwner, MoveAside, UpdateInitramfs, WriteFile
from dlhealth.host.change import NotChangeable
from dlhealth.host.path import told
from dlhealth.host.private import PrivateFolder
from dlhealth.model import Action
from dlhealth.steps import step_of
from dlhealth.steps.base import KEPT, CommandFailed, Target
from dlhealth.txn import execute
from dlhealth.txn.execute import Ended, NotPrepared, NotVerified, apply, confirm, recover, undo
from dlhealth.txn.journal import read_entries
from dlhealth.txn.store import Busy, Store
from tests.crash.machine import ACTIONS, journal_in, make
from tests.crash.table import Count
from tests.mounts import LIBC, mount, own_mounts, tmpfs
from tests.snapshot import snapshot

MS_RDONLY, MS_REMOUNT = 1, 1 << 5
EXT4_IOC_SHUTDOWN = 0x8004587D
EXT4_GOING_FLAGS_NOLOGFLUSH = 2

# A change of an owner is written as an edit is.
REPAIR: Sequence[Action] = (
    *(action for action in ACTIONS if not isinstance(action, ChangeOwner)),
    MoveAside("/usr/local/lib/libGL.so"),
)
SHORT = (REPAIR[0], MoveAside("/etc/X11/xorg.conf"))
"""For disks that take long."""
FINDING = "0123"

# Every call by which something gets on a disk; besides these, opening for writing and what file objects write.
CALLS = (
    *("write", "fsync", "ftruncate", "truncate", "rename", "replace", "link", "symlink", "unlink", "rmdir", "mkdir"),
    *("chmod", "chown", "fchmod", "fchown", "setxattr", "removexattr", "utime"),
)
# Those that take space: for a disk that stays full, it is the next of these that fails.
TAKES_SPACE = ("open", "write", "mkdir", "symlink", "link", "rename", "setxattr")

Call = Callable[[], object]
Strike = Callable[[str, Call, Any], object]
"""What happens in place of a write: its name, the write itself, and for data that can be written in part, a function
that writes half of it."""


def build(root: Path) -> None:
    """A machine whose files have attributes, and one that is large enough to tear a line of the journal."""
    make(root)
    with (root / "home/alice/.bashrc").open("a") as file:
        file.write("# of old\n" * 500)
    (root / "usr/local/lib").mkdir()
    (root / "usr/local/lib/libGL.so").symlink_to("libGL.so.1")
    for path in (root / "etc/X11/xorg.conf", root / "tmp"):
        os.setxattr(path, "user.note", b"keep me")


class Disk(Protocol):
    """`root` is a directory on it, and `actions` what is done there. It fails in a child, by `strike`, and is good
    again when `mend` has been called. What was done before `settle` is on it for good."""

    root: Path
    actions: Sequence[Action]
    calls: Sequence[str]

    def strike(self, name: str, call: Call, half: Any) -> object: ...

    def settle(self) -> None: ...

    def mend(self) -> None: ...


# What is done while the disk fails.


def repair(disk: Disk, verify: Callable[[], None] = lambda: None, reboot: bool = False) -> Ended:
    store = Store(str(disk.root))
    with store.locked():
        target = Target(str(disk.root), "abc")
        recover(store, target)
        return apply(store, target, "abc", disk.actions, {"digest": "d"}, verify, reboot, lambda text: None)


def take_back(disk: Disk) -> Ended:
    store = Store(str(disk.root))
    with store.locked():
        return undo(store, Target(str(disk.root), "abc"), store.ended()[-1])


def start(disk: Disk, verify: Callable[[], None] | None = None) -> Ended | None:
    """What the next start of dlhealth begins with."""
    store = Store(str(disk.root))
    with store.locked():
        target = Target(str(disk.root), "abc")
        return recover(store, target) or confirm(store, target, verify or still_there)


def still_there() -> None:
    raise NotVerified("the finding is still there", [FINDING])


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def repair_that_is_killed(disk: Disk) -> None:
    assert in_child(lambda: repair(disk, killed)) is None


def undo_that_is_killed(disk: Disk) -> None:
    repair(disk)
    assert in_child(lambda: take_back(disk), at=25, strike=lambda name, call, half: killed()) is None


def repair_that_waits(disk: Disk) -> None:
    assert repair(disk, reboot=True).outcome == "awaiting-reboot"


class Phase(NamedTuple):
    """`first` is done while the disk is good, `work` when it fails."""

    name: str
    first: Callable[[Disk], object]
    work: Callable[[Disk], Ended | None]


PHASES = (
    Phase("a repair", lambda disk: None, repair),
    Phase("an undo", repair, take_back),
    Phase("the recovery of a repair", repair_that_is_killed, start),
    Phase("the recovery of an undo", undo_that_is_killed, start),
    Phase("what did not help by the next boot", repair_that_waits, start),
)


# A child in which a write fails.


class Said(NamedTuple):
    """What a child reports: whether it came to the write that fails, what dlhealth told, and what it did not catch."""

    reached: bool
    lines: list[str]
    uncaught: str


def in_child(
    work: Callable[[], Ended | None], at: int = -1, strike: Strike | None = None, calls: Sequence[str] = ()
) -> Said | None:
    """Do it in a child, with `strike` in place of its write number `at`; None when it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        send, count = os.write, numbers()
        reached, lines, uncaught = False, [], ""

        def instead(name: str, call: Call, half: Any) -> object:
            nonlocal reached
            if reached or (calls and name not in calls) or next(count) != at or strike is None:
                return call()
            reached = True
            return strike(name, call, half)

        try:
            intercept(instead)
            ended = work()
            lines = list(ended.said) if ended else []
        except (Busy, NotChangeable, CommandFailed, OSError) as error:  # as the commands do
            lines = [told(error)]
        except BaseException:
            uncaught = traceback.format_exc()
        finally:
            send(writing, json.dumps([reached, lines, uncaught]).encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return Said(*json.loads(answer)) if answer else None


def intercept(instead: Strike) -> None:
    """Have every write go through `instead`, for as long as this process lives."""
    real_open, real_os_open, real_os_write = builtins.open, os.open, os.write

    def intercepted(name: str, call: Callable[..., object]) -> Callable[..., object]:
        return lambda *args, **kwargs: instead(name, partial(call, *args, **kwargs), None)

    def os_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> Any:
        call = partial(real_os_open, path, flags, *args, **kwargs)
        return instead("open", call, None) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else call()

    def os_write(fd: int, data: Any) -> Any:
        return instead("write", lambda: real_os_write(fd, data), lambda: real_os_write(fd, data[: len(data) // 2]))

    class Raw(io.FileIO):
        def write(self, data: Any) -> Any:
            whole = super().write
            return instead("write", lambda: whole(data), lambda: whole(data[: len(data) // 2]))

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "w" not in mode:
            return real_open(file, mode, *args, **kwargs)
        buffered = io.BufferedWriter(Raw(file, "w"))
        return buffered if "b" in mode else io.TextIOWrapper(buffered)

    for name in CALLS:
        setattr(os, name, intercepted(name, getattr(os, name)))
    os.open, os.write, builtins.open = os_open, os_write, opened


# Disks that fail.


class Moody:
    """One call fails, all others don't; it has done nothing, or `half`: half of its data is written, or all is done
    and only the answer is an error."""

    actions: Sequence[Action] = REPAIR
    calls: Sequence[str] = ()

    def __init__(self, root: Path, half: bool) -> None:
        self.root = root
        self._half = half

    def strike(self, name: str, call: Call, half: Any) -> object:
        if self._half:
            (half or call)()
        # As the calls do: those that take a path name it.
        first = call.args[0] if isinstance(call, partial) else None
        raise OSError(errno.EIO, os.strerror(errno.EIO), first if isinstance(first, str) else None)

    def settle(self) -> None:
        pass

    def mend(self) -> None:
        pass


class Killing(Moody):
    """Not the disk: dlhealth is killed instead of the call. What it wrote before stays."""

    def strike(self, name: str, call: Call, half: Any) -> object:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Full:
    """A small tmpfs that somebody else fills to the last byte and the last inode."""

    actions: Sequence[Action] = REPAIR
    calls: Sequence[str] = TAKES_SPACE

    def __init__(self, root: Path, disk: Path) -> None:
        self.root = root
        self._ballast = disk / "ballast"

    def strike(self, name: str, call: Call, half: Any) -> object:
        with suppress(OSError):
            self._ballast.mkdir()
            with open(self._ballast / "bytes", "wb", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass
        with suppress(OSError):
            for number in numbers():
                (self._ballast / str(number)).touch()
        return call()

    def settle(self) -> None:
        pass

    def mend(self) -> None:
        shutil.rmtree(self._ballast, ignore_errors=True)


class Ext4:
    """On a loop device. It becomes read-only as it does after an error of its own (`abort`), or each of its calls fails
    as when the device is gone (`shutdown`); what was not on disk is lost, as in a power cut."""

    actions: Sequence[Action] = SHORT
    calls: Sequence[str] = ()

    def __init__(self, device: str, folder: Path, how: str) -> None:
        self._device, self._folder, self._how = device, folder, how
        self.root = folder / "root"
        self._mount()

    def strike(self, name: str, call: Call, half: Any) -> object:
        if self._how == "abort":
            mount(None, self._folder, MS_REMOUNT, "abort")
        else:
            fd = os.open(self._folder, os.O_RDONLY)
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", EXT4_GOING_FLAGS_NOLOGFLUSH))
            os.close(fd)
        return call()

    def settle(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY)
        LIBC.syncfs(fd)
        os.close(fd)

    def mend(self) -> None:
        assert LIBC.umount2(bytes(self._folder), 0) == 0
        self._mount()

    def _mount(self) -> None:
        mount(self._device, self._folder, 0, "")


@contextmanager
def ext4(folder: Path, how: str) -> Iterator[Ext4]:
    if not shutil.which("mkfs.ext4"):
        pytest.skip("mkfs.ext4 is not installed")
    image, at = folder / "image", folder / "disk"
    at.mkdir()
    with image.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "1024", "-I", "256", str(image)], check=True)
    looped = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if looped.returncode:
        pytest.skip(f"no loop device: {looped.stderr}")
    device = looped.stdout.strip()
    fd = os.open(device, os.O_RDONLY)
    try:
        # It goes when it is no longer open, also if this process is killed.
        subprocess.run(["losetup", "--detach", device], check=True)
        yield Ext4(device, at, how)
    finally:
        LIBC.umount2(bytes(at), 0)
        os.close(fd)


SMALL = "size=512k,nr_inodes=120"


def disk_of(kind: str, folder: Path, stack: ExitStack) -> Disk:
    small = stack.enter_context(tmpfs(folder, "size=8m" if kind.startswith(("EROFS", "EIO, dead")) else SMALL))
    root = small / "root"
    if kind == "EROFS":
        return stack.enter_context(ext4(small, "abort"))
    if kind == "EIO, dead":
        return stack.enter_context(ext4(small, "shutdown"))
    store = small
    if "apart" in kind:
        store = stack.enter_context(tmpfs(root / "var/lib/dlhealth", SMALL))
    if kind.startswith("ENOSPC"):
        return Full(root, store)
    return Killing(root, False) if kind.startswith("killed") else Moody(root, "half" in kind)


@pytest.fixture(scope="module", autouse=True)
def mounts_of_its_own() -> Iterator[None]:
    with own_mounts():
        yield


KINDS = {
    "ENOSPC": "the disk is full (tmpfs)",
    "ENOSPC apart": "the disk of the store is full (two tmpfs)",
    "EROFS": "the disk becomes read-only (ext4, abort)",
    "EIO, dead": "the disk is gone (ext4, shutdown)",
    "EIO": "one write fails",
    "EIO half apart": "one write fails half done, store on another disk",
    "killed apart": "killed, store on another disk,",
}
CASES = [
    pytest.param(kind, phase, id=f"{kind}: {phase.name}")
    for kind in KINDS
    # The recovery of an undo, and the next boot, write what the first three write: a few disks are enough.
    for phase in (PHASES if kind in ("ENOSPC", "ENOSPC apart", "EIO") else PHASES[:3])
]


def copy(source: Path, destination: Path) -> None:
    shutil.rmtree(destination, ignore_errors=True)  # the mount of a store that is apart stays
    subprocess.run(["cp", "-a", "-T", source, destination], check=True)


def is_clear(line: str) -> bool:
    """Whether a line says what failed, and where."""
    return line in ("it was interrupted", "the finding is still there") or (
        "\n" not in line and ": " in line and "/" in line
    )


@pytest.mark.parametrize(("kind", "phase"), CASES)
def test_a_disk_that_fails_at_every_write(
    kind: str, phase: Phase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    boot_id = tmp_path / "boot_id"
    monkeypatch.setattr(execute, "BOOT_ID", str(boot_id))
    with ExitStack() as stack:
        disk = disk_of(kind, tmp_path / "disk", stack)
        root = disk.root
        build(root)
        before = snapshot(root)
        copy(root, tmp_path / "untouched")
        repair(disk)
        planned = snapshot(root)
        assert before != planned
        copy(tmp_path / "untouched", root)
        boot_id.write_text("first")
        phase.first(disk)
        boot_id.write_text("second")
        copy(root, tmp_path / "begun")
        for point in numbers():
            copy(tmp_path / "begun", root)
            disk.settle()
            said = in_child(lambda: phase.work(disk), point, disk.strike, disk.calls)
            if said:
                assert not said.uncaught, said.uncaught
                assert all(is_clear(line) for line in said.lines), said.lines
                if not said.reached:
                    break
            disk.mend()
            start(disk)
            state = snapshot(root)
            store = Store(str(root))
            assert store.current() is None
            assert state in (before, planned), f"write {point}"
            end = "as planned" if state == planned else "as before"
            outcomes = [record.outcome for record in store.ended()]
            assert outcomes in ([["applied"]] if end == "as planned" else [[], ["rolled-back"], ["undone"]])
            count(f"{KINDS[kind]} during {phase.name}", end)
        assert point > 10


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_a_disk_that_is_read_only_when_dlhealth_starts(
    phase: Phase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    boot_id = tmp_path / "boot_id"
    monkeypatch.setattr(execute, "BOOT_ID", str(boot_id))
    with tmpfs(tmp_path / "disk", SMALL) as folder:
        disk = Moody(folder / "root", False)
        build(disk.root)
        before = snapshot(disk.root)
        boot_id.write_text("first")
        phase.first(disk)
        boot_id.write_text("second")
        begun = snapshot(disk.root)
        mount(None, folder, MS_REMOUNT | MS_RDONLY, "")
        said = in_child(lambda: phase.work(disk))
        assert said is not None
        assert (len(said.lines), said.uncaught) == (1, "")
        assert said.lines[0].endswith(": read-only file system")
        assert snapshot(disk.root) == begun
        mount(None, folder, MS_REMOUNT, "")
        ended = start(disk)
        assert snapshot(disk.root) == (before if ended else begun)
        count(
            "the disk is read-only from the start (tmpfs)",
            "as before" if snapshot(disk.root) == before else "as planned",
        )


def test_half_a_line_of_the_journal_hides_nothing_that_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = journal_in(tmp_path)
    journal.write("BEGIN", digest="d")
    write = os.write

    def half(fd: int, data: bytes) -> int:
        write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/journal'"):
            journal.write("INTENT", n=0)
    journal.write("COMMIT", outcome="rolled-back")
    journal.close()
    assert [event.kind for event in read_entries(PrivateFolder("/", str(tmp_path)))] == ["BEGIN", "COMMIT"]


def test_what_could_not_even_begin_is_no_conflict(tmp_path: Path) -> None:
    disk = Moody(tmp_path / "root", False)
    disk.actions = [WriteFile("/etc/nosuch/file", "x")]
    build(disk.root)
    before = snapshot(disk.root)
    ended = repair(disk)
    assert (ended.outcome, ended.said) == ("rolled-back", ("the directory of /etc/nosuch/file is gone",))
    assert snapshot(disk.root) == before


def test_attributes_that_can_not_be_read_are_not_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Moody(tmp_path / "root", False)
    build(disk.root)
    before = snapshot(disk.root)

    def fails(*arguments: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "getxattr", fails)
        with pytest.raises(NotPrepared, match=r"/\S+: input/output error"):
            repair(disk)
    assert snapshot(disk.root) == before


def test_half_an_image_makes_way_for_the_one_that_comes_back(tmp_path: Path) -> None:
    """A plan counts on room for one new image on /boot, not for two."""
    root, action = tmp_path / "root", step_of(UpdateInitramfs("6.1"))
    (root / "var/lib/dlhealth").mkdir(parents=True)
    with tmpfs(root / "boot", "size=1m") as boot:
        image, target = boot / "initrd.img-6.1", Target(str(root), "abc")
        image.write_bytes(b"old" * (100 << 10))
        before = action.observe(target)
        target.keep("/boot/initrd.img-6.1")
        (boot / "initrd.img-6.1.new").write_bytes(bytes(600 << 10))
        action.revert(target, before)
        assert [p.name for p in boot.iterdir()] == [image.name]
        assert action.observe(target) == before


def test_a_copy_that_fills_the_disk_goes(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=2m") as folder, tmpfs(folder / "root/var/lib/dlhealth", SMALL):
        disk = Moody(folder / "root", False)
        disk.actions = [MoveAside("/home/alice/large")]
        build(disk.root)
        (disk.root / "home/alice/large").write_bytes(bytes(1 << 20))
        before = snapshot(disk.root)
        ended = repair(disk)
        assert ended.outcome == "rolled-back"
        assert ended.said[0].startswith(KEPT)
        assert ended.said[0].endswith(": no space left on device")
        assert snapshot(disk.root) == before
        kept = disk.root / KEPT.strip("/")
        assert list(kept.iterdir()) == []
        with pytest.raises(OSError, match=r"No space left on device: '/var/lib/dlhealth/kept/"):
            Target(str(disk.root), "abc").keep("/home/alice/large")
        assert list(kept.iterdir()) == []


def test_what_did_not_help_is_not_judged_again_when_its_taking_back_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot_id = tmp_path / "boot_id"
    monkeypatch.setattr(execute, "BOOT_ID", str(boot_id))
    disk = Moody(tmp_path / "root", False)
    build(disk.root)
    before = snapshot(disk.root)
    boot_id.write_text("first")
    repair_that_waits(disk)
    boot_id.write_text("second")
    assert in_child(lambda: start(disk), at=20, strike=lambda name, call, half: killed()) is None
    half_way = snapshot(disk.root)
    assert half_way != before
    # Of a machine that is half taken back, the finding may well be gone.
    ended = start(disk, verify=lambda: None)
    assert ended is not None
    assert (ended.outcome, ended.said) == ("rolled-back", ("the finding is still there",))
    assert snapshot(disk.root) == before
    assert read_entries(ended.record.folder)[-1].fields["failed"] == [FINDING]


def test_an_undo_is_on_disk_before_anything_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Moody(tmp_path / "root", False)
    build(disk.root)
    repair(disk)
    synced: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}").removeprefix(f"{disk.root}/var/lib/dlhealth/"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    take_back(disk)
    assert synced[:3] == ["txn", "txn/history", "txn/active/journal"]
