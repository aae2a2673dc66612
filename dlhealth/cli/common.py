"""What the commands that diagnose have in common: their options, and the diagnosis itself."""

import errno
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dlhealth.cli import Failure, InTheWay, Status, similar, write
from dlhealth.engine import examine as engine
from dlhealth.engine.examine import Examined, Examiner, chosen
from dlhealth.engine.facts import Facts, Options, Unavailable
from dlhealth.engine.load import Loaded, known_names, load_rules
from dlhealth.host import Host, NotAMachine, Unreadable
from dlhealth.host.base import Watch
from dlhealth.host.locate import folder_at, host_at
from dlhealth.lean import NamedTuple
from dlhealth.model import Diagnosis, Health

if TYPE_CHECKING:  # the doctor changes nothing
    from dlhealth.txn.store import Store

_STATUS = {
    Health.HEALTHY: Status.HEALTHY,
    Health.DEGRADED: Status.WARNINGS,
    Health.BROKEN: Status.ERRORS,
    Health.UNKNOWN: Status.UNKNOWN,
}

F = TypeVar("F", bound=Callable[..., Any])


class Request(NamedTuple):
    """Which machine to diagnose, and how far."""

    root: str = "/"
    only: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    next_boot: bool = False


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def diagnosis_options(function: F) -> F:
    """The options of every command that diagnoses, and `--json`."""
    for add in (
        json_option,
        click.option("--next-boot", is_flag=True, help="Judge the kernel that the boot loader will start next."),
        click.option(
            "--python",
            "pythons",
            multiple=True,
            metavar="EXE",
            help="Look at this Python environment (repeatable). [default: those in homes, /opt and conda's list]",
        ),
        click.option(
            "--user",
            "users",
            multiple=True,
            metavar="NAME",
            help="Look at this user's login (repeatable). [default: all human users]",
        ),
        click.option(
            "--only",
            multiple=True,
            metavar="ID|LAYER",
            help="Just these rules, and those that could explain what they find (repeatable).",
        ),
        click.option(
            "--root",
            default="/",
            metavar="DIR|FILE",
            help="The machine to diagnose: a mounted disk, a container's tree, a bundle, an nvidia-bug-report.log, a "
            "sosreport, or a directory of pasted outputs. [default: /]",
        ),
    ):
        function = add(function)
    return function


def examine(request: Request, watch: Watch | None = None) -> Examined:
    """Diagnose. Raises click.UsageError for a name, a folder or a file that is not there."""
    rules = chosen_rules(load_rules(), request.only)
    try:
        host = host_at(request.root)
    except NotAMachine as problem:
        raise click.BadParameter(str(problem), param_hint="--root") from problem

    def options(examiner: Examiner) -> Options:
        pythons = tuple(_existing_python(host, exe) for exe in request.pythons)
        options = Options(request.users, pythons, request.next_boot)
        _check_users(examiner.facts(options), request.users)
        return options

    return engine.examine(host, options, rules, watch)


def chosen_rules(loaded: Loaded, only: Iterable[str], hint: str = "--only") -> Loaded:
    """The rules that `--only` names, or an argument that is called `hint`."""
    try:
        return chosen(loaded, only)
    except KeyError as problem:
        name = str(problem.args[0])
        known = known_names(loaded.rules)
        raise click.BadParameter(
            f"{name!r} is neither a rule nor a layer{similar(name, known)}; `dlhealth rules` lists them.",
            param_hint=hint,
        ) from problem


def _existing_python(host: Host, exe: str) -> str:
    path = exe
    if host.name == "/":
        from shutil import which

        path = os.path.abspath(which(exe) or exe)
    elif not exe.startswith("/"):
        raise click.BadParameter(f"{exe!r} must be a path inside --root that starts with /", param_hint="--python")
    try:
        there = host.exists(path)
    except Unreadable:
        there = True  # the diagnosis says why it can't look
    if not there or not exe:
        raise click.BadParameter(f"there is no {path if exe else repr(exe)} on this machine", param_hint="--python")
    return path


def _check_users(facts: Facts, names: tuple[str, ...]) -> None:
    if not names:
        return
    from dlhealth.engine.people import people

    try:
        found = people(facts)
    except Unavailable as problem:
        raise click.BadParameter(f"users can't be looked up: {problem}", param_hint="--user") from problem
    for name in names:
        if name not in found:
            everybody = _names_in_passwd(facts.get(Host))
            raise click.BadParameter(
                f"there is no user {name!r} on this machine{similar(name, everybody)}", param_hint="--user"
            )


def _names_in_passwd(host: Host) -> list[str]:
    try:
        return [line.split(":")[0] for line in (host.text("/etc/passwd") or "").splitlines()]
    except Unreadable:
        return []


def store_of(root: str) -> "Store":
    """The transactions of the machine that `--root` names. Raises click.BadParameter for what is no machine, or none that
    can be changed."""
    from dlhealth.txn.store import Store

    try:
        store = Store(folder_at(root))
    except NotAMachine as problem:
        raise click.BadParameter(str(problem), param_hint="--root") from problem
    if unreachable := store.out_of_reach():
        raise click.BadParameter(unreachable, param_hint="--root")
    return store


def failure(store: "Store", problem: Exception) -> Failure:
    """What a command ends with that could not use the store, or could not finish what it did to the machine."""
    from dlhealth.txn.store import Busy, Damaged

    unusable = isinstance(problem, OSError) and problem.errno in (errno.ELOOP, errno.ENOTDIR)
    kind = InTheWay if unusable or isinstance(problem, (Busy, Damaged)) else Failure
    return kind(store.explain(problem))


def show(text: str, as_json: bool) -> None:
    """What will be done, before it is. With --json standard output is the document's."""
    if as_json:
        click.echo(text, err=True, nl=False)
    else:
        write(text)


def agreed(question: str) -> bool:
    """Ask a person. No answer is a no; Ctrl-C ends dlhealth, as everywhere."""
    try:
        return click.confirm(f"\n{question}", err=True)
    except click.Abort as end:  # click makes one of both
        if isinstance(end.__context__, KeyboardInterrupt):
            click.echo(err=True)
            raise
        click.echo("\nNobody answered, so this was not done. With --yes, dlhealth does not ask.", err=True)
        return False


def status_of(diagnosis: Diagnosis) -> Status:
    """The exit status that a diagnosis means."""
    return _STATUS[diagnosis.health]
