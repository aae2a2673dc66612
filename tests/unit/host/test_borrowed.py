"""The running machine, mounted below another root: it stays as it is, whatever plans, records and links name there."""

import ctypes
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dlhealth.actions import ChangeMode, EditFile, MakeLink, MoveAside, RefreshLoaderCache, WriteFile
from dlhealth.host import Unreadable
from dlhealth.host.borrowed import borrowed
from dlhealth.host.mounts import Mounts
from dlhealth.host.path import Borrowed, Root
from dlhealth.host.root import RootHost
from dlhealth.model import Action
from dlhealth.steps.base import Target
from dlhealth.steps.reach import out_of_reach
from dlhealth.txn.execute import NotPrepared, apply
from dlhealth.txn.store import Busy, Store
from tests.hostile_disk import FILE, Disk
from tests.mounts import LIBC, own_mounts

READ_ONLY, BIND = 1, 1 << 12


def mount(source: str, target: Path, kind: str | None, flags: int) -> None:
    if LIBC.mount(source.encode(), bytes(target), kind and kind.encode(), ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


@pytest.fixture(autouse=True)
def mounts_of_its_own(tmp_path: Path) -> Iterator[None]:
    """They go before tmp_path is removed: through them, that would remove what is mounted."""
    with own_mounts():
        yield


@pytest.fixture
def victim() -> Iterator[Path]:
    """A directory of the running machine."""
    folder = Path("/var/tmp") / f"dlhealth-test-{os.getpid()}"
    folder.mkdir()
    (folder / ".bashrc").write_text("precious\n")
    yield folder
    subprocess.run(["rm", "-r", folder], check=True)


@pytest.fixture
def root(tmp_path: Path, victim: Path) -> Path:
    """A disk with that directory mounted at /home/alice."""
    folder = tmp_path / "disk"
    for name in ("home/alice", "etc", "usr", "var/lib", "dev", "proc", "sys", "run"):
        (folder / name).mkdir(parents=True)
    mount("disk", folder, "tmpfs", 0)
    for name in ("home/alice", "etc", "usr", "var/lib", "dev", "proc", "sys", "run"):
        (folder / name).mkdir(parents=True)
    for name in ("etc", "usr", "var"):
        (folder / name / "file").write_text("x\n")
    mount(str(victim), folder / "home/alice", None, BIND)
    return folder


def snapshot(victim: Path) -> list[tuple[str, int, bytes]]:
    return sorted((p.name, p.stat().st_mode, p.read_bytes()) for p in victim.iterdir())


BASHRC = "/home/alice/.bashrc"


@pytest.mark.parametrize(
    "action",
    [
        EditFile(BASHRC, ((1, "precious", "changed"),)),
        WriteFile(BASHRC, "changed\n"),
        WriteFile("/home/alice/new", "new\n"),
        ChangeMode(BASHRC, 0o777),
        MoveAside(BASHRC),
        MakeLink("/home/alice/link", "x"),
    ],
    ids=lambda a: type(a).__name__ + a.path.rpartition("/")[2],
)
@pytest.mark.parametrize("way", ["straight", "link"])
def test_no_action_reaches_it(action: Action, way: str, root: Path, victim: Path) -> None:
    if way == "link":
        (root / "opt").symlink_to("/home/alice")
        action = action._replace(path=action.path.replace("/home/alice", "/opt"))  # type: ignore[attr-defined]
    before = snapshot(victim)
    told = out_of_reach(Target(str(root), "test"), [action])
    assert bool(told) == (way == "straight")
    assert all("umount" in why for why in told.values())
    store, target = Store(str(root)), Target(str(root), "abc")
    try:
        with store.locked():
            ended = apply(store, target, "abc", [action], {}, lambda: None, False, lambda text: None)
        problem = str(ended.problem)
    except (OSError, NotPrepared) as error:
        problem = str(error)
    assert "running machine" in problem or problem.startswith("/opt is a link")
    assert snapshot(victim) == before


def test_programs_do_not_run_beside_it(root: Path) -> None:
    (why,) = out_of_reach(Target(str(root), "test"), [RefreshLoaderCache()]).values()
    assert f"umount {root}/home/alice" in why


def test_what_programs_do_not_see_is_not_in_their_way(tmp_path: Path, victim: Path) -> None:
    for name in ("dev", "run"):
        (tmp_path / name).mkdir()
        mount(str(victim), tmp_path / name, None, BIND)
    told = out_of_reach(Target(str(tmp_path), "test"), [RefreshLoaderCache()])
    assert not [why for why in told.values() if "umount" in why]


@pytest.mark.parametrize(
    "forge",
    [
        lambda d: d.step(FILE, kind="write-file", path=BASHRC, content="x"),
        lambda d: d.step({"kind": "absent"}, kind="write-file", path="/home/alice/.bashrc", content="x"),
        lambda d: d.step({**FILE, "mode": 0o4777}, kind="change-mode", path=BASHRC, mode=0o644),
        lambda d: d.step({"kept": BASHRC}, kind="move-aside", path="/home/alice/other"),
        lambda d: d.step(FILE, kind="edit-file", path="/opt/.bashrc", changes=[[1, "precious", "x"]]),
    ],
)
def test_no_forged_record_reaches_it(forge: Callable[[Disk], None], tmp_path: Path, victim: Path) -> None:
    disk = Disk(tmp_path)
    (disk.root / "home/alice").mkdir(parents=True)
    (disk.root / "opt").symlink_to("/home/alice")
    mount(str(victim), disk.root / "home/alice", None, BIND)
    before = snapshot(victim)
    forge(disk)
    disk.write()
    with suppress(Busy):
        disk.all_that_reads_it()
    assert snapshot(victim) == before


def test_its_store_is_not_the_disks(root: Path, victim: Path) -> None:
    (victim / "dlhealth/txn/active/pre").mkdir(parents=True)
    (victim / "dlhealth/txn/active/plan.json").write_text(json.dumps({"id": "abc", "sequence": 1, "actions": []}))
    mount(str(victim), root / "var/lib", None, BIND)
    with pytest.raises(OSError, match="running machine"):
        Store(str(root)).active.names()


def test_it_is_not_read_as_the_disks(root: Path) -> None:
    with pytest.raises(Unreadable, match="belongs to the running machine"):
        RootHost(str(root)).text(BASHRC)
    assert RootHost(str(root)).text("/etc/file") == "x\n"


def test_sysfs_that_is_mounted_for_a_chroot_is_read(root: Path) -> None:
    mount("sysfs", root / "sys", "sysfs", READ_ONLY)
    assert RootHost(str(root)).listdir("/sys")
    with pytest.raises(Borrowed):
        Root(str(root)).open("/sys/class", os.O_RDONLY)


def test_another_file_system_of_the_disk_is_its_own(root: Path) -> None:
    mount("other", root / "var/lib", "tmpfs", 0)
    assert list(borrowed(str(root), kernel=False).values()) == [f"{root}/home/alice"]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/../../etc /srv none bind", "mount --bind {root}/etc {root}/srv"),
        ("../../etc /srv none bind", "mount --bind {root}/etc {root}/srv"),
        ("/data /../../srv none bind", "mount --bind {root}/data {root}/srv"),
        ("/data /out none bind", "mount --bind {root}/data {root}/srv"),
        ("/away /srv none rbind", "mount --bind {root}/etc {root}/srv"),
        ("-B /srv ext4 defaults", "mount -- -B {root}/srv"),
    ],
)
def test_a_command_for_people_stays_on_the_disk(line: str, command: str, root: Path) -> None:
    for name in ("data", "srv"):
        (root / name).mkdir()
    (root / "out").symlink_to("/srv")
    (root / "away").symlink_to("../../../etc")
    (root / "etc/fstab").write_text(f"UUID=1 / ext4 defaults\n{line} 0 0\n")
    (missing,) = Mounts(Root(str(root))).missing
    assert missing.command(str(root)) == command.format(root=root)
