"""Memory and link are sound.

What it proves: the free memory keeps four patterns, as compared on the GPU; copies in both directions arrive unchanged,
and no copy is slower than a quarter of what the PCIe link allows; ECC counted no error that it could not correct.
What it needs: the stage compute. The speed of the link and the counters of ECC come from NVML; without them, copies are
measured but not judged.
Limits: a tenth of the free memory, at least 256 MiB, is left alone, because the desktop may need it. Memory that other
programs hold is not tested.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from time import monotonic

from dlhealth.prove.cuda import OUT_OF_MEMORY, Card, CudaError, Driver
from dlhealth.prove.nvml import Health, Sensors
from dlhealth.prove.stages import Done, Figure, NotRun, Task, Work, Wrong

PART = 256 << 20
"""Bytes of one allocation: the kernels on it end long before the limit of a display."""
SMALLEST = 1 << 20
RESERVE = 256 << 20
PATTERNS = ((0, 0x55555555), (0, 0xAAAAAAAA), (1, 0), (0x9E3779B1, 0x7F4A7C15))
"""Word i holds i * a + c: alternating bits, the address, and numbers that look random."""
REPEATS = 3
"""Copies in each direction; the fastest counts, because the machine may also do something else."""
SLOW = 0.25
"""The part of the link's speed below which a copy is too slow. Sound links reach 0.7 to 0.9, in virtual machines less."""


def prove(task: Task) -> Work:
    driver = Driver()
    cards = task.cards(driver.count)
    tested = 0
    for done, index in enumerate(cards):
        sensors = Sensors(driver.bus(index))
        health = Health(sensors)
        with driver.card(index) as card, ExitStack() as held:
            free = card.free_bytes()
            parts = list(_allocated(card, held, free - max(free // 10, RESERVE)))
            if not parts:
                raise NotRun(f"GPU {index} has too little free memory: {free >> 20} MiB, and {RESERVE >> 20} stay free")
            for number, (a, c) in enumerate(PATTERNS):
                yield Done((done + number / (len(PATTERNS) + 1)) / len(cards))
                _compare(card, index, parts, a, c)
            size = sum(size for _, size in parts)
            tested += size
            yield Figure(f"GPU {index}: tested, GiB", size / 2**30)
            for figure in _copies(card, index, parts[0]):
                yield figure
                _judge(figure, sensors)
        yield from _errors(health, index)
    return f"{tested >> 20} MiB kept {len(PATTERNS)} patterns, and copies in both directions arrived unchanged"


def _allocated(card: Card, held: ExitStack, size: int) -> Iterator[tuple[int, int]]:
    """Address and size of allocations that fill `size` bytes, or as much of it as the driver gives."""
    while size >= SMALLEST:
        part = min(size, PART) // SMALLEST * SMALLEST
        try:
            yield held.enter_context(card.memory(part)), part
        except CudaError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            return
        size -= part


def _compare(card: Card, index: int, parts: list[tuple[int, int]], a: int, c: int) -> None:
    for address, size in parts:  # all are written before the first is read: two addresses may lead to the same cells
        card.fill(address, size // 4, a, (c + address) % 2**32)
    for number, (address, size) in enumerate(parts):
        count, first = card.differences(address, size // 4, a, (c + address) % 2**32)
        if count:
            raise Wrong(
                f"GPU {index}: {_words(count)} of memory changed, "
                f"the first at byte {number * PART + first * 4} of the tested memory"
            )


def _copies(card: Card, index: int, part: tuple[int, int]) -> Iterator[Figure]:
    """The speed of each kind of copy. What was copied to the host and back is compared."""
    address, size = part
    half = size // 2
    a, c = PATTERNS[-1]
    with card.host_memory(half) as host:
        copies = (
            ("to the host", partial(card.copy_out, host, address, half)),
            ("to the GPU", partial(card.copy_in, address, host, half)),
            ("within the GPU", partial(card.copy_within, address + half, address, half)),
        )
        card.fill(address, half // 4, a, c)
        for direction, copy in copies:
            copy()  # the first copy also wakes the link from its power saving
            fastest = min(_seconds(copy) for _ in range(REPEATS))
            yield Figure(f"GPU {index}: copy {direction}, GB/s", half / fastest / 1e9)
            if direction == "to the host":
                card.fill(address, half // 4, 0, 0)
        for where, copied in (("to the host and back", address), ("within the GPU", address + half)):
            count, first = card.differences(copied, half // 4, a, c)
            if count:
                raise Wrong(f"GPU {index}: a copy {where} changed {_words(count)}, the first at byte {first * 4}")


def _seconds(work: Callable[[], None]) -> float:
    began = monotonic()
    work()
    return max(monotonic() - began, 1e-9)


def _judge(copy: Figure, sensors: Sensors) -> None:
    link = sensors.link()
    allowed = link.speed if link and "within" not in copy.name else None
    if link and allowed and copy.value < SLOW * allowed:
        raise Wrong(
            f"{copy.name.rpartition(',')[0]} is slow: {copy.value:.2g} GB/s; its PCIe link (generation "
            f"{link.generation}, {link.lanes} lanes) allows {allowed:.2g} GB/s"
        )


def _errors(health: Health, index: int) -> Iterator[Figure]:
    corrected, uncorrected = health.new_errors()
    if corrected is not None:
        yield Figure(f"GPU {index}: memory errors that ECC corrected", corrected)
    if uncorrected:
        raise Wrong(f"GPU {index}: ECC counted {uncorrected} memory errors that it could not correct")


def _words(count: int) -> str:
    return "1 word" if count == 1 else f"{count} words"
