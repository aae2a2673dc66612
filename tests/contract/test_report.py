"""`dlhealth report` as a person meets it: what it writes where, for any input, and what it says about bad ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlhealth.cli import Status, run
from dlhealth.testing import Machine

pytestmark = pytest.mark.real_programs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    machine = Machine.debian12_gpu().append("/etc/environment", "PATH=/usr/local/cuda/bin:$PATH\n")
    machine.build(tmp_path / "root")
    return tmp_path / "root"


def test_it_writes_one_page(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert run(["report", "--root", str(root), "-o", str(page)]) == Status.HEALTHY
    said = capsys.readouterr().out
    assert said.startswith(f"{page}: ")
    assert "Read the page before you share it." in said
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert f"dlhealth fix --root {root}" in text
    assert "login-loop-broken-path-environment" in text


def test_without_a_name_it_is_named_after_the_machine(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["report", "--root", str(root)]) == Status.HEALTHY
    (made,) = tmp_path.glob("dlhealth-workstation-*.html")
    assert made.stat().st_size > 5000


def test_markdown_goes_to_standard_output_or_into_a_file(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "--root", str(root), "--md"]) == Status.HEALTHY
    text = capsys.readouterr().out
    assert text.startswith("## ✗ workstation is broken: 1 root cause")
    assert run(["report", "--root", str(root), "--md", "-o", str(tmp_path / "page.md")]) == Status.HEALTHY
    assert (tmp_path / "page.md").read_text().startswith("## ✗ workstation is broken")


def test_it_reads_an_archive_and_a_posted_log(root: Path, tmp_path: Path) -> None:
    archive, log = tmp_path / "a.tar.gz", tmp_path / "smi.txt"
    bundle = subprocess.run(
        [sys.executable, "-m", "dlhealth", "capture", "-o", str(archive)], capture_output=True, text=True, check=False
    )
    assert bundle.returncode == 0, bundle.stderr
    log.write_text(
        "$ nvidia-smi\nFailed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.261\n"
    )
    for number, given in enumerate((archive, log)):
        page = tmp_path / f"{number}.html"
        assert run(["report", "--root", str(given), "-o", str(page)]) == Status.HEALTHY
        assert "dlhealth fix" not in page.read_text().split("<article")[0], "nothing repairs a file"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--root", "/nonexistent"], "no such file or directory"),
        (["-o", "exists.html"], "exists.html already exists; choose another name"),
        (["-o", "missing/page.html"], "missing/page.html: no such file or directory"),
        (["-o", "."], ". already exists"),
        (["-o", ""], "an empty name"),
        (["--user", "nobody-here"], "there is no user 'nobody-here'"),
        (["--only", "cuda"], "No such option"),
    ],
)
def test_bad_input_gets_one_sentence(
    words: list[str],
    said: str,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exists.html").touch()
    given = words if "--root" in words else ["--root", str(root), *words]
    assert run(["report", *given]) == Status.USAGE
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert os.path.getsize("exists.html") == 0


def test_only_this_command_imports_jinja(root: Path) -> None:
    code = (
        "import os, sys; os._exit = lambda status: print(*sys.modules, file=sys.stderr); "
        "from dlhealth.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code, "doctor", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"jinja2", "markupsafe", "zoneinfo"} & set(done.stderr.split())
