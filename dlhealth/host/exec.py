"""The only place that starts programs. Standard library only (rescue core)."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dlhealth.host.base import Output
from dlhealth.lean import NamedTuple

PROGRAM_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
OUTPUT_LIMIT = 8 << 20
"""Bytes of standard output that are read before a program is stopped."""

_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": ":".join(PROGRAM_FOLDERS), "HOME": "/", "TERM": "dumb"}


def find_program(name: str) -> str | None:
    """The absolute path of a system program; the PATH of the caller may be what is broken, so it is not asked."""
    if name.startswith("/"):
        return name if os.access(name, os.X_OK) else None
    return next((p for f in PROGRAM_FOLDERS if os.access(p := f"{f}/{name}", os.X_OK)), None)


def run(
    argv: Sequence[str], timeout: float, *, pass_fds: Sequence[int] = (), environment: Mapping[str, str] | None = None
) -> Output:
    """Run a program to its end, within `timeout` seconds.

    At the limit it is killed with its whole process group. A process that even SIGKILL does not end (it hangs in the
    kernel, as below a wedged driver) is left behind: waiting for it would hang the doctor too.
    """
    program = find_program(argv[0])
    if program is None:
        return Output(None, "", problem=f"{argv[0]} is not installed")
    try:
        child = subprocess.Popen(  # noqa: S603  (an absolute path and a list: no shell)
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_ENVIRONMENT, **(environment or {})},
            cwd="/",
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except OSError as error:
        return Output(None, "", problem=f"{argv[0]} could not be started: {error.strerror}")
    return _collect(child, argv[0], time.monotonic() + timeout, timeout)


def _collect(child: "subprocess.Popen[bytes]", name: str, deadline: float, timeout: float) -> Output:
    assert child.stdout and child.stderr  # noqa: S101  (both are pipes, above)
    received = {child.stdout: bytearray(), child.stderr: bytearray()}
    waiting = [child.stdout, child.stderr]
    problem = ""
    while waiting and not problem:
        ready, _, _ = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            problem = f"{name} did not answer within {timeout:g} seconds"
        for stream in ready:
            chunk = os.read(stream.fileno(), 1 << 16)
            if not chunk:
                waiting.remove(stream)
            received[stream] += chunk
            if len(received[stream]) > OUTPUT_LIMIT:
                problem = f"{name} printed more than {OUTPUT_LIMIT >> 20} MiB"
    status: int | None = None
    if not problem:
        try:
            status = child.wait(max(0.05, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            problem = f"{name} did not end within {timeout:g} seconds"
    if problem:
        try:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(0.2)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
    stdout, stderr = (received[s].decode(errors="surrogateescape") for s in (child.stdout, child.stderr))
    child.stdout.close()
    child.stderr.close()
    return Output(status, stdout, stderr, problem)


class Started(NamedTuple):
    """A program that runs beside its caller, who reads what it prints."""

    child: "subprocess.Popen[bytes]"
    output: int
    """File descriptor of its standard output."""

    def end(self) -> str:
        """End it, with its whole process group, if it has not ended; what went wrong, "" where it succeeded."""
        os.close(self.output)
        try:
            status = self.child.wait(0.5)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(0.5)
            return "it did not end"
        return f"it ended with status {status}" if status else ""


def start(argv: Sequence[str]) -> Started:
    """Start a program without waiting for it. Raises OSError."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        child = subprocess.Popen(  # noqa: S603  (an absolute path and a list: no shell)
            argv, stdin=subprocess.DEVNULL, stdout=writer, env=_ENVIRONMENT, cwd="/", start_new_session=True
        )
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return Started(child, reader)
