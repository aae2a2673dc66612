"""What the tests of the lab see of a machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.lab import LabMachine

# Logs, caches, and what apt and dkms write anew whatever they do.
_VOLATILE = (
    "var/lib/dlhealth", "var/log", "var/cache", "var/lib/apt", "run", "tmp", "root", "var/lib/dpkg/lock", "var/tmp",
    "var/lib/dpkg/triggers", "etc/ld.so.cache", "var/lib/dpkg/status-old", "var/lib/dpkg/info/format",
    "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old", "var/lib/systemd/deb-systemd-helper-enabled",
)  # fmt: skip


def dlhealth(lab: LabMachine, *words: str) -> tuple[int, dict[str, Any]]:
    """From outside, with this checkout: status and JSON document."""
    command = [sys.executable, "-m", "dlhealth", words[0], "--root", str(lab.root), "--json", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stderr
    return done.returncode, json.loads(done.stdout)


def packages(lab: LabMachine) -> str:
    return lab.run("dpkg-query", "-W", "-f", "${binary:Package} ${Version} ${db:Status-Abbrev}\n").stdout


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Names, kinds, owners, modes and sizes of all that a person would call the machine."""
    found: dict[str, tuple[object, ...]] = {}
    for where, folders, names in os.walk(root):
        inside = os.path.relpath(where, root)
        folders[:] = [f for f in folders if os.path.normpath(f"{inside}/{f}") not in _VOLATILE]
        for name in names:
            path = os.path.normpath(f"{inside}/{name}")
            status = os.lstat(f"{where}/{name}")
            if not path.startswith(_VOLATILE):
                made_anew = path.startswith(("boot/initrd", "lib/modules", "lib/modules")) or path.endswith("/make.log")
                size = 0 if made_anew else status.st_size
                found[path] = (status.st_mode, status.st_uid, status.st_gid, size)
    return found


def doctor(root: object, *options: str) -> tuple[int, dict[str, Any]]:
    """From outside, with this checkout."""
    command = [sys.executable, "-m", "dlhealth", "doctor", "--root", str(root), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 3, 6), done.stderr
    report = json.loads(done.stdout)
    assert not report["checks"]["failed"]
    return done.returncode, report


def roots(report: dict[str, Any]) -> set[str]:
    """The root causes, without notes."""
    return {f["id"] for f in report["findings"] if not f["caused_by"] and f["severity"] != "note"}


COMMAND = "/opt/dlhealth/bin/dlhealth"


def within(seconds: float, look: Callable[[], Any]) -> Any:
    """What a look gives, as soon as it gives anything."""
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert found
    return found


def alerts(lab: LabMachine, kind: str, id: str = "") -> list[dict[str, str]]:
    words = [f"MESSAGE_ID={kind}", *([f"DLHEALTH_ID={id}"] if id else [])]
    printed = lab.run("journalctl", "--no-pager", "-o", "json", *words).stdout
    return [json.loads(line) for line in printed.splitlines()]
