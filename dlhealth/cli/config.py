"""`dlhealth config`."""

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import click

from dlhealth.cli import Group, Status, printable, similar, write
from dlhealth.engine.facts import Facts, Options, Unavailable
from dlhealth.engine.load import load_rules
from dlhealth.engine.people import people
from dlhealth.engine.policy import (
    CONFIG,
    DROP_INS,
    NOTHING_UNATTENDED,
    SETTINGS,
    BadConfig,
    Given,
    Policy,
    read_settings,
)
from dlhealth.host import Unreadable
from dlhealth.host.exec import as_root
from dlhealth.host.root import live_host


@click.group("config", cls=Group)
def command() -> None:
    """Show or check the settings of the service in /etc/dlhealth/config.toml."""


@command.command("show")
def show() -> int:
    """Show each setting with its value and where it is set.

    Exit status: 0 the settings are valid, 3 they are not, and the service uses the most careful ones, 6 they cannot be
    read.
    """
    try:
        places = {given.field: given for given in read_settings(live_host())}
    except (BadConfig, Unreadable) as problem:
        write(_rendered(NOTHING_UNATTENDED, {}, "used until the settings are valid"))
        return _tell(problem)
    write(_rendered(Policy(**{g.field: g.value for g in places.values()}), places, "default"))
    return Status.HEALTHY


@command.command("check")
def check() -> int:
    """Check whether all settings are valid.

    Exit status: 0 they are, 1 a setting names a rule or user that does not exist, 3 a setting is not valid, 6 they cannot be
    read.
    """
    try:
        given = {one.field: one for one in read_settings(live_host())}
    except (BadConfig, Unreadable) as problem:
        return _tell(problem)
    unknown = [*_unknown_rules(given), *_unknown_users(given)]
    for line in unknown:
        click.echo(printable(line), err=True)
    if unknown:
        return Status.WARNINGS
    files = sorted({one.place.path for one in given.values()})
    write(printable(f"All settings are valid. Set in: {', '.join(files) or 'no file; the defaults apply'}") + "\n")
    return Status.HEALTHY


def _unknown_rules(given: Mapping[str, Given]) -> Iterator[str]:
    known = {rule.id for rule in load_rules().rules}
    for field in ("ignore", "local_rules"):
        for name in given[field].value if field in given else ():
            if name not in known:
                yield f"{given[field].place}: there is no rule {name!r}{similar(name, known)}; `dlhealth rules` lists all"


def _unknown_users(given: Mapping[str, Given]) -> Iterator[str]:
    wanted = given.get("users")
    if wanted is None:
        return
    try:
        known = people(Facts(live_host(), Options(users=wanted.value)))
    except (Unavailable, Unreadable):
        return  # without /etc/passwd, nobody knows
    for name in wanted.value:
        if name not in known:
            yield f"{wanted.place}: {name!r} is not in /etc/passwd, so this user's logins are not watched"


def _tell(problem: BadConfig | Unreadable) -> Status:
    click.echo(printable(f"{problem}"), err=True)
    if isinstance(problem, BadConfig):
        click.echo("The service repairs nothing by itself until this is corrected.", err=True)
        return Status.ERRORS
    click.echo(f"To read it as root: {as_root('dlhealth config check')}", err=True)
    return Status.UNKNOWN


def _rendered(policy: Policy, places: dict[str, Given], otherwise: str) -> str:
    """The policy as a configuration file; a comment says where each value comes from."""
    lines, before = [f"# {CONFIG} and {DROP_INS}"], ""
    for (section, name), setting in SETTINGS.items():
        if section != before:
            lines.append(f"[{section}]")
            before = section
        given = places.get(setting.field)
        value = f"{name} = {_toml(getattr(policy, setting.field))}"
        lines.append(f"{value:30}  # {given.place if given else otherwise}")
    return printable("\n".join(lines)) + "\n"


def _toml(value: Any) -> str:
    """A value as it is written in the file."""
    if value is None:
        return '"none"'
    return json.dumps(value.value if isinstance(value, Enum) else value, ensure_ascii=False)
