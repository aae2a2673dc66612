"""GPUs that the driver does not drive although it drives others: each GPU is checked separately."""

import re
from collections.abc import Iterator
from enum import Enum

from dlhealth.data.kernel_log import full_address
from dlhealth.host import Host, Unreadable
from dlhealth.judgements.driverfit import DriverFit
from dlhealth.judgements.gpuclaims import FallenGpus
from dlhealth.lazy import regex
from dlhealth.model import Evidence
from dlhealth.probes.driver.gpu import Gpus, make_gpu
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.records import NamedTuple

_DISPLAY = regex(
    r"pci (?P<address>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): \[10de:(?P<device>[0-9a-f]{4})\] type 00 class 0x03",
    re.IGNORECASE,
)
_STARTED = regex(r"nvidia (?P<address>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): (?:vgaarb:|enabling device)")
_REFUSED = regex(
    r"nvidia (?P<address>[0-9a-f:.]{12,16}): probe (?:with driver nvidia )?failed with error|NVRM: The NVIDIA probe routine "
    r"(?:failed|was not called) for \d+ device",
    re.IGNORECASE,
)
_ALL_ONES = b"\xff\xff\xff\xff"


class Why(Enum):
    """What is known about a GPU without a driver."""

    SILENT = "its PCI configuration reads ff everywhere, so it does not answer"
    REFUSED = "the driver's probe of it failed"
    GONE = "it is no longer on the bus"
    UNBOUND = "no driver is bound to it"


class Undriven(NamedTuple):
    """One such GPU."""

    address: str
    name: str
    why: Why
    evidence: tuple[Evidence, ...]


class UndrivenGpus(NamedTuple):
    """`driven` are the addresses of the GPUs that the driver has. If it has none, none count as undriven: then the
    module or the driver is the problem."""

    driven: tuple[str, ...]
    gpus: tuple[Undriven, ...]

    @classmethod
    def probe(
        cls,
        host: Host,
        gpus: Gpus,
        modules: KernelModules,
        fit: DriverFit | None,
        fallen: FallenGpus | None,
        journal: Journal | None,
    ) -> "UndrivenGpus":
        driven = tuple(g.address for g in gpus.gpus if g.driver == "nvidia")
        if not driven or not modules.loaded_version:
            return cls(driven, ())
        known = {g.address for g in fallen.gpus if g.gone} if fallen else set[str]()
        known |= fit.unserved() if fit else frozenset()
        found = [
            _judged(host, gpu.address, gpu.name, journal)
            for gpu in gpus.gpus
            if not gpu.driver and gpu.address not in known
        ]
        there = {g.address for g in gpus.gpus}
        found += [g for g in _gone(journal, len(there)) if g.address not in there | known]
        return cls(driven, tuple(found))


def _judged(host: Host, address: str, name: str, journal: Journal | None) -> Undriven:
    folder = f"/sys/bus/pci/devices/{address}"
    bound = Evidence(f"{folder}/driver", "none")
    try:
        silent = host.head(f"{folder}/config", 4) == _ALL_ONES
    except Unreadable:
        silent = False
    lines = list(journal.kernel(f"(?i){_REFUSED.pattern}", last_boot=True)) if journal else []
    mine = [
        li for li in lines if (m := _REFUSED.search(li.text)) and m["address"] and full_address(m["address"]) == address
    ]
    said = tuple(Evidence(li.source, li.text.strip()[:200]) for li in mine[:2])
    if silent:
        return Undriven(address, name, Why.SILENT, (bound, Evidence(f"{folder}/config", "ff everywhere"), *said))
    return Undriven(address, name, Why.REFUSED if said else Why.UNBOUND, (bound, *said))


def _gone(journal: Journal | None, now: int) -> Iterator[Undriven]:
    """GPUs that the kernel lists or the driver starts in the log of this boot or the previous one, and that are no longer on the bus. Addresses change
    when a card is added, so the log must also list more of them than there are now."""
    for boot in reversed(journal.boots[-2:]) if journal else ():
        listed: dict[str, tuple[str, Line]] = {}
        for line in journal.lines if journal else ():
            if line.boot != boot or line.identifier != "kernel":
                continue
            if found := _DISPLAY.search(line.text):
                address = found["address"].lower()
                listed[address] = make_gpu(address, found["device"].lower()).name, line
            elif found := _STARTED.search(line.text):
                listed.setdefault(found["address"], ("NVIDIA GPU", line))
        if len(listed) > now:
            for address, (name, line) in listed.items():
                yield Undriven(address, name, Why.GONE, (Evidence(line.source, line.text.strip()[:200]),))
            return
