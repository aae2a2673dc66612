"""The only place that starts programs. Standard library only (rescue core)."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from dlhealth.host.base import Output
from dlhealth.records import NamedTuple

PROGRAM_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
OUTPUT_LIMIT = 8 << 20
"""The most bytes of standard output that are read before a program is stopped."""

_QUIET = 1.0
"""After so many seconds without output, a program is checked."""

_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": ":".join(PROGRAM_FOLDERS), "HOME": "/", "TERM": "dumb"}


def nowhere(mode: str) -> TextIO:
    """A replacement for a closed standard stream: the lowest free number is the missing one."""
    return cast(TextIO, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def find_program(name: str) -> str | None:
    """The absolute path of a system program. The caller's PATH is not used, because it may be broken."""
    if name.startswith("/"):
        return name if os.access(name, os.X_OK) else None
    return next((p for f in PROGRAM_FOLDERS if os.access(p := f"{f}/{name}", os.X_OK)), None)


def as_root(command: str) -> str:
    """The command line that a person types to run a command as root: with sudo, or with su if sudo is not installed."""
    if os.geteuid() == 0:
        return command
    has_sudo = any(os.access(f"{folder}/sudo", os.X_OK) for folder in PROGRAM_FOLDERS)
    return f"sudo {command}" if has_sudo else f"su -c '{command}'"


def run(
    argv: Sequence[str],
    timeout: float,
    *,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    heard: Callable[[bytes], None] | None = None,
) -> Output:
    """Run a program to its end, within `timeout` seconds. `heard` gets its standard output piece by piece, as it comes.

    At the limit it is killed with its whole process group. A process that survives even SIGKILL (it hangs in the
    kernel, for example in a broken driver) is left behind: waiting for it would hang the doctor too.
    """
    program = find_program(argv[0])
    if program is None:
        return Output(None, "", problem=f"{argv[0]} is not installed")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    complaints, complain = os.pipe2(os.O_CLOEXEC)
    try:
        child = _spawn([program, *argv[1:]], writer, complain, pass_fds, environment or {})
    except OSError as error:
        os.close(reader)
        os.close(complaints)
        return Output(None, "", problem=f"{argv[0]} could not start: {error.strerror}")
    finally:
        os.close(writer)
        os.close(complain)
    try:
        return _collect(child, reader, complaints, argv[0], timeout, heard)
    finally:
        os.close(reader)
        os.close(complaints)


def _spawn(
    argv: list[str],
    stdout: int,
    stderr: int | None,
    pass_fds: Sequence[int],
    environment: Mapping[str, str],
    stdin: int | None = None,
) -> int:
    """The process number. Without `stdin` there is nothing to read; without `stderr` its errors go to dlhealth's. It
    does not use the module subprocess, whose import takes a twentieth of a diagnosis."""
    for fd in pass_fds:
        os.set_inheritable(fd, True)
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
    ]
    if stderr is not None:
        actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
    return os.posix_spawn(
        argv[0],
        argv,
        {**_ENVIRONMENT, **environment},
        file_actions=actions,
        setsid=True,
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # signals that Python ignores
    )


def _collect(
    child: int, reader: int, complaints: int, name: str, timeout: float, heard: Callable[[bytes], None] | None
) -> Output:
    deadline = time.monotonic() + timeout
    received = {reader: bytearray(), complaints: bytearray()}
    waiting = [reader, complaints]
    problem, left = "", 0
    while waiting and not problem:
        ready, _, _ = select.select(waiting, [], [], max(0.0, min(_QUIET, deadline - time.monotonic())))
        if not ready and _has_ended(child):
            break  # programs that it left running (such as a service of a maintainer script) keep its output open
        if not ready and time.monotonic() >= deadline:
            problem = f"{name} did not answer within {timeout:g} seconds"
        for stream in ready:
            chunk = os.read(stream, 1 << 16)
            if not chunk:
                waiting.remove(stream)
            received[stream] += chunk
            if heard and stream == reader:
                heard(chunk)
            if len(received[stream]) > OUTPUT_LIMIT:
                problem = f"{name} printed more than {OUTPUT_LIMIT >> 20} MiB"
    status = None if problem else _wait(child, max(0.05, deadline - time.monotonic()))
    if status is None:
        problem = problem or f"{name} did not finish within {timeout:g} seconds"
        left = 0 if _kill(child) else child
    stdout, stderr = (received[s].decode(errors="surrogateescape") for s in (reader, complaints))
    return Output(status, stdout, stderr, problem, left)


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait(child: int, seconds: float) -> int | None:
    """The exit status (negative: the signal that ended it), None if it did not end in time."""
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        # A program that has closed its output ends at once: this loop hardly ever repeats.
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _kill(child: int) -> bool:
    """End a process with its group; whether it ended."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return _wait(child, 0.2) is not None


class Started(NamedTuple):
    """A program that runs beside its caller, which reads the output."""

    pid: int
    output: int
    """The file descriptor of its standard output."""

    def end(self) -> str:
        """End it, with its whole process group, if it has not ended; what went wrong, "" if it succeeded."""
        os.close(self.output)
        status = _wait(self.pid, 0.5)
        if status is None:
            _kill(self.pid)
            return "it did not finish"
        return f"it ended with status {status}" if status else ""


def start(argv: Sequence[str]) -> Started:
    """Start a program without waiting for it. Raises OSError."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        return Started(_spawn(list(argv), writer, None, (), {}), reader)
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)


def answer(argv: Sequence[str], connection: int) -> int:
    """Start a program with a connection as its standard input; its number. Its output goes where dlhealth's own goes.
    Raises OSError."""
    return _spawn(list(argv), 1, None, (), {}, connection)


def feed(argv: Sequence[str], text: bytes, environment: Mapping[str, str]) -> int:
    """Run a program that shows a text to the person at the terminal, until that person ends it; its status, not 0 if it
    could not start. It gets this environment and no other, and Ctrl-C."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with suppress(BrokenPipeError), os.fdopen(writer, "wb") as pipe:  # it may end before it has read everything
            try:
                child = os.posix_spawn(
                    argv[0],
                    list(argv),
                    environment,
                    file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)],
                    setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ),
                )
            finally:
                os.close(reader)
            pipe.write(text)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except OSError:
        return -1
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def held(argv: Sequence[str], timeout: float) -> Iterator[bool]:
    """Keep a program running that ends when its standard input ends: when the block is left, and when this process ends
    for whatever reason. It echoes its input, like cat. The block begins with True after the first echo, or with False
    if there is none within `timeout` seconds or the program is not installed: that is not an error."""
    program = find_program(argv[0])
    if program is None:
        yield False
        return
    # Closed in every other started program: one that outlives this process must not keep it alive.
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        # Nobody reads its errors: they go to its standard output.
        child = _spawn([program, *argv[1:]], writer, writer, (), {}, theirs)
    except OSError:
        child = 0
    os.close(theirs)
    os.close(writer)
    try:
        yield child > 0 and _echoes(ours, reader, timeout)
    finally:
        os.close(ours)
        if child:
            Started(child, reader).end()
        else:
            os.close(reader)


_WORD = b"held\n"


def _echoes(writer: int, reader: int, timeout: float) -> bool:
    with suppress(BrokenPipeError):
        os.write(writer, _WORD)
    ready, _, _ = select.select([reader], [], [], timeout)
    return bool(ready) and os.read(reader, len(_WORD)) == _WORD
