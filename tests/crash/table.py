"""The table of crashes: how often the machine was as before, as planned, or left as others had changed it."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

Count = Callable[[str, str], None]

ENDS = ("as before", "as planned", "conflict")
_PROPERTY = "crash"


class Table:
    """What became of each kind of crash: printed at the end of the run."""

    def __init__(self) -> None:
        self.rows: dict[str, Counter[str]] = {}

    def add(self, kind: str, end: str, points: int) -> None:
        self.rows.setdefault(kind, Counter())[end] += points

    def lines(self) -> Iterator[str]:
        yield f"| kind of crash | points | {' | '.join(ENDS)} |"
        yield f"|---|---|{'---|' * len(ENDS)}"
        for kind, ends in sorted(self.rows.items()):
            yield f"| {kind} | {ends.total()} | {' | '.join(str(ends[e]) for e in ENDS)} |"


TABLE = Table()


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Iterator[Count]:
    """Adds a crash point to the table: the kind of crash, and how the machine ended (one of ENDS)."""
    ends: Counter[tuple[str, str]] = Counter()

    def add(kind: str, end: str) -> None:
        assert end in ENDS
        ends[kind, end] += 1

    yield add
    # With the report of the test, which a worker of pytest-xdist sends to the process that prints.
    request.node.user_properties += [(_PROPERTY, [*row, points]) for row, points in ends.items()]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":  # the reports before may share its properties
        for name, value in report.user_properties:
            if name == _PROPERTY:
                TABLE.add(*cast("list[Any]", value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.rows:
        terminalreporter.section("crashes of transactions")
        for line in TABLE.lines():
            terminalreporter.write_line(line)
