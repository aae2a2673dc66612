"""What a GPU says of its own health, read once."""

from collections.abc import Iterable, Mapping
from typing import Any

from dlhealth.records import NamedTuple

SLOWDOWNS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
"""The bits of NVML's clocks event reasons (nvml.h), by the names that nvidia-smi gives them."""
FABRIC_STATES = {1: "not started", 2: "in progress", 3: "completed"}
"""Of a GPU behind NVSwitches (nvml.h); 0 means that there is no fabric."""
_MOST = 1 << 62


class Readings(NamedTuple):
    """Numbers of one GPU; None for those that it does not support or did not tell, and `problems` says why not.

    `state` is the performance state (0 is the fastest), `load` percent. `link_generation` and `link_width` are of the
    PCIe link now, `most_link_generation` and `most_link_width` what GPU and slot can do together. `slowdowns` are names
    of SLOWDOWNS. Temperatures are in degrees Celsius, `margin` is the distance to the slowdown; powers are in watts.
    `corrected` and `uncorrected` count memory errors since the driver was loaded, with `_ever` since the GPU was made.
    `remapped_rows` are memory rows replaced after errors; `remap_pending` says that a replacement waits for a reset, and
    `remap_failed` that there was no spare row. `retired_pages` are memory pages of older GPUs."""

    state: int | None = None
    load: int | None = None
    link_generation: int | None = None
    link_width: int | None = None
    most_link_generation: int | None = None
    most_link_width: int | None = None
    slowdowns: tuple[str, ...] | None = None
    temperature: int | None = None
    slowdown_temperature: int | None = None
    margin: int | None = None
    power: float | None = None
    power_limit: float | None = None
    default_power_limit: float | None = None
    ecc: bool | None = None
    corrected: int | None = None
    uncorrected: int | None = None
    corrected_ever: int | None = None
    uncorrected_ever: int | None = None
    remapped_rows: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retired_pages: int | None = None
    persistence: bool | None = None
    fabric: str | None = None
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, answers: Iterable[Mapping[str, Any]]) -> "Readings":
        """From what the NVML child said of one GPU. A value that makes no sense is not known."""
        values: dict[str, int] = {}
        remapped: list[Any] = []
        problems = []
        for answer in answers:
            name, value = answer.get("reading"), answer.get("value")
            if isinstance(problem := answer.get("problem"), str):
                problems.append(problem[:200])
            elif name == "remapped_rows" and isinstance(value, list):
                remapped = value
            elif isinstance(name, str) and isinstance(value, int) and -_MOST < value < _MOST:
                values[name] = value
        sound = len(remapped) == 4 and all(isinstance(n, int) and 0 <= n < _MOST for n in remapped)
        counts = {name: value for name, value in values.items() if name in _COUNTS and value >= 0}
        bits = values.get("slowdowns")
        return cls(
            **counts,
            margin=values.get("margin"),
            slowdowns=None if bits is None else tuple(name for bit, name in SLOWDOWNS.items() if bits & bit),
            power=_watts(values.get("power")),
            power_limit=_watts(values.get("power_limit")),
            default_power_limit=_watts(values.get("default_power_limit")),
            ecc=_truth(values.get("ecc")),
            remapped_rows=remapped[0] + remapped[1] if sound else None,
            remap_pending=bool(remapped[2]) if sound else None,
            remap_failed=bool(remapped[3]) if sound else None,
            persistence=_truth(values.get("persistence")),
            fabric=FABRIC_STATES.get(values.get("fabric", 0)),
            problems=tuple(problems),
        )

    @property
    def loaded(self) -> bool | None:
        """Whether the GPU works hard enough to run its link at full speed; None if that is not known."""
        if self.load is None or self.state is None:
            return None
        return self.load >= _WORKING and self.state <= _FAST


_COUNTS = frozenset((
    "state", "load", "link_generation", "link_width", "most_link_generation", "most_link_width", "temperature",
    "slowdown_temperature", "corrected", "uncorrected", "corrected_ever", "uncorrected_ever", "retired_pages",
))  # fmt: skip
_WORKING = 20
"""Percent."""
_FAST = 2
"""Compute on GeForce runs in P2, everything else in P0."""


def _watts(milliwatts: int | None) -> float | None:
    return milliwatts / 1000 if milliwatts is not None and milliwatts > 0 else None


def _truth(value: int | None) -> bool | None:
    return None if value is None else value == 1
