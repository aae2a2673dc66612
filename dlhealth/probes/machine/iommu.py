"""How the IOMMU treats the GPUs: what it translates, and what it refused."""

import re

from dlhealth.data.kernel_log import full_address
from dlhealth.host import Host, Unreadable
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.records import NamedTuple

_REFUSED = (
    r"(?P<named>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): AMD-Vi: Event logged \[IO_PAGE_FAULT"
    r"|AMD-Vi: Event logged \[IO_PAGE_FAULT device=(?P<device>(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"
    r"|DMAR: ?\[DMA (?:Read|Write)[^\]]*\] Request device \[(?P<dmar>[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\]"
)
"""As Linux writes it (drivers/iommu/amd/iommu.c, drivers/iommu/intel/dmar.c)."""


class RefusedAccess(NamedTuple):
    """An access of a GPU to memory that the IOMMU refused since the last boot; `times` how often."""

    address: str
    line: Line
    times: int


class GpuIommu(NamedTuple):
    """`translated` are the addresses of the GPUs whose accesses the IOMMU translates, with the file that says so;
    `refused` what it refused. `problems` could not be read."""

    translated: dict[str, str]
    refused: tuple[RefusedAccess, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, gpus: Gpus, journal: Journal | None) -> "GpuIommu":
        translated: dict[str, str] = {}
        problems: list[str] = []
        for gpu in gpus.gpus:
            path = f"/sys/bus/pci/devices/{gpu.address}/iommu_group/type"
            try:
                # "DMA" and "DMA-FQ" translate; "identity" is what iommu=pt chooses.
                if (host.text(path) or "").startswith("DMA"):
                    translated[gpu.address] = path
            except Unreadable as problem:
                problems.append(str(problem))
        addresses = {gpu.address for gpu in gpus.gpus}
        refused: dict[str, RefusedAccess] = {}
        for line in journal.kernel(_REFUSED, last_boot=True) if journal else ():
            match = re.search(_REFUSED, line.text)
            address = full_address(next(filter(None, match.groups()), "")) if match else ""
            if address in addresses:
                times = refused[address].times + 1 if address in refused else 1
                refused[address] = RefusedAccess(address, refused[address].line if address in refused else line, times)
        return cls(translated, tuple(refused.values()), tuple(problems))
