"""The transaction store of a disk that somebody prepared: reading it and undoing what it claims stays inside that disk."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlhealth.actions import action_from_json
from dlhealth.engine.repair import tell
from dlhealth.steps.base import Target
from dlhealth.txn.execute import recover, undo
from dlhealth.txn.store import Damaged, Store
from tests.hostile_disk import FILE, Disk, line

CLIMB = "../" * 30


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def file_links(disk: Disk, name: str) -> None:
    (disk.active / name).unlink()
    (disk.active / name).symlink_to(disk.victim)


def climbing_id(disk: Disk) -> None:
    disk.plan["id"] = f"a/{CLIMB}{str(disk.victim).lstrip('/')}"
    disk.step(FILE, kind="write-file", path="/x", text="new", mode=0o644)
    (disk.root / ".x.a").mkdir()
    (disk.root / "x").write_text("old")
    disk.write()


def climbing_rename(disk: Disk) -> None:
    disk.plan["id"] = f"x/{CLIMB}{str(disk.victim.parent / 'evil').lstrip('/')}"
    (disk.store / "history/000001-x").mkdir(parents=True)
    disk.write()


def climbing_outcome(disk: Disk) -> None:
    (disk.store / "history/000001-abc-x").mkdir(parents=True)
    disk.journal += line("COMMIT", outcome=f"x/{CLIMB}{str(disk.victim.parent / 'evil').lstrip('/')}")
    disk.write()


def folder_links(name: str) -> Callable[[Disk], None]:
    def make(disk: Disk) -> None:
        disk.write()
        place = disk.store / name
        outside = disk.victim.parent / "outside"
        if place.exists():
            place.rename(outside)
        else:
            outside.mkdir()
        place.symlink_to(outside)

    return make


@pytest.mark.parametrize(
    "prepare",
    [
        *(lambda disk, name=name: (disk.write(), file_links(disk, name)) for name in ("journal", "plan.json")),
        climbing_id,
        climbing_rename,
        climbing_outcome,
        *map(folder_links, ("active", "active/pre", "history", "staging", "lock")),
    ],
)
def test_nothing_outside_of_the_disk_changes(disk: Disk, prepare: Callable[[Disk], object]) -> None:
    prepare(disk)
    outside = disk.victim.parent / "outside"
    before = sorted(os.listdir(outside)) if outside.is_dir() else None
    disk.all_that_reads_it()
    assert disk.victim.read_text() == "precious"
    assert set(os.listdir(disk.victim.parent)) <= {"disk", "victim", "outside"}
    assert before == (sorted(os.listdir(outside)) if outside.is_dir() else None)


@pytest.mark.parametrize("name", ["plan.json", "journal", "pre/0.json"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "link", "sparse", "deep", "words", "empty"])
def test_a_record_that_is_no_sound_file_is_damaged_at_once(disk: Disk, name: str, kind: str) -> None:
    disk.step(FILE, kind="write-file", path="/x", text="new", mode=0o644)
    disk.write()
    place = disk.active / name
    place.unlink()
    match kind:
        case "fifo":
            os.mkfifo(place)
        case "device":
            os.mknod(place, 0o20666, os.makedev(1, 5))
        case "folder":
            place.mkdir()
        case "link":
            place.symlink_to("/dev/zero")
        case "sparse":
            with place.open("wb") as file:
                file.truncate(8 << 40)
        case "deep":
            text = b"[" * 200_000
            place.write_bytes(b"%08x %s\n" % (zlib.crc32(text), text) if name == "journal" else text)
        case "words":
            place.write_text('"only words"')
        case "empty":
            place.touch()
    store = Store(str(disk.root))
    if name != "journal" or kind in ("fifo", "device", "folder", "link", "sparse"):
        with store.locked(), pytest.raises(Damaged) as raised:
            current = store.current()
            assert current
            undo(store, Target(str(disk.root), current.id), current)
        assert "\n" not in str(raised.value)
    record = next(iter(filter(None, [_current(store)])), None)
    assert record is None or tell(record) is not None
    assert not (disk.root / "x").exists()


def _current(store: Store) -> Any:
    try:
        return store.current()
    except OSError:
        return None


def test_a_journal_with_a_second_name_is_not_written_to(disk: Disk) -> None:
    disk.write()
    os.link(disk.active / "journal", disk.root / "etc/shadow")
    before = (disk.root / "etc/shadow").read_bytes()
    disk.all_that_reads_it()
    assert (disk.root / "etc/shadow").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"content": 3},
        {"content": "no base64 at all!"},
        {"mode": -1},
        {"mode": 1 << 40},
        {"uid": "root"},
        {"gid": True},
        {"kind": "device"},
        {"attributes": [["security.capability"]]},
    ],
)
def test_a_made_up_state_of_a_file_is_damaged(disk: Disk, change: dict[str, Any]) -> None:
    disk.step({**FILE, **change}, kind="write-file", path="/x", text="new", mode=0o644)
    (disk.root / "x").write_text("new")
    disk.write()
    store = Store(str(disk.root))
    current = store.current()
    assert current
    with store.locked(), pytest.raises(Damaged):
        recover(store, Target(str(disk.root), "abc"))
    assert (disk.root / "x").read_text() == "new"


UP = f"/{CLIMB}etc/passwd"
FORGED: tuple[dict[str, Any], ...] = (
    {"kind": "write-file", "path": UP, "text": "x"},
    {"kind": "write-file", "path": "relative", "text": "x"},
    {"kind": "write-file", "path": "/x\0y", "text": "x"},
    {"kind": "write-file", "path": "/x", "text": "x", "mode": 1 << 20},
    {"kind": "edit-file", "path": UP, "changes": []},
    {"kind": "edit-file", "path": "/x", "changes": [["1", "a", "b"]]},
    {"kind": "copy-file", "source": UP, "path": "/x"},
    {"kind": "move-aside", "path": UP},
    {"kind": "make-link", "path": UP, "target": "x"},
    {"kind": "change-mode", "path": UP, "mode": 0o777},
    {"kind": "change-owner", "path": "/x", "user": "../x", "group": "g"},
    {"kind": "dkms-build", "module": "../../x", "version": "1", "kernel": "6.1"},
    {"kind": "dkms-build", "module": "x", "version": "1/..", "kernel": "6.1"},
    {"kind": "dkms-build", "module": "x", "version": "1", "kernel": ".."},
    {"kind": "dkms-remove", "module": "--all", "version": "1"},
    {"kind": "update-initramfs", "kernel": "../x"},
    {"kind": "refresh-module-index", "kernel": "../../etc"},
    {"kind": "load-modules", "modules": ["/tmp/evil.ko"]},
    {"kind": "load-modules", "modules": "nvidia"},
    {"kind": "reload-modules", "modules": ["-C/tmp/x"]},
    {"kind": "set-alternative", "name": "../../x", "path": "/usr/lib/x"},
    {"kind": "set-alternative", "name": "glx", "path": "x/../.."},
    {"kind": "apt-install", "packages": ["-oDir=/tmp"]},
    {"kind": "apt-install", "packages": ["x"], "instead_of": [UP]},
    {"kind": "apt-install", "packages": ["/tmp/x.deb"]},
    {"kind": "apt-remove", "packages": ["--option"]},
    {"kind": "apt-purge-reinstall", "packages": [3]},
    {"kind": "apt-unhold", "packages": ["../x"]},
    {"kind": "annotations"},
    {"kind": 3},
)


@pytest.mark.parametrize("record", FORGED, ids=lambda r: "-".join(map(str, r.values()))[:40].replace("\0", "0"))
def test_a_made_up_action_is_none(disk: Disk, record: dict[str, Any]) -> None:
    with pytest.raises((LookupError, ValueError, TypeError, AttributeError)):
        action_from_json(record)
    disk.step({}, **record)
    disk.write()
    with Store(str(disk.root)).locked(), pytest.raises(Damaged):
        recover(Store(str(disk.root)), Target(str(disk.root), "abc"))


@pytest.mark.parametrize(
    "fields", [{"n": -1}, {"n": "0"}, {"n": True}, {"n": 1 << 70}, {}, {"n": 0, "after": 1}], ids=str
)
def test_a_made_up_line_of_the_journal_is_not_read(disk: Disk, fields: dict[str, Any]) -> None:
    disk.journal += line("DONE", **fields)
    disk.write()
    store = Store(str(disk.root))
    with store.locked():
        ended = recover(store, Target(str(disk.root), "abc"))
    assert ended and ended.outcome == "rolled-back"


@pytest.mark.parametrize(
    "field", [{"id": ".."}, {"id": 3}, {"id": "ABC"}, {"sequence": -1}, {"sequence": "1"}, {"sequence": 10**12}]
)
def test_a_made_up_name_of_a_transaction_is_damaged(disk: Disk, field: dict[str, Any]) -> None:
    disk.plan |= field
    disk.write()
    with pytest.raises(Damaged):
        Store(str(disk.root)).current()
