"""GPUs that the driver found on the bus but could not start, and what it said just before it gave up."""

import re
from collections.abc import Iterator, Sequence
from enum import Enum

from dlhealth.data.kernel_log import full_address
from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.model import Evidence
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.driver.nvml import Nvml
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.records import NamedTuple


class Obstacle(Enum):
    """Why a GPU did not start, as far as the lines before the failure tell. The numbers in the failure itself do not:
    one triple has many causes."""

    FIRMWARE_FILE = "the firmware file of this driver version is missing"
    STALE_STATE = "the GPU still has the state of an earlier start"
    VBIOS = "the driver cannot read the card's own firmware (VBIOS)"
    CARD_FIRMWARE = "the card's own firmware did not finish its start"
    DMA = "the GPU cannot be set up for DMA"
    UNKNOWN = "the kernel log names no cause that dlhealth knows"


_OBSTACLES = (
    (Obstacle.FIRMWARE_FILE, regex(r"(?:Direct firmware load for|loading)\s+\S*nvidia/\S+ failed with error -2\b")),
    (Obstacle.STALE_STATE, regex(r"unexpected WPR2 already up")),
    (
        Obstacle.VBIOS,
        regex(r"did not find valid ROM signature|failed to extract VBIOS|Failed to copy vbios to system memory"),
    ),
    (Obstacle.CARD_FIRMWARE, regex(r"GFW[_ ]BOOT", re.IGNORECASE)),
    (Obstacle.DMA, regex(r"Cannot configure the device for DMA")),
)
"""Sources: NVIDIA's open kernel modules (osinit.c, kernel_gsp.c, kernel_gsp_vbios_tu102.c) and logs in their issues. Error
-2 is ENOENT; -4 only says that the program that started the GPU was killed."""
_FAILED = regex(
    r"NVRM: (?:GPU (?P<gpu>[0-9a-f:.]{7,16}): )?(?:RmInitAdapter failed|rm_init_adapter failed)", re.IGNORECASE
)
_SPOKE = r"NVRM|nvidia [0-9a-f:.]{12,16}: |(?i:nvidia/\S+\.bin)"
_BEFORE = 24
"""Lines before a failure that belong to it, at most: the driver prints up to twenty for one start."""


class Unstarted(NamedTuple):
    """One such GPU: `address` is "" if an old driver did not name it and there are several. `said` is the line of the
    failure, `reason` the line that names the obstacle (or the driver's first line of that start)."""

    address: str
    said: Evidence
    reason: Evidence | None
    obstacle: Obstacle


class UnstartedGpus(NamedTuple):
    """Those of the newest start of the machine that the driver, which is loaded, has not started since. `firmware`
    shows what is in the directory of the loaded version's firmware, None if that could not be read."""

    gpus: tuple[Unstarted, ...]
    firmware: Evidence | None

    @classmethod
    def probe(
        cls, host: Host, journal: Journal, modules: KernelModules, gpus: Gpus | None, nvml: Nvml | None
    ) -> "UnstartedGpus":
        # Of posted machines it may be the log alone that shows a driver at work.
        if not modules.loaded_version and not (modules.loaded is None and modules.unseen):
            return cls((), None)
        lines = list(journal.kernel(_SPOKE, last_boot=True))
        only = gpus.gpus[0].address if gpus and len(gpus.gpus) == 1 else ""
        started = {g.pci for g in nvml.gpus if g.code is None} if nvml and nvml.outcome == "ok" else set[str]()
        found: dict[str, Unstarted] = {}
        for number, match in _failures(lines):
            address = full_address(match["gpu"]) if match["gpu"] else only
            if address not in found and address not in started:
                found[address] = _judged(address, lines[: number + 1])
        if found and "" in found and started:
            del found[""]  # which one it was is not known, and others work
        return cls(
            tuple(found.values()), _firmware(host, modules.loaded_version) if found and modules.loaded_version else None
        )


def _failures(lines: Sequence[Line]) -> Iterator[tuple[int, "re.Match[str]"]]:
    for number, line in enumerate(lines):
        if match := _FAILED.search(line.text):
            yield number, match


def _judged(address: str, lines: Sequence[Line]) -> Unstarted:
    """By the lines up to the failure, which is the last of them, and after the failure before it."""
    before = list(lines[-1 - _BEFORE : -1])
    for number in range(len(before) - 1, -1, -1):
        if _FAILED.search(before[number].text):
            before = before[number + 1 :]
            break
    for obstacle, pattern in _OBSTACLES:
        if line := next((li for li in before if pattern.search(li.text)), None):
            return Unstarted(address, _shown(lines[-1]), _shown(line), obstacle)
    first = next((li for li in before if re.match(r"NVRM: (?!loading|objClInit|nvAssert)", li.text)), None)
    return Unstarted(address, _shown(lines[-1]), first and _shown(first), Obstacle.UNKNOWN)


def _shown(line: Line) -> Evidence:
    return Evidence(line.source, line.text.strip()[:300])


def _firmware(host: Host, version: str) -> Evidence | None:
    folder = f"/lib/firmware/nvidia/{version}"
    try:
        names = host.listdir(folder)
    except Unreadable:
        return None
    return Evidence(folder, ", ".join(names[:4]) or "does not exist, or is empty")
