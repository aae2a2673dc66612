"""A transaction is cut off at every step that touches the disk, and again while it recovers: the machine ends as it
was or as planned, and no user's file is lost."""

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

import dlhealth.txn
from dlhealth.actions import ChangeMode, ChangeOwner, EditFile, MoveAside, WriteFile
from dlhealth.host.change import SIZE_LIMIT, State
from dlhealth.model import Action
from dlhealth.steps.base import Target
from dlhealth.txn.execute import NotPrepared, NotVerified, apply, recover, undo
from dlhealth.txn.journal import Journal
from dlhealth.txn.store import Busy, Store
from tests.crash.machine import ACTIONS, journal_in, make
from tests.crash.table import Count
from tests.snapshot import snapshot

SOMEBODY = "somebody else changed it meanwhile"
# Every call by which a transaction leaves something on the disk.
CALLS = ("write", "fsync", "rename", "unlink", "mkdir", "symlink", "fchown", "fchmod", "chown", "ftruncate")


def run(root: Path, verify: Callable[[], None] = lambda: None) -> str:
    store, target = Store(str(root)), Target(str(root), "abc")
    with store.locked():
        recover(store, target)
        return apply(store, target, "abc", ACTIONS, {"digest": "d"}, verify, False, lambda text: None).outcome


def cut_off(work: Callable[[], object], after: int) -> bool:
    """Do the work in a child that is killed before its call number `after` to change the disk; whether it was."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def wrapper(*args: object, **kwargs: object) -> object:
                nonlocal count
                count += 1
                if count > after:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return wrapper

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def recovered(root: Path) -> str:
    store, target = Store(str(root)), Target(str(root), "abc")
    with store.locked():
        ended = recover(store, target)
    assert store.current() is None
    return ended.outcome if ended else "nothing"


def test_every_crash_point_and_every_crash_of_the_recovery(tmp_path: Path, count: Count) -> None:
    reference = tmp_path / "reference"
    make(reference)
    before = snapshot(reference)
    assert run(reference) == "applied"
    planned = snapshot(reference)
    assert planned != before
    ends = set[str]()
    point = 0
    while True:
        root = tmp_path / f"point-{point}"
        make(root)
        if not cut_off(lambda root=root: run(root), point):
            break
        again = 0
        while cut_off(lambda root=root: recovered(root), again):
            again += (
                15  # every fifteenth call of a recovery, which begins anew each time; test_full_disk has all of one
            )
        outcome = recovered(root)
        state = snapshot(root)
        assert state in (before, planned), f"crash point {point}"
        assert outcome in ("nothing", "rolled-back", "applied")
        ends.add("as before" if state == before else "as planned")
        count("killed during a repair, and again in its recovery", "as before" if state == before else "as planned")
        point += 1
    assert point > 60
    assert len(ends) == 2


@pytest.mark.parametrize("keep", range(0, 100, 7))
def test_a_torn_journal(tmp_path: Path, keep: int) -> None:
    journal = journal_in(tmp_path)
    journal.write("BEGIN", digest="d")
    journal.write("INTENT", n=0)
    journal.close()
    whole = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(whole[: max(0, len(whole) - keep)])
    opened = journal_in(tmp_path)
    kinds = [e.kind for e in opened.events]
    assert kinds == ["BEGIN", "INTENT"][: len(kinds)]
    opened.write("DONE", n=0)
    opened.close()
    assert [e.kind for e in journal_in(tmp_path).events] == [*kinds, "DONE"]


def test_what_does_not_verify_is_taken_back(tmp_path: Path) -> None:
    make(tmp_path)
    before = snapshot(tmp_path)

    def verify() -> None:
        raise NotVerified("the finding is still there", ["0123"])

    assert run(tmp_path, verify) == "rolled-back"
    assert snapshot(tmp_path) == before


def test_undo_gives_back_every_byte(tmp_path: Path) -> None:
    make(tmp_path)
    before = snapshot(tmp_path)
    run(tmp_path)
    store, target = Store(str(tmp_path)), Target(str(tmp_path), "abc")
    assert undo(store, target, store.ended()[-1]).outcome == "undone"
    assert snapshot(tmp_path) == before
    assert [r.outcome for r in store.ended()] == ["undone"]


def test_an_undo_that_is_cut_off_anywhere(tmp_path: Path, count: Count) -> None:
    reference = tmp_path / "reference"
    make(reference)
    before = snapshot(reference)
    point, states = 0, set[bool]()
    while True:
        root = tmp_path / f"point-{point}"
        make(root)
        run(root)
        planned = snapshot(root)

        def work(root: Path = root) -> None:
            store = Store(str(root))
            undo(store, Target(str(root), "abc"), store.ended()[-1])

        if not cut_off(work, point):
            break
        recovered(root)
        state = snapshot(root)
        assert state in (before, planned), f"crash point {point}"
        states.add(state == before)
        count("killed during an undo", "as before" if state == before else "as planned")
        point += 1
    assert point > 20
    assert states == {True, False}


def test_undo_keeps_what_an_administrator_changed_since(tmp_path: Path, count: Count) -> None:
    make(tmp_path)
    run(tmp_path)
    (tmp_path / "etc/profile.d/cuda.sh").write_text("mine now\n")
    store = Store(str(tmp_path))
    ended = undo(store, Target(str(tmp_path), "abc"), store.ended()[-1])
    assert ended.outcome == "conflict"
    assert "/etc/profile.d/cuda.sh" in " ".join(ended.said)
    assert (tmp_path / "etc/profile.d/cuda.sh").read_text() == "mine now\n"
    assert (tmp_path / "etc/X11/xorg.conf").read_text() == "Section\n"
    count(SOMEBODY, "conflict")


@pytest.mark.parametrize(
    ("instead", "outcome"), [("nothing", "undone"), ("a file", "conflict"), ("a link to itself", "undone")]
)
@pytest.mark.parametrize("cut_off", [False, True], ids=["at once", "and again after it was interrupted"])
def test_undo_ends_where_the_folder_is_no_longer_one(tmp_path: Path, instead: str, outcome: str, cut_off: bool) -> None:
    """It would be the active one for ever, for which no other can begin."""
    root, store = tmp_path / "root", Store(str(tmp_path / "root"))
    make(root)
    (root / "usr/local/cuda").unlink()
    (root / "usr/local/cuda").symlink_to("cuda-12.2")
    (root / "usr/local/cuda-12.2").mkdir()
    actions = [WriteFile("/usr/local/cuda/cudnn.h", "new\n")]
    if instead == "a file":
        (root / "usr/local/cuda/cudnn.h").write_text("old\n")
    with store.locked():
        target = Target(str(root), "abc")
        assert apply(store, target, "abc", actions, {}, lambda: None, False, lambda text: None).outcome == "applied"
        shutil.rmtree(root / "usr/local/cuda-12.2")
        if instead == "a file":
            (root / "usr/local/cuda-12.2").touch()
        elif instead == "a link to itself":
            (root / "usr/local/cuda-12.2").symlink_to("cuda-12.2")
        record = store.ended()[-1]
        if cut_off:
            Journal(store.reopen(record).folder).write("UNDO", boot="")
            ended = recover(store, target)
        else:
            ended = undo(store, target, record)
    assert (ended and ended.outcome, store.current()) == (outcome, None)


@pytest.mark.parametrize("trick", ["link above", "hard link", "changed line", "fifo"])
def test_a_plan_that_can_not_be_done_safely_changes_nothing(tmp_path: Path, trick: str) -> None:
    root = tmp_path / "root"
    make(root)
    (root / "etc/shadow").write_text("secret")
    bashrc = root / "home/alice/.bashrc"
    action: Action = ACTIONS[0]
    if trick == "link above":
        (root / "home/alice/.config").symlink_to("/etc")
        os.chown(root / "home/alice/.config", 1000, 1000, follow_symlinks=False)
        action = ChangeOwner("/home/alice/.config/shadow", "alice", "alice")
    elif trick == "hard link":
        os.link(root / "etc/shadow", root / "home/alice/.ICEauthority")
        action = ChangeOwner("/home/alice/.ICEauthority", "alice", "alice")
    elif trick == "changed line":
        bashrc.write_text("# other\nalias l=ls\n")
    else:
        bashrc.unlink()
        os.mkfifo(bashrc)
    store, target = Store(str(root)), Target(str(root), "abc")
    with store.locked(), pytest.raises(NotPrepared) as refused:
        apply(store, target, "abc", [ACTIONS[1], action], {}, lambda: None, False, lambda text: None)
    assert not (root / "etc/profile.d/cuda.sh").exists()
    assert (root / "etc/shadow").stat().st_uid == 0
    assert list(refused.value.problems) == [action]
    assert store.current() is None


def test_two_at_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with store.locked(), pytest.raises(Busy), Store(str(tmp_path)).locked():
        pass


PACKAGE = Path(dlhealth.txn.__file__).parents[1]


def rescue(root: Path, verb: str, package: Path = PACKAGE) -> "subprocess.CompletedProcess[str]":
    """As a person would on a machine whose dlhealth does not start: the system's Python, no site-packages."""
    command = ["/usr/bin/python3", "-I", "-S", package / "txn/__main__.py", verb, root]
    environment = {"PYTHONPATH": "/broken"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, input="y\n")


def test_the_rescue_needs_only_a_python(tmp_path: Path) -> None:
    make(tmp_path)
    before = snapshot(tmp_path)
    assert "nothing to do" in rescue(tmp_path, "recover").stdout
    assert cut_off(lambda: run(tmp_path), 60)
    done = rescue(tmp_path, "recover")
    assert done.returncode == 0
    assert done.stdout.startswith("dlhealth: repair 1-abc: rolled-back\n")
    assert snapshot(tmp_path) == before
    run(tmp_path)
    assert "undone" in rescue(tmp_path, "undo").stdout
    assert snapshot(tmp_path) == before
    assert [line.split()[-1] for line in rescue(tmp_path, "history").stdout.splitlines()] == ["rolled-back", "undone"]
    assert rescue(tmp_path, "dance").returncode == 2


def test_the_rescue_is_reached_by_a_link_too(tmp_path: Path) -> None:
    """The service has one, beside which no dlhealth lies."""
    link = tmp_path / "rescue"
    link.symlink_to(PACKAGE)
    done = rescue(tmp_path, "recover", link)
    assert (done.returncode, done.stdout, done.stderr) == (0, "dlhealth: there is nothing to do\n", "")


def test_two_changes_of_one_path_build_on_each_other(tmp_path: Path) -> None:
    make(tmp_path)
    before = snapshot(tmp_path)
    actions = (
        ChangeOwner("/home/alice/.Xauthority", "alice", "alice"),
        ChangeMode("/home/alice/.Xauthority", 0o600),
        MoveAside("/etc/X11/xorg.conf"),
        WriteFile("/etc/X11/xorg.conf", "new\n"),
    )
    store, target = Store(str(tmp_path)), Target(str(tmp_path), "abc")
    with store.locked():
        ended = apply(store, target, "abc", actions, {}, lambda: None, False, lambda text: None)
        assert ended.outcome == "applied"
        status = (tmp_path / "home/alice/.Xauthority").stat()
        assert (status.st_uid, status.st_mode & 0o777) == (1000, 0o600)
        assert (tmp_path / "etc/X11/xorg.conf").read_text() == "new\n"
        assert undo(store, target, ended.record).outcome == "undone"
    assert snapshot(tmp_path) == before


def test_what_was_moved_aside_stays_kept_where_its_folder_leads_to_nothing(tmp_path: Path) -> None:
    root, store = tmp_path / "root", Store(str(tmp_path / "root"))
    make(root)
    with store.locked():
        target = Target(str(root), "abc")
        apply(store, target, "abc", [MoveAside("/etc/X11/xorg.conf")], {}, lambda: None, False, lambda text: None)
        (root / "etc/X11").rmdir()
        (root / "etc/X11").symlink_to("X11")
        ended = undo(store, target, store.ended()[-1])
    assert ended.outcome == "conflict"
    assert [said.endswith(": the directory of /etc/X11/xorg.conf is gone") for said in ended.said] == [True]
    assert [p.read_text() for p in (root / "var/lib/dlhealth/kept").iterdir()] == ["Section\n"]


@pytest.mark.parametrize("crossing", [False, True])
def test_whatever_is_moved_aside_comes_back(tmp_path: Path, crossing: bool, mocker: MockerFixture) -> None:
    make(tmp_path)
    big = tmp_path / "usr/local/libcudnn.so.8"
    with big.open("wb") as file:
        file.truncate(SIZE_LIMIT + 1)
    big.chmod(0o755)
    (tmp_path / "usr/local/tree/deep").mkdir(parents=True)
    (tmp_path / "usr/local/tree/deep/file").write_text("x")
    paths = ["/usr/local/libcudnn.so.8", "/usr/local/cuda", "/etc/X11/xorg.conf"]
    if crossing:
        mocker.patch("dlhealth.steps.base.move", side_effect=OSError(errno.EXDEV, "Invalid cross-device link"))
    else:
        paths.append("/usr/local/tree")
    before = snapshot(tmp_path)
    store, target = Store(str(tmp_path)), Target(str(tmp_path), "abc")
    with store.locked():
        ended = apply(store, target, "abc", [MoveAside(p) for p in paths], {}, lambda: None, False, lambda text: None)
        assert ended.outcome == "applied"
        assert not any(os.path.lexists(tmp_path / p.strip("/")) for p in paths)
        assert undo(store, target, ended.record).outcome == "undone"
    assert snapshot(tmp_path) == before


def test_what_took_the_place_since_is_kept(tmp_path: Path, count: Count) -> None:
    make(tmp_path)
    store, target = Store(str(tmp_path)), Target(str(tmp_path), "abc")
    with store.locked():
        moved = [MoveAside("/home/alice/.Xauthority")]
        ended = apply(store, target, "abc", moved, {}, lambda: None, False, lambda text: None)
        (tmp_path / "home/alice/.Xauthority").write_bytes(b"the new session's")
        assert undo(store, target, ended.record).outcome == "conflict"
    assert (tmp_path / "home/alice/.Xauthority").read_bytes() == b"the new session's"
    count(SOMEBODY, "conflict")


def test_a_signal_is_heard_between_two_steps_and_all_is_taken_back(tmp_path: Path) -> None:
    make(tmp_path)
    before, handler = snapshot(tmp_path), signal.getsignal(signal.SIGINT)
    store, target = Store(str(tmp_path)), Target(str(tmp_path), "abc")

    def progress(text: str) -> None:
        if text.startswith("[2/"):
            os.kill(os.getpid(), signal.SIGINT)

    with store.locked():
        ended = apply(store, target, "abc", ACTIONS, {}, lambda: None, False, progress)
    assert (ended.outcome, ended.said) == ("rolled-back", ("stopped by SIGINT",))
    assert snapshot(tmp_path) == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_file_that_changes_meanwhile_is_not_overwritten(tmp_path: Path, count: Count) -> None:
    make(tmp_path)
    store, target = Store(str(tmp_path)), Target(str(tmp_path), "abc")

    def progress(text: str) -> None:
        if text.startswith("[1/"):
            (tmp_path / "etc/X11/xorg.conf").write_text("the administrator's\n")

    with store.locked():
        edit = EditFile("/etc/X11/xorg.conf", ((1, "Section", "# Section"),))
        ended = apply(store, target, "abc", [edit], {}, lambda: None, False, progress)
    assert ended.outcome == "conflict"
    assert (tmp_path / "etc/X11/xorg.conf").read_text() == "the administrator's\n"
    count(SOMEBODY, "conflict")


def test_a_folder_that_a_user_exchanges_during_an_undo_is_a_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    assert run(tmp_path) == "applied"
    store, state = Store(str(tmp_path)), Target.state

    def exchanged(self: Target, path: str) -> State:
        if path.endswith(".bashrc"):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return state(self, path)

    monkeypatch.setattr(Target, "state", exchanged)
    with store.locked():
        ended = undo(store, Target(str(tmp_path), "abc"), store.ended()[-1])
    assert ended.outcome == "conflict"
    assert [said.endswith(": /home/alice/.bashrc: not a directory") for said in ended.said] == [True]
    assert not (tmp_path / "etc/profile.d/cuda.sh").exists()
    assert store.current() is None
