"""The options of the commands that diagnose, and the diagnosis itself."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from shlex import join
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dlhealth.cli import Failure, InTheWay, Status, similar, write
from dlhealth.engine import examine as engine
from dlhealth.engine.examine import Examined, Examiner
from dlhealth.engine.facts import Facts, Options, Unavailable
from dlhealth.engine.load import Loaded, chosen, known_names, load_rules
from dlhealth.host import Host, NotAMachine, Unreadable
from dlhealth.host.base import Watch
from dlhealth.host.exec import as_root
from dlhealth.host.locate import folder_at, host_at
from dlhealth.host.remote import silence_at
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis, Health
from dlhealth.records import NamedTuple

if TYPE_CHECKING:  # the doctor changes nothing, and asks no service
    from dlhealth.service.state import ServiceState
    from dlhealth.txn.store import Store

_STATUS = {
    Health.HEALTHY: Status.HEALTHY,
    Health.DEGRADED: Status.WARNINGS,
    Health.BROKEN: Status.ERRORS,
    Health.UNKNOWN: Status.UNKNOWN,
}

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Selection(NamedTuple):
    """Which machine to diagnose, and which parts of it."""

    root: str = "/"
    only: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    next_boot: bool = False


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


root_option = click.option(
    "--root",
    default="/",
    metavar="DIR|FILE",
    help="The machine to diagnose: a mounted disk, a container's root directory, an archive of dlhealth capture, "
    "an nvidia-bug-report.log, a sosreport, or a directory of pasted outputs. [default: /]",
)

disk_option = click.option(
    "--root", default="/", metavar="DIR", help="The machine: the directory where its disk is mounted. [default: /]"
)


def machine_options(function: F) -> F:
    """The options that say what to check of a machine, and for whom."""
    for add in (
        click.option("--next-boot", is_flag=True, help="Check the kernel that will boot next."),
        click.option(
            "--python",
            "pythons",
            multiple=True,
            metavar="EXE",
            help="Check this Python environment (repeatable). [default: those in homes, /opt and conda's list]",
        ),
        click.option(
            "--user",
            "users",
            multiple=True,
            metavar="NAME",
            help="Check this user's login (repeatable). [default: all human users]",
        ),
    ):
        function = add(function)
    return function


def diagnosis_options(function: F) -> F:
    """The options of every command that diagnoses by chosen rules, and `--json`."""
    only = click.option(
        "--only",
        multiple=True,
        metavar="ID|LAYER",
        help="Only these rules, and the rules for their possible causes (repeatable).",
    )
    return machine_options(only(json_option(function)))


class Selected(NamedTuple):
    """A request about a machine that exists. `options` may read the machine, and raises click.UsageError for an unknown
    name."""

    host: Host
    options: Callable[[Examiner], Options]
    repairing: str
    """The command that would repair this machine, "" if it cannot be changed."""

    def examining(self, work: Callable[[Examiner, Options], T], watch: Watch | None = None) -> T:
        """The result of `work`, within the time limits of one diagnosis (see `engine.examining`)."""
        return engine.examining(self.host, lambda examiner: work(examiner, self.options(examiner)), watch)


def examine(request: Selection, watch: Watch | None = None) -> Examined:
    """Diagnose, to repair. Raises click.UsageError for an unknown name, directory or file."""
    known = asked(request)
    return engine.examine(known.host, known.options, chosen_rules(load_rules(), request.only), watch)


def diagnose(request: Selection, shown: Callable[[Diagnosis, str], T], watch: Watch | None = None) -> T:
    """Diagnose, to report: what `shown` makes of the diagnosis and of the command that would repair this machine ("" if it
    cannot be changed). `shown` runs in the process that diagnoses, which has loaded all that a report needs. Raises like
    `examine`."""
    known = asked(request)

    def work(examiner: Examiner, options: Options) -> T:
        rules = chosen_rules(examiner.loaded, request.only)
        return shown(examiner.diagnose(options, rules), known.repairing)

    return known.examining(work, watch)


def _repairing(request: Selection) -> str:
    """The command line that repairs what a request finds."""
    words = ["dlhealth", "fix", *["--next-boot"] * request.next_boot]
    for option, values in (("--only", request.only), ("--user", request.users), ("--python", request.pythons)):
        words += [word for value in values for word in (option, value)]
    return as_root(join([*words, *(("--root", request.root) if request.root != "/" else ())]))


def asked(request: Selection) -> Selected:
    """Find the machine and the options that a request names. Raises click.UsageError for an unknown one."""
    try:
        host = host_at(request.root)
    except NotAMachine as problem:
        raise click.BadParameter(str(problem), param_hint="--root") from problem

    def options(examiner: Examiner) -> Options:
        pythons = tuple(_existing_python(host, exe) for exe in request.pythons)
        options = Options(request.users, pythons, request.next_boot)
        _check_users(examiner.facts(options), request.users)
        return options

    return Selected(host, options, _repairing(request) if isinstance(host, RootHost) else "")


def chosen_rules(loaded: Loaded, only: Iterable[str], hint: str = "--only") -> Loaded:
    """The rules that `--only` names, or another argument: `hint` is its name in errors."""
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
    """The path of a program that `--python` names. Only `host` looks for it: a directory of PATH may not answer."""
    named = "/" in exe
    if host.name == "/":
        folders = [""] if named else [*os.get_exec_path(), ""]
        paths = [os.path.abspath(os.path.join(folder, exe)) for folder in folders]
    elif not exe.startswith("/"):
        raise click.BadParameter(f"{exe!r} must be a path inside --root that starts with /", param_hint="--python")
    else:
        paths = [exe]
    for path in paths:
        try:
            there = host.stat(path)
        except Unreadable:
            if named:
                return path  # the diagnosis says why it cannot be read
        else:
            if exe and there and (named or (there.mode & 0o111 and there.kind == "file")):
                return path
    shown = paths[0] if named else repr(exe)
    raise click.BadParameter(f"there is no {shown} on this machine", param_hint="--python")


def _check_users(facts: Facts, names: tuple[str, ...]) -> None:
    if not names:
        return
    from dlhealth.engine.people import people

    try:
        found = people(facts)
    except Unavailable as problem:
        raise click.BadParameter(f"cannot look up users: {problem}", param_hint="--user") from problem
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
    """The repairs of the machine that `--root` names. Raises click.BadParameter if it is not a machine, or one that cannot
    be changed."""
    from dlhealth.txn.store import Store

    try:
        store = Store(folder_at(root))
    except NotAMachine as problem:
        raise click.BadParameter(str(problem), param_hint="--root") from problem
    if unreachable := store.out_of_reach():
        raise click.BadParameter(unreachable, param_hint="--root")
    return store


def failure(store: "Store", problem: Exception) -> Failure:
    """The end of a command that could not use the store, or could not finish its change of the machine."""
    from dlhealth.txn.store import Busy, Damaged

    unusable = isinstance(problem, OSError) and problem.errno in (errno.ELOOP, errno.ENOTDIR)
    kind = InTheWay if unusable or isinstance(problem, (Busy, Damaged)) else Failure
    return kind(store.explain(problem))


@contextmanager
def writing(path: str, errors: tuple[type[OSError], ...] = (OSError,)) -> Iterator[None]:
    """Write the file that a person named with -o. Raises click.BadParameter for a file that exists, on a file system that
    does not answer, and for these errors."""
    if silence := silence_at(path):
        raise click.BadParameter(f"{path}: {silence}", param_hint="-o")
    try:
        yield
    except FileExistsError as error:
        raise click.BadParameter(f"{path} already exists; choose another name", param_hint="-o") from error
    except errors as error:
        why = (error.strerror or "").lower()
        raise click.BadParameter(f"{path or 'an empty name'}: {why}", param_hint="-o") from error


def show(text: str, as_json: bool) -> None:
    """Print a plan before it runs. With --json, standard output is only for the document."""
    if as_json:
        click.echo(text, err=True, nl=False)
    else:
        write(text)


def agreed(question: str) -> bool:
    """Ask a person. No answer means no; Ctrl-C ends dlhealth."""
    try:
        return click.confirm(f"\n{question}", err=True)
    except click.Abort as end:  # click raises it for both
        if isinstance(end.__context__, KeyboardInterrupt):
            click.echo(err=True)
            raise
        click.echo("\nNo answer: nothing was changed. Use --yes to skip the question.", err=True)
        return False


def status_of(known: "Diagnosis | ServiceState") -> Status:
    """The exit status for a diagnosis, or for what the service knows."""
    return _STATUS[known.health]
