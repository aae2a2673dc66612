"""One machine for each module of lab tests, unless a test asks for its own; and the table of what was repaired."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.lab.lab import LabMachine, machine

Fresh = Callable[[str], LabMachine]


class Table:
    """What became of each fault: printed at the end of the run."""

    COLUMNS = ("found", "root", "repaired", "undone", "seconds")

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, object]] = {}

    def row(self, fault: str, **values: object) -> None:
        self.rows.setdefault(fault, {}).update(values)

    def lines(self) -> Iterator[str]:
        yield f"| fault | {' | '.join(self.COLUMNS)} |"
        yield f"|---|{'---|' * len(self.COLUMNS)}"
        for fault, values in self.rows.items():
            shown = [{True: "yes", False: "no"}.get(v, str(v)) for v in (values.get(c, "-") for c in self.COLUMNS)]  # type: ignore[call-overload]
            yield f"| {fault.replace('_', ' ')} | {' | '.join(shown)} |"


TABLE = Table()


@pytest.fixture
def table() -> Table:
    return TABLE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.rows:
        terminalreporter.section("repairs in the lab")
        for line in TABLE.lines():
            terminalreporter.write_line(line)


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
