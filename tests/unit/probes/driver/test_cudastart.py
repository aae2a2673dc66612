"""Whether CUDA starts after a suspend: the child with a stand-in for libcuda, and when it is asked."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlhealth.host.base import Output
from dlhealth.host.root import RootHost
from dlhealth.probes.driver import cuda_child
from dlhealth.probes.driver.cudastart import CudaStart
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.testing import Machine

SOURCE = Path(__file__).parents[3] / "stand_in_cuda.c"
WOKE = Line(1.0, "boot", "kernel", 0, "PM: suspend exit")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cuda")
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", SOURCE, "-lm"], check=True)
    return folder


def child(library: Path, lie: str, node: str = "/dev/null") -> str:
    program = f"import runpy; a = runpy.run_path({cuda_child.__file__!r})['answer']; a.__globals__['UVM'] = {node!r}; print(a())"
    environment = {"LD_LIBRARY_PATH": str(library), "STAND_IN_CUDA": lie}
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


FILTERED = "\nSeccomp:\t2" in Path("/proc/self/status").read_text()


@pytest.mark.real_programs
@pytest.mark.skipif(FILTERED, reason="a seccomp filter applies, as in a container")
def test_the_child_says_what_cuinit_returns(library: Path, tmp_path: Path) -> None:
    assert child(library, "") == "0"
    assert child(library, "error=cuInit:999") == "999"
    assert child(library, "", "/nonexistent") == "not called: No such file or directory"
    assert child(tmp_path, "").startswith("not called: libcuda.so.1: cannot open")


@pytest.mark.parametrize(
    ("output", "code", "why"),
    [
        (Output(0, "0\n"), 0, ""),
        (Output(0, "999\n"), 999, ""),
        (Output(0, "not called: Permission denied\n"), None, "Permission denied"),
        (Output(None, "", problem="python did not answer within 3 seconds"), None, "did not answer"),
        (Output(-11, ""), None, "status -11"),
    ],
)
def test_a_running_machine_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: Output, code: int | None, why: str
) -> None:
    host = RootHost(str(Machine().file("/dev/nvidia-uvm").build(tmp_path)), live=True)
    monkeypatch.setattr(host, "run", lambda *command, timeout: output)
    modules = KernelModules(("nvidia", "nvidia_uvm"), None, None, ())
    start = CudaStart.probe(host, Journal((WOKE,), ("boot",), ""), modules)
    assert (start.woke, start.code) == (WOKE, code)
    assert why in start.why


@pytest.mark.parametrize(
    ("lines", "loaded", "nodes", "live"),
    [
        ((), ("nvidia_uvm",), ("/dev/nvidia-uvm",), True),
        ((WOKE,), ("nvidia",), ("/dev/nvidia-uvm",), True),
        ((WOKE,), ("nvidia_uvm",), (), True),
        ((WOKE,), ("nvidia_uvm",), ("/dev/nvidia-uvm",), False),
    ],
)
def test_it_is_not_asked_without_need_or_where_that_would_change_something(
    tmp_path: Path, lines: tuple[Line, ...], loaded: tuple[str, ...], nodes: tuple[str, ...], *, live: bool
) -> None:
    machine = Machine()
    for node in nodes:
        machine.file(node)
    host = RootHost(str(machine.build(tmp_path)), live=live)  # a test that started a program would fail
    start = CudaStart.probe(host, Journal(lines, ("boot",), ""), KernelModules(loaded, None, None, ()))
    assert start.code is None
    assert bool(start.why) == bool(lines)
