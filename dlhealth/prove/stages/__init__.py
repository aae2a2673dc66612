"""One file per stage of a proof; ORDER is the order in which they run.

A stage that needs only the driver is a generator: it yields what it measures and how far it is, and returns the sentence
that says what is proved. It raises Wrong if the GPU gave a wrong answer, and NotRun if it cannot run here. The stages of
IN_PYTHON name a program of `scripts`, which the Python of a user's environment runs.
"""

from collections.abc import Generator, Sequence

from dlhealth.records import NamedTuple

IN_PYTHON = ("framework", "train", "vision")
ORDER = ("driver", "compute", "memory", "load", *IN_PYTHON)
SECONDS = {
    "driver": 60.0,
    "compute": 60.0,
    "memory": 300.0,
    "load": 60.0,
    "framework": 180.0,
    "train": 300.0,
    "vision": 300.0,
}
"""How long each stage may take, without the time that the load lasts; in an environment, how long each program may."""


class Figure(NamedTuple):
    """A measured value. The unit stands at the end of the name: "copy to the GPU, GB/s"."""

    name: str
    value: float


class Done(NamedTuple):
    """Which part of the stage is done, from 0 to 1."""

    part: float


Work = Generator[Figure | Done, None, str]


class Wrong(Exception):
    """The GPU or the driver gave a wrong answer."""


class NotRun(Exception):
    """The stage cannot run here."""


class Task(NamedTuple):
    """What a stage tests. `gpu` is the only GPU to use, None for all; `seconds` is how long a load lasts."""

    gpu: int | None
    seconds: float

    def cards(self, count: int) -> Sequence[int]:
        """The indices of the GPUs to use."""
        if not count:
            raise NotRun("the driver sees no GPU")
        if self.gpu is None:
            return range(count)
        if self.gpu >= count:
            raise NotRun(f"there is no GPU {self.gpu}: the driver sees {count}, counted from 0")
        return [self.gpu]


def gpus(number: int) -> str:
    """The number in words: "1 GPU", "2 GPUs"."""
    return f"{number} GPU{'' if number == 1 else 's'}"
