"""Runs one stage. A program of its own: a call into a broken driver may never return.

python -I child.py STAGE GPU SECONDS, where GPU is a number or "all". Prints one JSON document a line; the last one is
the answer.
"""

import json
import os.path
import signal
import sys
from ctypes import CDLL
from importlib import import_module
from typing import Any

_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def say(**document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main(stage: str, gpu: str, seconds: str) -> None:
    # Nobody reads the answer once the parent is gone, for example after Ctrl-C.
    CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    # With -I, Python finds only what is installed; a copied dlhealth is not.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from dlhealth.prove.cuda import CudaError
    from dlhealth.prove.errors import NOT_LOADED, named
    from dlhealth.prove.records import Proof
    from dlhealth.prove.stages import Done, NotRun, Task, Wrong

    outcome, code = Proof.FAILED, 0
    say(started=True)
    try:
        work = import_module(f"dlhealth.prove.stages.{stage}").prove(
            Task(None if gpu == "all" else int(gpu), float(seconds))
        )
        while True:
            step = next(work)
            if isinstance(step, Done):
                say(done=step.part)
            else:
                say(figure=step.name, value=step.value)
    except StopIteration as end:
        outcome, text = Proof.PROVED, end.value
    except CudaError as error:
        text, code = named(error.call, error.code), error.code
    except Wrong as error:
        text = str(error)
    except NotRun as error:
        outcome, text = Proof.NOT_RUN, str(error)
    except OSError as error:
        text, code = f"libcuda.so.1 cannot be loaded: {error}", NOT_LOADED
    except AttributeError as error:
        text, code = f"libcuda.so.1 lacks a function: {error}", NOT_LOADED
    say(outcome=outcome.value, text=text, code=code)


if __name__ == "__main__":
    main(*sys.argv[1:])
