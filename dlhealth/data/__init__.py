"""Tables of facts about versions and hardware, as JSON, each row or file with its source."""

import json
import os
from functools import cache
from typing import Any

CURRENT = "2026-11-23"
"""The day up to which all tables are complete: drivers, GPUs and versions that appeared later may be missing."""


@cache
def load(name: str) -> Any:
    """A table by its name, read when it is first needed. Callers share it and must not change it."""
    with open(os.path.join(os.path.dirname(__file__), f"{name}.json"), "rb") as file:
        return json.load(file)


@cache
def lookup_gpu(device: str) -> tuple[str, ...] | None:
    """The row of gpus.tsv for one PCI device id ("1b06"): architecture, capability, first branch, first branch that
    lists it, last branch, open module, name. One pass over the text: most machines have one GPU, and the table has
    1500."""
    with open(os.path.join(os.path.dirname(__file__), "gpus.tsv"), encoding="utf-8") as file:
        for line in file:
            if line.startswith(f"{device}\t"):
                return tuple(line.rstrip("\n").split("\t")[1:])
    return None


def lookup_gpus_named(model: str) -> tuple[str, ...]:
    """The PCI device ids of a GPU by the name that the driver prints: "NVIDIA GeForce RTX 3090"."""
    wanted = model.removeprefix("NVIDIA ").lower()
    with open(os.path.join(os.path.dirname(__file__), "gpus.tsv"), encoding="utf-8") as file:
        names = (line.rstrip("\n").split("\t") for line in file if not line.startswith("#"))
        return tuple(row[0] for row in names if row[-1].removeprefix("NVIDIA ").lower() == wanted)
