"""Runs inside an emulated machine, by the system's Python: carries out the commands that come over one port, and tells
over another what is written to dpkg's log and to the journal of the active transaction, as it is written."""

import json
import os
import socket
import subprocess
import threading
import time

COMMANDS, TOLD = "/dev/virtio-ports/commands", "/dev/virtio-ports/told"
FOLLOWED = ("/var/log/dpkg.log", "/var/lib/dlhealth/txn/active/journal")
# Looking more often would take the emulated processor from what is looked at.
_PAUSE = 0.005


def opened(path: str) -> int:
    """A port; udev makes its name early at boot, and the host may not be there yet."""
    while True:
        try:
            return os.open(path, os.O_RDWR)
        except OSError:
            time.sleep(0.1)


def follow(port: int) -> None:
    """Everything that is appended from now on; a file that is another one is told from its beginning."""
    seen = {path: state(path) for path in FOLLOWED}
    while True:
        for path, (before, offset) in seen.items():
            now, size = state(path)
            if now != before:
                offset = 0
            if size > offset:
                with open(path, "rb") as file:
                    file.seek(offset)
                    new = file.read(size - offset)
                os.write(port, new)
            seen[path] = (now, size)
        time.sleep(_PAUSE)


def state(path: str) -> "tuple[int, int]":
    """Which file it is, and its size."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_ino, status.st_size


def ready() -> None:
    """Tell systemd that from here on everything is followed: what comes after may start (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def main() -> None:
    told = opened(TOLD)
    threading.Thread(target=follow, args=(told,), daemon=True).start()
    ready()
    with open(opened(COMMANDS), "r+b", buffering=0) as port:
        port.write(b'{"ready": true}\n')
        while line := port.readline():
            done = subprocess.run(json.loads(line), stdin=subprocess.DEVNULL, capture_output=True, check=False)
            answer = {"status": done.returncode, "out": done.stdout.decode(errors="replace")}
            answer["err"] = done.stderr.decode(errors="replace")
            view = memoryview(json.dumps(answer).encode() + b"\n")
            while view:
                view = view[port.write(view) :]


if __name__ == "__main__":
    main()
