"""A small FUSE in a mount namespace of its own, beside a command: a file system that does not answer, or not always.

    unshare --mount --propagation private python tests/fuse.py --at DIR [--person NAME] [--file NAME]... [--stuck NAME]... COMMAND...

Without --file no request is ever answered, as when a server is down. With it the file system answers, and holds these
files; what is done with one that is named by --stuck is never answered. --person adds somebody to /etc/passwd whose home
is DIR. The exit status is the command's. /home is empty but for what is mounted there.
"""

import argparse
import ctypes
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from errno import ENOENT, ENOSYS
from functools import cache
from pathlib import Path
from typing import NamedTuple

_BIND = 0x1000
_UID = 30001
_FORGET, _INTERRUPT, _BATCH_FORGET = 2, 36, 42
_SILENT = object()


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [word.encode() for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")


class Server:
    """Answers the kernel's requests (fuse(4), linux/fuse.h) for one directory of files."""

    def __init__(self, connection: int, files: list[str], stuck: list[str]) -> None:
        self._connection = connection
        self._names = dict(enumerate([*files, *stuck], 2))
        self._stuck = {number for number, name in self._names.items() if name in stuck}

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._connection, 1 << 17)
            except OSError:
                return
            opcode, unique, node = struct.unpack_from("<4xIQQ", request)
            answer = self._answer(opcode, node, request[40:])
            if answer is _SILENT:
                continue
            error, content = (-answer, b"") if isinstance(answer, int) else (0, answer)
            os.write(self._connection, struct.pack("<IiQ", 16 + len(content), error, unique) + content)

    def _answer(self, opcode: int, node: int, body: bytes):  # type: ignore[no-untyped-def]
        if opcode in (_FORGET, _INTERRUPT, _BATCH_FORGET):
            return _SILENT
        if opcode == 26:  # INIT
            return struct.pack("<IIIIHHI", 7, 22, 1 << 16, 0, 8, 8, 1 << 16)
        if opcode == 1:  # LOOKUP
            wanted = body.rstrip(b"\0").decode()
            found = next((n for n, name in self._names.items() if name == wanted), 0)
            return struct.pack("<QQQQII", found, 0, 0, 0, 0, 0) + self._attributes(found) if found else ENOENT
        if opcode == 3:  # GETATTR
            return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if node in self._stuck:
            return _SILENT
        if opcode == 17:  # STATFS
            return struct.pack("<5Q4I24x", 1000, 900, 900, 1000, 900, 4096, 255, 4096, 0)
        if opcode in (14, 27):  # OPEN, OPENDIR
            return struct.pack("<QII", 0, 0, 0)
        if opcode in (18, 25, 29):  # RELEASE, FLUSH, RELEASEDIR
            return b""
        if opcode in (15, 28):  # READ, READDIR
            offset = struct.unpack_from("<8xQ", body)[0]
            return b"" if offset else (b"# nothing\n" if opcode == 15 else self._entries())
        return ENOSYS

    def _attributes(self, node: int) -> bytes:
        mode, size = (0o40755, 0) if node == 1 else (0o100644, 10)
        return struct.pack("<6Q10I", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, _UID, _UID, 0, 4096, 0)

    def _entries(self) -> bytes:
        rows = b""
        for number, name in self._names.items():
            row = struct.pack("<QQII", number, number, len(name), 8) + name.encode()
            rows += row + bytes(-len(row) % 8)
        return rows


class Ended(NamedTuple):
    """A command that ran beside a FUSE."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def beside(arguments: Sequence[str], command: Sequence[str], timeout: float = 60) -> Ended:
    """Run a command beside a FUSE that `arguments` describe."""
    started = time.monotonic()
    words = [*_IN_NAMESPACE, sys.executable, "-m", "tests.fuse", *arguments, *command]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=timeout
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


_IN_NAMESPACE = ("unshare", "--mount", "--propagation", "private")


@cache
def unusable() -> str:
    """Why a FUSE can't be mounted here, "" if it can."""
    if os.geteuid() or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs root and /dev/fuse"
    tried = beside(["--at", "/home/x"], ["true"])
    return "" if tried.status == 0 else f"no FUSE can be mounted here: {tried.stderr[-200:]}"


def add_person(name: str, home: str) -> None:
    with open("/etc/passwd", encoding="utf-8") as file:
        passwd = file.read()
    with tempfile.NamedTemporaryFile("w", dir="/home") as file:
        file.write(f"{passwd}{name}:x:{_UID}:{_UID}::{home}:/bin/bash\n")
        file.flush()
        os.chmod(file.name, 0o644)
        mount(file.name, "/etc/passwd", flags=_BIND)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at", required=True)
    parser.add_argument("--kind", default="fuse.sshfs")
    parser.add_argument("--person", default="")
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("--stuck", action="append", default=[])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    mount("none", "/home", "tmpfs")
    if args.person:
        add_person(args.person, args.at)
    os.makedirs(args.at, exist_ok=True)
    connection = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={connection},rootmode=40000,user_id=0,group_id=0,allow_other"
    mount("server:/export", args.at, args.kind, options=options)
    if args.file or args.stuck:
        threading.Thread(target=Server(connection, args.file, args.stuck).serve, daemon=True).start()
    child = subprocess.Popen(args.command, stdin=subprocess.DEVNULL)
    while child.poll() is None:
        time.sleep(0.02)
    sys.stdout.flush()
    os._exit(child.returncode if child.returncode >= 0 else 128 - child.returncode)


if __name__ == "__main__":
    sys.exit(main())
