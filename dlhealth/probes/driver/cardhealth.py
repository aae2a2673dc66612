"""The health of each GPU as a device: its memory, temperature, power and PCIe link."""

from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.nvml import Nvml
from dlhealth.probes.driver.readings import Readings
from dlhealth.probes.driver.smireport import cards_of
from dlhealth.records import NamedTuple

_SUPPLIES = "/sys/class/power_supply"


class Card(NamedTuple):
    """One GPU that answered. `pages_pending` says that memory pages wait for a reset to be retired (None: not known)."""

    address: str
    name: str
    readings: Readings
    pages_pending: bool | None = None

    @property
    def subject(self) -> str:
        return f"gpu:{self.address}"


class CardHealth(NamedTuple):
    """`source` is where the readings are from; `on_battery` says whether a laptop runs without its power supply (None:
    not known)."""

    cards: tuple[Card, ...]
    source: str
    on_battery: bool | None

    @classmethod
    def probe(cls, host: Host, nvml: Nvml | None) -> "CardHealth":
        if report := host.posted("nvidia-smi -q"):
            return cls(tuple(Card(*card) for card in cards_of(report)), "nvidia-smi -q", None)
        if nvml is None or nvml.outcome != "ok":
            raise Unavailable("only a running driver knows the health of the GPUs")
        cards = tuple(Card(g.pci, g.name, g.readings, g.pages_pending) for g in nvml.gpus if g.name)
        return cls(cards, "NVML", _on_battery(host))


def _on_battery(host: Host) -> bool | None:
    try:
        supplies = host.listdir(_SUPPLIES)
        kinds = {name: (host.text(f"{_SUPPLIES}/{name}/type") or "").strip() for name in supplies}
        mains = [host.text(f"{_SUPPLIES}/{name}/online") for name, kind in kinds.items() if kind in ("Mains", "USB")]
    except Unreadable:
        return None
    return "Battery" in kinds.values() and not any((online or "").strip() == "1" for online in mains)
