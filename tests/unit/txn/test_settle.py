"""What programs have written is on the disk before a transaction says that it has ended: dkms, as an example, does not
wait for that."""

from pathlib import Path

import pytest

from dlhealth.actions import EditFile, RefreshLoaderCache
from dlhealth.model import Action
from dlhealth.txn.execute import NotVerified, apply
from dlhealth.txn.store import Store
from tests.stand_in_root import StandInRoot

pytestmark = pytest.mark.real_programs  # the stand-ins


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInRoot:
    made = StandInRoot(tmp_path, monkeypatch)
    made.program("ldconfig")
    made.program("sync", 'cp "$IN_ROOT/var/lib/dlhealth/txn/active/journal" "$IN_ROOT/seen"')
    made.file("/etc/environment", "PATH=/bad\n")
    made.file("/etc/ld.so.cache", "old")
    return made


def transaction(root: StandInRoot, action: Action, *, helps: bool = True, reboot: bool = False) -> str:
    def verify() -> None:
        if not helps:
            raise NotVerified("it is still there", ())

    store = Store(str(root.folder))
    with store.locked():
        return apply(store, root.target, "abc", [action], {}, verify, reboot, lambda text: None).outcome


@pytest.mark.parametrize(
    ("case", "outcome", "last", "not_yet"),
    [
        ({}, "applied", "DONE", "COMMIT"),
        ({"reboot": True}, "awaiting-reboot", "DONE", "WAIT-REBOOT"),
        ({"helps": False}, "rolled-back", "REVERTED", "COMMIT"),
    ],
)
def test_before_it_ends(root: StandInRoot, case: dict[str, bool], outcome: str, last: str, not_yet: str) -> None:
    assert transaction(root, RefreshLoaderCache(), **case) == outcome
    journal = (root.folder / "seen").read_text()
    assert last in journal
    assert not_yet not in journal


def test_on_each_file_system_that_programs_write_to(root: StandInRoot) -> None:
    """Also where systemd-boot keeps its own copy of an image: it is another than /boot."""
    transaction(root, RefreshLoaderCache())
    (synced,) = [run[2:] for run in root.runs if run[:2] == ["sync", "-f"]]
    assert set(synced) == {"/", "/usr", "/var", "/boot", "/boot/efi", "/efi"}


def test_what_dlhealth_writes_itself_is_there_already(root: StandInRoot) -> None:
    edit = EditFile("/etc/environment", ((1, "PATH=/bad", "PATH=/usr/bin"),))
    assert transaction(root, edit) == "applied"
    assert not (root.folder / "seen").exists()
