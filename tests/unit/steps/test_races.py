"""Root repairs files in the home of somebody who moves them about meanwhile, as fast as he can: nothing outside is read,
written, made or given away. Real processes, a real other user, the real system calls."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dlhealth.actions import EditFile, MoveAside
from dlhealth.host.change import NotChangeable, State
from dlhealth.steps import base as actions
from dlhealth.steps.base import CommandFailed, Target
from dlhealth.txn.execute import apply, undo
from dlhealth.txn.store import Store

pytestmark = [
    pytest.mark.real_programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user"),
]
USER = pwd.getpwnam("nobody")
SYSTEM_PYTHON = "/usr/bin/python3"
SECRET = b"root's secret"
SECONDS = 1.0

# Each swaps two things in the directory that is its working one; `outside` is what the links lead to.
SWAPS = {
    "the file is a link now and then": """
os.symlink(outside + "/secret", "link")
while True:
    os.rename(".config/file", "mine"); os.rename("link", ".config/file")
    os.rename(".config/file", "link"); os.rename("mine", ".config/file")
""",
    "the folder is a link now and then": """
os.symlink(outside, "link")
while True:
    os.rename(".config", "mine"); os.rename("link", ".config")
    os.rename(".config", "link"); os.rename("mine", ".config")
""",
    "root's own folder with a link gives way to one of the user": """
os.mkdir("mine"); os.symlink(outside, "mine/way")
while True:
    os.rename("roots", "away"); os.rename("mine", "roots")
    os.rename("roots", "mine"); os.rename("away", "roots")
""",
    "the file is a FIFO now and then": """
os.mkfifo("pipe")
while True:
    os.rename(".config/file", "mine"); os.rename("pipe", ".config/file")
    os.rename(".config/file", "pipe"); os.rename("mine", ".config/file")
""",
    "two files change their places": """
while True:
    os.rename(".config/file", "mine"); os.rename("roots-own", ".config/file")
    os.rename(".config/file", "roots-own"); os.rename("mine", ".config/file")
""",
    "the temporary file is a link": """
while True:
    for name in os.listdir(".config"):
        if name.startswith(".file."):
            try:
                os.unlink(".config/" + name); os.symlink(outside + "/secret", ".config/" + name)
            except OSError:
                pass
""",
}
LOOP = """
import os, sys
os.fchdir(int(sys.argv[1])); outside = sys.argv[2]
print(flush=True)
def swap():
    %s
while True:
    try:
        swap()
    except OSError:  # root was faster
        for a, b in (("mine", ".config"), ("away", "roots")):
            try:
                if not os.path.lexists(b):
                    os.rename(a, b)
            except OSError:
                pass
"""


class House:
    """A home, and what is outside of it."""

    def __init__(self, base: Path) -> None:
        self.home, self.outside = base / "home", base / "outside"
        self.outside.mkdir()
        for name in ("secret", "file"):
            (self.outside / name).write_bytes(SECRET)
            (self.outside / name).chmod(0o600)
        (self.home / ".config").mkdir(parents=True)
        (self.home / ".config/file").write_text("bad\n")
        for path in (self.home, self.home / ".config", self.home / ".config/file"):
            os.chown(path, USER.pw_uid, USER.pw_gid)
        (self.home / "roots-own").write_text("root's\n")
        (self.home / "roots-own").chmod(0o4755)
        (self.home / "roots/real").mkdir(parents=True)
        (self.home / "roots/way").symlink_to("real")
        (self.home / "roots/real/file").write_text("bad\n")

    def seen_outside(self) -> list[tuple[str, bytes, tuple[int, ...]]]:
        seen = []
        for path in sorted([self.outside, *self.outside.rglob("*")]):
            s = path.lstat()
            facts = (s.st_ino, s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_mtime_ns, s.st_ctime_ns)
            seen.append((str(path), path.read_bytes() if path.is_file() else b"", facts))
        return seen

    @contextmanager
    def raced(self, swap: str, outside: str) -> Iterator[None]:
        """While the owner of the home swaps."""
        fd = os.open(self.home, os.O_RDONLY)
        code = LOOP % "\n    ".join(SWAPS[swap].strip().splitlines())
        words = [SYSTEM_PYTHON, "-I", "-S", "-c", code, str(fd), outside]
        with subprocess.Popen(
            words, user=USER.pw_uid, group=USER.pw_gid, extra_groups=[], pass_fds=[fd], stdout=subprocess.PIPE, cwd="/"
        ) as racer:
            assert racer.stdout
            racer.stdout.readline()
            try:
                yield
                assert racer.poll() is None, "the race ended early"
            finally:
                racer.kill()
                os.close(fd)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory on another file system than that of the tests: there, moving aside is copying."""
    folder = Path(f"/dev/shm/dlhealth-test-{os.getpid()}-{time.monotonic_ns()}")
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


def repeat(work: Callable[[], None]) -> int:
    """How often it was not refused."""
    done = 0
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            work()
            done += 1
        except (OSError, NotChangeable, CommandFailed):
            pass
    return done


@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("apart", [False, True], ids=["one file system", "two"])
def test_on_the_running_machine(
    swap: str, apart: bool, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    kept = elsewhere if apart else tmp_path / "kept"
    monkeypatch.setattr(actions, "KEPT", str(kept))
    if apart and os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("/dev/shm is no file system of its own")
    target = Target("/", "abcd")
    path = f"{house.home}/{'roots/way' if 'own folder' in swap else '.config'}/file"
    before = house.seen_outside()

    def look_and_write() -> None:
        state = target.state(path)
        assert state.content != SECRET
        if state.kind == "file":
            target.put(path, state._replace(content=b"good\n", uid=USER.pw_uid))

    def away_and_back() -> None:
        try:
            target.set_aside(path)
        finally:
            for file in kept.glob("*"):
                assert file.is_symlink() or not file.is_file() or file.read_bytes() != SECRET, "a secret was copied"
            target.bring_back(path)

    with house.raced(swap, str(house.outside)):
        done = repeat(look_and_write)
        repeat(away_and_back)
    assert done, "it never got to write"
    assert house.seen_outside() == before


@pytest.mark.parametrize("swap", SWAPS)
def test_whole_repairs_of_another_root(swap: str, tmp_path: Path) -> None:
    """Each a transaction that is taken back again."""
    root = tmp_path / "root"
    root.mkdir()
    house = House(root)
    store = Store(str(root))
    path = f"/home/{'roots/way' if 'own folder' in swap else '.config'}/file"
    before = house.seen_outside()
    outcomes = set()

    def repair() -> None:
        target = Target(str(root), "abcd")
        for action in (EditFile(path, ((1, "bad", "good"),)), MoveAside(path)):
            with store.locked():
                ended = apply(store, target, "abcd", [action], {}, lambda: None, False, lambda text: None)
                outcomes.add(ended.outcome)
                if ended.outcome == "applied":
                    outcomes.add(undo(store, target, ended.record).outcome)

    with house.raced(swap, "/outside"):
        repeat(repair)
    assert house.seen_outside() == before
    assert outcomes <= {"applied", "rolled-back", "conflict", "undone"}


def test_what_is_read_is_one_file(tmp_path: Path) -> None:
    """Never the owner and the mode of one with the content of another: root would give the one to the other."""
    house = House(tmp_path)
    (house.home / ".config/file").write_text("the user's\n")
    mode = (house.home / ".config/file").stat().st_mode & 0o777
    target, seen = Target("/", "abcd"), set()

    def look() -> None:
        state = target.state(f"{house.home}/.config/file")
        seen.add(state._replace(attributes=(), gid=0))

    with house.raced("two files change their places", ""):
        repeat(look)
    assert seen <= {
        State("file", b"the user's\n", mode, USER.pw_uid),
        State("file", b"root's\n", 0o4755, 0),
        State("absent"),
    }
    assert len(seen) > 1, "the race was none"
