"""Runs one program of a proof within its time limit, and reads what it says."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlhealth.host.exec import run
from dlhealth.prove.errors import HANG, NO_LIBRARY, WRONG_ANSWER
from dlhealth.prove.records import Proof, Result


def run_program(
    stage: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    limit: float,
    done: Callable[[float], None],
) -> Result:
    """How the program of a stage ended, within `limit` seconds. `done` gets which part of it is done, from 0 to 1."""
    heard = _Heard(done)
    began = time.monotonic()
    answer = run(command, limit, environment=environment, heard=heard)
    seconds = time.monotonic() - began
    result = Result(stage, Proof.NOT_RUN, "", seconds, heard.figures, heard.curves)
    if answer.status == 0 and heard.end:
        return result._replace(**heard.end)
    if answer.status is None and seconds >= limit:
        hung = bool(answer.left)
        if not heard.started:
            return result._replace(text=f"its program did not start within {limit:g} seconds", hung=hung)
        if not heard.gpu:
            return result._replace(text=f"the CPU did not finish within {limit:g} seconds", hung=hung)
        text = f"no answer within {limit:g} seconds"
        return result._replace(outcome=Proof.FAILED, text=text, suspects=HANG, hung=hung)
    if answer.status is not None and answer.status < 0:
        text = f"the process ended with signal {-answer.status}"
        return result._replace(outcome=Proof.FAILED, text=text, suspects=(*NO_LIBRARY, *WRONG_ANSWER))
    said = answer.problem or (answer.stderr.strip().splitlines() or [f"status {answer.status}"])[-1]
    return result._replace(text=f"the process of the stage did not work: {said[:200]}")


class _Heard:
    """What a program says: one JSON document a line. Other lines are ignored: a framework or a start-up file printed
    them."""

    def __init__(self, done: Callable[[float], None]) -> None:
        self.figures: dict[str, float] = {}
        self.curves: dict[str, list[float]] = {}
        self.end: dict[str, Any] = {}
        self.started, self.gpu = False, True
        self._done = done
        self._rest = b""

    def __call__(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            try:
                document = json.loads(line)
                if isinstance(document, dict):
                    self._take(document)
            except (ValueError, TypeError, KeyError, RecursionError):
                continue

    def _take(self, document: dict[str, Any]) -> None:
        if "done" in document:
            self._done(float(document["done"]))
        elif "started" in document:
            self.started = True
        elif "gpu" in document:
            self.gpu = bool(document["gpu"])
        elif "outcome" in document:
            outcome, code = Proof(document["outcome"]), int(document.get("code", 0))
            self.end = {"outcome": outcome, "text": str(document["text"]), "code": code}
        elif math.isfinite(value := float(document["value"])):
            if "curve" in document:
                self.curves.setdefault(str(document["curve"]), []).append(value)
            else:
                self.figures[str(document["figure"])] = value
