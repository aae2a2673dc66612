"""The records of a proof."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from dlhealth.records import NamedTuple


class Proof(str, Enum):
    """How a stage ended. What ran on the CPU alone is never proved."""

    PROVED = "proved"
    CPU_ONLY = "on the CPU only"
    FAILED = "failed"
    NOT_RUN = "could not run"


class Part(NamedTuple):
    """What one framework of one environment did in a stage."""

    environment: str
    framework: str
    outcome: Proof
    text: str

    def document(self) -> dict[str, Any]:
        """The form in JSON."""
        return {**self._asdict(), "outcome": self.outcome.value}


class Result(NamedTuple):
    """The end of one stage.

    `figures` are measured values by name, with the unit at the end of the name ("copy to the GPU, GB/s"); `curves` are
    series of values, such as the loss of a training. `parts` are the frameworks that ran. `code` is the driver's error,
    0 if it gave none. A failure can come from the problems with the ids of `suspects`, or from one of the subjects of
    `about` ("python:/home/alice/venv"). `hung` says that the process could not be ended.
    """

    stage: str
    outcome: Proof
    text: str
    seconds: float = 0.0
    figures: Mapping[str, float] = {}
    curves: Mapping[str, Sequence[float]] = {}
    parts: tuple[Part, ...] = ()
    code: int = 0
    suspects: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    hung: bool = False

    def document(self) -> dict[str, Any]:
        """The form in JSON."""
        return {
            "stage": self.stage,
            "outcome": self.outcome.value,
            "text": self.text,
            "seconds": round(self.seconds, 1),
            "figures": dict(self.figures),
            "curves": {name: list(values) for name, values in self.curves.items()},
            "parts": [part.document() for part in self.parts],
            "code": self.code or None,
        }
