"""The clock, against the dates in apt's lists."""

from pathlib import Path

import pytest

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.machine.clock import Clock
from dlhealth.testing import Machine

SIGNED = 1764641853.0  # Tue, 02 Dec 2025 02:17:33 UTC
LISTS = "/var/lib/apt/lists"


class Running(RootHost):
    """A machine in a directory whose clock shows a given time."""

    time = 0.0

    def _now(self) -> float | None:
        return self.time


def clock(folder: Path, now: float) -> Clock:
    host = Running(str(folder))
    host.time = now
    return Facts(host, Options()).get(Clock)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    return (
        Machine.debian12()
        .file(
            f"{LISTS}/deb.debian.org_debian_dists_bookworm_InRelease",
            "Hash: SHA256\n\nDate: Sat, 06 Sep 2025 10:05:08 UTC\n",
        )
        .file(f"{LISTS}/security_InRelease", "Origin: Debian\nDate: Tue, 02 Dec 2025 02:17:33 UTC\nValid-Until: x\n")
        .file(f"{LISTS}/odd_InRelease", "Date: yesterday\n")
        .build(tmp_path)
    )


@pytest.mark.parametrize(("now", "behind"), [(0.0, SIGNED), (SIGNED - 7200, 7200.0), (SIGNED + 60, -60.0)])
def test_by_how_much_the_clock_is_behind(machine: Path, now: float, behind: float) -> None:
    found = clock(machine, now)
    assert found.behind == behind
    assert found.source == f"{LISTS}/security_InRelease"


def test_without_lists_or_without_a_clock_nothing_is_known(tmp_path: Path) -> None:
    Machine.debian12().build(tmp_path)
    with pytest.raises(Unavailable):
        clock(tmp_path, 1.0)
    with pytest.raises(Unavailable):
        Facts(RootHost(str(tmp_path)), Options()).get(Clock)
