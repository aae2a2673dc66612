"""The processes of the running machine, by psutil. Imported only when needed: most diagnoses need no processes."""

import os
import time
from contextlib import suppress

import psutil

from dlhealth.lazy import regex

_SCRIPT = regex(r"/var/lib/dpkg/(?:info|tmp\.ci)/(?:([^/]+)\.)?(?:pre|post)(?:inst|rm)")


def building() -> str:
    """The process of root that builds modules or runs a package's maintainer script, "" if none does. Neither has to
    hold a lock: at boot, dkms runs alone for a kernel that came without its headers."""
    for process in psutil.process_iter(["name", "cmdline", "uids"]):
        said = process.info
        if said["uids"] is None or said["uids"].effective != 0:
            continue  # anybody may call a program of their own "dkms"
        script = next((m for word in said["cmdline"] or () if (m := _SCRIPT.search(word))), None)
        if (script or said["name"] == "dkms") and _is_here(process.pid):
            what = os.path.basename(script[0]) if script else "dkms"
            doing = "packages are being changed" if script else "modules are being built"
            return f"{what} (process {process.pid}{since(process.pid)}) is running: {doing}"
    return ""


def _is_here(pid: int) -> bool:
    """Whether a process sees this machine's files, and not those of a container or a chroot."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat("/"))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # the watcher may not read it


def since(pid: int) -> str:
    """The text ", since 14:02"; empty if the process has ended."""
    try:
        return time.strftime(", since %H:%M", time.localtime(psutil.Process(pid).create_time()))
    except psutil.Error:
        return ""


def started(pid: int) -> int:
    """When a process started, in ticks since the boot, as in proc(5) and polkit. It tells the process from a later one
    with the same number. Raises ProcessLookupError."""
    try:
        seconds: float = psutil.Process(pid).create_time() - psutil.boot_time()
    except psutil.Error as error:
        raise ProcessLookupError(f"process {pid} has ended") from error
    return round(seconds * os.sysconf("SC_CLK_TCK"))


def end_tree(pid: int) -> None:
    """Kill a process and all its descendants, also those in sessions of their own."""
    with suppress(psutil.Error):
        top = psutil.Process(pid)
        for process in (*top.children(recursive=True), top):
            with suppress(psutil.Error):
                process.kill()
