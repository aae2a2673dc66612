"""Requests to the process that repairs: one line of JSON each way. A request names a finding, never what to do.

{"version": 1, "verb": "preview", "finding": ID, "subject": SUBJECT, "digest": ""}     → the plan's digest, and whether it is allowed
{"version": 1, "verb": "apply", "finding": ID, "subject": SUBJECT, "digest": DIGEST} → how it ended
{"version": 1, "verb": "confirm", "finding": "", "subject": "", "digest": ""}        → whether what waited for a restart holds
"""

import json
import socket
import struct
from typing import Any

from dlhealth.records import NamedTuple

SOCKET = "/run/dlhealth-repair.sock"
VERSION = 1
LINE_LIMIT = 4096
"""Bytes of a request."""
_ANSWER_LIMIT = 64 << 10
_PATIENCE = 2
"""Seconds."""


class Request(NamedTuple):
    """A request that waits for its answer."""

    channel: socket.socket
    verb: str
    finding: str
    subject: str
    received: bytearray

    def receive(self) -> bool:
        """Read what has arrived; whether the answer is complete."""
        try:
            chunk = self.channel.recv(1 << 16)
        except OSError:
            return True
        self.received.extend(chunk)
        return not chunk or len(self.received) > _ANSWER_LIMIT

    def answer(self) -> dict[str, Any]:
        """The answer; empty if it is not valid."""
        try:
            found = json.loads(self.received)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Peer(NamedTuple):
    """Who asks, as the kernel says."""

    pid: int
    uid: int


def peer_of(channel: socket.socket) -> Peer:
    pid, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid)


def ask(verb: str, finding: str, subject: str, digest: str = "", path: str = SOCKET) -> Request | None:
    """Send a request; None if nobody listens."""
    line = json.dumps({"version": VERSION, "verb": verb, "finding": finding, "subject": subject, "digest": digest})
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Python's own timeout would fail at once, not wait, while many others connect.
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _PATIENCE, 0))
        channel.connect(path)
        channel.sendall(line.encode() + b"\n")
        channel.setblocking(False)
    except OSError:
        channel.close()
        return None
    return Request(channel, verb, finding, subject, bytearray())
