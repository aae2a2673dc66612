"""A kernel computes.

What it proves: the driver compiles a small PTX text, each GPU runs it, and the host gets the right numbers.
What it needs: the stage driver, and libnvidia-ptxjitcompiler.
Limits: it uses 256 KiB for less than a second. Memory and heat are other stages.
"""

from time import monotonic

from dlhealth.prove.cuda import Driver, mixed
from dlhealth.prove.stages import Done, Figure, Task, Work, Wrong, gpus

WORDS = 1 << 16
ROUNDS = 1000


def prove(task: Task) -> Work:
    driver = Driver()
    a, c = mixed(ROUNDS)
    cards = task.cards(driver.count)
    for done, index in enumerate(cards):
        yield Done(done / len(cards))
        began = monotonic()
        with driver.card(index) as card, card.memory(WORDS * 4) as memory:
            yield Figure(f"GPU {index}: time to load, s", monotonic() - began)
            began = monotonic()
            card.mix(memory, WORDS, ROUNDS)
            yield Figure(f"GPU {index}: time to compute, s", monotonic() - began)
            values = card.read(memory, WORDS)
        wrong = [i for i, value in enumerate(values) if value != (i * a + c) % 2**32]
        if wrong:
            raise Wrong(
                f"GPU {index} computed {len(wrong)} of {WORDS} numbers wrong, the first at index {wrong[0]}: "
                f"{values[wrong[0]]:#010x} instead of {(wrong[0] * a + c) % 2**32:#010x}"
            )
    return f"{gpus(len(cards))}: {WORDS} numbers computed and compared"
