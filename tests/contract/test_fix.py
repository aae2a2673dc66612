"""`fix`, `undo`, `history` and `show` as a person and a script use them, on a machine in a directory."""

import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pytest_mock import MockerFixture

from dlhealth.actions import WriteFile, action_to_json
from dlhealth.cli import Status, run
from dlhealth.cli.progress import Steps
from dlhealth.steps.base import CommandFailed, Target
from dlhealth.testing import Machine
from dlhealth.txn.execute import apply
from dlhealth.txn.journal import Journal
from dlhealth.txn.store import Store

pytestmark = pytest.mark.real_programs
SWALLOWED = "export PATH=/usr/local/cuda/bin"


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def dlhealth(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def go(*words: str, answer: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        capfd.readouterr()
        return Done(run(words), *capfd.readouterr())

    return go


def state(root: Path) -> dict[str, tuple[object, ...]]:
    return {
        str(p): (p.lstat().st_mode, p.lstat().st_uid, p.lstat().st_mtime_ns, p.lstat().st_ino)
        for p in sorted(root.rglob("*"))
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    machine = Machine.debian12_gpu().append("/home/alice/.bashrc", f"{SWALLOWED}\n")
    machine.file("/home/alice/.Xauthority", "cookie", uid=0).build(tmp_path)
    return tmp_path


def bashrc(root: Path) -> str:
    return (root / "home/alice/.bashrc").read_text().splitlines()[-1]


def test_a_dry_run_shows_each_change_and_touches_nothing(dlhealth: Run, root: Path) -> None:
    before = state(root)
    done = dlhealth("fix", "--root", str(root), "--dry-run")
    assert done.returncode == 3
    assert f"- 15: {SWALLOWED}" in done.stdout
    assert '+ 15: export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"' in done.stdout
    assert "move /home/alice/.Xauthority aside" in done.stdout
    assert state(root) == before


@pytest.mark.parametrize("answer", ["", "n\n", "\n"])
def test_without_consent_nothing_happens(dlhealth: Run, root: Path, answer: str) -> None:
    before = {p: s for p, s in state(root).items() if "/var" not in p}
    done = dlhealth("fix", "--root", str(root), answer=answer)
    assert done.returncode == 3
    assert {p: s for p, s in state(root).items() if "/var" not in p} == before


def test_it_asks_once_repairs_proves_and_takes_back(dlhealth: Run, root: Path) -> None:
    done = dlhealth("fix", "--root", str(root), answer="y\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("[y/N]") == 1
    assert "No problems found." in done.stdout
    assert re.search(rf"dlhealth\s+undo\s+1-\w+\s+--root\s+{root}\n", done.stdout), "the machine that was repaired"
    assert bashrc(root) == 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"'
    assert dlhealth("doctor", "--root", str(root)).returncode == 0
    again = dlhealth("fix", "--root", str(root), "--yes")
    assert (again.returncode, again.stderr) == (0, "")
    (line,) = dlhealth("history", "--root", str(root)).stdout.splitlines()
    name = line.split()[0]
    assert "applied" in line
    shown = dlhealth("show", name, "--root", str(root)).stdout
    assert "done" in shown
    assert "login-loop-xauthority-wrong-owner" in shown
    undone = dlhealth("undo", "--root", str(root), "--yes")
    assert undone.returncode == 0, undone.stderr
    assert bashrc(root) == SWALLOWED
    assert (root / "home/alice/.Xauthority").read_text() == "cookie"
    assert "There is nothing to undo." in dlhealth("undo", "--root", str(root), "--yes").stdout


def test_undo_keeps_what_the_administrator_changed_since(dlhealth: Run, root: Path) -> None:
    dlhealth("fix", "--root", str(root), "--yes")
    mine = "export PATH=$HOME/bin:$PATH\n"
    (root / "home/alice/.bashrc").write_text(mine)
    undone = dlhealth("undo", "1", "--root", str(root), "--yes")
    assert undone.returncode == 1
    told = " ".join(undone.stdout.split())
    assert "only partly undone" in told
    assert "changed by somebody else since, left as it is: /home/alice/.bashrc" in told
    assert re.search(r" undone: [^:]*/home/alice/\.Xauthority", told)
    assert (root / "home/alice/.bashrc").read_text() == mine
    assert (root / "home/alice/.Xauthority").read_text() == "cookie"


def test_an_undo_that_met_a_conflict_can_be_tried_again(dlhealth: Run, root: Path) -> None:
    dlhealth("fix", "--root", str(root), "--yes")
    file, mine = root / "home/alice/.bashrc", "export PATH=$HOME/bin:$PATH\n"
    repaired = file.read_text()
    file.write_text(mine)
    undone = dlhealth("undo", "1", "--root", str(root), "--yes")
    assert "after you resolved that: dlhealth undo 1-" in " ".join(undone.stdout.split())
    # Without a name, the last repair is meant that is in effect.
    assert "There is nothing to undo." in dlhealth("undo", "--root", str(root), "--yes").stdout
    again = dlhealth("undo", "1", "--root", str(root), "--yes")
    assert again.returncode == 1
    assert file.read_text() == mine
    file.write_text(repaired)
    (root / "home/alice/.Xauthority").write_text("a new session's")  # no part of the conflict
    resolved = dlhealth("undo", "1", "--root", str(root), "--yes")
    assert resolved.returncode == 0, resolved.stdout + resolved.stderr
    assert bashrc(root) == SWALLOWED
    assert (root / "home/alice/.Xauthority").read_text() == "a new session's"
    refused = dlhealth("undo", "1", "--root", str(root), "--yes")
    assert "ended as undone: there is nothing to undo" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("on", ["a pipe", "a terminal"])
def test_a_repair_is_not_left_half_done_where_nobody_reads_what_it_says(root: Path, on: str) -> None:
    """As with 2>&1 | head -1, or on a console that is taken away."""
    end, inner = os.pipe() if on == "a pipe" else os.openpty()
    command = [sys.executable, "-m", "dlhealth", "fix", "--yes", "--root", str(root)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=inner) as fix:
        os.close(inner)
        said = ""
        while "[1/2]" not in said:
            said += os.read(end, 4096).decode()
        os.close(end)
    assert fix.returncode == 0
    assert bashrc(root) != SWALLOWED
    assert [p.name.split("-")[-1] for p in (root / "var/lib/dlhealth/txn/history").iterdir()] == ["applied"]


def test_on_a_terminal(root: Path) -> None:
    """A person reads the plan, answers, sees each step, and what was proved."""
    end, terminal = os.openpty()
    command = [sys.executable, "-m", "dlhealth", "fix", "--root", str(root)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as fix:
        os.close(terminal)
        shown = ""
        while True:
            try:
                shown += os.read(end, 4096).decode()
            except OSError:  # its other end was closed
                break
            if shown.endswith("[y/N]: "):
                os.write(end, b"y\n")
    os.close(end)
    assert fix.returncode == 0
    plan, _, done = shown.replace("\r\n", "\n").partition("Run these 2 steps? [y/N]: y\n")
    assert plan.startswith("Plan: 2 steps (risk low)\n")
    assert "   1. move /home/alice/.Xauthority aside (kept in /var/lib/dlhealth)\n" in plan
    assert f"   2. edit /home/alice/.bashrc\n        - 15: {SWALLOWED}\n        + 15: export PATH=" in plan
    first, second, *ended = re.sub(r"\r\033\[K", "", done).splitlines()
    assert (first[:8], second[:8]) == ("  [1/2] ", "  [2/2] ")
    gone = [line.strip() for line in ended if line.strip().startswith("resolved: ")]
    assert gone == [
        "resolved: login-loop-xauthority-wrong-owner (file:/home/alice/.Xauthority)",
        "resolved: ld-library-path-malformed (user:alice)",
    ]
    assert ended[-1].startswith("No problems found.")


@pytest.mark.parametrize("answer", [b"\3", b"\4"])
def test_an_end_of_the_question_is_told_from_no_answer(root: Path, answer: bytes) -> None:
    """Ctrl-C ends dlhealth, as everywhere; Ctrl-D is the end of what is typed, and a no."""
    end, terminal = os.openpty()
    # Who runs the tests in the background may ignore the signal.
    program = "import signal, runpy; signal.signal(2, signal.default_int_handler); runpy.run_module('dlhealth', None, '__main__')"
    command = ["/usr/bin/setsid", "--ctty", "--wait", sys.executable, "-c", program, "fix", "--root", str(root)]
    shown = ""
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as fix:
        os.close(terminal)
        while True:
            # A key that is hit before the answer is waited for may be lost: it is hit again, as people do.
            if not select.select([end], [], [], 0.5)[0]:
                if "[y/N]: " in shown:
                    os.write(end, answer)
                continue
            try:
                shown += os.read(end, 4096).decode()
            except OSError:
                break
    os.close(end)
    assert (fix.returncode, "No answer: nothing was changed" in shown) == (
        (130, False) if answer == b"\3" else (3, True)
    )
    assert bashrc(root) == SWALLOWED


@pytest.mark.parametrize("end", ["a pipe that nobody reads", "/dev/full"])
def test_where_progress_can_not_be_told_a_repair_goes_on(root: Path, end: str) -> None:
    """It was left half done, with the exit status of a machine that has only warnings."""
    reader, writer = os.pipe()
    os.close(reader)
    stderr = writer if end != "/dev/full" else os.open(end, os.O_WRONLY)
    for words, last in ((["fix"], 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"'), (["undo"], SWALLOWED)):
        command = [sys.executable, "-m", "dlhealth", *words, "--root", str(root), "--yes"]
        assert subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, check=False).returncode == 0
        assert bashrc(root) == last
    command = [sys.executable, "-m", "dlhealth", "fix", "--nothing"]
    assert subprocess.run(command, stderr=stderr, check=False).returncode == 2
    for fd in {stderr, writer}:
        os.close(fd)


def test_who_reads_only_the_plan_gets_the_whole_repair_and_no_complaint(root: Path) -> None:
    command = [sys.executable, "-m", "dlhealth", "fix", "--root", str(root), "--yes"]
    reader, writer = os.pipe()
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True) as fix:
        os.close(writer)
        os.read(reader, 4)
        os.close(reader)
        assert fix.stderr
        told = fix.stderr.read()
    assert fix.returncode == 141
    assert "rror" not in told
    assert os.listdir(root / "var/lib/dlhealth/txn/history")[0].endswith("-applied")


def test_what_can_not_begin_keeps_nothing_else_from_being_repaired(dlhealth: Run, tmp_path: Path) -> None:
    """No program runs in a directory of a few files: what needs one is said, and the rest is asked for again."""
    machine = Machine.debian12_gpu().append("/home/alice/.bashrc", f"{SWALLOWED}\n")
    machine.remove("/usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.535.261.03")
    machine.build(tmp_path)
    done = dlhealth("fix", "--root", str(tmp_path), answer="y\ny\n")
    assert done.stderr.count("[y/N]") == 2
    assert "do not run here" in done.stderr
    assert bashrc(tmp_path) == 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"'
    assert "Still there: libcuda-missing-from-loader" in done.stdout
    assert done.returncode == 3
    (line,) = dlhealth("history", "--root", str(tmp_path)).stdout.splitlines()
    assert "ld-library-path-malformed" in line
    assert "libcuda" not in line


def make_immutable(path: Path) -> None:
    if not shutil.which("chattr"):
        pytest.skip("chattr is not installed")
    if subprocess.run(["chattr", "+i", path], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")


@pytest.mark.parametrize("obstacle", ["hard link", "immutable", "immutable folder"])
def test_a_file_that_can_not_be_changed_keeps_nothing_else_from_being_repaired(
    dlhealth: Run, root: Path, obstacle: str
) -> None:
    file = root / "home/alice/.bashrc"
    locked = {"hard link": "", "immutable": file, "immutable folder": file.parent}[obstacle]
    (root / "tmp").chmod(0o755)
    (root / "home/alice/.Xauthority").unlink()
    if not locked:
        os.link(file, root / "home/alice/copy")
    else:
        make_immutable(locked)
    try:
        done = dlhealth("fix", "--root", str(root), "--yes", "--json")
        document = json.loads(done.stdout)
        assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
        assert bashrc(root) == SWALLOWED
        assert [x["id"] for x in document["plan"]["left"]] == ["ld-library-path-malformed"]
        why = f"first run: chattr -ia {str(locked).removeprefix(str(root))}" if locked else "second name"
        assert why in document["plan"]["left"][0]["reason"]
        assert [t["outcome"] for t in document["transactions"]] == ["applied"]
        assert done.returncode == 3
    finally:
        if locked:
            subprocess.run(["chattr", "-i", locked], check=True)
    assert dlhealth("undo", "--root", str(root), "--yes").returncode == 0
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o755


def test_what_was_made_immutable_since_is_left_by_an_undo_and_the_rest_is_put_back(dlhealth: Run, root: Path) -> None:
    dlhealth("fix", "--root", str(root), "--yes")
    file = root / "home/alice/.bashrc"
    make_immutable(file)
    try:
        undone = dlhealth("undo", "--root", str(root), "--yes")
    finally:
        subprocess.run(["chattr", "-i", file], check=True)
    assert undone.returncode == 1
    assert "/home/alice/.bashrc: operation not permitted" in " ".join(undone.stdout.split())
    assert (root / "home/alice/.Xauthority").read_text() == "cookie"
    assert dlhealth("fix", "--root", str(root), "--yes").returncode == 0


def test_what_a_correction_brings_into_force_is_right_too(dlhealth: Run, root: Path) -> None:
    """As long as its quote was open, the line did not take /usr/bin away."""
    profile = root / "home/alice/.profile"
    kept = profile.read_text()
    profile.write_text(kept + 'export PATH="/usr/local/cuda/bin\n')
    found = json.loads(dlhealth("doctor", "--root", str(root), "--json").stdout)["findings"]
    assert {f["id"]: f["caused_by"] for f in found}["login-loop-profile-script-error"] == ["ld-library-path-malformed"]
    assert dlhealth("fix", "--root", str(root), "--yes").returncode == 0
    assert profile.read_text() == kept + 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"\n'


@pytest.mark.parametrize(("moment", "outcomes"), [("[1/", ["rolled-back"]), ("proof", ["applied"])])
def test_who_asks_for_an_end_gets_no_other_repair(
    dlhealth: Run, root: Path, monkeypatch: pytest.MonkeyPatch, moment: str, outcomes: list[str]
) -> None:
    """There is another rung for .Xauthority, and a second fault that only the first repair brings to light."""
    profile = root / "home/alice/.profile"
    profile.write_text(profile.read_text() + "export PATH=/usr/local/cuda/bin\n")
    profile.chmod(0)
    step, pause = Steps.__call__, Steps.pause

    def told(self: Steps, text: str) -> None:
        step(self, text)
        if text.startswith(moment):
            os.kill(os.getpid(), signal.SIGINT)

    def proving(self: Steps) -> None:
        pause(self)
        if moment == "proof":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Steps, "__call__", told)
    monkeypatch.setattr(Steps, "pause", proving)
    document = json.loads(dlhealth("fix", "--root", str(root), "--yes", "--json").stdout)
    assert [t["outcome"] for t in document["transactions"]] == outcomes
    assert (root / "home/alice/.Xauthority").exists() is (outcomes == ["rolled-back"])


def test_the_folder_of_cuda_moves_to_where_shells_read_it_whatever_ends_its_line(dlhealth: Run, root: Path) -> None:
    environment = root / "etc/environment"
    environment.write_bytes(b'# caf\xe9\nPATH="$PATH:/usr/local/cuda/bin"\r\nhttp_proxy=http://proxy')
    environment.chmod(0o664)
    os.chown(environment, 0, 44)
    os.setxattr(environment, "user.note", b"keep me")
    done = dlhealth("fix", "login-loop-broken-path-environment", "--root", str(root), "--yes")
    assert done.returncode == 3, done.stdout  # .Xauthority was not asked for
    first, path, last = environment.read_bytes().split(b"\n")
    assert (first, last) == (b"# caf\xe9", b"http_proxy=http://proxy")
    assert path.startswith(b'PATH="/usr/local/sbin:')
    status = environment.stat()
    assert (status.st_mode & 0o7777, status.st_gid, os.getxattr(environment, "user.note")) == (0o664, 44, b"keep me")
    assert (root / "etc/profile.d/cuda.sh").read_text() == 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"\n'


def test_line_ends_of_windows_are_named(dlhealth: Run, root: Path) -> None:
    profile = root / "home/alice/.profile"
    profile.write_text("if true; then\r\n  umask 022\r\nfi\r\n")
    shown = " ".join(dlhealth("fix", "--root", str(root), "--dry-run").stdout.split())
    assert (
        "Remove the Windows line endings, which sh treats as part of each word: sed -i 's/\\r$//' /home/alice/.profile"
        in shown
    )


def test_a_script_learns_what_was_repaired_beside_what_could_not_begin(dlhealth: Run, tmp_path: Path) -> None:
    machine = Machine.debian12_gpu().append("/home/alice/.bashrc", f"{SWALLOWED}\n")
    machine.remove("/usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.535.261.03").build(tmp_path)
    done = dlhealth("fix", "--root", str(tmp_path), "--yes", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["outcome"]) == (3, "refused")
    assert [t["outcome"] for t in document["transactions"]] == ["applied"]
    assert [r["id"] for r in document["plan"]["repairs"]] == ["ld-library-path-malformed"]
    (left,) = document["plan"]["left"]
    assert left["id"] == "libcuda-missing-from-loader"
    assert "do not run here" in left["reason"]


@pytest.mark.parametrize(("beside", "status"), [(False, 0), (True, 3)])
def test_a_repair_whose_next_rung_helped_did_not_fail(
    dlhealth: Run, tmp_path: Path, mocker: MockerFixture, beside: bool, status: int
) -> None:
    """Whatever else is left on the machine, for a person to repair."""
    cookie = b"\x01\x00\x00\x01a\x00\x010\x00\x12MIT-MAGIC-COOKIE-1\x00\x10" + bytes(16)
    machine = Machine.debian12_gpu().file("/home/alice/.Xauthority", cookie, 0o600, 0)
    (machine.folder("/home/alice/.ICEauthority", 0o755, 1000) if beside else machine).build(tmp_path)
    mocker.patch("dlhealth.steps.files.MoveAsideStep.apply", side_effect=CommandFailed("not today"))
    done = dlhealth("fix", "--root", str(tmp_path), "--yes", "--json")
    document = json.loads(done.stdout)
    assert [t["outcome"] for t in document["transactions"]] == ["rolled-back", "applied"]
    assert (document["outcome"], done.returncode) == ("applied", status)


def test_a_repair_that_waits_for_a_reboot_is_named_whatever_rescue_system_runs(
    dlhealth: Run, root: Path, mocker: MockerFixture
) -> None:
    found = json.loads(dlhealth("doctor", "--root", str(root), "--json").stdout)["findings"]
    known = [f"{f['id']} ({f['subject']})" for f in found]
    about = {"time": "2026-01-01T00:00:00Z", "findings": [], "known": known}
    write = WriteFile("/etc/modprobe.d/fix.conf", "blacklist nouveau\n")
    apply(Store(str(root)), Target(str(root), "abc"), "abc", [write], about, lambda: None, True, lambda text: None)
    for _ in range(2):
        done = dlhealth("fix", "--root", str(root), "--yes", "--json")
        document = json.loads(done.stdout)
        assert (done.returncode, document["outcome"]) == (4, "awaiting-reboot")
        assert document["transactions"] == [{"id": "1-abc", "outcome": "awaiting-reboot", "said": []}]
        start = "start the machine from its own disk"  # what is to be restarted is not the rescue system
        assert f"1-abc waits for a reboot: {start} (or: dlhealth undo 1-abc --root {root})" in done.stderr
    assert dlhealth("fix", "--root", str(root), "--yes").returncode == 4
    assert bashrc(root) == SWALLOWED
    mocker.patch("dlhealth.txn.execute.BOOT_ID", "/proc/sys/kernel/random/uuid")  # another at each look
    assert dlhealth("fix", "--root", str(root), "--yes").returncode == 4
    assert bashrc(root) == SWALLOWED
    assert dlhealth("undo", "1-abc", "--root", str(root), "--yes").returncode == 0
    assert dlhealth("fix", "--root", str(root), "--yes").returncode == 0
    assert bashrc(root) != SWALLOWED


def test_the_start_of_a_rescue_system_proves_nothing_that_only_the_machine_can_show(
    dlhealth: Run, root: Path, mocker: MockerFixture
) -> None:
    for name in ("modules", "driver"):
        (root / "proc" / name).rename(root / "proc" / f"no-{name}")
    found = json.loads(dlhealth("doctor", "--root", str(root), "--json").stdout)["findings"]
    aim = {"id": "nvidia-module-not-loaded", "subject": "host", "severity": "error", "fingerprint": "f", "reboot": True}
    known = [f"{f['id']} ({f['subject']})" for f in found]
    write = WriteFile("/etc/modprobe.d/fix.conf", "options nvidia-current NVreg_EnableMSI=1\n")
    about = {"time": "2026-01-01T00:00:00Z", "findings": [{**aim, "title": "", "summary": "restart"}], "known": known}
    apply(Store(str(root)), Target(str(root), "abc"), "abc", [write], about, lambda: None, True, lambda text: None)
    mocker.patch("dlhealth.txn.execute.BOOT_ID", "/proc/sys/kernel/random/uuid")  # another at each look
    done = dlhealth("fix", "--root", str(root), "--yes", "--json")
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (4, "awaiting-reboot")
    assert dlhealth("undo", "1-abc", "--root", str(root), "--yes").returncode == 0
    assert not (root / "etc/modprobe.d/fix.conf").exists()


def test_one_finding_alone(dlhealth: Run, root: Path) -> None:
    done = dlhealth("fix", "login-loop-xauthority-wrong-owner", "--root", str(root), "--yes")
    assert done.returncode == 3
    assert "Still there: ld-library-path-malformed" in done.stdout
    assert bashrc(root) == SWALLOWED
    assert not (root / "home/alice/.Xauthority").exists()


@pytest.mark.parametrize("before", [(), ("--only",)], ids=["as an ID", "by --only"])
@pytest.mark.parametrize(
    ("layer", "repaired"),
    [
        ("login", ["login-loop-xauthority-wrong-owner"]),
        ("environment", ["ld-library-path-malformed"]),
        ("cuda", []),  # where nothing is wrong, nothing else is repaired instead
    ],
)
def test_a_layer_is_all_of_its_rules_and_nothing_else(
    dlhealth: Run, root: Path, layer: str, repaired: list[str], before: tuple[str, ...]
) -> None:
    fixed = json.loads(dlhealth("fix", *before, layer, "--root", str(root), "--yes", "--json").stdout)
    assert fixed["outcome"] == ("applied" if repaired else "nothing-to-do")
    assert [r["id"] for r in fixed["plan"]["repairs"]] == repaired
    assert (bashrc(root) == SWALLOWED) == (layer != "environment")
    assert (root / "home/alice/.Xauthority").exists() == (layer != "login")


def test_a_layer_and_a_rule_of_another(dlhealth: Run, root: Path) -> None:
    done = dlhealth("fix", "cuda", "login-loop-xauthority-wrong-owner", "--root", str(root), "--yes")
    assert done.returncode == 3
    assert bashrc(root) == SWALLOWED
    assert not (root / "home/alice/.Xauthority").exists()


def test_a_defect_after_a_repair_does_not_deny_it(dlhealth: Run, root: Path, mocker: MockerFixture) -> None:
    mocker.patch("dlhealth.report.repairs.render_ended", side_effect=KeyError("a defect"))
    done = dlhealth("fix", "--root", str(root), "--yes")
    assert done.returncode == 70
    assert "nothing was changed" not in done.stderr
    assert "`dlhealth history` shows what was changed" in done.stderr
    assert "applied" in dlhealth("history", "--root", str(root)).stdout


def test_json_says_all_of_it(dlhealth: Run, root: Path) -> None:
    def document(*words: str) -> dict[str, Any]:
        done = dlhealth(*words, "--root", str(root), "--json")
        made: dict[str, Any] = json.loads(done.stdout)
        assert made["schema"] == 1
        return made

    planned = document("fix", "--dry-run")
    assert (planned["outcome"], planned["transactions"]) == ("planned", [])
    fixed = document("fix", "--yes")
    assert fixed["outcome"] == "applied"
    assert fixed["plan"]["digest"] == planned["plan"]["digest"]
    assert fixed["diagnosis"]["verdict"] == "healthy"
    (transaction,) = document("history")["transactions"]
    assert transaction["id"] == fixed["transactions"][0]["id"]
    assert [a["outcome"] for a in transaction["actions"]] == ["done", "done"]
    assert document("show", transaction["id"])["transactions"] == [transaction]
    assert document("undo", "--yes")["transaction"]["outcome"] == "undone"
    assert document("undo", "--yes")["transaction"] is None


def test_who_is_asked_sees_what_for_also_with_json(dlhealth: Run, root: Path) -> None:
    for words, step, outcome in (
        (["fix"], "move /home/alice/.Xauthority aside", "applied"),
        (["undo"], "/home/alice/.Xauthority", "undone"),
    ):
        done = dlhealth(*words, "--root", str(root), "--json", answer="y\n")
        assert done.stderr.index(step) < done.stderr.index("?")
        assert outcome in done.stdout
        json.loads(done.stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fix", "login-loop"), "neither a rule nor a layer"),
        (("fix", "--max-risk", "extreme"), "'extreme' is not one of"),
        (("undo", "7"), "there is no repair '7'"),
        (("show", "nothing"), "there is no repair 'nothing'"),
    ],
)
def test_wrong_use_is_said(dlhealth: Run, root: Path, words: tuple[str, ...], said: str) -> None:
    done = dlhealth(*words, "--root", str(root))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_can_not_be_repaired(dlhealth: Run, tmp_path: Path) -> None:
    bundle = str(tmp_path / "bundle.tar.gz")
    assert dlhealth("capture", "-o", bundle).returncode == 0
    for words in (("fix",), ("undo",), ("history",)):
        done = dlhealth(*words, "--root", bundle)
        assert done.returncode == 2
        assert "can be diagnosed, not repaired" in done.stderr


def test_a_disk_whose_programs_can_not_run_is_refused_before_anything_is_changed(dlhealth: Run, tmp_path: Path) -> None:
    Machine.debian12_gpu().mark("nvidia-smi", "install ok unpacked").build(tmp_path)
    done = dlhealth("fix", "--root", str(tmp_path), "--yes", "--json")
    fixed = json.loads(done.stdout)
    assert (done.returncode, fixed["outcome"]) == (3, "refused")
    assert "do not run here" in done.stderr
    assert fixed["transactions"] == []


@pytest.mark.parametrize("part", ["", "/txn", "/txn/active", "/txn/history", "/txn/staging"])
def test_a_store_behind_a_link_is_refused(
    dlhealth: Run, root: Path, part: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    link = root / f"var/lib/dlhealth{part}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    done = dlhealth("fix", "--root", str(root), "--yes")
    assert list(elsewhere.iterdir()) == []
    if part == "/txn/staging":  # it holds nothing that is needed, and is made again
        assert (done.returncode, bashrc(root) == SWALLOWED) == (0, False)
    else:
        assert done.returncode == 2
        assert "a link, or not a directory" in done.stderr
        assert bashrc(root) == SWALLOWED


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (b'{"actions": [{"kind": "edi', "is damaged or of another version"),
        (b'{"actions": [{"kind": "teleport", "to": "/"}], "findings": [{"id": "new-fault"}]}', "does not know it"),
    ],
)
def test_a_damaged_transaction_hides_no_other_and_stands_in_nobody_s_way(
    dlhealth: Run, root: Path, plan: bytes, why: str
) -> None:
    dlhealth("fix", "--root", str(root), "--yes")
    history = root / "var/lib/dlhealth/txn/history"
    (record,) = history.iterdir()
    damaged = history / "000002-abcd-rolled-back"
    (damaged / "pre").mkdir(parents=True)
    (damaged / "plan.json").write_bytes(plan)
    (damaged / "journal").write_bytes((record / "journal").read_bytes())
    listed = dlhealth("history", "--root", str(root), "--json")
    assert listed.returncode == 0, listed.stderr
    assert [t["outcome"] for t in json.loads(listed.stdout)["transactions"]] == ["applied", "rolled-back"]
    assert why in dlhealth("show", "2", "--root", str(root)).stdout.replace("\n", " ").replace("  ", " ")
    assert dlhealth("fix", "--root", str(root), "--yes").returncode == 0
    damaged.rename(history / "000002-abcd-applied")
    undone = dlhealth("undo", "--root", str(root), "--yes")
    assert (undone.returncode, "000002-abcd-applied is damaged" in undone.stderr) == (2, True)
    damaged.with_name("000002-abcd-applied").rename(root / "var/lib/dlhealth/txn/active")
    for words in (("undo",), ("fix", "--yes")):
        done = dlhealth(*words, "--root", str(root))
        assert (done.returncode, "/active is damaged" in done.stderr) == (2, True)
    assert dlhealth("history", "--root", str(root)).returncode == 0


@pytest.mark.parametrize(
    "kept", [{"findings": [{"rule": "a"}]}, {"findings": [{"id": 1, "title": None}], "time": 5}, {"time": "\x1b[2J"}]
)
def test_a_transaction_of_another_version_is_listed_shown_and_undone(
    dlhealth: Run, root: Path, kept: dict[str, Any]
) -> None:
    dlhealth("fix", "--root", str(root), "--yes")
    (plan,) = root.glob("var/lib/dlhealth/txn/history/*/plan.json")
    plan.write_text(json.dumps(json.loads(plan.read_text()) | kept))
    for words in (["history"], ["show", "1"], ["undo", "--yes"]):
        done = dlhealth(*words, "--root", str(root))
        assert (done.returncode, "\x1b" in done.stdout) == (0, False), done.stderr
    assert bashrc(root) == SWALLOWED


def test_a_later_change_of_the_same_is_undone_first(dlhealth: Run, root: Path) -> None:
    name = "ld-library-path-malformed"
    dlhealth("fix", name, "--root", str(root), "--yes")
    first = (root / "home/alice/.bashrc").read_bytes()
    (root / "home/alice/.bashrc").write_bytes(first + b"export PATH = $PATH:/opt/bin\n")
    dlhealth("fix", name, "--root", str(root), "--yes")
    again = dlhealth("undo", "1", "--root", str(root), "--yes")
    assert again.returncode == 2
    assert "later changed some of the same files: first run dlhealth undo 2-" in again.stderr
    assert dlhealth("undo", "--root", str(root), "--yes").returncode == 0
    (root / "home/alice/.bashrc").write_bytes(first)
    assert dlhealth("undo", "1", "--root", str(root), "--yes").returncode == 0
    assert bashrc(root) == SWALLOWED


def test_without_root_nothing_is_changed_and_the_store_is_not_shown(dlhealth: Run, root: Path) -> None:
    dlhealth("fix", "login-loop-xauthority-wrong-owner", "--root", str(root), "--yes")
    for folder in (root, *root.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    before = state(root)
    for words in (("fix", "--yes"), ("undo", "--yes"), ("history",), ("show", "1")):
        # All is imported first: whoever the child becomes may not be allowed to look into this checkout.
        code = f"""
import os, sys
import dlhealth.engine.load as load
rules = load.load_rules()
load.load_rules = lambda: rules
import ctypes, locale, click._textwrap, dlhealth.cli.{words[0]}, dlhealth.host.borrowed, dlhealth.report.repairs
os.setgid(65534); os.setuid(65534)
sys.argv = {["dlhealth", *words, "--root", str(root)]}
dlhealth.cli.main()
"""
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "root" in done.stderr
    assert state(root) == before


HISTORY = "var/lib/dlhealth/txn/history"


def begun_on(root: Path) -> None:
    """A repair that the disk says was cut off: it wrote a file."""
    store = Store(str(root))
    write = WriteFile("/etc/modprobe.d/fix.conf", "blacklist nouveau\n")
    with store.locked():
        about = {"time": "2026-01-01T00:00:00Z", "findings": [], "known": []}
        before = Target(str(root), "abc").state(write.path).to_json()
        record = store.begin("abc", {**about, "actions": [action_to_json(write)]}, [before])
        journal = Journal(record.folder)
        journal.write("INTENT", n=0)
        journal.close()
    (root / "etc/modprobe.d/fix.conf").write_text(write.text)


@pytest.mark.parametrize("words", [("fix",), ("fix", "--yes"), ("undo",), ("undo", "--yes"), ("undo", "1-abc")])
def test_a_repair_that_a_disk_says_was_cut_off_is_shown_and_left_without_consent(
    dlhealth: Run, root: Path, words: tuple[str, ...]
) -> None:
    begun_on(root)
    done = dlhealth(*words, "--root", str(root), answer="\n")
    assert done.returncode == (1 if words[0] == "undo" and "--yes" not in words else 2)
    assert "write /etc/modprobe.d/fix.conf" in done.stdout
    assert (root / "etc/modprobe.d/fix.conf").exists()
    assert list((root / HISTORY).iterdir()) == []
    assert bashrc(root) == SWALLOWED


@pytest.mark.parametrize(
    ("words", "answer", "ends"),
    [
        (("fix",), "y\nn\n", ["rolled-back"]),
        (("fix",), "y\ny\n", ["rolled-back", "applied"]),
        (("undo",), "y\n", ["rolled-back"]),
        (("undo", "1-abc", "--yes"), "", ["rolled-back"]),
    ],
)
def test_a_repair_that_a_disk_says_was_cut_off_is_undone_with_consent(
    dlhealth: Run, root: Path, words: tuple[str, ...], answer: str, ends: list[str]
) -> None:
    begun_on(root)
    dlhealth(*words, "--root", str(root), answer=answer)
    assert not (root / "etc/modprobe.d/fix.conf").exists()
    assert [p.name.split("-", 2)[2] for p in sorted((root / HISTORY).iterdir())] == ends


def test_a_second_repair_beside_one_that_runs_is_busy(dlhealth: Run, root: Path) -> None:
    with Store(str(root)).locked():
        done = dlhealth("fix", "--yes", "--root", str(root))
    assert done.returncode == 2
    assert done.stderr.endswith("another dlhealth is changing this machine; nothing was changed\n")
    assert bashrc(root) == SWALLOWED


def test_on_a_machine_without_a_driver_everything_can_be_repaired(tmp_path: Path) -> None:
    """The repair is complete, though doctor does not call the machine healthy."""
    Machine.debian12().gpu(driver="").append("/etc/environment", "PATH=/usr/local/cuda/bin:$PATH\n").build(tmp_path)
    assert run(["fix", "--root", str(tmp_path), "--yes"]) == Status.HEALTHY
    assert run(["fix", "--root", str(tmp_path), "--yes"]) == Status.HEALTHY
    assert run(["doctor", "--root", str(tmp_path)]) == Status.UNKNOWN
