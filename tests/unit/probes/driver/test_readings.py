"""What the health of each kind of card is read as, by the real child, the real binding and a stand-in library."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dlhealth.host.exec import run
from dlhealth.probes.driver import nvml_child
from dlhealth.probes.driver.nvml import GPU_IS_LOST, LIMIT, Nvml, interpret
from dlhealth.probes.driver.readings import Readings
from tests.lab.nvml.cards import NAMES, script

SOURCE = Path(__file__).parents[3] / "lab" / "nvml" / "stand_in.c"
Ask = Callable[..., Nvml]
WITHOUT_ECC = ("geforce-gtx-1080-ti",)

pytestmark = pytest.mark.real_programs


def compiled(folder: Path, *options: str) -> Path:
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", *options, "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def ask(library: Path, tmp_path: Path) -> Ask:
    def asked(text: str, timeout: float = 30.0, library: Path = library) -> Nvml:
        file = tmp_path / "script"
        file.write_text(text)
        environment = {"LD_LIBRARY_PATH": str(library), "DLHEALTH_NVML_SCRIPT": str(file)}
        return interpret(run([sys.executable, "-I", "-B", nvml_child.__file__], timeout, environment=environment))

    return asked


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_card(ask: Ask, name: str) -> None:
    (gpu,) = ask(script([name])).gpus
    read = gpu.readings
    assert gpu.code is None
    assert read.problems == ()
    assert read.temperature
    assert read.power
    assert read.power_limit == read.default_power_limit
    assert read.link_width == read.most_link_width == 16
    assert (read.slowdown_temperature is None) != (read.margin is None)
    assert read.remap_failed in (None, False)
    errors = (read.ecc, read.uncorrected, read.corrected_ever)
    assert errors == ((None, None, None) if name in WITHOUT_ECC else (True, 0, 0))


def test_reasons_of_a_slowdown_are_named_also_by_an_older_driver(ask: Ask, tmp_path: Path) -> None:
    newer, older = "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
    (hot,) = ask(script(["h100"], {newer: "72"})).gpus
    assert hot.readings.slowdowns == ("hardware slowdown", "hardware thermal slowdown")
    (braked,) = ask(script(["h100"], {newer: "", older: "128"}), library=compiled(tmp_path, "-DOLD")).gpus
    assert braked.readings.slowdowns == ("hardware power brake",)


@pytest.mark.parametrize("name", ["a100", "h100", "b200", "gb200", "l40s"])
def test_a_card_whose_memory_fails(ask: Ask, name: str) -> None:
    changed = {"nvmlDeviceGetRemappedRows": "3 9 1 1", "nvmlDeviceGetTotalEccErrors:uncorrected-ever": "12"}
    sound, failing = ask(script([name, name], changed, only=1)).gpus
    assert (sound.readings.remapped_rows, sound.readings.remap_failed) == (0, False)
    read = failing.readings
    assert (read.remapped_rows, read.remap_pending, read.remap_failed, read.uncorrected_ever) == (12, True, True, 12)


def test_an_older_card_retires_pages(ask: Ask) -> None:
    (gpu,) = ask(script(["t4"], {"nvmlDeviceGetRetiredPages": "2"})).gpus
    assert gpu.readings.retired_pages == 2


def test_nothing_is_supported(ask: Ask) -> None:
    nothing = {
        line.split()[0]: "" for line in script(["h100"]).replace("value 0 ", "").splitlines() if line[:4] == "nvml"
    }
    nothing.pop("nvml")
    (gpu,) = ask(script(["h100"], nothing)).gpus
    assert (gpu.code, gpu.name, gpu.readings) == (None, "NVIDIA H100 80GB HBM3", Readings())


def test_a_card_that_is_lost_between_two_readings_keeps_the_first(ask: Ask) -> None:
    lost, other = ask(script(["a100", "a100"]) + "lose 0 nvmlDeviceGetTemperature\n").gpus
    assert (lost.code, lost.pci, lost.name) == (GPU_IS_LOST, "0000:01:00.0", "NVIDIA A100-SXM4-80GB")
    assert lost.readings.link_generation == 4
    assert lost.readings.temperature is None
    assert lost.readings.uncorrected is None
    assert (other.code, other.readings.temperature) == (None, 33)


def test_a_card_that_is_lost_before_the_readings_keeps_its_address(ask: Ask) -> None:
    lost, other = ask(script(["a100", "a100"]) + "lose 1 nvmlDeviceGetMigMode\n").gpus[::-1]
    assert (lost.code, lost.pci, lost.readings) == (GPU_IS_LOST, "0000:02:00.0", Readings())
    assert other.code is None


def test_a_reading_that_hangs_costs_itself(ask: Ask) -> None:
    started = time.monotonic()
    answer = ask(script(["a100"]) + "hang nvmlDeviceGetTemperature\n", timeout=LIMIT)
    assert time.monotonic() - started < LIMIT + 1
    (gpu,) = answer.gpus
    assert (answer.outcome, gpu.code) == ("ok", None)
    assert gpu.readings.temperature is None
    assert gpu.readings.problems == ("nvmlDeviceGetTemperature did not answer within 0.5 seconds",)
    assert (gpu.readings.uncorrected, gpu.readings.persistence) == (0, True)


def test_readings_that_all_hang_are_given_up(ask: Ask) -> None:
    answer = ask(script(["a100"] * 3) + "hang nvmlDeviceGetPersistenceMode\n")
    assert [g.readings.temperature for g in answer.gpus] == [33, 33, None]


def test_a_reading_that_crashes_costs_the_rest_of_the_readings(ask: Ask) -> None:
    first, second = ask(script(["a100", "t4"]) + "segfault nvmlDeviceGetRemappedRows\n").gpus
    assert (first.readings.temperature, first.readings.remap_failed) == (33, None)
    assert (second.code, second.name) == (None, "Tesla T4")


def test_nonsense_is_not_known(ask: Ask) -> None:
    calls = ("nvmlDeviceGetTemperature", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetPowerUsage")
    (gpu,) = ask(script(["h100"]) + "".join(f"nonsense {call}\n" for call in calls)).gpus
    assert gpu.code is None
    assert gpu.readings.margin == 29


def test_instances(ask: Ask) -> None:
    changed = {
        "nvmlDeviceGetMigMode": "1 1",
        "nvmlDeviceGetMaxMigDeviceCount": "7",
        "nvmlDeviceGetMigDeviceHandleByIndex": "2",
    }
    whole, divided = ask(script(["h100", "h100"], changed, only=1)).gpus
    assert (whole.mig, whole.instances, divided.mig, divided.instances) == (False, None, True, 2)


def test_sixteen_cards(ask: Ask) -> None:
    answer = ask(script([NAMES[n % len(NAMES)] for n in range(16)], {"nvmlDeviceGetTemperature": "91"}, only=15))
    assert len({g.pci for g in answer.gpus}) == 16
    assert [g.readings.temperature for g in answer.gpus].count(91) == 1
    assert answer.gpus[15].readings.temperature == 91
