"""GPUs whose memory windows (BARs) got no address space from the firmware or the kernel."""

import re

from dlhealth.data.kernel_log import full_address
from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.model import Evidence
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.machine.journal import Journal
from dlhealth.records import NamedTuple

_REFUSED = regex(r"NVRM: BAR(?P<bar>[0-4]) is 0M @ 0x0 \(PCI:(?P<address>[0-9a-f:.]{7,16})\)", re.IGNORECASE)
"""The driver's own words. On later lines of one message "NVRM:" is repeated."""
_KERNEL = regex(
    r"pci (?P<address>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): BAR (?P<bar>[0-4])(?:: | \[mem [^\]]*\]: )"
    r"(?:(?P<failed>can't assign; no space|no space for \[mem|failed to assign(?: \[mem)?)|(?P<assigned>assigned))",
    re.IGNORECASE,
)
"""Linux's lines in the form up to 6.8 ("BAR 1: no space for [mem size …]") and from 6.9 on. BAR 5 is an I/O window, 6 the
ROM, 7 and more those of virtual functions: a GPU works without them."""
_UNSET = 0x20000000
"""A resource without an address (IORESOURCE_UNSET of linux/ioport.h)."""


class Cramped(NamedTuple):
    """One such GPU, with the number of the BAR. `driver_refused` says that the driver gave up because of it."""

    address: str
    bar: int
    driver_refused: bool
    evidence: tuple[Evidence, ...]


class BarSpace(NamedTuple):
    """Those of the newest start, in the order of the log."""

    gpus: tuple[Cramped, ...]

    @classmethod
    def probe(cls, host: Host, gpus: Gpus | None, journal: Journal) -> "BarSpace":
        if gpus and gpus.container:
            return cls(())
        # Where the bus is not seen, only the driver's own words say that a device is a GPU.
        known = {g.address for g in gpus.gpus} if gpus else set[str]()
        found: dict[str, Cramped] = {}
        for line in journal.kernel("BAR", last_boot=True):
            for text in line.text.replace("#012", "\n").split("\n"):
                shown = Evidence(line.source, text.strip()[:200])
                if refused := _REFUSED.search(text):
                    address = full_address(refused["address"])
                    found[address] = Cramped(address, int(refused["bar"]), True, (shown,))
                elif (said := _KERNEL.search(text)) and (address := said["address"].lower()) in known:
                    before = found.get(address)
                    if said["failed"] and before is None:
                        found[address] = Cramped(address, int(said["bar"]), False, (shown,))
                    elif said["assigned"] and before and before.bar == int(said["bar"]) and not before.driver_refused:
                        del found[address]
        return cls(tuple(c for g in found.values() if (c := _confirmed(host, g))))


def _confirmed(host: Host, gpu: Cramped) -> Cramped | None:
    """With what sysfs shows of the BAR now; None where it has an address."""
    path = f"/sys/bus/pci/devices/{gpu.address}/resource"
    try:
        lines = (host.text(path) or "").splitlines()
    except Unreadable:
        return gpu
    words = lines[gpu.bar].split() if len(lines) > gpu.bar else []
    if len(words) != 3 or not all(re.fullmatch(r"0x[0-9a-f]{1,16}", w) for w in words):
        return gpu
    start, _, flags = (int(word, 16) for word in words)
    if start and not flags & _UNSET:
        return None
    return gpu._replace(evidence=(*gpu.evidence, Evidence(path, f"BAR {gpu.bar}: {lines[gpu.bar].strip()}")))
