"""Readings of a GPU by NVML, without any binding. Only the child processes of a proof use it."""

from ctypes import CDLL, byref, c_char_p, c_uint, c_ulonglong, c_void_p
from typing import Any

from dlhealth.records import NamedTuple

_SM = 1
_CORRECTED, _UNCORRECTED = 0, 1
_SINCE_START = 0
_CORE = 0

SLOWING = {
    0x04: "the power limit",
    0x08: "a slowdown of the hardware",
    0x20: "the temperature",
    0x40: "the temperature (hardware)",
    0x80: "the power supply (hardware)",
}
"""Bits of nvmlClocksThrottleReasons that mean: the GPU is slower than it could be."""
_LANE = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.97, 5: 3.94, 6: 7.56}
"""Gigabytes per second of one PCIe lane in one direction, by generation."""


class Link(NamedTuple):
    """The PCIe link of a GPU, as it is now: an idle GPU has a slower one."""

    generation: int
    lanes: int

    @property
    def speed(self) -> float | None:
        """What it allows in one direction, in GB/s; None for an unknown generation."""
        lane = _LANE.get(self.generation)
        return lane and lane * self.lanes


class Sensors:
    """Reads one GPU. A value that the GPU or the driver does not give is None: most GPUs lack some."""

    def __init__(self, bus: str) -> None:
        self._handle = c_void_p()
        self._library: Any = None
        try:
            library = CDLL("libnvidia-ml.so.1")
            found = not library.nvmlInit_v2() and not library.nvmlDeviceGetHandleByPciBusId_v2(
                c_char_p(bus.encode()), byref(self._handle)
            )
        except (OSError, AttributeError):
            found = False
        if found:
            self._library = library

    @property
    def answer(self) -> bool:
        """Whether NVML knows the GPU."""
        return self._library is not None

    def temperature(self) -> int | None:
        """In degrees Celsius."""
        return self._number("nvmlDeviceGetTemperature", _CORE)

    def clock(self) -> int | None:
        """That of the processors, in MHz."""
        return self._number("nvmlDeviceGetClockInfo", _SM)

    def power(self) -> float | None:
        """In watts."""
        milliwatts = self._number("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1000

    def throttling(self) -> int | None:
        """The reasons why the clocks are not higher, as bits."""
        return self._number("nvmlDeviceGetCurrentClocksThrottleReasons", kind=c_ulonglong)

    def corrected(self) -> int | None:
        """Memory errors that ECC corrected since the driver started."""
        return self._number("nvmlDeviceGetTotalEccErrors", _CORRECTED, _SINCE_START, kind=c_ulonglong)

    def uncorrected(self) -> int | None:
        """Memory errors that ECC could not correct since the driver started."""
        return self._number("nvmlDeviceGetTotalEccErrors", _UNCORRECTED, _SINCE_START, kind=c_ulonglong)

    def link(self) -> Link | None:
        """The PCIe link as it is now."""
        generation = self._number("nvmlDeviceGetCurrPcieLinkGeneration")
        lanes = self._number("nvmlDeviceGetCurrPcieLinkWidth")
        return Link(generation, lanes) if generation and lanes else None

    def _number(self, name: str, *arguments: int, kind: Any = c_uint) -> int | None:
        value = kind()
        try:
            code = getattr(self._library, name)(self._handle, *arguments, byref(value)) if self._library else 1
        except AttributeError:
            return None
        return None if code else int(value.value)


class Health:
    """The memory errors of a GPU while a stage uses it."""

    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors
        self._before = sensors.corrected(), sensors.uncorrected()

    def new_errors(self) -> tuple[int | None, int | None]:
        """The errors since the start of the stage that ECC corrected, and those that it could not correct."""
        after = self._sensors.corrected(), self._sensors.uncorrected()
        corrected, uncorrected = (
            None if old is None or new is None else max(0, new - old)
            for old, new in zip(self._before, after, strict=True)
        )
        return corrected, uncorrected
