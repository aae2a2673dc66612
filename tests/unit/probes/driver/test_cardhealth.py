"""The health of GPUs, from a driver that answers and from what people post."""

from pathlib import Path

import pytest

from dlhealth.host.root import RootHost
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.cardhealth import CardHealth
from dlhealth.probes.driver.nvml import GPU_IS_LOST, Nvml, NvmlGpu
from dlhealth.probes.driver.readings import Readings
from dlhealth.probes.driver.smireport import cards_of
from dlhealth.testing import Machine, smi

GPU = NvmlGpu("NVIDIA A100", "GPU-1", "0000:01:00.0", "8.0", 0, True, None, "", readings=Readings(temperature=40))
SUPPLY = "/sys/class/power_supply"


def health(tmp_path: Path, machine: Machine, *gpus: NvmlGpu) -> CardHealth:
    return CardHealth.probe(RootHost(str(machine.build(tmp_path))), Nvml("ok", gpus=gpus))


def test_cards_that_answered_are_listed(tmp_path: Path) -> None:
    lost = GPU._replace(pci="0000:02:00.0", code=GPU_IS_LOST)
    never = NvmlGpu("", "", "", "", None, None, GPU_IS_LOST, "GPU is lost")
    found = health(tmp_path, Machine(), GPU, lost, never)
    assert [(c.subject, c.pages_pending, c.readings.temperature) for c in found.cards] == [
        ("gpu:0000:01:00.0", True, 40),
        ("gpu:0000:02:00.0", True, 40),
    ]


@pytest.mark.parametrize("nvml", [None, Nvml("hung"), Nvml("error", 18)])
def test_without_an_answer_nothing_is_known(tmp_path: Path, nvml: Nvml | None) -> None:
    with pytest.raises(Unavailable):
        CardHealth.probe(RootHost(str(Machine().build(tmp_path))), nvml)


@pytest.mark.parametrize(("online", "battery"), [("1", False), ("0", True)])
def test_a_laptop_on_battery(tmp_path: Path, online: str, *, battery: bool) -> None:
    laptop = (
        Machine()
        .file(f"{SUPPLY}/AC/type", "Mains\n")
        .file(f"{SUPPLY}/AC/online", f"{online}\n")
        .file(f"{SUPPLY}/BAT0/type", "Battery\n")
    )
    assert health(tmp_path, laptop, GPU).on_battery is battery


def test_a_desktop_has_no_battery(tmp_path: Path) -> None:
    assert health(tmp_path, Machine(), GPU).on_battery is False


def test_a_report_of_an_older_driver() -> None:
    older = {
        "Product Name": "Tesla K80",
        **{f"ECC Errors/Volatile/{kind} Uncorrectable": "" for kind in ("SRAM", "DRAM")},
        "ECC Errors/Volatile/Double Bit/Device Memory": "3",
        "ECC Errors/Volatile/Double Bit/Total": "5",
        "Retired Pages/Double Bit ECC": "2",
        "Power Readings/Power Draw": "60.50 W",
    }
    text = smi.report(older).replace("Clocks Event Reasons", "Clocks Throttle Reasons").replace("GPU Power", "Power")
    ((address, name, read),) = cards_of(text)
    assert (address, name) == ("0000:01:00.0", "Tesla K80")
    assert (read.uncorrected, read.retired_pages, read.slowdowns, read.loaded) == (5, 2, (), True)


def test_a_report_that_ends_early_or_says_nothing() -> None:
    assert list(cards_of("")) == []
    assert [read for _, _, read in cards_of("GPU 00000000:01:00.0\n    Product Na")] == [Readings()]
    nothing = dict.fromkeys(smi.CARD, "N/A")
    assert [read for _, _, read in cards_of(smi.report(nothing))] == [Readings()]
