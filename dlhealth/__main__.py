"""What the `dlhealth` program runs; `python -m dlhealth` is the same."""

import gc
import os
import sys


def _forget_pythonpath() -> None:
    """Survives a PYTHONPATH with packages of another Python: many machines have one, and dlhealth must report it."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in os.environ.get("PYTHONPATH", "").split(":"):
        try:
            given = os.path.abspath(folder)
        except FileNotFoundError:  # the current directory was deleted
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
    # A short life with many small objects: a search for cycles among them costs a tenth of it and finds nothing. Most
    # of them are made by the imports, which therefore follow.
    gc.set_threshold(100_000)
    # click imports a module that asks for the name of the system, which would compile the ten patterns of `platform`.
    postpone("platform", system=lambda: os.uname().sysname)
    # It imports another one for a type of options that dlhealth does not have.
    postpone("uuid")
    # Click cleans the help of each option with this one, which brings five modules that parse Python.
    postpone("inspect", cleandoc=cleandoc)
    # Click has its messages translated; nobody has translations of them, and the search for some loads the locales.
    postpone("gettext", gettext=str, ngettext=lambda one, many, number: one if number == 1 else many)
    from dlhealth.cli import main as run

    run()


if __name__ == "__main__":
    main()
