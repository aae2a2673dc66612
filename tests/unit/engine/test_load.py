"""Which rule files are trusted, and that one bad file does not keep the others from loading."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from dlhealth.engine.load import known_names, load_rules
from dlhealth.engine.rule import folder_of
from dlhealth.model import Layer

RULE = '''
"""A local fault."""
from dlhealth.api import Layer, Rule, Severity, Stage

class LocalFault(Rule):
    id = "local-fault"
    title = "A local fault"
    layer = Layer.RUNTIME
    stage = Stage.APPLICATIONS
    severity = Severity.NOTE

    def detect(self):
        return ()
'''


@pytest.fixture
def folder() -> Path:
    """A directory that nobody but root can change, with all above it; the usual temporary directory is not."""
    base = Path(tempfile.mkdtemp(prefix="dlhealth-test-rules-", dir="/run"))
    base.chmod(0o755)
    (base / "a.py").write_text(RULE)
    yield base
    for entry in base.iterdir():
        entry.unlink()
    base.rmdir()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an installed package that brings a rule."""
    (tmp_path / "vendor_rules.py").write_text(RULE.replace("local-fault", "vendor-fault"))
    about = tmp_path / "vendor-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[dlhealth.rules]\nvendor = vendor_rules\n")
    (tmp_path / "another-1.0.dist-info").mkdir()  # which has no entry points
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("vendor_rules", None)


def ids(folder: Path) -> set[str]:
    return {r.id for r in load_rules(str(folder)).rules}


def problems(folder: Path) -> str:
    return "\n".join(f"{f.id}: {f.error}" for f in load_rules(str(folder)).failed)


def test_a_rule_of_the_administrator_is_loaded(folder: Path) -> None:
    path = list(sys.path)
    loaded = load_rules(str(folder))
    local = next(r for r in loaded.rules if r.id == "local-fault")
    assert local.documentation == "A local fault."
    assert not loaded.failed
    assert sys.path == path
    assert {"local-fault", "runtime"} <= set(known_names(loaded.rules))


def test_no_folder_is_no_problem() -> None:
    assert not load_rules("/nonexistent/rules.d").failed


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write_is_refused(folder: Path, mode: int) -> None:
    (folder / "a.py").chmod(mode)
    assert "local-fault" not in ids(folder)
    assert "must belong to root, and nobody else may write to it" in problems(folder)


def test_a_file_of_a_user_is_refused(folder: Path) -> None:
    os.chown(folder / "a.py", 1000, 1000)
    assert "local-fault" not in ids(folder)


def test_a_folder_that_others_may_write_is_refused(folder: Path) -> None:
    folder.chmod(0o777)
    assert "local-fault" not in ids(folder)
    assert "must belong to root" in problems(folder)


def test_a_folder_below_one_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "rules.d/a.py").write_text(RULE)
    tmp_path.chmod(0o777)
    assert "local-fault" not in ids(tmp_path / "rules.d")


def test_no_link_is_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "a.py").rename(folder / "real")
    (folder / "a.py").symlink_to("real")
    assert "local-fault" not in ids(folder)
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert "not loaded" in problems(link)


def test_one_bad_file_does_not_stop_the_others(folder: Path) -> None:
    (folder / "b.py").write_text("class :")
    (folder / "c.py").write_text("raise SystemExit('at import')")
    (folder / "d.py").write_text("#" * (300 << 10))
    os.mkfifo(folder / "e.py")
    assert "local-fault" in ids(folder)
    said = problems(folder)
    for name, reason in {"b": "invalid syntax", "c": "at import", "d": "at most 256 KiB", "e": "regular file"}.items():
        assert reason in next(line for line in said.splitlines() if f"/{name}.py" in line)


def test_what_a_file_prints_stays_out_of_reports(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.py").write_text("print('hello')")
    assert problems(folder) == ""
    assert capsys.readouterr() == ("", "hello\n")


def test_a_rule_without_what_a_rule_needs_is_refused(folder: Path) -> None:
    (folder / "b.py").write_text(RULE.replace('id = "local-fault"', "").replace("LocalFault", "Nameless"))
    assert "Nameless: not loaded: it has no id" in problems(folder)
    assert "local-fault" in ids(folder)


def test_an_id_is_taken_once(folder: Path) -> None:
    (folder / "z.py").write_text(RULE)
    assert "another rule uses" in problems(folder)
    assert "local-fault" in ids(folder)


def test_a_package_brings_rules(package: Path) -> None:
    loaded = load_rules("/nonexistent")
    assert "vendor-fault" in {r.id for r in loaded.rules}
    assert not loaded.failed


@pytest.mark.parametrize("text", ["raise RuntimeError('of another version')", "raise SystemExit('of another version')"])
def test_a_package_whose_rule_does_not_load_is_named(package: Path, text: str) -> None:
    (package / "vendor_rules.py").write_text(text)
    assert problems(Path("/nonexistent")) == "vendor: the package's rule did not load: of another version"


def test_an_id_is_taken_by_who_comes_first(package: Path, folder: Path) -> None:
    (folder / "a.py").write_text(RULE.replace("local-fault", "vendor-fault"))
    assert problems(folder) == "vendor-fault: a local rule has an id that another rule uses: not loaded"


def test_a_built_in_rule_that_does_not_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade that was cut off."""
    import dlhealth_rules

    for layer in set(Layer) - {Layer.PYTHON}:
        (tmp_path / folder_of(layer)).mkdir()
    (tmp_path / "cuda/of_two_words.py").write_text("from dlhealth.api import Gone")
    (tmp_path / "kernel_module/whole.py").write_text(RULE)
    monkeypatch.setattr(dlhealth_rules, "__path__", [str(tmp_path)])
    loaded = load_rules("/nonexistent")
    assert [f.id for f in loaded.failed] == ["of-two-words", "python"]
    assert loaded.failed[0].error.startswith("not loaded: cannot import name 'Gone'")
    assert loaded.failed[1].error == f"not loaded: No such file or directory: {tmp_path}/python"
    assert [(r.id, r.layer) for r in loaded.rules] == [("local-fault", Layer.KERNEL_MODULE)]
    sys.modules.pop("dlhealth_rules.kernel_module.whole")


def test_a_file_may_be_as_large_as_is_said(folder: Path) -> None:
    (folder / "a.py").write_text(RULE.ljust(256 << 10, "#"))
    assert "local-fault" in ids(folder)
