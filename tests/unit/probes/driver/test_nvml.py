"""The child that asks NVML, against a stand-in library that answers, refuses, hangs, crashes and lies."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.host.base import Host, Output
from dlhealth.host.exec import run
from dlhealth.host.root import RootHost
from dlhealth.probes import Unavailable
from dlhealth.probes.driver import nvml, nvml_child
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.driver.nvml import LIMIT, VERSION_MISMATCH, Nvml, interpret
from dlhealth.testing import Machine

SOURCE = Path(__file__).parents[3] / "lab" / "nvml" / "stand_in.c"
SOUND = """\
driver 535.261.03
nvml 12.535.261.03
cuda 12020
device 00000000:01:00.0 6.1 NVIDIA GeForce GTX 1080 Ti
device 00000000:02:00.0 8.6 NVIDIA GeForce RTX 3090
"""

Ask = Callable[..., Nvml]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Wl,-soname,libnvidia-ml.so.1", "-o", target, SOURCE], check=True
    )
    return folder


@pytest.fixture
def ask(library: Path, tmp_path: Path) -> Ask:
    """What the probe makes of the library with this script."""

    def asked(script: str, timeout: float = 20.0) -> Nvml:
        file = tmp_path / "script"
        file.write_text(script)
        environment = {"LD_LIBRARY_PATH": str(library), "DLHEALTH_NVML_SCRIPT": str(file)}
        return interpret(run([sys.executable, "-I", "-B", nvml_child.__file__], timeout, environment=environment))

    return asked


@pytest.mark.real_programs
class TestStandIn:
    """Each with the real child, as the doctor starts it. The limit is raised where no hang is meant: a busy machine
    must not fail the test."""

    def test_answers(self, ask: Ask) -> None:
        answer = ask(SOUND)
        assert (answer.outcome, answer.driver, answer.nvml) == ("ok", "535.261.03", "12.535.261.03")
        assert answer.cuda == (12, 2)
        assert [(g.pci, g.capability, g.name) for g in answer.gpus] == [
            ("0000:01:00.0", "6.1", "NVIDIA GeForce GTX 1080 Ti"),
            ("0000:02:00.0", "8.6", "NVIDIA GeForce RTX 3090"),
        ]
        assert {(g.compute_mode, g.pages_pending, g.code) for g in answer.gpus} == {(0, False, None)}

    def test_no_gpu(self, ask: Ask) -> None:
        answer = ask("driver 535.261.03\nnvml 12.535.261.03\n")
        assert (answer.outcome, answer.gpus, answer.cuda) == ("ok", (), None)

    def test_version_mismatch(self, ask: Ask) -> None:
        answer = ask(SOUND + "return nvmlInitWithFlags 18\n")
        assert answer == Nvml("error", VERSION_MISMATCH, "RM has detected an NVML/RM version mismatch.")

    def test_driver_not_loaded(self, ask: Ask) -> None:
        assert ask(SOUND + "return nvmlInitWithFlags 9\n") == Nvml("error", 9, "Driver Not Loaded")

    def test_error_code_of_a_newer_driver(self, ask: Ask) -> None:
        assert ask(SOUND + "return nvmlInitWithFlags 77\n") == Nvml("error", 77, "an error of the stand-in")

    def test_one_gpu_is_lost(self, ask: Ask) -> None:
        answer = ask(SOUND + "return nvmlDeviceGetName 15\n")
        assert answer.outcome == "ok"
        assert [(g.code, g.text) for g in answer.gpus] == [(15, "GPU is lost")] * 2

    def test_what_a_gpu_does_not_support_is_left_out(self, ask: Ask) -> None:
        answer = ask(SOUND + "return nvmlDeviceGetRetiredPagesPendingStatus 3\n")
        assert [g.pages_pending for g in answer.gpus] == [None, None]
        assert answer.gpus[0].name

    @pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlDeviceGetName"])
    def test_hangs(self, ask: Ask, call: str) -> None:
        # On a busy machine, the child may need longer until it makes the call.
        for seconds in (LIMIT, 4 * LIMIT, 16 * LIMIT):
            with suppress(Unavailable):
                answer = ask(f"{SOUND}hang {call}\n", timeout=seconds)
                break
        assert (answer.outcome, answer.call) == ("hung", call.replace("WithFlags", ""))

    def test_crashes(self, ask: Ask) -> None:
        answer = ask(SOUND + "segfault nvmlDeviceGetUUID\n")
        assert (answer.outcome, answer.call) == ("crashed", "nvmlDeviceGetUUID")
        assert f"signal {signal.SIGSEGV.value}" in answer.text

    @pytest.mark.parametrize("call", ["nvmlSystemGetDriverVersion", "nvmlDeviceGetCount_v2"])
    def test_nonsense_is_no_answer(self, ask: Ask, call: str) -> None:
        answer = ask(f"{SOUND}nonsense {call}\n")
        assert (answer.outcome, answer.driver, answer.gpus) == ("nonsense", "", ())

    def test_nonsense_as_a_name_does_no_harm(self, ask: Ask) -> None:
        answer = ask(SOUND + "nonsense nvmlDeviceGetName\n")
        assert answer.outcome == "ok"
        assert [(g.name, g.capability) for g in answer.gpus] == [("", "6.1"), ("", "8.6")]

    def test_no_library(self, tmp_path: Path) -> None:
        (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
        output = run(
            [sys.executable, "-I", "-B", nvml_child.__file__], 20.0, environment={"LD_LIBRARY_PATH": str(tmp_path)}
        )
        assert interpret(output) == Nvml("absent", 12, "NVML Shared Library Not Found")

    def test_leaves_no_file(self, ask: Ask) -> None:
        folder = Path(nvml_child.__file__).parent
        before = {p: p.stat().st_mtime_ns for p in folder.glob("__pycache__/nvml_child*")}
        ask(SOUND)
        assert {p: p.stat().st_mtime_ns for p in folder.glob("__pycache__/nvml_child*")} == before


class TestInterpret:
    """What the child printed and how it ended."""

    @pytest.mark.parametrize(
        "output",
        [
            Output(None, "", problem="python did not answer within 2 seconds"),
            Output(None, '{"call": "import"}\n', problem="python did not answer within 2 seconds"),
            Output(None, "", problem="the time limit of the diagnosis was used up"),
            Output(1, "", "Traceback\nKeyError"),
            Output(None, '{"call": "load"}\n', problem="python did not answer within 3 seconds"),
            Output(None, '{"call": "nvmlInit"}\n', problem="python did not answer within 3 seconds"),
            Output(0, '{"call": "import"}\n{"outcome": "no-binding", "text": "No module named \'pynvml\'"}'),
        ],
    )
    def test_a_child_that_never_asked_or_had_no_time_says_nothing_of_the_driver(self, output: Output) -> None:
        with pytest.raises(Unavailable):
            interpret(output)

    @given(st.text(), st.sampled_from([0, 1, -9, -11, None]), st.text(max_size=50))
    def test_any_output(self, stdout: str, status: int | None, problem: str) -> None:
        for text in (stdout, f'{{"call": "nvmlInit"}}\n{stdout}', "[" * 100_000):
            try:
                assert interpret(Output(status, text, "", problem)).outcome in ("nonsense", "hung", "crashed")
            except Unavailable:
                assert '"nvmlInit"' not in text or "did not" in problem

    @given(
        st.dictionaries(
            st.sampled_from(["outcome", "code", "driver", "gpus", "cuda"]),
            st.one_of(
                st.none(),
                st.integers(),
                st.sampled_from(["ok", "error", "535.1"]),
                st.lists(
                    st.dictionaries(
                        st.sampled_from(["name", "pci", "code", "compute_mode"]),
                        st.one_of(st.none(), st.text(), st.integers()),
                    )
                ),
            ),
        )
    )
    def test_any_answer(self, answer: dict[str, object]) -> None:
        import json

        answer.setdefault("outcome", "ok")
        output = Output(0, f'{{"call": "nvmlInit"}}\n{json.dumps(answer)}\n')
        assert interpret(output).outcome in ("ok", "error", "nonsense")


class TestGate:
    """Asking has effects where the driver is not there: it must not be asked then."""

    def modules(self, *loaded: str) -> KernelModules:
        return KernelModules(loaded, None, None, ())

    def live(self, machine: Machine, tmp_path: Path) -> Host:
        return RootHost(str(machine.build(tmp_path)), live=True)

    def test_a_foreign_root_is_not_asked(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="is not running"):
            Nvml.probe(RootHost(str(Machine.debian12_gpu().build(tmp_path))), self.modules("nvidia"))

    def test_without_the_module(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="would load it"):
            Nvml.probe(self.live(Machine.debian12_gpu().file("/dev/nvidiactl"), tmp_path), self.modules("ext4"))

    @pytest.mark.parametrize("nodes", [(), ("/dev/nvidia0",), ("/dev/nvidiactl",)])
    def test_with_a_missing_node(self, tmp_path: Path, nodes: tuple[str, ...]) -> None:
        machine = Machine.debian12_gpu().file("/proc/driver/nvidia/gpus/0000:01:00.0/information")
        for node in nodes:
            machine.file(node)
        with pytest.raises(Unavailable, match="would create it"):
            Nvml.probe(self.live(machine, tmp_path), self.modules("nvidia"))

    def test_is_asked_where_all_is_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = Machine.debian12_gpu().file("/proc/driver/nvidia/gpus/0000:01:00.0/information")
        host = self.live(machine.file("/dev/nvidiactl").file("/dev/nvidia0"), tmp_path)
        asked = []

        def answer(program: str, *arguments: str, timeout: float) -> Output:
            asked.append((program, timeout, Path(arguments[-1]).name))
            return Output(0, '{"outcome": "error", "code": 9, "text": "Driver Not Loaded"}')

        monkeypatch.setattr(host, "run", answer)
        assert Nvml.probe(host, self.modules("nvidia")).code == nvml.DRIVER_NOT_LOADED
        assert asked == [(sys.executable, LIMIT, "nvml_child.py")]
