"""docs/schema describes every JSON document. The conftest.py here compares the documents of all other tests, too."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dlhealth.cli import COMMANDS, commands, run
from dlhealth.cli.common import json_option
from dlhealth.host.locate import host_at
from dlhealth.model import Health, Layer, Outcome, Risk, Severity
from dlhealth.probes.machine.platform import PlatformSetting
from dlhealth.testing import Machine
from tests.schema import FOLDER, FORMS, violations

pytest.importorskip("jsonschema", reason="needs jsonschema, of the extra [test]")
pytestmark = pytest.mark.real_programs


def schema(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return read


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_each_schema_is_valid_and_named_after_its_file(path: Path) -> None:
    from jsonschema import Draft202012Validator

    read = schema(path.stem)
    Draft202012Validator.check_schema(read)
    assert read["$id"] == path.name


def test_every_command_with_json_has_a_schema() -> None:
    context = commands.make_context("dlhealth", [], resilient_parsing=True)
    option = json_option(lambda: None).__click_params__[0].opts  # type: ignore[attr-defined]
    with_json = set()
    for name in COMMANDS:
        command = commands.get_command(context, name)
        assert command
        if any(parameter.opts == option for parameter in command.params):
            with_json.add(name)
    described = {
        name for form in FORMS.values() for name in re.findall(r"dlhealth (\S+) --json", schema(form)["title"])
    }
    assert described == with_json


def test_the_lists_of_values_are_those_of_the_code() -> None:
    parts = schema("common")["$defs"]
    for name, values in (("layer", Layer), ("severity", Severity), ("risk", Risk), ("outcome", Outcome)):
        assert set(parts[name]["enum"]) == {value.value for value in values}, name
    doctor = schema("doctor")["properties"]
    assert set(doctor["verdict"]["enum"]) == {value.value for value in Health}
    assert set(doctor["host"]["properties"]["platform"]["properties"]["setting"]["enum"]) == {
        s.value for s in PlatformSetting
    }


def test_a_key_that_no_schema_describes_is_noticed() -> None:
    document = {"schema": 1, "rules": [], "more": 1}
    assert violations(document)
    del document["more"]
    assert not violations(document)
    assert violations({"schema": 2, "rules": []})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    machine = Machine.debian12_gpu().append("/home/alice/.bashrc", "export PATH=/usr/local/cuda/bin\n")
    machine.file("/home/alice/.Xauthority", "cookie", uid=0).build(tmp_path)
    assert host_at(str(tmp_path))
    return tmp_path


def test_the_printed_documents(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As they are on standard output, in the order of a repair."""

    def printed(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        run([*words, "--json"])
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert not violations(document)
        return document

    there = ("--root", str(root))
    assert any(f["remedy"] for f in printed("doctor", *there)["findings"])
    assert printed("fix", *there, "--dry-run")["plan"]["actions"]
    assert printed("fix", *there, "--yes")["transactions"]
    (kept,) = printed("history", *there)["transactions"]
    assert printed("show", kept["id"], *there)["transactions"] == [kept]
    assert printed("undo", *there, "--yes")["transaction"]
    assert printed("undo", *there, "--yes")["transaction"] is None
    assert printed("rules")["rules"]
    assert "unknown" in printed("status")
