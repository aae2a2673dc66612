"""The service's own log, as systemd starts it and on a terminal."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

LOG = """
import functools, sys
from dlhealth.service import log
log.send = functools.partial(log.send, path=sys.argv[1])
log.logger().warning("not watched", sources=["the kernel's log: Permission denied"])
"""


@pytest.fixture
def journal(tmp_path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "journal"))
    made.setblocking(False)
    return made


def said(tmp_path: Path, stream: str | None) -> str:
    """What stands on standard error, of which JOURNAL_STREAM says `stream`, or what is true where that is "it"."""
    out = tmp_path / "stderr"
    with out.open("wb") as file:
        status = os.fstat(file.fileno())
        environment = {} if stream is None else {"JOURNAL_STREAM": stream}
        if stream == "it":
            environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        words = [sys.executable, "-c", LOG, str(tmp_path / "journal")]
        subprocess.run(
            words, stderr=file, env={**environment, "PYTHONPATH": str(Path(__file__).parents[3])}, check=True
        )
    return out.read_text()


def test_under_systemd_it_is_native_to_the_journal(tmp_path: Path, journal: socket.socket) -> None:
    assert said(tmp_path, "it") == ""
    entry = journal.recv(1 << 16).decode().splitlines()
    assert entry == [
        """MESSAGE=not watched sources=["the kernel's log: Permission denied"]""",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=dlhealth",
        """DLHEALTH_SOURCES=["the kernel's log: Permission denied"]""",
    ]


@pytest.mark.parametrize("stream", [None, "", "8:4711"])
def test_elsewhere_it_can_be_read(tmp_path: Path, journal: socket.socket, stream: str | None) -> None:
    """What a desktop's terminal starts has the variable of the desktop."""
    line = said(tmp_path, stream)
    assert line == """level='warning' event='not watched' sources=["the kernel's log: Permission denied"]\n"""
    with pytest.raises(BlockingIOError):
        journal.recv(1)
