"""Health readings in a posted report of `nvidia-smi -q`."""

import re
from collections.abc import Iterator

from dlhealth.lazy import regex
from dlhealth.probes.driver.readings import SLOWDOWNS, Readings

_GPU = regex(r"^GPU ([0-9A-Fa-f]{8}:[0-9A-Fa-f:.]+)\s*$", re.MULTILINE)
_SLOWDOWNS = {
    "Idle": 0x1,
    "Applications Clocks Setting": 0x2,
    "SW Power Cap": 0x4,
    "HW Slowdown": 0x8,
    "Sync Boost": 0x10,
    "SW Thermal Slowdown": 0x20,
    "HW Thermal Slowdown": 0x40,
    "HW Power Brake Slowdown": 0x80,
    "Display Clock Setting": 0x100,
}
"""What nvidia-smi calls the bits of NVML."""

Values = dict[tuple[str, ...], str]


def cards_of(report: str) -> Iterator[tuple[str, str, Readings]]:
    """Address, name and readings of each GPU; values that the report does not have are not known."""
    parts = _GPU.split(report)
    for address, text in zip(parts[1::2], parts[2::2], strict=True):
        values = _values(text)
        place = re.sub(r"^0000(?=[0-9a-f]{4}:)", "", address.lower())
        yield place, values.get(("Product Name",), ""), _readings(values)


def _values(text: str) -> Values:
    """The lines "key : value", by the keys of the sections around them and their own."""
    values: Values = {}
    around: list[tuple[int, str]] = []
    for line in text.splitlines():
        key, colon, value = (part.strip() for part in line.partition(" : "))
        indent = len(line) - len(line.lstrip())
        if not key or not indent:
            continue
        while around and around[-1][0] >= indent:
            around.pop()
        around.append((indent, key))
        if colon:
            values.setdefault(tuple(name for _, name in around), value)
    return values


def _readings(values: Values) -> Readings:
    link, volatile, ever = ("PCI", "GPU Link Info"), ("ECC Errors", "Volatile"), ("ECC Errors", "Aggregate")
    corrected_rows = _number(values, ("Remapped Rows", "Correctable Error"))
    uncorrected_rows = _number(values, ("Remapped Rows", "Uncorrectable Error"))
    fabric = values.get(("Fabric", "State"), "").lower()
    return Readings(
        state=_number(values, ("Performance State",)),
        load=_number(values, ("Utilization", "GPU"), ("Utilization", "Gpu")),
        link_generation=_number(values, (*link, "PCIe Generation", "Current")),
        link_width=_number(values, (*link, "Link Width", "Current")),
        most_link_generation=_number(values, (*link, "PCIe Generation", "Max")),
        most_link_width=_number(values, (*link, "Link Width", "Max")),
        slowdowns=_slowdowns(values),
        temperature=_number(values, ("Temperature", "GPU Current Temp")),
        slowdown_temperature=_number(values, ("Temperature", "GPU Slowdown Temp")),
        margin=_number(values, ("Temperature", "GPU T.Limit Temp")),
        power=_power(values, "Average Power Draw", "Power Draw"),
        power_limit=_power(values, "Enforced Power Limit", "Current Power Limit", "Power Limit"),
        default_power_limit=_power(values, "Default Power Limit"),
        ecc=_truth(values, "Enabled", ("ECC Mode", "Current"), ("Ecc Mode", "Current")),
        corrected=_errors(values, volatile, "Correctable", "Single Bit"),
        uncorrected=_errors(values, volatile, "Uncorrectable", "Double Bit"),
        corrected_ever=_errors(values, ever, "Correctable", "Single Bit"),
        uncorrected_ever=_errors(values, ever, "Uncorrectable", "Double Bit"),
        remapped_rows=None if None in (corrected_rows, uncorrected_rows) else (corrected_rows or 0) + (uncorrected_rows or 0),
        remap_pending=_truth(values, "Yes", ("Remapped Rows", "Pending")),
        remap_failed=_truth(values, "Yes", ("Remapped Rows", "Remapping Failure Occurred")),
        retired_pages=_number(values, ("Retired Pages", "Double Bit ECC")),
        persistence=_truth(values, "Enabled", ("Persistence Mode",)),
        fabric=fabric if fabric in ("not started", "in progress", "completed") else None,
    )  # fmt: skip


def _number(values: Values, *names: tuple[str, ...]) -> int | None:
    """The first of these values that is a number, perhaps with a unit: "P0", "16x", "34 C", "0 %"."""
    found = (re.fullmatch(r"P?(-?\d{1,15})(?:\.\d+)?(?:x| \S+)?", values.get(name, "")) for name in names)
    return next((int(match[1]) for match in found if match), None)


def _power(values: Values, *keys: str) -> float | None:
    """The first of these, in watts."""
    return _number(values, *((section, key) for key in keys for section in ("GPU Power Readings", "Power Readings")))


def _truth(values: Values, yes: str, *names: tuple[str, ...]) -> bool | None:
    said = next((values[name] for name in names if name in values), "")
    return said == yes if said in ("Yes", "No", "Enabled", "Disabled") else None


def _slowdowns(values: Values) -> tuple[str, ...] | None:
    said = {
        name[-1]: value
        for name, value in values.items()
        if name[0] in ("Clocks Event Reasons", "Clocks Throttle Reasons")
    }
    if not {"Active", "Not Active"} & set(said.values()):
        return None
    return tuple(SLOWDOWNS[bit] for key, bit in _SLOWDOWNS.items() if said.get(key) == "Active")


def _errors(values: Values, section: tuple[str, ...], kind: str, older: str) -> int | None:
    """The sum over the memories; older drivers print it."""
    if (total := _number(values, (*section, older, "Total"))) is not None:
        return total
    pattern = regex(rf"\b{kind}\b")
    counts = [_number(values, name) for name in values if name[:-1] == section and pattern.search(name[-1])]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
