"""The records of a proof."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from dlhealth.records import NamedTuple


class Proof(str, Enum):
    """How a stage ended. What ran on the CPU alone is never proved."""

    PROVED = "proved"
    FAILED = "failed"
    NOT_RUN = "could not run"


class Result(NamedTuple):
    """The end of one stage. `figures` are measured values by name, with the unit at the end of the name ("copy to the
    GPU, GB/s"); `code` is the driver's error, 0 if it gave none; `suspects` are the ids of the problems that can cause
    the failure; `hung` says that the process could not be ended."""

    stage: str
    outcome: Proof
    text: str
    seconds: float = 0.0
    figures: Mapping[str, float] = {}
    code: int = 0
    suspects: tuple[str, ...] = ()
    hung: bool = False

    def document(self) -> dict[str, Any]:
        """The form in JSON."""
        return {
            "stage": self.stage,
            "outcome": self.outcome.value,
            "text": self.text,
            "seconds": round(self.seconds, 1),
            "figures": dict(self.figures),
            "code": self.code or None,
        }
