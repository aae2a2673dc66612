"""Local times in logs are those of the machine's zone, and have the year that fits."""

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from dlhealth.host.root import RootHost
from dlhealth.probes.machine.journal import Journal, parse_log_line
from dlhealth.probes.machine.localtime import LocalTime
from dlhealth.testing import Machine


def zone_file(hours: int) -> bytes:
    """A file in the form of tzfile(5), of a zone that is always so many hours ahead of UTC."""
    counts = b"".join(n.to_bytes(4, "big") for n in (0, 0, 0, 0, 1, 4))
    block = b"TZif2" + bytes(15) + counts + (hours * 3600).to_bytes(4, "big", signed=True) + bytes(2) + b"ABC\0"
    return block + block + f"\nABC{-hours}\n".encode()


@pytest.fixture(params=[8, -8, 0])
def hours(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def machine(root: Path, hours: int) -> LocalTime:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/localtime").write_bytes(zone_file(hours))
    return LocalTime(RootHost(str(root)))


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=timezone.utc).timestamp()  # type: ignore[arg-type, misc]


def test_a_local_time_is_that_of_the_machine(tmp_path: Path, hours: int) -> None:
    local = machine(tmp_path, hours)
    assert local.known
    assert local.seconds(2026, 11, 21, 12, 0, 0) == utc(2026, 11, 21, 12) - hours * 3600
    assert local.minute(utc(2026, 11, 21, 12) - hours * 3600) == "2026-11-21 12:00"


@pytest.mark.parametrize("content", [None, b"", b"no zone", b"TZif2" + bytes(9)])
def test_without_a_zone_it_is_utc(tmp_path: Path, content: bytes | None) -> None:
    local = machine(tmp_path, 8)
    (tmp_path / "etc/localtime").unlink() if content is None else (tmp_path / "etc/localtime").write_bytes(content)
    assert not local.known
    assert local.seconds(2026, 11, 21, 12, 0, 0) == utc(2026, 11, 21, 12)


def test_there_is_no_such_time() -> None:
    assert LocalTime().seconds(2026, 2, 30, 12, 0, 0) is None


@pytest.mark.parametrize(
    ("written", "text", "when"),
    [
        # The file was written at 00:30 of the new year there, when it was the old year in UTC.
        (utc(2025, 12, 31, 16, 30), "Jan  1 00:20:00", utc(2025, 12, 31, 16, 20)),
        (utc(2025, 12, 31, 16, 30), "Dec 31 23:50:00", utc(2025, 12, 31, 15, 50)),
        (utc(2026, 3, 1, 0, 0), "Nov 23 07:00:00", utc(2025, 11, 22, 23, 0)),
        (utc(2026, 3, 1, 0, 0), "Feb 29 08:00:00", utc(2024, 2, 29, 0, 0)),
    ],
)
def test_a_line_without_a_year_is_not_after_its_file(tmp_path: Path, written: float, text: str, when: float) -> None:
    line = parse_log_line(f"{text} host kernel: x", "x", written, machine(tmp_path, 8))
    assert line
    assert line.time == when


def test_a_traditional_log_is_read_in_the_zone_of_the_machine(tmp_path: Path) -> None:
    """As the ISO 8601 form of the same moment."""
    found = []
    for traditional in (False, True):
        root = tmp_path / str(traditional)
        root.mkdir()
        Machine.debian12().login_loop().build(root)
        log = root / "var/log/auth.log"
        stat = log.stat()
        if traditional:
            text = []
            for line in log.read_text().splitlines():
                stamp, _, rest = line.partition(" ")
                there = datetime.fromtimestamp(datetime.fromisoformat(stamp).timestamp() + 8 * 3600, timezone.utc)
                text.append(f"{there:%b} {there.day:2} {there:%H:%M:%S} {rest}\n")
            log.write_text("".join(text))
        os.utime(log, (stat.st_mtime, stat.st_mtime))
        machine(root, 8)
        found.append([(int(x.time), x.text) for x in Journal.probe(RootHost(str(root))).lines])
    assert found[0] == found[1] != []
