"""Fresh machines for the tests of the lab; and the tables of what was repaired, and what became of a power cut."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.lab.lab import LabMachine, machine

Fresh = Callable[[str], LabMachine]


class Table:
    """What became of each case: printed at the end of the run."""

    def __init__(self, case: str, *columns: str) -> None:
        self._columns = (case, *columns)
        self.rows: dict[str, dict[str, object]] = {}

    def row(self, case: str, **values: object) -> None:
        self.rows.setdefault(case, {}).update(values)

    def lines(self) -> Iterator[str]:
        yield f"| {' | '.join(self._columns)} |"
        yield f"|{'---|' * len(self._columns)}"
        for case, values in self.rows.items():
            shown = [_word(values.get(c, "-")) for c in self._columns[1:]]
            yield f"| {case.replace('_', ' ')} | {' | '.join(shown)} |"


REPAIRS = Table("fault", "found", "root", "repaired", "undone", "seconds")
POWER_CUTS = Table("moment", "outcome", "state", "seconds")


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@pytest.fixture
def table() -> Table:
    return REPAIRS


@pytest.fixture
def power_cuts() -> Table:
    return POWER_CUTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for title, table in (("repairs in the lab", REPAIRS), ("power cuts", POWER_CUTS)):
        if table.rows:
            terminalreporter.section(title)
            for line in table.lines():
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
