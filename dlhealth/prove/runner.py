"""Runs the stages of a proof, each in a process of its own."""

import os
import posixpath
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from dlhealth.data.error_texts import problems_of
from dlhealth.host.exec import run
from dlhealth.prove.environments import Environment, Unusable, check_readable, command, variables
from dlhealth.prove.errors import NO_DEVICE, NOT_LOADED, WRONG_ANSWER, suspects
from dlhealth.prove.program import run_program
from dlhealth.prove.records import Part, Proof, Result
from dlhealth.prove.stages import IN_PYTHON, ORDER, SECONDS
from dlhealth.records import NamedTuple

_CHILD = posixpath.join(posixpath.dirname(__file__), "child.py")
_WAIT_FOR_SMI = 10.0
_WAIT_FOR_LOG = 5.0


class Wanted(NamedTuple):
    """What to prove. `gpu` is the only GPU to use, None for all; `seconds` is how long the load lasts; `data` is a
    directory with the files of MNIST, `video` a video file or the number of a camera ("" for neither); `pythons` are the
    environments that a person named."""

    stages: Sequence[str]
    gpu: int | None
    seconds: float
    data: str = ""
    video: str = ""
    pythons: Sequence[str] = ()

    @property
    def which(self) -> str:
        """The GPU to use, as an argument of a program."""
        return "all" if self.gpu is None else str(self.gpu)


def chosen_stages(only: str | None, until: str | None) -> Sequence[str]:
    """The stages that `--stage` and `--until` choose."""
    if only:
        return (only,)
    return ORDER[: ORDER.index(until) + 1] if until else ORDER


class Asker(NamedTuple):
    """Whom a proof asks. `agreed` answers whether to use a GPU on which somebody else may compute; `has_gpu` whether
    this machine has an NVIDIA GPU, None if that is unknown; `begins` gets the name of each stage that starts, `done` which
    part of it is done, from 0 to 1; `environments` finds the Python environments with a framework,
    None if they cannot be read."""

    agreed: Callable[[str], bool]
    has_gpu: Callable[[], bool | None]
    begins: Callable[[str], object]
    done: Callable[[float], None]
    environments: Callable[[], Sequence[Environment] | None]


def prove(wanted: Wanted, asker: Asker) -> Iterator[Result]:
    """The result of each stage, when it ends."""
    obstacle, asked, seen = "", False, False
    tested: tuple[Part, ...] = ()
    for stage in wanted.stages:
        if not obstacle and stage != ORDER[0] and not asked:
            asked = True
            obstacle = _refused(wanted, asker, seen)
        if obstacle:
            yield Result(stage, Proof.NOT_RUN, obstacle)
            continue
        asker.begins(stage)
        began = time.time()
        if stage in IN_PYTHON:
            result = in_python(stage, wanted, asker, tested)
            tested = tested or result.parts
        else:
            result = _alone(stage, wanted, asker.done)
        result = _without_xids(result, began)
        if result.code in _NO_GPU and asker.has_gpu() is False:
            result = result._replace(outcome=Proof.NOT_RUN, text=f"no NVIDIA GPU was found; {result.text}")
        yield result
        seen = seen or stage == ORDER[0]  # otherwise there is an obstacle
        if result.hung:
            obstacle = f"not started: a process of the stage {stage} hangs in the driver and cannot be ended"
        elif result.outcome in _ENDED:
            obstacle = f"not started: the stage {stage} {_ENDED[result.outcome]}"


def _refused(wanted: Wanted, asker: Asker, seen: bool) -> str:
    """Why the GPU must not be used, "" if it may. `seen` says that the driver showed one."""
    use = in_use(wanted.gpu)
    if not use or (not seen and asker.has_gpu() is False) or asker.agreed(use):
        return ""
    return f"not started: {use}"


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


_SETTINGS = {
    "mig.mode.current": {"enabled": "is divided (MIG): programs use one of its instances, so only one is tested"},
    "compute_mode": {
        "exclusive_process": "lets only one program compute at a time (compute mode exclusive)",
        "exclusive_thread": "lets only one program compute at a time (compute mode exclusive)",
        "prohibited": "lets no program compute (compute mode prohibited)",
    },
    "display_active": {"enabled": "also drives a display, which may stutter during the test"},
}
"""Settings of a GPU by their names in nvidia-smi, and what a value means for a proof."""


def settings(gpu: int | None) -> tuple[str, ...]:
    """The settings of the GPUs that matter for a proof, in words; none if nvidia-smi does not tell them."""
    query = (f"--query-gpu=index,{','.join(_SETTINGS)}", "--format=csv,noheader")
    answer = run(["nvidia-smi", *query, *(() if gpu is None else ("-i", str(gpu)))], _WAIT_FOR_SMI)
    rows = [line.split(", ") for line in answer.stdout.splitlines()] if answer.status == 0 else ()
    return tuple(
        f"GPU {index} {words}"
        for index, *values in rows
        for known, value in zip(_SETTINGS.values(), values, strict=False)
        if (words := known.get(value.strip().lower()))
    )


def _without_xids(result: Result, began: float) -> Result:
    """The result, or a failure if the kernel logged errors of a GPU since the stage began. Who may not read the kernel
    log sees none."""
    query = ("--dmesg", "--quiet", "--output=cat", f"--since=@{began:.3f}", "--grep=NVRM: Xid")
    logged = run(["journalctl", *query], _WAIT_FOR_LOG).stdout.splitlines() if result.outcome is Proof.PROVED else ()
    if not logged:
        return result
    text = f"every result was right, but the kernel logged during this stage: {logged[0][:200]}"
    return result._replace(outcome=Proof.FAILED, text=text, suspects=problems_of(logged[0]))


def _alone(stage: str, wanted: Wanted, done: Callable[[float], None]) -> Result:
    """The result of a stage that needs only the driver."""
    command = [sys.executable or "/usr/bin/python3", "-I", "-B", _CHILD, stage, wanted.which, f"{wanted.seconds:g}"]
    # nvidia-smi counts GPUs by their place on the bus; without this variable, CUDA counts by speed.
    environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    caller = _as_caller(os.environ)
    if caller:
        try:
            check_readable(caller, f"UID {os.environ['SUDO_UID']}")
        except Unusable as problem:
            return Result(stage, Proof.NOT_RUN, str(problem))
    result = run_program(stage, [*caller, *command], environment, SECONDS[stage] + wanted.seconds, done)
    if result.outcome is Proof.FAILED and not result.suspects:
        return result._replace(suspects=suspects(result.code) or WRONG_ANSWER)
    return result


def _as_caller(environment: Mapping[str, str]) -> Sequence[str]:
    """The words before a command that run it as the user who started sudo: what root may open proves nothing for that
    user."""
    uid, gid = environment.get("SUDO_UID", ""), environment.get("SUDO_GID", "")
    if os.geteuid() or not uid.isdecimal() or not gid.isdecimal() or not int(uid):
        return ()
    return ("setpriv", "--reuid", uid, "--regid", gid, "--init-groups", "--")


_FRAMEWORKS = ("torch", "tensorflow", "jax")


def in_python(stage: str, wanted: Wanted, asker: Asker, tested: Sequence[Part]) -> Result:
    """The result of a stage that runs in Python environments. `tested` are the frameworks that an earlier stage ran."""
    everything = asker.environments()
    if everything is None:
        return Result(stage, Proof.NOT_RUN, "the Python environments of this machine cannot be read")
    chosen = [
        (e, f) for e in everything for f in (_FRAMEWORKS if stage == "framework" else ("torch",)) if f in e.frameworks
    ]
    if not chosen:
        kind = "PyTorch, TensorFlow or JAX" if stage == "framework" else "PyTorch"
        if wanted.pythons:
            where = ", ".join(wanted.pythons)
            return Result(stage, Proof.NOT_RUN, f"{where} has no {kind}")
        return Result(stage, Proof.NOT_RUN, f"no Python environment with {kind} was found; --python EXE names one")
    if stage != "framework":
        chosen = [min(chosen, key=lambda pair: _rank(pair[0], tested))]
    words = {"train": wanted.data, "vision": wanted.video}
    began, results = time.monotonic(), []
    for number, (environment, framework) in enumerate(chosen):
        asker.done(number / len(chosen))
        word = words.get(stage, framework)
        result = _in_environment(
            stage, environment, framework, (wanted.which, word), asker.done if len(chosen) == 1 else None
        )
        results.append(result)
        if result.hung:
            break
    return together(stage, results)._replace(seconds=time.monotonic() - began)


def _rank(environment: Environment, tested: Sequence[Part]) -> int:
    """0 for an environment whose PyTorch uses the GPU, 2 for one that does not."""
    ended = {p.outcome for p in tested if p.environment == environment.path and p.framework == "torch"}
    return 0 if Proof.PROVED in ended else 2 if ended else 1


def _in_environment(
    stage: str, environment: Environment, framework: str, words: Sequence[str], done: Callable[[float], None] | None
) -> Result:
    try:
        program = command(environment, stage, words)
    except Unusable as problem:
        result = Result(stage, Proof.NOT_RUN, str(problem))
    else:
        result = run_program(stage, program, variables(), SECONDS[stage], done or (lambda part: None))
    if result.outcome is Proof.FAILED:
        known = result.suspects or problems_of(result.text)
        result = result._replace(suspects=known, about=(f"python:{environment.path}",))
    return result._replace(parts=(Part(environment.path, framework, result.outcome, result.text),))


_WORST = (Proof.FAILED, Proof.PROVED, Proof.CPU_ONLY, Proof.NOT_RUN)


def together(stage: str, results: Sequence[Result]) -> Result:
    """One result for the frameworks of all environments. A failure of one is a failure; otherwise, one that uses the GPU
    is enough: an environment may be meant for the CPU."""
    if len(results) == 1:
        return results[0]
    parts = tuple(part for result in results for part in result.parts)
    outcome = min((part.outcome for part in parts), key=_WORST.index)
    number = sum(part.outcome is outcome for part in parts)
    return Result(
        stage,
        outcome,
        f"{number} of {len(parts)} frameworks: {outcome.value}",
        figures={f"{_of(r.parts[0])}: {name}": value for r in results for name, value in r.figures.items()},
        curves={f"{_of(r.parts[0])}: {name}": values for r in results for name, values in r.curves.items()},
        parts=parts,
        suspects=tuple(dict.fromkeys(s for r in results for s in r.suspects)),
        about=tuple(dict.fromkeys(s for r in results for s in r.about)),
        hung=any(r.hung for r in results),
    )


def _of(part: Part) -> str:
    return f"{part.framework} in {part.environment}"
