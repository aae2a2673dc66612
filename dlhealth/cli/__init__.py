"""The command line: one file per command, loaded when it is used."""

import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from importlib import import_module
from typing import NoReturn

import click

from dlhealth import __version__

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
    INTERNAL = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class Commands(click.Group):
    """Imports a command's file only when that command is asked for: a start costs what one command needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"dlhealth.cli.{cmd_name.replace('-', '_')}").command
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dlhealth")
def commands() -> None:
    """Find the root cause when a Linux machine with an NVIDIA GPU breaks."""


def main() -> NoReturn:
    """Run the command line that this process was started with."""
    # At once: taking the interpreter apart takes a tenth of a diagnosis, and Python's last flush of standard output
    # would complain of a closed pipe.
    os._exit(run(sys.argv[1:]))


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
        problem.show()
        return problem.exit_code
    except (KeyboardInterrupt, click.Abort):
        return Status.INTERRUPTED
    except BrokenPipeError:
        return Status.PIPE_CLOSED
    except Exception as error:
        click.echo(_apology(error), err=True)
        return Status.INTERNAL
    return status


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
