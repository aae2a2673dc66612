"""Which rule files are trusted, and that one bad file does not keep the others from loading."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from dlhealth.engine.load import known_names, load_rules

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
    """A folder that nobody but root can change, with all above it; the usual temporary folder is not."""
    base = Path(tempfile.mkdtemp(prefix="dlhealth-test-rules-", dir="/run"))
    base.chmod(0o755)
    (base / "a.py").write_text(RULE)
    yield base
    for entry in base.iterdir():
        entry.unlink()
    base.rmdir()


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
    assert "must belong to root and be writable by nobody else" in problems(folder)


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


def test_a_rule_without_what_a_rule_needs_is_refused(folder: Path) -> None:
    (folder / "b.py").write_text(RULE.replace('id = "local-fault"', "").replace("LocalFault", "Nameless"))
    assert "Nameless: not loaded: it has no id" in problems(folder)
    assert "local-fault" in ids(folder)


def test_an_id_is_taken_once(folder: Path) -> None:
    (folder / "z.py").write_text(RULE)
    assert "already taken" in problems(folder)
    assert "local-fault" in ids(folder)
