"""What is asked of the process that repairs: one line of JSON each way, over a socket that only says what it wants.

{"version": 1, "verb": "preview", "finding": ID, "subject": SUBJECT, "digest": ""}     → the plan's digest, and whether it is allowed
{"version": 1, "verb": "apply", "finding": ID, "subject": SUBJECT, "digest": DIGEST} → how it ended
{"version": 1, "verb": "confirm", "finding": "", "subject": "", "digest": ""}        → whether what waited for a restart holds
"""

import json
import socket
from typing import Any

from dlhealth.lean import NamedTuple

SOCKET = "/run/dlhealth-repair.sock"
VERSION = 1
LINE_LIMIT = 4096
"""Bytes of a request."""
_ANSWER_LIMIT = 64 << 10


class Request(NamedTuple):
    """A request whose answer is awaited."""

    channel: socket.socket
    verb: str
    finding: str
    subject: str
    received: bytearray

    def receive(self) -> bool:
        """Take what has arrived; whether the answer is complete."""
        try:
            chunk = self.channel.recv(1 << 16)
        except OSError:
            return True
        self.received.extend(chunk)
        return not chunk or len(self.received) > _ANSWER_LIMIT

    def answer(self) -> dict[str, Any]:
        """The answer; empty where it is none."""
        try:
            found = json.loads(self.received)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def ask(verb: str, finding: str, subject: str, digest: str = "", path: str = SOCKET) -> Request | None:
    """Send a request; None where nobody listens."""
    line = json.dumps({"version": VERSION, "verb": verb, "finding": finding, "subject": subject, "digest": digest})
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        channel.settimeout(1)
        channel.connect(path)
        channel.sendall(line.encode() + b"\n")
        channel.setblocking(False)
    except OSError:
        channel.close()
        return None
    return Request(channel, verb, finding, subject, bytearray())
