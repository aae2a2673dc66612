"""The rescue's verbs, called as functions: what they print, what they exit with, and what they do to a root."""

import io
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlhealth.actions import EditFile, MoveAside, WriteFile
from dlhealth.host.alert import SOCKET, Kind
from dlhealth.host.private import PrivateFolder
from dlhealth.steps.base import Target
from dlhealth.txn.__main__ import main
from dlhealth.txn.execute import apply, confirm
from dlhealth.txn.journal import Journal, read_entries
from dlhealth.txn.store import Store

ACTIONS = (EditFile("/etc/one", ((1, "bad", "good"),)), WriteFile("/etc/two", "new\n"))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/one").write_text("bad\n")
    yield tmp_path
    assert (tmp_path / "etc").is_dir()


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who agrees to each question."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 5))


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "yesterday\n"])
@pytest.mark.parametrize("verb", ["recover", "undo"])
def test_what_another_disk_says_was_cut_off_is_shown_and_left_without_consent(
    root: Path, verb: str, answer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    cut_off(root)
    assert main([verb, str(root)]) == 2
    said = capsys.readouterr().err
    assert "repair 1-abc:\n  /etc/one: line 1 becomes: good\n  write /etc/two: new\n" in said
    assert said.endswith("dlhealth: nothing was changed\n")
    assert state(root) == ("good\n", False)


def applied(root: Path, identity: str = "abc", reboot: bool = False) -> None:
    store = Store(str(root))
    with store.locked():
        apply(store, Target(str(root), identity), identity, ACTIONS, {}, lambda: None, reboot, lambda text: None)


def cut_off(root: Path, **about: object) -> None:
    """As a power cut between the two steps leaves it."""
    store, target = Store(str(root)), Target(str(root), "abc")

    class PowerCut(BaseException):
        pass

    def progress(text: str) -> None:
        if text.startswith("[2/"):
            raise PowerCut

    with store.locked(), pytest.raises(PowerCut):
        apply(store, target, "abc", ACTIONS, about, lambda: None, False, progress)
    assert (root / "etc/one").read_text() == "good\n"


def state(root: Path) -> tuple[str, bool]:
    return (root / "etc/one").read_text(), (root / "etc/two").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["undo", "/a", "/b"], ["--help"], [""], ["/"], ["Undo"]], ids=" ".join
)
def test_wrong_words_say_how_it_is_used_and_do_nothing(
    root: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "usage: python3 -I -S __main__.py recover|undo|history [ROOT]\n")


@pytest.mark.parametrize("verb", ["recover", "undo"])
def test_on_a_machine_that_was_never_changed_there_is_nothing_to_do(
    root: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(root)]) == 0
    assert capsys.readouterr().out == "dlhealth: there is nothing to do\n"
    assert state(root) == ("bad\n", False)


def test_history_of_a_machine_that_was_never_changed_is_empty_and_leaves_no_folder(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", str(root)]) == 0
    assert capsys.readouterr().out == ""
    assert not (root / "var").exists()


def test_recover_takes_back_what_was_cut_off(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off(root)
    assert main(["recover", str(root)]) == 0
    assert capsys.readouterr().out == "dlhealth: repair 1-abc: rolled-back\n  it was interrupted\n"
    assert state(root) == ("bad\n", False)
    assert main(["recover", str(root)]) == 0
    assert capsys.readouterr().out == "dlhealth: there is nothing to do\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its root")
@pytest.mark.parametrize("within", [True, False], ids=["the running machine", "another root"])
def test_of_the_running_machine_the_journal_is_told(root: Path, within: bool) -> None:
    """The check at boot finds nothing left to tell of."""
    cut_off(root, findings=[{"id": "a-fault", "subject": "host", "layer": "login"}])
    (root / "run/systemd/journal").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(f"{root}{SOCKET}")
        journal.setblocking(False)
        child = os.fork()
        if child == 0:
            if within:
                os.chroot(root)
            os._exit(main(["recover", "/" if within else str(root)]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert state(root) == ("bad\n", False)
        if not within:
            with pytest.raises(BlockingIOError):
                journal.recv(1 << 16)
            return
        entry = journal.recv(1 << 16).decode().splitlines()
    assert "MESSAGE=Repair 1-abc was undone: it was interrupted" in entry
    assert {f"MESSAGE_ID={Kind.RECOVERED.value}", "DLHEALTH_TRANSACTION=1-abc", "PRIORITY=4"} <= set(entry)
    assert {"DLHEALTH_ID=a-fault", "DLHEALTH_SUBJECT=host", "DLHEALTH_LAYER=login"} <= set(entry)


def test_undo_takes_back_what_was_cut_off_too(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off(root)
    assert main(["undo", str(root)]) == 0
    assert capsys.readouterr().out == "dlhealth: repair 1-abc: undone\n"
    assert state(root) == ("bad\n", False)


def test_recover_leaves_what_was_applied(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    applied(root)
    assert main(["recover", str(root)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert state(root) == ("good\n", True)


def test_undo_takes_back_the_last_transaction_that_was_applied(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    applied(root, "aaa")
    store = Store(str(root))
    with store.locked():
        action = WriteFile("/etc/two", "newer\n")
        apply(store, Target(str(root), "bbb"), "bbb", [action], {}, lambda: None, False, lambda text: None)
    assert main(["undo", str(root)]) == 0
    assert capsys.readouterr().out == "dlhealth: repair 2-bbb: undone\n"
    assert (root / "etc/two").read_text() == "new\n"
    assert main(["undo", str(root)]) == 0
    assert capsys.readouterr().out == "dlhealth: repair 1-aaa: undone\n"
    assert state(root) == ("bad\n", False)
    assert main(["history", str(root)]) == 0
    assert capsys.readouterr().out == "1-aaa  undone\n2-bbb  undone\n"


def test_what_others_changed_since_stays_and_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    applied(root)
    (root / "etc/two").write_text("mine\n")
    assert main(["undo", str(root)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "dlhealth: repair 1-abc: conflict",
        "  changed by somebody else since, left as it is: write /etc/two: new",
    ]
    assert ((root / "etc/one").read_text(), (root / "etc/two").read_text()) == ("bad\n", "mine\n")


def test_what_waits_for_a_reboot_is_left_by_recover_and_taken_back_by_undo(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    applied(root, reboot=True)
    assert main(["recover", str(root)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert state(root) == ("good\n", True)
    store = Store(str(root))
    assert confirm(store, Target(str(root), "abc"), lambda: None) is None  # the same boot
    assert main(["undo", str(root)]) == 0
    assert "undone" in capsys.readouterr().out
    assert state(root) == ("bad\n", False)


def test_while_another_dlhealth_works_it_does_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    applied(root)
    with Store(str(root)).locked():
        assert main(["undo", str(root)]) == 1
    assert capsys.readouterr().err == "dlhealth: another dlhealth is changing this machine\n"
    assert state(root) == ("good\n", True)


@pytest.mark.parametrize("verb", ["recover", "undo"])
def test_a_store_behind_a_link_is_not_followed(
    root: Path, verb: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (root / "var").symlink_to(elsewhere)
    assert main([verb, str(root)]) == 1
    assert capsys.readouterr().err == f"dlhealth: {root}/var: a link, or not a directory\n"
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("verb", ["recover", "undo", "history"])
def test_a_root_that_is_not_there_is_told_and_not_made(
    root: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(root / "mnt")]) == 1
    assert capsys.readouterr().err == f"dlhealth: {root}/mnt: no such directory\n"
    assert not (root / "mnt").exists()


def test_a_root_that_is_a_file_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["undo", str(root / "etc/one")]) == 1
    assert capsys.readouterr().err.startswith("dlhealth: ")


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0" * 4096, b"00000000 {}\n", b"nonsense\nmore\n", b"\xff\xfe", b"deadbeef []\n", b"zz {}\n"],
    ids=["empty", "zeros", "wrong checksum", "text", "no UTF-8", "a list", "no number"],
)
def test_a_journal_that_is_garbage_took_no_step_so_nothing_is_taken_back(
    root: Path, garbage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off(root)
    (root / "var/lib/dlhealth/txn/active/journal").write_bytes(garbage)
    assert main(["recover", str(root)]) == 0
    assert capsys.readouterr().out.startswith("dlhealth: repair 1-abc: rolled-back\n")
    assert (root / "etc/one").read_text() == "good\n"
    assert Store(str(root)).current() is None


def test_a_journal_whose_lines_are_sound_but_no_events_ends_there(tmp_path: Path) -> None:
    import zlib

    lines = b""
    for text in (b'{"kind": "BEGIN"}', b"[]", b'{"kind": "DONE"}'):
        lines += b"%08x %s\n" % (zlib.crc32(text), text)
    (tmp_path / "journal").write_bytes(lines)
    journal = Journal(PrivateFolder("/", str(tmp_path)))
    assert [event.kind for event in journal.events] == ["BEGIN"]
    journal.write("INTENT", n=0)
    journal.close()
    assert [event.kind for event in read_entries(PrivateFolder("/", str(tmp_path)))] == ["BEGIN", "INTENT"]
    assert len((tmp_path / "journal").read_bytes().splitlines()) == 2


def test_a_begun_transaction_whose_staging_was_cut_off_is_none(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    staging = root / "var/lib/dlhealth/txn/staging/pre"
    staging.mkdir(parents=True)
    (staging / "0.json").write_text("{")
    assert main(["recover", str(root)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    applied(root)
    assert state(root) == ("good\n", True)


def test_without_a_root_it_is_this_machine_s(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    applied(root)
    monkeypatch.setattr("dlhealth.txn.store.FOLDER", f"{root}/var/lib/dlhealth/txn")
    assert main(["history"]) == 0
    assert capsys.readouterr().out == "1-abc  applied\n"


def test_others_may_not_look_into_the_store(root: Path) -> None:
    applied(root)
    store = Store(str(root))
    assert os.stat(store.folder).st_mode & 0o777 == 0o700
    assert store.readable
    assert Store(f"{root}/nowhere").readable
    assert not Store(f"{root}/etc/one").readable


@pytest.mark.parametrize("verb", ["recover", "undo"])
@pytest.mark.parametrize(
    "plan",
    [
        b"", b"{", b"\0" * 512, b"\xff\xfe", b"[]", b"{}", b"7", b'{"sequence": 1, "id": "abc"}',
        b'{"sequence": 1, "id": "abc", "actions": []}', b'{"sequence": 1, "id": "abc", "actions": [5]}',
        b'{"sequence": 1, "id": "abc", "actions": [{"kind": "x"}]}',
        b'{"sequence": 1, "id": "abc", "actions": [{"kind": 1}]}',
        b'{"sequence": 1, "id": "abc", "actions": [{"kind": "write-file", "colour": "red"}]}',
    ],
)  # fmt: skip
def test_a_plan_that_can_not_be_read_is_told_in_one_line(
    root: Path, verb: str, plan: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off(root)
    active = root / "var/lib/dlhealth/txn/active"
    (active / "plan.json").write_bytes(plan)
    assert main([verb, str(root)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    problem = said.err.splitlines()[-1]
    assert problem.partition("dlhealth: ")[2].startswith(f"{active} is damaged or of another version of dlhealth (")
    assert problem.endswith(f"then move {active} away.")
    assert state(root) == ("good\n", False)


def test_what_a_file_was_that_can_not_be_read_is_told_too(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off(root)
    (root / "var/lib/dlhealth/txn/active/pre/0.json").write_text('{"kind": "fi')
    assert main(["recover", str(root)]) == 1
    assert "/active is damaged" in capsys.readouterr().err


def test_a_plan_in_the_history_that_can_not_be_read_is_told_too(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    applied(root)
    (root / "var/lib/dlhealth/txn/history/000001-abc-applied/plan.json").write_text("")
    assert main(["undo", str(root)]) == 1
    assert "/000001-abc-applied is damaged" in capsys.readouterr().err
    assert state(root) == ("good\n", True)


@pytest.mark.parametrize("lost", ["plan.json", "journal", "journal's end", "pre/1.json"])
def test_of_what_is_not_whole_nothing_is_taken_back_and_it_is_in_nobody_s_way(
    root: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stays in the history: as the active one it would keep every other repair from beginning."""
    applied(root)
    record = root / "var/lib/dlhealth/txn/history/000001-abc-applied"
    if lost == "journal's end":
        journal = record / "journal"
        journal.write_bytes(journal.read_bytes()[:-20])
    else:
        (record / lost).unlink()
    assert main(["undo", str(root)]) == 1
    assert f"{record} is damaged" in capsys.readouterr().err
    assert state(root) == ("good\n", True)
    assert main(["recover", str(root)]) == 0
    assert [r.outcome for r in Store(str(root)).ended()] == ["applied"]


def test_an_active_one_without_a_plan_is_damaged_and_not_absent(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off(root)
    (root / "var/lib/dlhealth/txn/active/plan.json").unlink()
    assert main(["recover", str(root)]) == 1
    assert "/active is damaged" in capsys.readouterr().err
    assert state(root) == ("good\n", False)


def test_what_was_moved_aside_and_is_gone_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(str(root))
    with store.locked():
        aside = [MoveAside("/etc/one")]
        apply(store, Target(str(root), "abc"), "abc", aside, {}, lambda: None, False, lambda text: None)
    (kept,) = (root / "var/lib/dlhealth/kept").iterdir()
    kept.unlink()
    assert main(["undo", str(root)]) == 1
    said = capsys.readouterr().out
    assert "conflict" in said
    assert "/etc/one cannot be restored" in said


def test_a_history_that_can_not_be_listed_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "var/lib/dlhealth/txn"
    folder.mkdir(parents=True)
    (folder / "history").write_text("")
    assert main(["history", str(root)]) == 1
    assert capsys.readouterr().err == f"dlhealth: {folder}/history: a link, or not a directory\n"
