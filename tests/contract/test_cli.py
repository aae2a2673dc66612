"""The command line as a person or a script meets it: what it prints where, and with which exit status."""

import fcntl
import json
import os
import pty
import re
import select
import shlex
import shutil
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pytest_mock import MockerFixture

from dlhealth import __version__, data
from dlhealth.cli import COMMANDS, Status, commands, run
from dlhealth.cli.progress import in_words
from dlhealth.engine import examine
from dlhealth.engine.load import Loaded
from dlhealth.engine.rule import Rule
from dlhealth.model import Evidence, Failed, Finding, Layer, Severity, Stage, Unknown
from dlhealth.testing import Machine

DLHEALTH = (sys.executable, "-m", "dlhealth")


class Made(Rule):
    """A rule that finds what it is told to."""

    id = "made-up"
    title = "Made up"
    layer = Layer.CUDA
    stage = Stage.LOADER
    severity = Severity.NOTE

    def __init__(self, name: str, *results: Severity | str) -> None:
        self.id = name
        self._results = results

    def detect(self) -> Iterator[Finding | Unknown]:
        for result in self._results:
            if isinstance(result, Severity):
                yield Finding(self.id, "host", result, self.layer, "It is wrong", (Evidence("/x", "y"),))
            elif result == "crash":
                raise KeyError("a defect")
            else:
                yield Unknown(result)

    def remedies(self, finding: Finding) -> Iterator[Any]:
        yield from ()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return Machine.debian12_gpu().build(folder)


@pytest.fixture
def only_rules(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the commands see only these rules."""

    def set_rules(*rules: Rule, failed: tuple[Failed, ...] = ()) -> None:
        monkeypatch.setattr(examine, "load_rules", lambda: Loaded(rules, failed))

    return set_rules


@pytest.mark.parametrize(
    ("results", "status", "verdict"),
    [
        ((), Status.HEALTHY, "healthy"),
        ((Severity.NOTE,), Status.HEALTHY, "healthy"),
        ((Severity.WARNING, Severity.NOTE), Status.WARNINGS, "degraded"),
        ((Severity.WARNING, Severity.ERROR), Status.ERRORS, "broken"),
        (("could not look",), Status.HEALTHY, "healthy"),
        (("crash",), Status.UNKNOWN, "unknown"),
        (("crash", Severity.ERROR), Status.UNKNOWN, "unknown"),
    ],
)
def test_exit_status_and_verdict(
    results: tuple[Severity | str, ...],
    status: Status,
    verdict: str,
    root: Path,
    only_rules: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    only_rules(Made("made-up", *results))
    assert run(["doctor", "--root", str(root)]) == status
    capsys.readouterr()
    assert run(["doctor", "--root", str(root), "--json"]) == status
    assert json.loads(capsys.readouterr().out)["verdict"] == verdict


def test_the_process_that_waits_for_a_diagnosis_loads_no_rules() -> None:
    """Each page of memory that it shares with the process that diagnoses would have to be copied."""
    code = (
        "import sys; from dlhealth.cli import run; run(['doctor', '--only', 'apt-lock-held', '--json'])\n"
        "print([name for name in sys.modules if name.startswith(('dlhealth_rules', 'dlhealth.api', 'dlhealth.probes.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("}\n[]\n")


def test_a_diagnosis_loads_nothing_that_it_does_not_need(root: Path) -> None:
    """Each of these modules of the standard library takes 2 to 8 ms."""
    (root / "etc/environment").write_text("PATH=/usr/local/cuda/bin:$PATH\n")
    command = [sys.executable, "-X", "importtime", "-m", "dlhealth", "doctor", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "login-loop-broken-path-environment" in done.stdout
    loaded = {line.split()[-1] for line in done.stderr.splitlines()}
    assert "dlhealth.api" in loaded
    slow = "ast asyncio base64 dataclasses gettext hashlib inspect locale logging pickle platform random socket ssl"
    assert loaded & {*slow.split(), "subprocess", "tempfile"} == set()


def test_a_crashed_rule_is_listed_and_the_others_run(
    root: Path, only_rules: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    only_rules(Made("bad", "crash"), Made("good", Severity.ERROR), failed=(Failed("/etc/x.py", "not loaded"),))
    assert run(["doctor", "--root", str(root), "--json"]) == Status.ERRORS
    report = json.loads(capsys.readouterr().out)
    assert [f["id"] for f in report["findings"]] == ["good"]
    assert {f["id"]: f["error"] for f in report["checks"]["failed"]} == {
        "/etc/x.py": "not loaded",
        "bad": "KeyError: 'a defect'",
    }
    assert report["checks"]["run"] == 1


def test_the_document_is_the_contracts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "tmp").chmod(0o755)
    (root / "etc/hostname").write_bytes(b"work\xffstation\n")
    assert run(["doctor", "--root", str(root), "--json"]) == Status.ERRORS
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.isascii()
    report = json.loads(captured.out)
    assert list(report) == [
        "schema",
        "dlhealth",
        "time",
        "host",
        "verdict",
        "areas",
        "reboot",
        "since",
        "findings",
        "checks",
    ]
    assert (report["schema"], report["verdict"]) == (1, "broken")
    assert time.strptime(report["time"], "%Y-%m-%dT%H:%M:%SZ")
    added = {key: report["host"].pop(key) for key in ("platform", "python_environments")}
    assert (added["platform"]["family"], added["platform"]["setting"]) == ("debian", "machine")
    assert report["host"] == {
        "root": str(root),
        "hostname": "work?station",
        "os": "debian 12",
        "kernel": "6.1.0-50-amd64",
        "gpus": [
            {
                "pci": "0000:01:00.0",
                "id": "10de:1b06",
                "name": "NVIDIA GeForce GTX 1080 Ti",
                "compute_capability": "6.1",
            }
        ],
        "driver": {"loaded": "535.261.03", "on_disk": "535.261.03", "libraries": "535.261.03"},
        "cuda": [],
    }
    found = report["findings"][0]
    assert list(found) == ["id", "subject", "severity", "layer", "title", "caused_by", "evidence", "remedy"]
    assert (found["id"], found["subject"], found["caused_by"]) == ("login-loop-tmp-permissions", "file:/tmp", [])
    assert [list(e) for e in found["evidence"]] == [["source", "shows"]] * len(found["evidence"])
    assert list(found["remedy"]) == ["summary", "risk", "reboot", "network", "by_hand", "actions"]
    assert found["remedy"]["actions"][-1] == {"kind": "change-mode", "summary": "chmod 1777 /tmp"}
    assert list(report["checks"]) == ["run", "skipped", "failed"]
    assert all(list(s) == ["id", "reason"] for s in report["checks"]["skipped"])


def test_a_consequence_has_no_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine.debian12_gpu().remove("/usr/lib/modules/6.1.0-50-amd64/build")
    machine.remove("/usr/lib/modules/6.1.0-50-amd64/updates/dkms/nvidia-current.ko")
    machine.without_package("linux-headers-6.1.0-50-amd64").build(tmp_path)
    assert run(["doctor", "--root", str(tmp_path), "--json"]) == Status.ERRORS
    findings = {f["id"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["kernel-headers-missing"]["remedy"]
    effect = findings["dkms-module-missing-for-running-kernel"]
    assert effect["caused_by"] == ["kernel-headers-missing"]
    assert effect["remedy"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["doktor"], "No such command"),
        (["doctor", "--colour"], "No such option"),
        (["doctor", "--root", "/nonexistent"], "no such file or directory"),
        (["doctor", "--root", "/dev/null"], "neither a directory nor a file"),
        (["doctor", "--root", "/etc/passwd"], "recognizes nothing in it"),
        (["doctor", "--root", "a\0b"], "not a possible file name"),
        (["doctor", "--only", "login-loop-tmp-permission"], "did you mean login-loop-tmp-permissions"),
        (["doctor", "--only", "kernel"], "kernel-module"),
        (["doctor", "--only", ""], "neither a rule nor a layer"),
        (["doctor", "--root", "ROOT", "--user", "alicia"], "did you mean alice?"),
        (["doctor", "--root", "ROOT", "--user", "root", "--user", "bob"], "no user 'bob'"),
        (["doctor", "--root", "ROOT", "--python", "/nonexistent/python"], "there is no /nonexistent/python"),
        (["doctor", "--root", "ROOT", "--python", "venv/bin/python"], "must be a path inside --root"),
        (["doctor", "--python", "/nonexistent/python"], "there is no /nonexistent/python"),
        (["doctor", "--python", ""], "there is no '' on this machine"),
        (["doctor", "--root", ""], "an empty name: no such file"),
        (["capture", "-o", ""], "an empty name: no such file"),
        (["explain", "login-loop"], "did you mean login-loop-"),
        (["rules", "new", "my-fault"], "Choose from:\n  hardware,\n"),
        (["explain"], "Missing argument"),
        (["rules", "surplus"], "No such command 'surplus'"),
        (["capture", "-o", "/nonexistent/x.tar.gz"], "no such file or directory"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([str(root) if a == "ROOT" else a for a in arguments]) == Status.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert "Traceback" not in captured.err


def test_an_empty_folder_is_no_healthy_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--root", str(tmp_path)]) == Status.USAGE
    assert "does not look like the root of a machine" in capsys.readouterr().err


def test_only_takes_rules_layers_and_their_causes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def count(*only: str) -> int:
        run(["doctor", "--root", str(root), "--json", *(x for o in only for x in ("--only", o))])
        checks = json.loads(capsys.readouterr().out)["checks"]
        return int(checks["run"]) + len({s["id"] for s in checks["skipped"]})

    assert count("boot-partition-full") == 1
    # What explains a login loop must run as well, or it would look like a root cause.
    assert count("login-loop-unexplained") > 5
    assert count("python") < count()
    assert count("boot-partition-full", "python") >= count("python")


def test_a_user_and_a_python_that_are_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "opt/venv/bin").mkdir(parents=True)
    (root / "opt/venv/bin/python").write_text("")
    options = ["--user", "root", "--user", "alice", "--python", "/opt/venv/bin/python"]
    assert run(["doctor", "--root", str(root), *options]) == Status.HEALTHY, capsys.readouterr()


def test_a_plain_user_is_told_what_root_would_see(
    root: Path, rules: tuple[Rule, ...], only_rules: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    only_rules(*rules)
    run(["doctor", "--root", str(root)])  # imports what the user may not import from here
    (root / "etc/ld.so.conf.d").chmod(0o700)
    (root / "var/lib/dpkg/status").chmod(0o600)
    root.parent.chmod(0o755)
    for folder in root.parents:
        if folder.name.startswith(("pytest", "popen")):
            folder.chmod(0o755)
    capsys.readouterr()
    os.seteuid(65534)
    try:
        status = run(["doctor", "-v", "--root", str(root)])
    finally:
        os.seteuid(0)
    assert status in (Status.HEALTHY, Status.WARNINGS)
    text = capsys.readouterr().out
    assert "needs root (" in text
    assert "/var/lib/dpkg/status" in text


@pytest.mark.parametrize("error", [KeyError("a\033[2Jb"), RecursionError("deep"), MemoryError(), OSError(28, "full")])
def test_a_defect_is_one_clear_message(
    error: Exception, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("dlhealth.report.terminal.render", broken)
    assert run(["doctor", "--root", str(root)]) == Status.INTERNAL
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"dlhealth failed: {type(error).__name__}" in captured.err
    assert f"{__file__}:" in captured.err
    assert "\033" not in captured.err
    assert "Traceback" not in captured.err


ESCAPES = "a\033[2Jb"


@pytest.mark.parametrize(
    "arguments",
    [
        ["doctor", "--root", f"/nonexistent/{ESCAPES}"],
        ["doctor", "--python", f"/nonexistent/{ESCAPES}"],
        ["doctor", "--only", ESCAPES],
        ["doctor", f"--{ESCAPES}"],
        ["capture", "-o", f"/nonexistent/{ESCAPES}"],
        ["fix", ESCAPES],
        ["undo", ESCAPES],
        ["explain", ESCAPES],
        [ESCAPES],
    ],
    ids=lambda words: words[0],
)
def test_escapes_of_an_argument_are_not_printed(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == Status.USAGE
    captured = capfd.readouterr()
    assert "[2Jb" in captured.err or "/ab" in captured.err  # off a terminal click strips the sequence whole
    assert "\033" not in captured.out + captured.err


@pytest.mark.parametrize("words", ["doctor", "fix --dry-run", "history", "undo --yes"])
def test_escapes_of_the_root_s_own_path_are_not_printed(
    words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / ESCAPES
    (root / "var/lib/dlhealth/txn").mkdir(parents=True)
    (root / "var/lib/dlhealth/txn/history").symlink_to("/tmp")
    Machine.debian12_gpu().remove("/usr/bin/nvidia-smi").build(root)
    run([*words.split(), "--root", str(root)])
    captured = capfd.readouterr()
    assert captured.out + captured.err
    assert "\033" not in captured.out + captured.err


def test_an_interrupt_is_quiet(root: Path, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]) -> None:
    mocker.patch("dlhealth.report.terminal.render", side_effect=KeyboardInterrupt)
    assert run(["doctor", "--root", str(root)]) == Status.INTERRUPTED
    assert capsys.readouterr() == ("", "\n")  # click ends the line that ^C is on


@pytest.mark.parametrize(
    "arguments", [["doctor", "--root", "ROOT"], ["rules", "--json"], ["explain", "boot-partition-full"]]
)
def test_a_closed_pipe_is_quiet(arguments: list[str], root: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*DLHEALTH, *(str(root) if a == "ROOT" else a for a in arguments)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (Status.PIPE_CLOSED, b"")


def test_a_full_disk_is_said() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*DLHEALTH, "rules"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == Status.INTERNAL
    assert done.stderr == "Error: cannot write to standard output: No space left on device\n"


def test_closed_standard_streams_change_nothing(root: Path) -> None:
    command = f"{shlex.join(DLHEALTH)} doctor --root {root} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == Status.HEALTHY


@pytest.mark.parametrize("given", ["{}", "{}/", "/nonexistent:", "."])
def test_packages_of_another_python_do_no_harm(given: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("print 'for Python 2'\n")
    program = tmp_path / "bin/dlhealth"
    program.parent.mkdir()
    program.write_text("from dlhealth.__main__ import main; main()\n")
    environment = {**os.environ, "PYTHONPATH": given.format(tmp_path)}
    command = [sys.executable, program, "doctor", "--root", root]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (Status.HEALTHY, "")


HEAVY = (
    "rich", "tarfile", "importlib.metadata", "difflib", "hashlib", "ssl", "asyncio", "unittest", "dataclasses",
    "subprocess", "tempfile",
)  # fmt: skip


def test_a_diagnosis_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import os, sys; os._exit = lambda status: print(*sys.modules, file=sys.stderr); "
        "from dlhealth.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code, "doctor", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({"LANG": "C.UTF-8", "TERM": "xterm"}, "✓ "),
        ({"LANG": "C"}, "[ok] "),
        ({"LC_ALL": "POSIX", "LANG": "C.UTF-8"}, "[ok] "),
        ({}, "[ok] "),
    ],
)
def test_the_locale_decides_about_symbols(environment: dict[str, str], first: str, root: Path) -> None:
    command = [*DLHEALTH, "doctor", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, check=True, env={"PATH": os.environ["PATH"], **environment})
    text = done.stdout.decode()
    assert text.splitlines()[-1].startswith(f"{first}workstation: no problem found")
    assert "\033" not in text
    assert first.isascii() <= text.isascii()


def on_terminal(command: list[str], *, rows: int = 0, typed: bytes = b"", **environment: str) -> tuple[str, int]:
    """What a program prints on a terminal, standard output and error together. `typed` is what a person types."""
    child, terminal = pty.fork()
    if child == 0:
        time.sleep(0.1 * bool(rows))
        os.execve(command[0], command, {"PATH": os.environ["PATH"], **environment})
    if rows:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    os.write(terminal, typed)
    received = b""
    while select.select([terminal], [], [], 30)[0]:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        received += block
    os.close(terminal)
    return received.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_colours_on_a_terminal(root: Path) -> None:
    command = [*DLHEALTH, "doctor", "--root", str(root)]
    text, status = on_terminal(command, TERM="xterm", LANG="C.UTF-8")
    assert (status, "\033[1;32m" in text) == (0, True)
    for setting in ({"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}):
        text, _ = on_terminal(command, LANG="C.UTF-8", **setting)
        assert "\033[1;32m" not in text


def test_a_healthy_machine_fits_on_a_console(root: Path) -> None:
    """24 lines of 80 columns, with the prompt."""
    command = [*DLHEALTH, "doctor", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    lines = done.stdout.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("[ok] workstation: no problem found")


def test_of_a_broken_machine_the_last_lines_are_verdict_and_command(root: Path) -> None:
    (root / "etc/environment").write_text("PATH=/usr/local/cuda/bin:$PATH\n")
    command = [*DLHEALTH, "doctor", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    lines = done.stdout.splitlines()
    assert lines[-3:] == [
        "[x] workstation is broken: 1 root cause",
        "    Explain: dlhealth explain login-loop-broken-path-environment",
        f"    Repair:  dlhealth fix --root {root}",
    ]
    assert any(line.startswith("[x] /etc/environment:1 sets PATH") for line in lines[-24:])


PAGER = "echo paged; head -n 2"


@pytest.mark.parametrize(
    ("rows", "environment", "paged"),
    [
        (5, {"PAGER": PAGER}, True),
        (100, {"PAGER": PAGER}, False),
        (0, {"PAGER": PAGER}, False),
        (5, {"PAGER": PAGER, "TERM": "dumb"}, False),
        (5, {"PAGER": "cat"}, False),
        (5, {"PAGER": "/nonexistent/pager"}, False),
        (5, {"PAGER": "read line; exit 1"}, False),
    ],
)
def test_a_long_report_is_shown_page_by_page(rows: int, environment: dict[str, str], paged: bool, root: Path) -> None:
    command = [*DLHEALTH, "doctor", "--root", str(root)]
    text, status = on_terminal(command, rows=rows, **{"TERM": "xterm", "LANG": "C.UTF-8", **environment})
    assert status == Status.HEALTHY
    assert text.startswith("paged\r\n") is paged
    assert ("no problem found" in text) is not paged


@pytest.mark.skipif(not shutil.which("less"), reason="needs less")
def test_less_ends_when_a_person_wants_it(root: Path) -> None:
    command = [*DLHEALTH, "doctor", "-v", "--root", str(root)]
    text, status = on_terminal(command, rows=10, typed=b"q", TERM="xterm", LANG="C.UTF-8")
    assert status == Status.HEALTHY
    assert "workstation" in text
    assert "no problem found" not in text


def test_no_pager_waits_for_somebody_who_is_not_there(root: Path) -> None:
    """With its input from elsewhere, nobody could end the pager."""
    shell = shlex.join([*DLHEALTH, "doctor", "--root", str(root)])
    text, _ = on_terminal(["/bin/sh", "-c", f"{shell} </dev/null"], rows=5, TERM="xterm", PAGER=PAGER)
    assert "no problem found" in text


def test_progress_is_shown_of_what_takes_long_and_gone_afterwards() -> None:
    code = (
        "import time; from dlhealth.cli.progress import Progress\n"
        "with Progress() as progress:\n progress.begins('DriverPackages'); time.sleep(1.4)\n progress.begins('Fast')\nprint('done')"
    )
    text, _ = on_terminal([sys.executable, "-c", code], TERM="xterm")
    assert text == "\r\033[KChecking driver packages ...\r\033[Kdone\r\n"
    silent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (silent.stdout, silent.stderr) == ("done\n", "")
    assert in_words("DriverPackages") == "driver packages"


def test_rules_as_json(capsys: pytest.CaptureFixture[str], rules: tuple[Rule, ...]) -> None:
    assert run(["rules", "--json"]) == Status.HEALTHY
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["schema", "rules"]
    assert document["schema"] == 1
    assert all(list(r) == ["id", "title", "layer", "severity", "risk", "explains"] for r in document["rules"])
    assert {r.id for r in rules} <= {r["id"] for r in document["rules"]}


def test_rules_and_explain_for_a_person(capsys: pytest.CaptureFixture[str], rules: tuple[Rule, ...]) -> None:
    assert run(["rules"]) == Status.HEALTHY
    listed = capsys.readouterr().out
    assert all(rule.id in listed for rule in rules)
    for rule in rules:
        assert run(["explain", rule.id]) == Status.HEALTHY
        shown = capsys.readouterr().out
        assert shown.startswith(rule.id)
        assert "By hand" in shown


@pytest.mark.parametrize(
    ("number", "rule"), [("xid-79", "xid-79-fallen-off-bus"), ("SXid 20034", "nvswitch-sxid-errors")]
)
def test_explain_a_number_of_the_driver(number: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", number]) == Status.HEALTHY
    shown = capsys.readouterr().out
    assert shown.lower().startswith(number.lower().replace("-", " "))
    assert "What to do: " in shown
    assert f"\n{rule}\n" in shown


def test_explain_an_error_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["explain", "ImportError: libcudnn.so.8: cannot open shared object file: No such file"]) == Status.HEALTHY
    )
    shown = capsys.readouterr().out
    assert shown.index("cudnn-runtime-missing") < shown.index("cudnn-major-8-vs-9")
    assert run(["explain", "RuntimeError: The NVIDIA driver on your system is too old (found version 10020)"]) == 0
    assert capsys.readouterr().out.startswith("torch-wheel-newer-than-driver")
    assert run(["explain", "the fan is loud"]) == Status.USAGE


def test_capture_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["capture"]) == Status.HEALTHY
    said = capsys.readouterr().out
    (bundle,) = tmp_path.iterdir()
    assert bundle.name.startswith("dlhealth-")
    assert bundle.name.endswith(time.strftime("-%Y-%m-%d.tar.gz"))
    assert said.startswith(f"{bundle.name}: ")
    assert "are masked" in said
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    assert run(["capture"]) == Status.USAGE
    assert "already exists" in capsys.readouterr().err
    assert run(["doctor", "--json", "--root", str(bundle)]) in (0, 1, 3, 6)
    report = json.loads(capsys.readouterr().out)
    assert report["host"]["root"] == str(bundle)
    assert report["host"]["kernel"] == os.uname().release
    assert not report["checks"]["failed"]


def test_every_command_and_option_has_help() -> None:
    group = commands
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert command.help
        assert all(isinstance(p, click.Argument) or getattr(p, "help", "") for p in command.params)
    assert run(["--help"]) == run(["--version"]) == run(["doctor", "-h"]) == Status.HEALTHY


def test_the_program_and_the_module_are_the_same() -> None:
    program = shutil.which("dlhealth", path=str(Path(sys.executable).parent))
    assert program
    outputs = [subprocess.run([*c, "--version"], capture_output=True, check=True) for c in ((program,), DLHEALTH)]
    assert outputs[0].stdout == outputs[1].stdout


def test_version_says_what_a_report_of_a_defect_needs(
    capsys: pytest.CaptureFixture[str], rules: tuple[Rule, ...]
) -> None:
    assert run(["version"]) == Status.HEALTHY
    own, python, system = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"dlhealth {re.escape(__version__)}, \d+ rules, data of \d{{4}}-\d\d-\d\d", own)
    assert int(own.split()[2]) >= len(rules)
    assert python == f"Python {sys.version.split()[0]} ({sys.executable})"
    assert system.endswith(f", kernel {os.uname().release} ({os.uname().machine})")


def test_the_date_of_the_data_is_one_of_the_past() -> None:
    """A table that was read later counts from then on; the date is that of the oldest."""
    read = [
        d
        for p in Path(data.__file__).parent.glob("*.json")
        for d in re.findall(r"read (\d{4}-\d\d-\d\d)", p.read_text())
    ]
    assert min([*read, time.strftime("%Y-%m-%d")]) >= data.CURRENT


def test_no_help_is_cut_off_on_a_narrow_console() -> None:
    top = click.Context(commands, info_name="dlhealth", terminal_width=80, **commands.context_settings)
    texts = {"": commands.get_help(top)}
    for name in COMMANDS:
        command = commands.get_command(top, name)
        assert command
        texts[name] = command.get_help(click.Context(command, top, name, terminal_width=80))
    cut = [f"{name}: {line}" for name, text in texts.items() for line in text.splitlines() if line.endswith("...")]
    assert [line for line in cut if "Usage:" not in line] == []
