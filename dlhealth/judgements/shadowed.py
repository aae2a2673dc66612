"""Frameworks of Python environments that another directory hides: ~/.local, or one of PYTHONPATH."""

from collections.abc import Iterator

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import Account, may_read
from dlhealth.probes.login.environment import Environments, LoginEnvironment
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments, distributions
from dlhealth.records import NamedTuple

_FRAMEWORKS = ("torch", "tensorflow", "jaxlib")
_WITH_USER_SITE = ("conda", "pyenv", "other")
"""Virtual environments do not see ~/.local; for the Python of the system it is meant."""
_NO_USER_SITE = "PYTHONNOUSERSITE"


class Shadow(NamedTuple):
    """`site` is the directory that hides `hidden`, and `shown` is what it has instead: a framework with its version.
    `variable` is the line that sets PYTHONPATH ("" for ~/.local)."""

    environment: PythonEnvironment
    account: Account
    framework: str
    hidden: str
    shown: str
    site: str
    variable: str


class Shadows(NamedTuple):
    """All of them. `problems` could not be read."""

    found: tuple[Shadow, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, environments: PythonEnvironments, logins: Environments) -> "Shadows":
        found, problems = [], list(environments.problems)
        interactive = {login.account.name: login for login in logins.logins if login.kind == "interactive"}
        for environment in environments.environments:
            frameworks = {name: environment.packages[name] for name in _FRAMEWORKS if name in environment.packages}
            account = environment.account
            if not frameworks or not account or environment.kind in ("user", "system"):
                continue
            try:
                for site, packages, variable in _before(host, environment, account, environments, interactive):
                    found += [
                        Shadow(environment, account, name, version, packages[name], site, variable)
                        for name, version in frameworks.items()
                        if packages.get(name, version) != version
                    ]
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(tuple(found), tuple(dict.fromkeys(problems)))


def _before(
    host: Host,
    environment: PythonEnvironment,
    account: Account,
    environments: PythonEnvironments,
    logins: dict[str, LoginEnvironment],
) -> Iterator[tuple[str, dict[str, str], str]]:
    """The directories that Python searches before the environment's own, with their packages."""
    login = logins.get(account.name)
    path = (login.values.get("PYTHONPATH") if login else "") or ""
    setting = login.last("PYTHONPATH") if login else None
    for folder in dict.fromkeys(path.split(":")):
        if folder.startswith("/") and folder != environment.site and may_read(host, account, folder):
            yield folder, distributions(host.listdir(folder)), str(setting.source) if setting else "PYTHONPATH"
    off = login is not None and bool(login.values.get(_NO_USER_SITE, ""))
    if environment.kind in _WITH_USER_SITE and not off and not _is_isolated(host, environment, account):
        for user in environments.environments:
            if user.kind == "user" and user.account == account and user.version == environment.version:
                yield user.site, dict(user.packages), ""


def _is_isolated(host: Host, environment: PythonEnvironment, account: Account) -> bool:
    """Whether activating the environment keeps Python from ~/.local."""
    folder = f"{environment.path}/etc/conda/activate.d"
    files = [f"{environment.path}/conda-meta/state", *(f"{folder}/{name}" for name in host.listdir(folder))]
    return any(_NO_USER_SITE in (host.text(f) or "") for f in files if may_read(host, account, f))
