"""Runs the stages of a proof, each in a process of its own."""

import json
import os
import posixpath
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dlhealth.data.error_texts import problems_of
from dlhealth.host.exec import run
from dlhealth.prove.errors import HANG, NO_DEVICE, NO_LIBRARY, NOT_LOADED, WRONG_ANSWER, suspects
from dlhealth.prove.records import Proof, Result
from dlhealth.prove.stages import ORDER, SECONDS
from dlhealth.records import NamedTuple

_CHILD = posixpath.join(posixpath.dirname(__file__), "child.py")
_WAIT_FOR_SMI = 10.0
_WAIT_FOR_LOG = 5.0


class Wanted(NamedTuple):
    """What to prove. `gpu` is the only GPU to use, None for all; `seconds` is how long the load lasts."""

    stages: Sequence[str]
    gpu: int | None
    seconds: float


def chosen_stages(only: str | None, until: str | None) -> Sequence[str]:
    """The stages that `--stage` and `--until` choose."""
    if only:
        return (only,)
    return ORDER[: ORDER.index(until) + 1] if until else ORDER


class Asker(NamedTuple):
    """Whom a proof asks. `agreed` answers whether to use a GPU on which somebody else may compute; `has_gpu` whether
    this machine has an NVIDIA GPU, None if that is unknown; `begins` gets the name of each stage that starts, `done` which
    part of it is done, from 0 to 1."""

    agreed: Callable[[str], bool]
    has_gpu: Callable[[], bool | None]
    begins: Callable[[str], object]
    done: Callable[[float], None]


def prove(wanted: Wanted, asker: Asker) -> Iterator[Result]:
    """The result of each stage, when it ends."""
    obstacle, asked = "", False
    for stage in wanted.stages:
        if not obstacle and stage != ORDER[0] and not asked:
            asked = True
            use = in_use(wanted.gpu)
            obstacle = f"not started: {use}" if use and not asker.agreed(use) else ""
        if obstacle:
            yield Result(stage, Proof.NOT_RUN, obstacle)
            continue
        asker.begins(stage)
        result = _without_xids(_run(stage, wanted, asker.done), time.time())
        if result.code in _NO_GPU and asker.has_gpu() is False:
            result = result._replace(outcome=Proof.NOT_RUN, text=f"no NVIDIA GPU was found; {result.text}")
        yield result
        if result.hung:
            obstacle = f"not started: a process of the stage {stage} hangs in the driver and cannot be ended"
        elif result.outcome is not Proof.PROVED:
            obstacle = f"not started: the stage {stage} {_ENDED[result.outcome]}"


_NO_GPU = (NO_DEVICE, NOT_LOADED)
_ENDED = {Proof.FAILED: "failed", Proof.NOT_RUN: "could not run"}


def in_use(gpu: int | None) -> str:
    """Who computes on the GPU, or why that is unknown; "" if nobody does."""
    query = ("--query-compute-apps=pid,process_name", "--format=csv,noheader")
    answer = run(["nvidia-smi", *query, *(() if gpu is None else ("-i", str(gpu)))], _WAIT_FOR_SMI)
    if answer.status != 0:
        why = answer.problem or f"nvidia-smi ended with status {answer.status}"
        return f"it is unknown whether another program computes on the GPU ({why})"
    users = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    return f"other programs compute on the GPU: {'; '.join(users[:5])}" if users else ""


def _without_xids(result: Result, ended: float) -> Result:
    """The result, or a failure if the kernel logged errors of a GPU while the stage ran. Who may not read the kernel log
    sees none."""
    began = ended - result.seconds
    query = ("--dmesg", "--quiet", "--output=cat", f"--since=@{began:.3f}", "--grep=NVRM: Xid")
    logged = run(["journalctl", *query], _WAIT_FOR_LOG).stdout.splitlines() if result.outcome is Proof.PROVED else ()
    if not logged:
        return result
    text = f"every result was right, but the kernel logged during this stage: {logged[0][:200]}"
    return result._replace(outcome=Proof.FAILED, text=text, suspects=problems_of(logged[0]))


def _run(stage: str, wanted: Wanted, done: Callable[[float], None]) -> Result:
    gpu = "all" if wanted.gpu is None else str(wanted.gpu)
    limit = SECONDS[stage] + wanted.seconds
    command = [sys.executable or "/usr/bin/python3", "-I", "-B", _CHILD, stage, gpu, f"{wanted.seconds:g}"]
    began = time.monotonic()
    # nvidia-smi counts GPUs by their place on the bus; without this variable, CUDA counts by speed.
    environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    heard = Heard(done)
    answer = run([*_as_caller(os.environ), *command], limit, environment=environment, heard=heard)
    seconds = time.monotonic() - began
    lines = heard.documents
    figures = {str(x["figure"]): float(x["value"]) for x in lines if "figure" in x}
    end = lines[-1] if lines and "outcome" in lines[-1] else None
    if answer.status == 0 and end:
        outcome, code = Proof(end["outcome"]), int(end["code"])
        possible = suspects(code) or WRONG_ANSWER if outcome is Proof.FAILED else ()
        return Result(stage, outcome, str(end["text"]), seconds, figures, code, possible)
    if answer.status is None and seconds >= limit:
        text = f"no answer within {limit:g} seconds"
        return Result(stage, Proof.FAILED, text, seconds, figures, suspects=HANG, hung=bool(answer.left))
    if answer.status is not None and answer.status < 0:
        text = f"the process ended with signal {-answer.status}"
        return Result(stage, Proof.FAILED, text, seconds, figures, suspects=(*NO_LIBRARY, *WRONG_ANSWER))
    said = answer.problem or (answer.stderr.strip().splitlines() or [f"status {answer.status}"])[-1]
    return Result(stage, Proof.NOT_RUN, f"the process of the stage did not work: {said[:200]}", seconds, figures)


def _as_caller(environment: Mapping[str, str]) -> Sequence[str]:
    """The words before a command that run it as the user who started sudo: what root may open proves nothing for that
    user."""
    uid, gid = environment.get("SUDO_UID", ""), environment.get("SUDO_GID", "")
    if os.geteuid() or not uid.isdecimal() or not gid.isdecimal() or not int(uid):
        return ()
    return ("setpriv", "--reuid", uid, "--regid", gid, "--init-groups", "--")


class Heard:
    """What a process says: one JSON document a line. Other lines are ignored."""

    def __init__(self, done: Callable[[float], None]) -> None:
        self.documents: list[dict[str, Any]] = []
        self._done = done
        self._rest = b""

    def __call__(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            document = _json(line)
            if not isinstance(document, dict):
                continue
            if "done" in document:
                self._done(float(document["done"]))
            else:
                self.documents.append(document)


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
