"""What the `dlhealth` program runs; `python -m dlhealth` is the same."""

import gc
import os
import sys


def _forget_pythonpath() -> None:
    """A PYTHONPATH with packages of another Python, which many machines have, is a fault of theirs to be survived."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in os.environ.get("PYTHONPATH", "").split(":"):
        try:
            given = os.path.abspath(folder)
        except FileNotFoundError:  # the current folder is gone
            continue
        if given != own and given in sys.path:
            sys.path.remove(given)


_forget_pythonpath()
from dlhealth.lazy import postpone  # noqa: E402


def cleandoc(text: str) -> str:
    """As inspect.cleandoc."""
    first, *rest = text.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    return "\n".join([first.lstrip(), *(line[margin:] for line in rest)]).strip("\n")


def main() -> None:
    # A short life with many small objects: looking for cycles among them costs a tenth of it and finds nothing. It
    # begins with the imports, so they come afterwards.
    gc.set_threshold(100_000)
    # Of this one, with ten patterns to compile, a module that click imports asks the name of the system.
    postpone("platform", system=lambda: os.uname().sysname)
    # Click cleans the help of each option with this one, which brings five modules that parse Python.
    postpone("inspect", cleandoc=cleandoc)
    from dlhealth.cli import main as run

    run()


if __name__ == "__main__":
    main()
