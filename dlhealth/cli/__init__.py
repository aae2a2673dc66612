"""The command line: one file per command, loaded when it is used."""

import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import IntEnum
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import click

from dlhealth import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "doctor": "Find what is wrong, and why; change nothing.",
    "fix": "Repair what doctor finds: show the plan, ask, repair, verify.",
    "prove": "Test in stages whether the GPU works: driver, kernels, memory, training.",
    "report": "Write a diagnosis as one page, for people.",
    "baseline": "Record what this machine is while it works; show what differs since.",
    "undo": "Undo a repair.",
    "history": "List all repairs: when, why, and how they ended.",
    "show": "Show one repair in full.",
    "rules": "List everything that dlhealth can find.",
    "explain": "Explain one problem: the cause, the repair and its risk.",
    "capture": "Save everything that a diagnosis reads in one archive.",
    "status": "Show what the service knows now.",
    "metrics": "Print what the service knows for Prometheus.",
    "service": "Install, remove or check the service.",
    "config": "Show or check the settings of the service.",
    "version": "Show the versions of dlhealth, its data, Python and the system.",
    "help": "Show the help of a command.",
    "boot-check": "Run by dlhealth-boot.service.",
    "daemon": "Run by dlhealth.service.",
}
"""What each command does. Help and completion use this table, and import no command."""


COMPLETION = "_DLHEALTH_COMPLETE"
"""The environment variable by which a shell asks click for completions."""


class Status(IntEnum):
    """Exit statuses; 130 and 141 are a shell's statuses for SIGINT and SIGPIPE."""

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
    """dlhealth could not do something. Click's own status for that would mean warnings."""

    exit_code = Status.INTERNAL


class InTheWay(Failure):
    """Something else comes first: a repair that runs, one that was begun and has not ended, or a damaged record of repairs."""

    exit_code = Status.USAGE


class Group(click.Group):
    """A group that suggests a command for a mistyped one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            ctx.fail(f"No such command {args[0]!r}{similar(args[0], self.list_commands(ctx))}.")
        return super().resolve_command(ctx, args)


class Commands(Group):
    """Imports a command's file only when that command runs: a start costs what one command needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"dlhealth.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        named = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return named + click.Command.shell_complete(self, ctx, incomplete)


def similar(name: str, known: Iterable[str]) -> str:
    """The suggestion " (did you mean … ?)", or "" if no name is close."""
    from difflib import get_close_matches

    known = list(known)
    folded = {k.lower(): k for k in known}
    close = [folded[k] for k in get_close_matches(name.lower(), folded, 3, 0.5)]
    close = close or [k for k in known if name and name.lower() in k.lower()][:3]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


class _Unwritable(click.ClickException):
    exit_code = Status.INTERNAL


def write(text: str) -> None:
    """Print a report. Characters that the terminal's encoding lacks are escaped."""
    try:
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "backslashreplace"))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _Unwritable(f"cannot write to standard output: {error.strerror}") from error


def printable(text: str) -> str:
    """The text with lines that are safe to print: file names may contain control sequences."""
    from dlhealth.report.style import current_style

    return "\n".join(map(current_style().clean, text.split("\n")))


@click.group(
    "dlhealth",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: dlhealth doctor",
)
@click.version_option(__version__, "-V", "--version", prog_name="dlhealth")
def commands() -> None:
    """Find the root cause when a Linux machine with an NVIDIA GPU breaks.

    Exit status: 0 healthy, 1 warnings, 2 wrong usage or another repair is running, 3 errors, 4 a reboot finishes the
    repair, 5 the repair failed and was rolled back, 6 not known, 7 not proved, 70 internal error.
    """


def main() -> NoReturn:
    """Run the command line of this process."""
    _open_standard_streams()
    # End at once: Python's shutdown takes a tenth of a diagnosis, and its last flush of standard output would report a
    # closed pipe.
    os._exit(run(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Open standard streams that are closed; otherwise the next opened file would take their place."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            from dlhealth.host.exec import nowhere

            setattr(sys, name, nowhere("r" if name == "stdin" else "w"))


def run(arguments: Sequence[str]) -> int:
    """The exit status of a command line. In its standalone mode click would report a closed pipe and a Ctrl-C as status
    1, which means warnings."""
    try:
        status = int(commands.main(list(arguments), "dlhealth", standalone_mode=False) or Status.HEALTHY)
        sys.stdout.flush()
    except click.ClickException as problem:
        said = io.StringIO()
        problem.show(said)
        text = said.getvalue().replace("\n\t", "\n  ")  # a list of choices; the rest may quote an argument
        _tell(lambda: click.echo(printable(text), err=True, nl=False))
        return problem.exit_code
    except (KeyboardInterrupt, click.Abort):
        return Status.INTERRUPTED
    except BrokenPipeError:
        return Status.PIPE_CLOSED
    except SystemExit as end:
        # Click exits like this after a completion, and when it writes help to a closed pipe.
        return int(end.code or 0) if COMPLETION in os.environ else Status.PIPE_CLOSED
    except Exception as error:
        apology = _apology(error)
        _tell(lambda: click.echo(apology, err=True))
        return Status.INTERNAL
    return status


def _tell(what: Callable[[], None]) -> None:
    """Print something; ignore a closed stream, because the exit status says it, too."""
    with suppress(OSError):
        what()


def _apology(error: Exception) -> str:
    # Without the module traceback: imports may be what failed.
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    place = f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})" if frame else ""
    # The message becomes one line without control characters.
    message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
    return (
        f"dlhealth failed: {type(error).__name__}: {message}{place}\n"
        "This is a defect of dlhealth, not of this machine. `dlhealth history` shows what was changed, if anything.\n"
        "Please report it with the line above. `dlhealth doctor --only LAYER` may still work for other layers."
    )
