"""The command line: one file per command, loaded when it is used."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import partial
from importlib import import_module
from typing import Any, NoReturn, TypeVar

import click

from dlhealth import __version__

C = TypeVar("C", bound=click.Command)

COMMANDS = (
    "doctor",
    "fix",
    "undo",
    "history",
    "show",
    "rules",
    "explain",
    "capture",
    "status",
    "boot-check",
    "daemon",
    "service",
)


class Status(IntEnum):
    """Exit statuses; 130 and 141 are what a shell makes of SIGINT and SIGPIPE."""

    HEALTHY = 0
    WARNINGS = 1
    USAGE = 2
    ERRORS = 3
    AFTER_REBOOT = 4
    ROLLED_BACK = 5
    UNKNOWN = 6
    NOT_PROVED = 7
    INTERNAL = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class Failure(click.ClickException):
    """What dlhealth could not do; click's own status for it would mean that only warnings are left."""

    exit_code = Status.INTERNAL

    def format_message(self) -> str:
        return printable(self.message)


class InTheWay(Failure):
    """Another repair comes first: one that runs, or one that was begun and has not ended."""

    exit_code = Status.USAGE


class Commands(click.Group):
    """Imports a command's file only when that command is asked for: a start costs what one command needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"dlhealth.cli.{cmd_name.replace('-', '_')}").command
        return command


class Option(click.Option):
    """One whose help is a line as it stands: click's own tidies and translates that of every option at every start."""

    def __init__(self, names: Sequence[str], *, help: str, **settings: Any) -> None:
        super().__init__(names, **settings)
        self.help = help


option = partial(click.option, cls=Option)


def _tells(*names: str, help: str, text: Callable[[click.Context], str]) -> Option:
    """An option that prints something and ends the program."""

    def tell(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
        if wanted:
            write(f"{text(context)}\n")
            context.exit()

    return Option(names, help=help, is_flag=True, expose_value=False, is_eager=True, callback=tell)


class _Unwritable(click.ClickException):
    exit_code = Status.INTERNAL


def write(text: str) -> None:
    """Print a report. What the terminal's encoding lacks is escaped instead of ending in an exception."""
    try:
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "backslashreplace"))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _Unwritable(f"standard output can't be written: {error.strerror}") from error


def printable(text: str) -> str:
    """Lines that are safe to print: a name of a file, which anybody may have chosen, may hold control sequences."""
    from dlhealth.report.style import current_style

    return "\n".join(map(current_style().clean, text.split("\n")))


def subcommand(
    name: str,
    short: str = "",
    cls: type[C] = click.Command,  # type: ignore[assignment]
    **settings: Any,
) -> Callable[[Callable[..., Any]], C]:
    """As click.command; `short` is its line in the list of all commands."""

    def made(function: Callable[..., Any]) -> C:
        command = click.command(name, cls, short_help=short, add_help_option=False, **settings)(function)
        command.params.append(_tells("-h", "--help", help="Show this message and exit.", text=click.Context.get_help))
        return command

    return made


@subcommand("dlhealth", cls=Commands)
def commands() -> None:
    """Find the root cause when a Linux machine with an NVIDIA GPU breaks."""


commands.params.insert(
    0, _tells("--version", help="Show the version and exit.", text=lambda _: f"dlhealth, version {__version__}")
)


def main() -> NoReturn:
    """Run the command line that this process was started with."""
    _open_standard_streams()
    # At once: taking the interpreter apart takes a tenth of a diagnosis, and Python's last flush of standard output
    # would complain of a closed pipe.
    os._exit(run(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Who starts dlhealth may have closed them, and a file that is opened next would take their place."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            from dlhealth.host.exec import nowhere

            setattr(sys, name, nowhere("r" if name == "stdin" else "w"))


def run(arguments: Sequence[str]) -> int:
    """The exit status of a command line. Click's own `main` would report a closed pipe, and a Ctrl-C, as status 1,
    which is taken."""
    try:
        with commands.make_context("dlhealth", list(arguments)) as context:
            status = int(commands.invoke(context) or Status.HEALTHY)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as problem:
        _tell(problem.show)
        return problem.exit_code
    except (KeyboardInterrupt, click.Abort):
        return Status.INTERRUPTED
    except BrokenPipeError:
        return Status.PIPE_CLOSED
    except Exception as error:
        apology = _apology(error)
        _tell(lambda: click.echo(apology, err=True))
        return Status.INTERNAL
    return status


def _tell(what: Callable[[], None]) -> None:
    """To who is no longer there nothing can be told; the exit status says it all the same."""
    with suppress(OSError):
        what()


def _apology(error: Exception) -> str:
    # Without the module traceback: what failed may be the imports.
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    place = f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})" if frame else ""
    # Whatever the message holds, it is printed as one line without control characters.
    message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
    return (
        f"dlhealth failed: {type(error).__name__}: {message}{place}\n"
        "This is a defect of dlhealth and says nothing about this machine. `dlhealth history` shows what was changed, if anything.\n"
        "Please report it with the line above. `dlhealth doctor --only LAYER` may still work for other layers."
    )
