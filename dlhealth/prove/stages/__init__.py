"""One file per stage of a proof; ORDER is the order in which they run.

A stage is a generator of figures: it yields `(name, value)` for each measured value and returns the sentence that says
what is proved. It raises Wrong if the GPU gave a wrong answer, and NotRun if it cannot run here.
"""

from collections.abc import Generator, Sequence

from dlhealth.records import NamedTuple

ORDER = ("driver", "compute")
SECONDS = {"driver": 30.0, "compute": 60.0}
"""How long each stage may take, without the time that the load lasts."""

Figures = Generator[tuple[str, float], None, str]


class Wrong(Exception):
    """The GPU or the driver gave a wrong answer."""


class NotRun(Exception):
    """The stage cannot run here."""


class Task(NamedTuple):
    """What a stage is to do. `gpu` is the only GPU to use, None for all; `seconds` is how long a load lasts."""

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
