"""What pip installs is what lies in the tree, and it runs where nothing else is installed."""

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent
SOURCES = {"dlhealth": "dlhealth", "rules": "dlhealth_rules", "systemd": "dlhealth_systemd"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, because setuptools builds in the source directory."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    for name in (*SOURCES, "docs/completions", "docs/man"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source], check=True)
    (made,) = folder.glob("*.whl")
    return zipfile.ZipFile(made)


def test_the_wheel_holds_the_tree(wheel: zipfile.ZipFile) -> None:
    inside = {n for n in wheel.namelist() if ".dist-info/" not in n and ".data/" not in n}
    tree = {
        f"{package}/{path.relative_to(PROJECT / folder)}"
        for folder, package in SOURCES.items()
        for path in (PROJECT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == tree


COMPLETIONS = {
    "bash": "share/bash-completion/completions/dlhealth",
    "zsh": "share/zsh/site-functions/_dlhealth",
    "fish": "share/fish/vendor_completions.d/dlhealth.fish",
}
"""By shell: where it looks below /usr/local."""


def test_the_wheel_holds_the_manual_and_the_completion(wheel: zipfile.ZipFile) -> None:
    data = {n.split(".data/data/")[1]: wheel.read(n) for n in wheel.namelist() if ".data/" in n}
    pages = {f"share/man/man{p.suffix[1:]}/{p.name}" for p in (PROJECT / "docs/man").iterdir()}
    assert set(data) == {*pages, *COMPLETIONS.values()}
    for path in COMPLETIONS.values():
        assert b"_DLHEALTH_COMPLETE" in data[path]


def test_every_file_in_the_wheel_is_the_trees(wheel: zipfile.ZipFile) -> None:
    for folder, package in SOURCES.items():
        for name in wheel.namelist():
            if name.startswith(f"{package}/"):
                assert wheel.read(name) == (PROJECT / folder / name.removeprefix(f"{package}/")).read_bytes(), name


def test_metadata(wheel: zipfile.ZipFile) -> None:
    (name,) = (n for n in wheel.namelist() if n.endswith("/METADATA"))
    metadata = wheel.read(name).decode()
    assert re.search(r"^Requires-Python: >=3\.10$", metadata, re.MULTILINE)
    # The distribution called pynvml is a deprecated wrapper that makes other programs warn.
    assert "Requires-Dist: nvidia-ml-py" in metadata
    assert "Requires-Dist: pynvml" not in metadata
    assert "License-File: LICENSE" in metadata


def test_every_dependency_is_used() -> None:
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg")
    modules = {
        "backports.zstd": "backports",
        "Jinja2": "jinja2",
        "nvidia-ml-py": "pynvml",
        "prometheus-client": "prometheus_client",
    }
    code = "\n".join(p.read_text() for p in (PROJECT / "dlhealth").rglob("*.py"))
    for line in config["options"]["install_requires"].split("\n"):
        if name := re.split(r"[>=<;\s]", line.strip())[0]:
            assert re.search(rf"^\s*(?:import|from) {modules.get(name, name)}\b", code, re.MULTILINE), name


def test_the_version_is_said_once(wheel: zipfile.ZipFile) -> None:
    from dlhealth import __version__

    assert all(f"dlhealth-{__version__}" in n for n in wheel.namelist() if ".dist-info/" in n)


def test_it_runs_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Without the checkout on the path: nothing of it may be missing."""
    wheel.extractall(tmp_path)
    (tmp_path / "etc").mkdir()
    code = "import sys; sys.path.insert(0, sys.argv[1]); from dlhealth.cli import run; sys.exit(run(sys.argv[2:]))"
    options = ["doctor", "--root", str(tmp_path), "--json"]
    command = [sys.executable, "-c", code, str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode in (0, 1, 3, 6), done.stderr
    assert '"failed": []' in done.stdout
