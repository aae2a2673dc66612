"""Programs that a user's Python runs, with the frameworks of its environment. They must run on Python 3.7, so they use no
other part of dlhealth and no package but the one that they test.

python -c "<path set-up>; run(NAME, PARENT, GPU, WORDS)": see `dlhealth.prove.environments`.
"""


def run(name: str, *words: str) -> None:
    """Run one of the programs to its end."""
    from importlib import import_module
    from typing import Any

    common: Any = import_module("dlhealth.prove.scripts.common")
    script: Any = import_module("dlhealth.prove.scripts." + name)
    common.run(script.prove, *words)
