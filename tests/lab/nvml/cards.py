"""Machines with NVIDIA cards, as scripts for the stand-in of NVML (stand_in.c)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "cards"
NAMES = tuple(sorted(path.name for path in FOLDER.iterdir()))
SYSTEM = "driver 580.82.07\nnvml 13.580.82.07\ncuda 13000\n"


def script(cards: Sequence[str], changed: Mapping[str, str] | None = None, *, only: int | None = None) -> str:
    """A machine with these cards, in order. `changed` are readings that are not those of a sound card: of the card
    `only`, or of all; "" for a reading that it does not support."""
    return SYSTEM + "".join(
        _card(index, name, changed or {} if only in (None, index) else {}) for index, name in enumerate(cards)
    )


def _card(index: int, name: str, changed: Mapping[str, str]) -> str:
    lines = (FOLDER / name).read_text().splitlines()
    values = dict(line.split(" ", 1) for line in lines if not line.startswith("#"))
    values.update(changed)
    capability, title = values.pop("capability"), values.pop("name")
    readings = "".join(f"value {index} {call} {value}\n" for call, value in values.items() if value)
    return f"device 00000000:{index + 1:02X}:00.0 {capability} {title}\n{readings}"
