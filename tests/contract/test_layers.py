"""The layers of ARCHITECTURE.md, and the one door to the machine."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from dlhealth.engine.rule import folder_of
from dlhealth.model import Layer

PROJECT = Path(__file__).parent.parent.parent

DOORS = (
    "dlhealth/host/",
    "dlhealth/steps/",  # what a repair changes
    "dlhealth/txn/",  # its own store
    "dlhealth/service/",  # its own state, its sockets, its installation
    "dlhealth/testing/",  # makes machines
    "dlhealth/data/__init__.py",  # its own tables
    "dlhealth/engine/load.py",  # rules, which are code
    "dlhealth/prove/child.py",  # a program of its own, which tests the GPU
    "dlhealth/prove/cuda.py",  # the same: its calls of the driver
    "dlhealth/prove/nvml.py",  # the same: its readings
    "dlhealth/prove/scripts/",  # programs that a user's Python runs
    "dlhealth/probes/driver/cuda_child.py",  # programs of their own, in processes of their own
    "dlhealth/probes/driver/nvml_child.py",
)
INPUT_OUTPUT = {
    "os": "open stat lstat fstat statvfs listdir scandir walk readlink access read write unlink remove rename replace "
    "mkdir makedirs rmdir chmod chown link symlink truncate mkfifo system popen fork execv execve spawnv posix_spawn kill",
    "path": "exists lexists isfile isdir islink ismount getsize getmtime realpath samefile",
    "shutil": "copy copy2 copyfile copytree move rmtree disk_usage",
}


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each call that touches the machine: line and name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.partition(".")[0] in ("subprocess", "pathlib", "glob", "socket", "ctypes", "multiprocessing"):
                    yield node.lineno, name
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield node.lineno, "open"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if node.attr in INPUT_OUTPUT.get(owner, "").split():
                yield node.lineno, f"{owner}.{node.attr}"


def test_only_the_door_touches_the_machine() -> None:
    sources = [*PROJECT.glob("dlhealth/**/*.py"), *PROJECT.glob("rules/**/*.py")]
    assert len(sources) > 150
    found = []
    for source in sources:
        name = str(source.relative_to(PROJECT))
        if not name.startswith(DOORS):
            found += [f"{name}:{line}: {call}" for line, call in calls(ast.parse(source.read_text()))]
    assert not found


@pytest.mark.parametrize(
    "code", ["open('/x')", "import os\nos.stat('/x')", "os.path.exists('/x')", "from pathlib import Path", "import subprocess"]
)  # fmt: skip
def test_the_search_sees_what_it_is_for(code: str) -> None:
    assert list(calls(ast.parse(code)))
    assert list(compiled(ast.parse("import re\nX = re.compile('x')"))) == [2]


def test_no_pattern_is_compiled_before_it_is_used() -> None:
    """Most runs need few of them: `dlhealth.lazy.regex` compiles one at its first use."""
    sources = [*PROJECT.glob("dlhealth/**/*.py"), *PROJECT.glob("rules/**/*.py")]
    found = [f"{s.relative_to(PROJECT)}:{line}" for s in sources for line in compiled(ast.parse(s.read_text()))]
    assert not found


def compiled(tree: ast.Module) -> Iterator[int]:
    """The lines that compile a pattern when the module is imported."""
    for statement in tree.body:
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Call) and ast.unparse(value.func) in ("re.compile", "compile"):
            yield statement.lineno


def test_every_rule_lies_in_the_folder_of_a_layer() -> None:
    """Elsewhere it would not be loaded."""
    folders = {path.parent.name for path in PROJECT.glob("rules/*/*.py")}
    assert folders == {folder_of(layer) for layer in Layer}
    assert [path.name for path in PROJECT.glob("rules/*.py")] == ["__init__.py"]


def test_layers() -> None:
    """The contracts stand in pyproject.toml; `lint-imports` prints which import breaks one."""
    assert lint_imports(config_filename=str(PROJECT / "pyproject.toml"), no_cache=True) == 0


def test_no_test_imports_the_module_of_another_test() -> None:
    """What several tests use stands in a module of its own, so that each test can be read, moved and run alone."""
    sources = [*PROJECT.glob("tests/**/*.py")]
    assert len(sources) > 100
    found = []
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("tests.") and ".test_" in module:
                found.append(f"{source.relative_to(PROJECT)}:{node.lineno}: {module}")
    assert not found
