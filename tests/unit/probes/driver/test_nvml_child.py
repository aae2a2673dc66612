"""The questions of the NVML child, in this process, to a binding that answers as pynvml does with each kind of driver.
What needs a process of its own, as hanging and crashing, is in test_nvml.py."""

import json
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dlhealth.host.base import Output
from dlhealth.probes.driver import nvml_child
from dlhealth.probes.driver.nvml import VERSION_MISMATCH, Nvml, interpret

ANSWERS: dict[str, Any] = {
    "nvmlInit": None,
    "nvmlSystemGetDriverVersion": "535.261.03",
    "nvmlSystemGetNVMLVersion": b"12.535.261.03",  # bytes, as bindings before 12 give them
    "nvmlSystemGetCudaDriverVersion": 12020,
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": "handle",
    "nvmlDeviceGetCudaComputeCapability": (6, 1),
    "nvmlDeviceGetRetiredPagesPendingStatus": 1,
    "nvmlDeviceGetComputeMode": 0,
    "nvmlDeviceGetPciInfo": SimpleNamespace(busId=b"00000000:01:00.0"),
    "nvmlDeviceGetName": b"NVIDIA GeForce GTX 1080 Ti",
    "nvmlDeviceGetUUID": "GPU-1",
}


class Binding(ModuleType):
    """pynvml's errors, and functions that give or raise what was told. `None` in `answers` takes a function away."""

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"error {value}")
            self.value = value

    class NVMLError_NotSupported(NVMLError):  # noqa: N801  (pynvml's names)
        pass

    class NVMLError_FunctionNotFound(NVMLError):  # noqa: N801
        pass

    class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801
        pass

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__("pynvml")
        for name, answer in answers.items():
            setattr(self, name, self._function(answer))

    def _function(self, answer: Any) -> Callable[..., Any]:
        def function(*arguments: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return function


Ask = Callable[..., Nvml]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """What the probe makes of the child's words; `missing` are functions that the binding does not have."""

    def asked(missing: tuple[str, ...] = (), **changed: Any) -> Nvml:
        answers = {name: answer for name, answer in {**ANSWERS, **changed}.items() if name not in missing}
        monkeypatch.setitem(sys.modules, "pynvml", Binding(answers))
        nvml_child.main()
        return interpret(Output(0, capsys.readouterr().out))

    return asked


def test_a_driver_that_works_is_described(ask: Ask) -> None:
    answer = ask()
    assert (answer.outcome, answer.driver, answer.nvml, answer.cuda) == ("ok", "535.261.03", "12.535.261.03", (12, 2))
    (gpu,) = answer.gpus
    assert (gpu.name, gpu.uuid, gpu.pci) == ("NVIDIA GeForce GTX 1080 Ti", "GPU-1", "0000:01:00.0")
    assert (gpu.capability, gpu.compute_mode, gpu.pages_pending) == ("6.1", 0, True)


def test_instances_of_a_divided_gpu_are_counted(ask: Ask) -> None:
    def instance(handle: str, number: int) -> str:
        if number in (0, 3):
            return "instance"
        raise Binding.NVMLError(6)

    calls = {"nvmlDeviceGetMaxMigDeviceCount": 7, "nvmlDeviceGetMigDeviceHandleByIndex": instance}
    (divided,) = ask(nvmlDeviceGetMigMode=(1, 1), **calls).gpus
    (whole,) = ask(nvmlDeviceGetMigMode=(0, 1), **calls).gpus
    (without,) = ask(nvmlDeviceGetMigMode=Binding.NVMLError_NotSupported(3)).gpus
    assert [(g.mig, g.instances, g.code) for g in (divided, whole, without)] == [
        (True, 2, None),
        (False, None, None),
        (None, None, None),
    ]


def test_every_call_is_said_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last: list[str] = []

    def look(*arguments: Any) -> int:
        last.append(json.loads(capsys.readouterr().out.splitlines()[-1])["call"])
        return 0

    monkeypatch.setitem(sys.modules, "pynvml", Binding(dict.fromkeys(ANSWERS, look)))
    nvml_child.main()
    assert last == [
        "nvmlInit",
        "nvmlSystemGetDriverVersion",
        "nvmlSystemGetNVMLVersion",
        "nvmlSystemGetCudaDriverVersion",
        "nvmlDeviceGetCount",
    ]


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (Binding.NVMLError(VERSION_MISMATCH), "error", VERSION_MISMATCH),
        (Binding.NVMLError(9), "error", 9),
        (Binding.NVMLError_LibraryNotFound(12), "absent", 12),
    ],
)
def test_a_driver_that_does_not_begin_says_why(ask: Ask, error: Exception, outcome: str, code: int) -> None:
    assert ask(nvmlInit=error) == Nvml(outcome, code, f"error {code}")


def test_an_error_after_the_beginning_is_no_answer_of_the_driver(ask: Ask) -> None:
    assert ask(nvmlDeviceGetCount=Binding.NVMLError(999)).code == 999


def test_one_lost_gpu_hides_no_other(ask: Ask) -> None:
    def name(handle: int) -> str:
        if handle == 0:
            raise Binding.NVMLError(15)
        return "sound"

    answer = ask(nvmlDeviceGetCount=2, nvmlDeviceGetHandleByIndex=lambda index: index, nvmlDeviceGetName=name)
    assert [(gpu.code, gpu.name) for gpu in answer.gpus] == [(15, ""), (None, "sound")]


@pytest.mark.parametrize(
    "refusal", [Binding.NVMLError_NotSupported(3), Binding.NVMLError_FunctionNotFound(13), AttributeError("no")]
)
def test_what_a_gpu_or_a_driver_does_not_know_is_left_out(ask: Ask, refusal: Exception) -> None:
    names = [name for name in ANSWERS if name.startswith("nvmlDeviceGet") and name not in
             ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex")]  # fmt: skip
    (gpu,) = ask(**dict.fromkeys(names, refusal), nvmlSystemGetCudaDriverVersion=refusal).gpus
    assert (gpu.name, gpu.uuid, gpu.pci, gpu.capability, gpu.compute_mode, gpu.pages_pending) == (
        "", "", "", "", None, None,
    )  # fmt: skip


def test_an_old_binding_without_a_function_is_asked_the_rest(ask: Ask) -> None:
    answer = ask(missing=("nvmlSystemGetCudaDriverVersion", "nvmlDeviceGetCudaComputeCapability"))
    assert (answer.outcome, answer.cuda, answer.gpus[0].capability, answer.gpus[0].uuid) == ("ok", None, "", "GPU-1")


def test_a_name_that_is_no_text_is_left_out(ask: Ask) -> None:
    garbage = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert ask(nvmlDeviceGetName=garbage).gpus[0].name == ""
    assert ask(nvmlDeviceGetName=b"\xffGPU").gpus[0].name == "\ufffdGPU"


def test_more_gpus_than_a_machine_has_are_not_asked(ask: Ask) -> None:
    answer = ask(nvmlDeviceGetCount=nvml_child.MOST_GPUS + 1)
    assert (answer.outcome, answer.gpus) == ("nonsense", ())


@pytest.mark.parametrize("count", [None, 0, Binding.NVMLError_NotSupported(3)])
def test_no_gpu_is_an_answer(ask: Ask, count: object) -> None:
    answer = ask(nvmlDeviceGetCount=count)
    assert (answer.outcome, answer.gpus) == ("ok", ())


def test_without_a_binding_the_driver_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    nvml_child.main()
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"call": "import"}
    assert last["outcome"] == "no-binding"
    assert "pynvml" in last["text"]
