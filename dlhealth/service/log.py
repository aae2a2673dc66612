"""The service's own log: what it does, not what it finds. Goes straight to the journal if systemd started the process."""

import os
import sys
from typing import Any

import structlog

from dlhealth.host.alert import encode, send

_PRIORITY = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}


def logger() -> Any:
    """A structlog logger. Import this module only to log something: structlog doubles the memory of a small service."""
    to_journal = _is_journal(sys.stderr.fileno())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            *([_as_entry] if to_journal else [structlog.processors.KeyValueRenderer(key_order=["level", "event"])]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr) if not to_journal else _Journal,
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger()


def _is_journal(fd: int) -> bool:
    """Whether a stream goes to the journal (systemd.exec(5)). A program started from a desktop's terminal inherits the
    variable, but not the stream."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _as_entry(logger: Any, method: str, fields: Any) -> bytes:
    level = fields.pop("level")
    event = fields.pop("event")
    more = " ".join(f"{name}={value!r}" for name, value in fields.items())
    named = {f"DLHEALTH_{name.upper()}": str(value) for name, value in fields.items()}
    return encode(
        {
            "MESSAGE": f"{event} {more}".strip(),
            "PRIORITY": _PRIORITY[level],
            "SYSLOG_IDENTIFIER": "dlhealth",
            **named,
        }
    )


class _Journal:
    def __init__(self, *arguments: object) -> None:
        pass

    def msg(self, entry: bytes) -> None:
        send(entry)

    debug = info = warning = error = critical = msg
