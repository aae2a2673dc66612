"""`dlhealth baseline`: what a machine was when it worked, and what changed when it no longer does."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlhealth.cli import Status, run
from dlhealth.testing import Machine
from tests.schema import violations

pytestmark = pytest.mark.real_programs
STORED = "var/lib/dlhealth/baseline.json"


def well() -> Machine:
    return Machine.debian12_gpu().cuda_toolkit("12.2").python_environment(torch="2.3.0+cu121", cuda="12.1")


@pytest.fixture
def recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Machine], str]:
    """Builds a changed machine that has the record of a healthy one; its directory."""

    def make(machine: Machine) -> str:
        file = tmp_path / "good.json"
        good = str(well().build(tmp_path / "good"))
        assert run(["baseline", "save", "--root", good, "-o", str(file)]) == Status.HEALTHY
        root = machine.file(f"/{STORED}", file.read_text(), 0o600).build(tmp_path / "root")
        capsys.readouterr()
        return str(root)

    return make


def compared(root: str, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    status = run(["baseline", "compare", *words, "--root", root, "--json"])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, document


def test_the_record_follows_its_schema_and_tells_what_the_machine_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(well().build(tmp_path / "root"))
    file = tmp_path / "good.json"
    assert run(["baseline", "save", "--root", root, "-o", str(file)]) == Status.HEALTHY
    assert capsys.readouterr().out.startswith(f"{file}: ")
    record = json.loads(file.read_text())
    assert not violations(record)
    assert file.stat().st_mode & 0o777 == 0o600
    inventory = record["inventory"]
    assert inventory["kernel"] == {"running": "6.1.0-50-amd64", "next": "6.1.0-50-amd64"}
    assert inventory["driver"]["loaded"] == "535.261.03"
    assert inventory["CUDA"]["/usr/local/cuda-12.2"] == "12.2.140"
    assert inventory["Python environments"]["/home/alice/venv"] == "Python 3.11, torch 2.3.0+cu121"
    assert inventory["packages"]["nvidia-driver:amd64"].startswith("535.261.03")
    assert any(name.endswith(": PATH") for name in inventory["logins"])


def test_nothing_differs_on_the_same_machine(
    recorded: Callable[[Machine], str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = recorded(well())
    assert compared(root, capsys) == (Status.HEALTHY, {**compared(root, capsys)[1], "differences": []})
    assert run(["baseline", "compare", "--root", root]) == Status.HEALTHY
    assert capsys.readouterr().out.startswith("Nothing that is recorded differs from the known-good record of 20")
    run(["doctor", "--root", root])
    assert "known-good" not in capsys.readouterr().out


def test_what_changed_is_said_where_something_is_broken(
    recorded: Callable[[Machine], str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = recorded(well().loaded_driver("535.216.01").append("/etc/environment", "PATH=/usr/local/cuda/bin\n"))
    status, document = compared(root, capsys)
    assert status == Status.WARNINGS
    found = {(d["section"], d["name"]): (d["before"], d["now"]) for d in document["differences"]}
    assert found[("driver", "loaded")] == ("535.261.03", "535.216.01")
    assert ("logins", "alice, pam: PATH") in found
    run(["doctor", "--root", root])
    text = capsys.readouterr().out
    assert "Since the known-good record of 20" in text
    assert "\n  driver: loaded: 535.261.03 -> 535.216.01\n" in text
    run(["doctor", "--root", root, "--json"])
    since = json.loads(capsys.readouterr().out)["since"]
    assert {"section": "driver", "name": "loaded", "before": "535.261.03", "now": "535.216.01"} in since["differences"]


def test_packages_that_changed_alike_are_one_line(
    recorded: Callable[[Machine], str], capsys: pytest.CaptureFixture[str]
) -> None:
    changed = Machine.debian12().gpu().debian_driver("550.163.01").cuda_toolkit("12.2")
    root = recorded(changed)
    assert run(["baseline", "compare", "--root", root]) == Status.WARNINGS
    lines = capsys.readouterr().out.replace("\n      ", " ").splitlines()
    (packages,) = (line for line in lines if "-> 550.163.01-" in line)
    assert packages.startswith("  packages: ")
    assert " more: 535.261.03-1 -> 550.163.01-1" in packages
    assert any(line.startswith("  Python environments: /home/alice/venv: gone: Python 3.11") for line in lines)


def test_a_section_that_cannot_be_read_is_not_compared(
    recorded: Callable[[Machine], str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = recorded(well().remove("/var/lib/dpkg/status"))
    assert "packages" not in {d["section"] for d in compared(root, capsys)[1]["differences"]}


def test_a_broken_machine_is_not_recorded_as_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(well().append("/etc/environment", "PATH=/usr/local/cuda/bin\n").build(tmp_path / "root"))
    file = tmp_path / "good.json"
    assert run(["baseline", "save", "--root", root, "-o", str(file)]) == Status.ERRORS
    assert "not saved, because this machine is broken: /etc/environment:1" in capsys.readouterr().err
    assert not file.exists()
    assert run(["baseline", "save", "--root", root, "-o", str(file), "--force"]) == Status.HEALTHY


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "null", '{"schema": 2}', '{"schema": 1, "inventory": {"a": {"b": 1}}, "time": ""}', "[" * 5000, "\xff"])  # fmt: skip
def test_a_record_that_is_missing_or_damaged_gets_one_sentence(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = well().append("/etc/environment", "PATH=/usr/local/cuda/bin\n")
    if content is not None:
        machine.file(f"/{STORED}", content.encode("latin-1"))
    root = str(machine.build(tmp_path))
    assert run(["baseline", "compare", "--root", root]) == Status.USAGE
    error = capsys.readouterr().err
    assert "known-good record" in error
    assert "To save one: " in error
    assert run(["doctor", "--root", root]) == Status.ERRORS
    assert "known-good" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["save", "--root", "."], "needs a file: -o FILE"),
        (["save", "--root", "/nonexistent", "-o", "x"], "no such file"),
        (["save", "--root", "root", "-o", "root"], "already exists"),
        (["save", "--root", "root", "-o", "no/x"], "no/x: no such file"),
        (["save", "--root", "root", "-o", ""], "an empty name"),
        (["compare", "nothing.json", "--root", "root"], "nothing.json does not exist"),
        (["compar"], "did you mean compare"),
    ],
)
def test_bad_input_gets_one_sentence(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    well().build(tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    assert run(["baseline", *words]) == Status.USAGE
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("variable", ["HOME", "XDG_STATE_HOME"])
def test_a_user_keeps_an_own_record(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # All is imported first: the user may not be allowed to look into this checkout.
    file = str(tmp_path / "record")
    run(["baseline", "save", "--force", "-o", file])
    run(["baseline", "compare", "--json", file])
    capsys.readouterr()
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, 65534, 65534)
        monkeypatch.setenv("HOME", "/nonexistent")
        monkeypatch.setenv(variable, home)
        record = Path(home, *[".local/state"] * (variable == "HOME"), "dlhealth/baseline.json")
        os.seteuid(65534)
        try:
            assert run(["baseline", "compare"]) == Status.USAGE
            assert f"{record} does not exist" in "".join(capsys.readouterr().err.split("\n"))
            assert run(["baseline", "save", "--force"]) == Status.HEALTHY
            assert capsys.readouterr().out.startswith(f"{record}: ")
            assert compared("/", capsys) == (Status.HEALTHY, compared("/", capsys)[1])
        finally:
            os.seteuid(0)
        assert (record.stat().st_uid, record.stat().st_mode & 0o777) == (65534, 0o600)
        assert not violations(json.loads(record.read_text()))
