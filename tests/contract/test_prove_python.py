"""The stages of `dlhealth prove` that run in Python environments.

The environments of most tests hold packages with the names of frameworks, which misbehave as they are told. Real
frameworks are tested in the environments that DLHEALTH_TEST_PYTHONS names, separated by colons (docs/prove.md).
"""

import ast
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dlhealth.cli import Status
from dlhealth.host.account import Account
from dlhealth.prove import runner
from dlhealth.prove.environments import Environment, Unusable, command
from dlhealth.prove.records import Part, Proof, Result
from dlhealth.prove.runner import Asker, Wanted, in_python, together
from tests.schema import violations

pytestmark = pytest.mark.real_programs
PROJECT = Path(__file__).parents[2]
PYTHON = Path("/usr/bin/python3") if Path("/usr/bin/python3").exists() else Path(sys.executable)
REAL = [Path(folder) for folder in os.environ.get("DLHEALTH_TEST_PYTHONS", "").split(":") if folder]


def environment(folder: Path, **packages: str) -> Path:
    """A virtual environment with packages of one module each."""
    version = subprocess.check_output([PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True)
    site = folder / f"lib/python{version.strip()}/site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(PYTHON)
    (folder / "pyvenv.cfg").write_text(f"home = {PYTHON.parent}\n")
    for name, text in packages.items():
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(text)
        (site / f"{name}-1.2.dist-info").mkdir()
        (site / f"{name}-1.2.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    return folder


def prove(*words: str, variables: dict[str, str] | None = None) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-m", "dlhealth", "prove", "--json", "--no-history", "--yes", *words],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert not violations(document)
    return done.returncode, document["stages"]


@pytest.mark.parametrize(
    ("text", "status", "outcome", "said"),
    [
        ("raise ImportError('libcudnn.so.8: cannot open shared object file: No such file or directory')",
         Status.ERRORS, "failed", "ImportError: libcudnn.so.8: cannot open shared object file: No such file or directory"),
        ("print('{\"outcome\": 1}')\nimport os; os.abort()", Status.ERRORS, "failed", "the process ended with signal 6"),
        ("raise MemoryError('x')", Status.UNKNOWN, "could not run", "not enough memory is free: MemoryError: x"),
        ("raise RuntimeError('CUDA out of memory. Tried')", Status.UNKNOWN, "could not run", "not enough memory is free: Ru"),
        ("import os; os._exit(3)", Status.UNKNOWN, "could not run", "the process of the stage did not work: status 3"),
    ],
)  # fmt: skip
def test_a_framework_that_does_not_work(tmp_path: Path, text: str, status: Status, outcome: str, said: str) -> None:
    folder = environment(tmp_path / "venv", torch=text)
    ended, (stage,) = prove("--stage", "framework", "--python", str(folder))
    assert (ended, stage["outcome"]) == (status, outcome)
    assert stage["text"].startswith(said)
    assert [(p["environment"], p["framework"]) for p in stage["parts"]] == [(str(folder), "torch")]


def test_the_error_of_a_framework_names_the_problems_that_can_cause_it(tmp_path: Path) -> None:
    folder = environment(tmp_path / "venv", torch="raise ImportError('libcudnn.so.9: cannot open shared object file')")
    result = in_python("framework", Wanted(("framework",), None, 1), asking(folder), ())
    assert "cudnn-runtime-missing" in result.suspects
    assert result.about == (f"python:{folder}",)


def asking(*folders: Path, frameworks: tuple[str, ...] = ("torch",)) -> Asker:
    found = [Environment(str(folder), f"{folder}/bin/python", frameworks) for folder in folders]
    return Asker(lambda use: True, lambda: None, lambda stage: None, lambda part: None, lambda: found)


@pytest.mark.parametrize(("text", "outcome", "said"), [
    ("import time; time.sleep(60)", Proof.FAILED, "no answer within 1.5 seconds"),
    ("from dlhealth_says import say; say(gpu=False); import time; time.sleep(60)", Proof.NOT_RUN,
     "the CPU did not finish within 1.5 seconds"),
])  # fmt: skip
def test_a_framework_that_hangs_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, outcome: Proof, said: str
) -> None:
    monkeypatch.setitem(runner.SECONDS, "framework", 1.5)
    text = text.replace("from dlhealth_says import say", "from dlhealth.prove.scripts.common import say")
    folder = environment(tmp_path / "venv", torch=text)
    result = in_python("framework", Wanted(("framework",), None, 1), asking(folder), ())
    assert (result.outcome, result.text) == (outcome, said)


def test_a_python_that_does_not_start(tmp_path: Path) -> None:
    folder = environment(tmp_path / "venv", torch="")
    (folder / "bin/python").unlink()
    (folder / "bin/python").write_text("#!/nonexistent/python\n")
    (folder / "bin/python").chmod(0o755)
    status, (stage,) = prove("--stage", "framework", "--python", str(folder))
    assert (status, stage["outcome"]) == (Status.UNKNOWN, "could not run")
    assert "could not start: No such file or directory" in stage["text"]


@pytest.mark.parametrize(("stage", "kind"), [("framework", "PyTorch, TensorFlow or JAX"), ("train", "PyTorch")])
def test_an_environment_without_a_framework(tmp_path: Path, stage: str, kind: str) -> None:
    folder = environment(tmp_path / "venv", numpy="")
    status, (ended,) = prove("--stage", stage, "--python", str(folder))
    assert status == Status.UNKNOWN
    assert ended["text"] == f"{folder} has no {kind}"


def test_a_python_that_does_not_exist_is_wrong_usage() -> None:
    words = ["--stage", "framework", "--python", "/nonexistent"]
    done = subprocess.run([sys.executable, "-m", "dlhealth", "prove", *words], capture_output=True, check=False)
    assert done.returncode == Status.USAGE


def test_no_framework_is_asked_twice_and_training_takes_the_environment_that_uses_the_gpu(tmp_path: Path) -> None:
    paths = [environment(tmp_path / name, torch=f"raise ImportError('{name}')") for name in ("a", "b", "c")]
    tested = [
        Part(str(p), "torch", outcome, "") for p, outcome in zip(paths, (Proof.CPU_ONLY, Proof.FAILED), strict=False)
    ]
    result = in_python("train", Wanted(("train",), None, 1), asking(*paths), tested)
    assert result.text == "ImportError: c"  # the only one that nothing is known of
    tested.append(Part(str(paths[1]), "torch", Proof.PROVED, ""))
    assert in_python("train", Wanted(("train",), None, 1), asking(*paths), tested).text == "ImportError: b"


@pytest.mark.parametrize(
    ("outcomes", "outcome", "text"),
    [
        ((Proof.PROVED, Proof.FAILED), Proof.FAILED, "1 of 2 frameworks: failed"),
        ((Proof.CPU_ONLY, Proof.PROVED), Proof.PROVED, "1 of 2 frameworks: proved"),
        ((Proof.CPU_ONLY, Proof.NOT_RUN), Proof.CPU_ONLY, "1 of 2 frameworks: on the CPU only"),
    ],
)
def test_what_several_environments_prove_together(outcomes: Sequence[Proof], outcome: Proof, text: str) -> None:
    results = [
        Result("framework", o, "", figures={"x, s": n}, parts=(Part(f"/venv{n}", "torch", o, ""),))
        for n, o in enumerate(outcomes)
    ]
    merged = together("framework", results)
    assert (merged.outcome, merged.text, len(merged.parts)) == (outcome, text, 2)
    assert merged.figures == {"torch in /venv0: x, s": 0, "torch in /venv1: x, s": 1}


def test_what_is_named_and_is_no_environment_is_said() -> None:
    status, (stage,) = prove("--stage", "framework", "--python", "/bin/false")
    assert (status, stage["outcome"]) == (Status.UNKNOWN, "could not run")
    assert stage["text"] == "/bin/false has no PyTorch, TensorFlow or JAX"


def test_the_variables_of_the_caller_reach_the_framework(tmp_path: Path) -> None:
    """With all their faults: here, a module of PYTHONPATH hides one of the standard library."""
    folder = environment(tmp_path / "venv", torch="import this_is_not_here")
    (tmp_path / "ctypes.py").write_text("raise ImportError('a file of mine')")
    _, (stage,) = prove("--stage", "framework", "--python", str(folder), variables={"PYTHONPATH": str(tmp_path)})
    assert "a file of mine" in stage["text"]


def test_the_directory_of_the_caller_hides_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "torch.py").write_text("raise ImportError('the wrong torch')")
    monkeypatch.chdir(tmp_path)
    folder = environment(tmp_path / "venv", torch="raise ImportError('the right torch')")
    assert in_python("train", Wanted(("train",), None, 1), asking(folder), ()).text == "ImportError: the right torch"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("su"), reason="needs root and su")
@pytest.mark.usefixtures("readable_checkout")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "dash", "tcsh"])
def test_root_runs_an_environment_of_a_user_as_that_user_in_a_login(tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell)
    if not program:
        pytest.skip(f"needs {shell}")
    home = Path("/home/dlhealth-test")
    text = "import os; raise ImportError('UID %d, %s, %s' % (os.getuid(), os.environ['HOME'], os.environ.get('MINE')))"
    files = {".bashrc": "echo noise; export MINE=1", ".zshrc": "export MINE=1", ".profile": "export MINE=1",
             ".cshrc": "setenv MINE 1", ".config/fish/config.fish": "set -gx MINE 1"}  # fmt: skip
    folder = tmp_path / "home"
    environment(folder / "venv", torch=text)
    for name, line in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(line + "\n")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 30001, 30001, follow_symlinks=False)
    passwd = tmp_path / "passwd"
    passwd.write_text(f"{Path('/etc/passwd').read_text()}bob:*:30001:30001::{home}:{program}\n")
    # /home must be searched: a temporary directory of root lets nobody else in.
    mounts = f"mount -t tmpfs tmpfs /home && cp -a {folder} {home} && mount --bind {passwd} /etc/passwd"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh",
         sys.executable, "-m", "dlhealth", "prove", "--json", "--no-history", "--yes", "--stage", "framework",
         "--python", f"{home}/venv"],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/root", "MINE": "2"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    (stage,) = json.loads(done.stdout)["stages"]
    assert stage["text"] == f"ImportError: UID 30001, {home}, 1"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("runuser"), reason="needs root and runuser")
def test_an_environment_of_somebody_who_may_not_read_dlhealth_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dlhealth/prove").mkdir(parents=True)
    (tmp_path / "dlhealth/prove/__init__.py").touch()
    tmp_path.chmod(0o700)
    monkeypatch.setattr("dlhealth.prove.environments._ROOT", str(tmp_path))
    nobody = Account("nobody", 65534, 65534, (65534,), "/nonexistent", "/bin/sh")
    with pytest.raises(Unusable, match=f"nobody may not read {tmp_path}, where dlhealth is installed"):
        command(Environment("/srv/venv", "/srv/venv/bin/python", ("torch",), nobody), "framework", ())


def test_root_does_not_run_what_belongs_to_nobody_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    unnamed = Account("#1005", 1005, 1005, (1005,), "/nonexistent", "")
    with pytest.raises(Unusable, match="the user number 1005, who has no account"):
        command(Environment("/srv/venv", "/srv/venv/bin/python", ("torch",), unnamed), "framework", ())


def test_nobody_but_root_runs_the_environment_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    bob = Account("bob", 1001, 1001, (1001,), "/home/bob", "/bin/bash")
    with pytest.raises(Unusable, match="it belongs to bob: run dlhealth as bob or root"):
        command(Environment("/home/bob/venv", "/home/bob/venv/bin/python", ("torch",), bob), "framework", ())


@pytest.mark.parametrize("path", sorted((PROJECT / "dlhealth/prove/scripts").glob("*.py")), ids=lambda path: path.name)
def test_the_programs_run_on_old_pythons_and_import_nothing_of_dlhealth(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 7))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = {name for name in names if name.startswith("dlhealth")}
    assert ours <= {"dlhealth.prove.scripts.common", "dlhealth.prove.scripts.pytorch"}


LIES = {
    "convolution": """
import torch.nn.functional as f
right = f.conv2d
f.conv2d = lambda *a, **k: right(*a, **k) * 1.001
""",
    "gradient": """
import torch
right = torch.Tensor.backward
torch.Tensor.backward = lambda self, *a, **k: right(self * 1.01, *a, **k)
""",
}


@pytest.mark.skipif(not REAL, reason="needs DLHEALTH_TEST_PYTHONS")
@pytest.mark.parametrize("folder", REAL, ids=lambda folder: folder.name)
class TestRealFrameworks:
    def test_a_framework_on_the_cpu_is_right_but_proves_no_gpu(self, folder: Path) -> None:
        status, (stage,) = prove("--stage", "framework", "--python", str(folder))
        assert (status, stage["outcome"]) == (Status.UNKNOWN, "on the CPU only")
        for part in stage["parts"]:
            assert part["text"].endswith("this says nothing of the GPU")

    @pytest.mark.parametrize("lie", LIES)
    def test_a_wrong_result_is_found(self, folder: Path, tmp_path: Path, lie: str) -> None:
        if not list(folder.glob("lib/python*/site-packages/torch")):
            pytest.skip("needs PyTorch")
        (tmp_path / "lie.py").write_text(LIES[lie])
        (tmp_path / "sitecustomize.py").write_text("import lie\n")
        status, (stage,) = prove(
            "--stage", "framework", "--python", str(folder), variables={"PYTHONPATH": str(tmp_path)}
        )
        assert (status, stage["outcome"]) == (Status.ERRORS, "failed")
        assert f"the {lie}" in stage["text"]
        assert "differs from the CPU's result by" in stage["text"]

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({}, "train-images-idx3-ubyte cannot be read: No such file or directory"),
            ({"train-images-idx3-ubyte": b"hi"}, "train-images-idx3-ubyte is not a file of MNIST"),
            ({"train-images-idx3-ubyte": struct.pack(">IIII", 2051, 9, 28, 28)}, "it says 9 entries, and holds 0 bytes"),
            ({"train-images-idx3-ubyte.gz": gzip.compress(b"x" * 9999)[:20]}, "train-images-idx3-ubyte.gz cannot be read: "),
            ({"train-images-idx3-ubyte.gz": gzip.compress(b"x" * 9999).replace(b"\xed", b"\xff")}, "cannot be read: "),
            ({"train-images-idx3-ubyte": struct.pack(">IIII", 2051, 1, 1, 1) + b"x",
              "train-labels-idx1-ubyte": struct.pack(">II", 2049, 1) + b"x"}, "the labels of train are not digits"),
        ],
    )  # fmt: skip
    def test_files_that_are_not_mnist(self, folder: Path, tmp_path: Path, files: dict[str, bytes], said: str) -> None:
        if not list(folder.glob("lib/python*/site-packages/torch")):
            pytest.skip("needs PyTorch")
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        status, (stage,) = prove("--stage", "train", "--python", str(folder), "--data", str(tmp_path))
        assert (status, stage["outcome"]) == (Status.UNKNOWN, "could not run")
        assert said in stage["text"]

    def test_a_network_learns(self, folder: Path) -> None:
        if not list(folder.glob("lib/python*/site-packages/torch")):
            pytest.skip("needs PyTorch")
        status, (stage,) = prove("--stage", "train", "--python", str(folder))
        assert (status, stage["outcome"]) == (Status.UNKNOWN, "on the CPU only")
        assert stage["figures"]["test accuracy, %"] >= 98
        assert len(stage["curves"]["loss"]) == stage["figures"]["epochs"]
