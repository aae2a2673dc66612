"""One machine for each module of lab tests, unless a test asks for its own."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.lab.lab import LabMachine, machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    possible = os.geteuid() == 0 and shutil.which("systemd-nspawn") and shutil.which("mmdebstrap")
    for item in items:
        if "lab" in item.keywords and not possible:
            item.add_marker(pytest.mark.skip(reason="the lab needs root, systemd-nspawn and mmdebstrap"))


@pytest.fixture
def fresh() -> Iterator[Callable[[str], LabMachine]]:
    """Makes fresh copies of base roots: "plain" or "nvidia"."""
    with ExitStack() as stack:
        yield lambda kind: stack.enter_context(machine(kind))
