"""Transfers of GPUs that the IOMMU refused, as Linux writes them."""

from pathlib import Path
from typing import Any

import pytest

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.machine.iommu import GpuIommu
from dlhealth.testing import Machine


def fact(kind: type, machine: Machine, folder: Path) -> Any:
    return Facts(RootHost(str(machine.build(folder))), Options()).get(kind)


@pytest.mark.parametrize(
    "line",
    [
        "nvidia 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0003 address=0x80000040 flags=0x0020]",
        "AMD-Vi: Event logged [IO_PAGE_FAULT device=01:00.0 domain=0x0000 address=0x00000000e0000000 flags=0x0020]",
        "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x38ffe0000000 [fault reason 0x05] PTE Write access is not set",
        "DMAR:[DMA Read] Request device [01:00.0] fault addr ffe00000 [fault reason 06] PTE Read access is not set",
    ],
)
def test_every_form_names_the_gpu(line: str, tmp_path: Path) -> None:
    iommu: GpuIommu = fact(
        GpuIommu, Machine.ubuntu2404_gpu().says("kernel", line).says("kernel", line, 6000.0), tmp_path
    )
    assert [(r.address, r.times) for r in iommu.refused] == [("0000:01:00.0", 2)]


def test_another_device_and_another_message(tmp_path: Path) -> None:
    machine = (
        Machine.ubuntu2404_gpu()
        .says("kernel", "snd 0000:03:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0003 address=0x0 flags=0x0]")
        .says("kernel", "AMD-Vi: Interrupt remapping enabled")
    )
    assert fact(GpuIommu, machine, tmp_path).refused == ()


@pytest.mark.parametrize(("kind", "translated"), [("DMA", True), ("DMA-FQ", True), ("identity", False)])
def test_what_is_translated(kind: str, translated: bool, tmp_path: Path) -> None:
    path = "/sys/bus/pci/devices/0000:01:00.0/iommu_group/type"
    iommu: GpuIommu = fact(GpuIommu, Machine.ubuntu2404_gpu().file(path, f"{kind}\n"), tmp_path)
    assert iommu.translated == ({"0000:01:00.0": path} if translated else {})
