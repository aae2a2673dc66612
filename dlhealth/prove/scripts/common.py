"""What the programs share: how they report, and which device they compute on.

They print one JSON document a line; the last one is the answer.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from ctypes import CDLL, byref, c_int
from typing import Any

CPU_ONLY = "on the CPU only"
_NO_MEMORY = ("out of memory", "OutOfMemory", "RESOURCE_EXHAUSTED", "CUBLAS_STATUS_ALLOC_FAILED")


class Wrong(Exception):
    """A wrong answer."""


class NotRun(Exception):
    """It cannot run here."""


def say(**document: Any) -> None:
    """Report one thing at once: the next call may be the last."""
    sys.stdout.write("\n" + json.dumps(document) + "\n")  # the framework may have printed half a line
    sys.stdout.flush()


def figure(name: str, value: float) -> None:
    """Report a measured value. The unit stands at the end of the name."""
    say(figure=name, value=float(value))


def curve(name: str, value: float) -> None:
    """Report the next point of a curve."""
    say(curve=name, value=float(value))


def done(part: float) -> None:
    """Report which part is done, from 0 to 1."""
    say(done=part)


class Device:
    """What a framework computes on. `name` is the framework's name of it, `gpu` says whether it is a GPU, `title` is for
    people: the GPU's name, or why it is the CPU."""

    def __init__(self, name: Any, gpu: bool, title: str) -> None:
        self.name = name
        self.gpu = gpu
        self.title = title


def run(prove: Callable[[str, list[str]], tuple[Device, str]], parent: str, gpu: str, *words: str) -> None:
    """Run `prove` and report how it ended. `parent` is the process that waits for the answer."""
    # The same order as nvidia-smi; and no framework takes the whole memory.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    outcome = "failed"
    say(started=True)
    try:
        device, text = prove(gpu, list(words))
        outcome = "proved" if device.gpu else CPU_ONLY
        if not device.gpu:
            text = f"{text}; {device.title}: this says nothing of the GPU"
    except Wrong as error:
        text = str(error)
    except NotRun as error:
        outcome, text = "could not run", str(error)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        text = "{}: {}".format(type(error).__name__, lines[0].strip() if lines else "no text")
        if isinstance(error, MemoryError) or any(sign in str(error) or sign in text for sign in _NO_MEMORY):
            outcome, text = "could not run", "not enough memory is free: " + text
    say(outcome=outcome, text=text[:600])
    sys.stdout.flush()
    os._exit(0)  # some frameworks hang or crash when they end


def _end_with(parent: str) -> None:
    """Nobody reads the answer once the parent is gone, for example after Ctrl-C."""
    while os.path.exists("/proc/" + parent):
        time.sleep(1)
    os._exit(1)


def seen_by_driver() -> int:
    """How many GPUs the driver shows to this process; 0 also if there is no driver."""
    try:
        library = CDLL("libcuda.so.1")
        number = c_int()
        return 0 if library.cuInit(0) or library.cuDeviceGetCount(byref(number)) else number.value
    except (OSError, AttributeError):
        return 0


def chosen(gpu: str, number: int, framework: str) -> int:
    """The index of the GPU to use."""
    index = 0 if gpu == "all" else int(gpu)
    if index >= number:
        raise NotRun(f"there is no GPU {index}: {framework} sees {number}, counted from 0")
    return index


def without_gpu(framework: str, built: bool, why: str) -> Device:
    """The CPU, if there is a reason not to see a GPU. `built` says whether the framework was built for GPUs, `why` what
    it says itself."""
    seen = seen_by_driver()
    if built and seen:
        raise Wrong(f"the driver shows {seen} GPU{'s' * (seen > 1)}, but {framework} finds none: {why}")
    reason = "proved on the CPU only, because %s" % (
        "the driver shows no GPU" if built else f"this {framework.split()[0]} is built without CUDA"
    )
    say(gpu=False)
    return Device(None, False, reason)


def difference(computed: Any, expected: Any) -> float:
    """How far two NumPy arrays are apart, relative to the size of the expected one."""
    import math

    if computed.shape != expected.shape:
        return math.inf
    apart = float(((computed.astype("float64") - expected.astype("float64")) ** 2).sum()) ** 0.5
    size = float((expected.astype("float64") ** 2).sum()) ** 0.5
    return apart / max(size, 1e-30) if math.isfinite(apart) else math.inf


def compare(what: str, computed: Any, expected: Any, limit: float) -> None:
    """Raise Wrong if two NumPy arrays are further apart than `limit`, relative to the size of the expected one."""
    apart = difference(computed, expected)
    if not apart <= limit:
        raise Wrong(f"{what} differs from the CPU's result by {apart:.2g} of its size; at most {limit:.2g} is right")


def seconds_of(work: Callable[[], Any], repeats: int) -> float:
    """The seconds of the fastest of some repeats, after one to warm up."""
    work()
    best = 1e9
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return max(best, 1e-9)
