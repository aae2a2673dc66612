"""The GPU stays up under load.

What it proves: for the time of --time, which all GPUs share, each GPU computes without a pause and each result is right.
What it needs: the stage compute. Temperature, power, clocks and ECC come from NVML; what a GPU does not give is left out.
Limits: it computes with integers only, which heats less than products of matrices. A GPU that becomes slower because
of its temperature or its power limit is reported, but has not failed.
"""

from time import monotonic

from dlhealth.prove.cuda import Card, Driver, mixed
from dlhealth.prove.nvml import SLOWING, Health, Sensors
from dlhealth.prove.stages import Done, Figure, Task, Work, Wrong, gpus

WORDS = 1 << 22
SLICE = 0.25
"""About how many seconds one kernel lasts: the limit of a display is two."""
MOST_ROUNDS = 1 << 20


def prove(task: Task) -> Work:
    driver = Driver()
    cards = task.cards(driver.count)
    slowed: dict[str, None] = {}
    for done, index in enumerate(cards):
        sensors = Sensors(driver.bus(index))
        health, hottest = Health(sensors), Extremes(sensors)
        with driver.card(index) as card, card.memory(WORDS * 4) as memory:
            rounds = _rounds(card, memory)
            a, c = mixed(rounds)
            began = monotonic()
            compared, longest, computing = 0, 0.0, 0.0
            share = task.seconds / len(cards)
            while compared == 0 or monotonic() - began < share:
                started = monotonic()
                card.mix(memory, WORDS, rounds)
                took = monotonic() - started
                longest, computing = max(longest, took), computing + took
                hottest.read()
                count, first = card.differences(memory, WORDS, a, c)
                compared += 1
                if count:
                    raise Wrong(
                        f"GPU {index}: {count} of {WORDS} numbers are wrong after {monotonic() - began:.0f} s of load, "
                        f"the first at index {first}"
                    )
                yield Done((done + min(1.0, (monotonic() - began) / share)) / len(cards))
        yield Figure(f"GPU {index}: results compared", compared)
        yield Figure(f"GPU {index}: longest kernel, s", longest)
        yield Figure(f"GPU {index}: billion steps/s", compared * WORDS * rounds / max(computing, 1e-9) / 1e9)
        for name, value in hottest.figures():
            yield Figure(f"GPU {index}: {name}", value)
        corrected, uncorrected = health.new_errors()
        if corrected is not None:
            yield Figure(f"GPU {index}: memory errors that ECC corrected", corrected)
        if uncorrected:
            raise Wrong(f"GPU {index}: ECC counted {uncorrected} memory errors that it could not correct under load")
        slowed.update((f"GPU {index} was slowed down by {reason}", None) for reason in hottest.slowed())
    return "; ".join([f"{gpus(len(cards))}, {task.seconds:g} s of load: every result is right", *slowed])


class Extremes:
    """The highest and lowest readings under load."""

    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors
        self._read: dict[str, list[float]] = {}
        self._reasons = 0

    def read(self) -> None:
        """Read all sensors once."""
        found = {
            "temperature, °C": self._sensors.temperature(),
            "power, W": self._sensors.power(),
            "clock, MHz": self._sensors.clock(),
        }
        for name, value in found.items():
            if value is not None:
                self._read.setdefault(name, []).append(value)
        self._reasons |= self._sensors.throttling() or 0

    def figures(self) -> list[tuple[str, float]]:
        """The highest value of each sensor; the lowest of the clock too, which shows throttling."""
        found = [(f"highest {name}", max(values)) for name, values in self._read.items()]
        return found + [(f"lowest {n}", min(values)) for n, values in self._read.items() if n == "clock, MHz"]

    def slowed(self) -> list[str]:
        """What kept the clocks lower than they could be."""
        return [reason for bit, reason in SLOWING.items() if self._reasons & bit]


def _rounds(card: Card, memory: int) -> int:
    """So many steps that one kernel lasts about SLICE seconds. The first doublings also raise the clocks."""
    rounds = 8
    while True:
        began = monotonic()
        card.mix(memory, WORDS, rounds)
        if monotonic() - began > SLICE / 2 or rounds >= MOST_ROUNDS:
            return rounds
        rounds *= 2
