"""Runs the programs of a proof with the Python of a user's environment, as that user."""

import os
import posixpath
from collections.abc import Mapping, Sequence
from shlex import join, quote

from dlhealth.host.account import Account
from dlhealth.host.exec import run
from dlhealth.records import NamedTuple

_ROOT = posixpath.dirname(posixpath.dirname(posixpath.dirname(posixpath.abspath(__file__))))
_WAIT = 5.0
_STARTING = (
    "import sys; sys.path[0] = {root!r}; from dlhealth.prove.scripts import run; del sys.path[0]; run(*sys.argv[1:])"
)


class Environment(NamedTuple):
    """A Python environment: its directory, the path of its Python, and the frameworks in it ("torch", "tensorflow",
    "jax"). `account` is whose home it lies in (None: nobody's)."""

    path: str
    python: str
    frameworks: tuple[str, ...]
    account: Account | None = None


class Unusable(Exception):
    """An environment that this process must not or cannot use; the message says why."""


def check_readable(prefix: Sequence[str], name: str) -> None:
    """Raises Unusable if the user as whom the words before a command run it may not read dlhealth's own files. `name`
    names the user in the message."""
    answer = run([*prefix, "test", "-r", f"{_ROOT}/dlhealth/prove/__init__.py"], _WAIT)
    if answer.status == 1 and not answer.stderr:  # not an error of the first program
        place = "install dlhealth in a directory that every user may read"
        raise Unusable(f"{name} may not read {_ROOT}, where dlhealth is installed: {place}")


def command(environment: Environment, script: str, words: Sequence[str]) -> Sequence[str]:
    """The command that runs a script in an environment.

    Root never runs what belongs to a user: su starts the user's own login shell, with the variables of a terminal. A
    user's own environment is used as it is. Raises Unusable.
    """
    # Not -I: a broken PYTHONPATH is one of the faults that this finds.
    program = [environment.python, "-B", "-c", _STARTING.format(root=_ROOT), script, str(os.getpid()), *words]
    if os.geteuid():
        if environment.account and environment.account.uid != os.geteuid():
            raise Unusable(
                f"it belongs to {environment.account.name}: run dlhealth as {environment.account.name} or root"
            )
        return program
    name = environment.account.name if environment.account else os.environ.get("SUDO_USER", "root")
    if name == "root":
        return program
    if name.startswith("#"):
        raise Unusable(f"it belongs to the user number {name[1:]}, who has no account")
    check_readable(("runuser", "-u", name, "--"), name)
    return ["su", "--login", "--session-command", f"exec $SHELL -i -c {quote('exec ' + join(program))}", name]


def variables() -> Mapping[str, str]:
    """The variables for such a command: those of the user who calls dlhealth, but root's must not reach another user."""
    return {} if os.geteuid() == 0 and os.environ.get("SUDO_USER", "root") != "root" else dict(os.environ)
