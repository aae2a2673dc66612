"""What may be repaired without a person: the administrator's settings, and the decision."""

import posixpath
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from dlhealth.host import Host
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.model import Plan, Risk
from dlhealth.records import NamedTuple

CONFIG = "/etc/dlhealth/config.toml"
DROP_INS = "/etc/dlhealth/config.toml.d/*.toml"
_LINE = regex(r"\(at line (\d+), column \d+\)")
"""Where a file is not TOML, in the words of the parser."""
_EXAMPLE = 'write it like this: max_risk = "low", users = ["alice"], [section]'
_HEADER = regex(r"\s*\[\s*([\w-]+)\s*\]")
_KEY = regex(r"\s*([\w.-]+)\s*=")
_HOURS = regex(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class BadConfig(Exception):
    """A setting that is not valid; the message names file, setting and allowed values."""


class Policy(NamedTuple):
    """`max_risk` is the highest risk of an automatic repair, None if nothing is repaired; `max_attempts` how often the
    same finding on the same evidence may be repaired; `reboot_hours` ("02:00-05:00") when the machine may reboot to
    finish a repair, "" for never; `ignore` the rules that raise no alert and no repair; `users` whose logins are
    watched, all if it is empty; `local_rules` the rules of /etc/dlhealth/rules.d that may repair without a question."""

    max_risk: Risk | None = Risk.LOW
    max_attempts: int = 1
    reboot_hours: str = ""
    ignore: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    local_rules: tuple[str, ...] = ()


NOTHING_UNATTENDED = Policy(max_risk=None)
"""The policy if the settings cannot be read: an administrator who meant to forbid something must not be ignored."""


class Trigger(str, Enum):
    """What a repair was requested by."""

    TERMINAL = "terminal"
    BOOT = "boot"
    JOURNAL = "journal"


class Verdict(str, Enum):
    """What the policy says about a repair."""

    DO = "do"
    ASK = "ask"
    LATER = "later"
    ENOUGH = "enough"
    NEVER = "never"


class Decision(NamedTuple):
    """A verdict with its reason."""

    verdict: Verdict
    reason: str = ""


def decide(policy: Policy, trigger: Trigger, rule: str, plan: Plan, attempts: int, trusted: bool) -> Decision:
    """Whether a plan may run. `attempts` counts the earlier ones on the same evidence. A rule that is not `trusted`
    (one of an administrator) repairs nothing automatically until its id is listed."""
    if trigger is Trigger.TERMINAL:
        return Decision(Verdict.ASK if plan.risk is Risk.HIGH else Verdict.DO)
    if rule in policy.ignore:
        return Decision(Verdict.NEVER, f"{rule} is ignored ({CONFIG}: rules.ignore)")
    if policy.max_risk is None:
        return Decision(Verdict.ASK, f'automatic repair is off ({CONFIG}: repair.max_risk = "none")')
    if plan.risk > policy.max_risk:
        return Decision(
            Verdict.ASK, f"its risk is {plan.risk.value}; without a question, only {policy.max_risk.value} is allowed"
        )
    if attempts >= policy.max_attempts:
        allowed = f"{policy.max_attempts} allowed ({CONFIG}: repair.max_attempts)"
        verdict = Verdict.ENOUGH if attempts else Verdict.NEVER
        return Decision(verdict, f"repaired {attempts} times before, {allowed}: please check the machine")
    if not trusted and rule not in policy.local_rules:
        return Decision(
            Verdict.ASK, f"a rule of /etc/dlhealth/rules.d may repair only if repair.local_rules lists {rule}"
        )
    return Decision(Verdict.DO)


def restart_at(hours: str, minute: int) -> str:
    """When the machine may reboot, in the format of shutdown(8): in a minute if it is now within `hours`
    ("02:00-05:00", which may include midnight), otherwise when they begin. `minute` counts from midnight."""
    found = _HOURS.fullmatch(hours)
    assert found  # noqa: S101  (read_policy checks it)
    begin, end = (int(found[n]) * 60 + int(found[n + 1]) for n in (1, 3))
    within = begin <= minute < end if begin <= end else minute >= begin or minute < end
    return "+1" if within else hours.partition("-")[0]


def read_policy(host: Host) -> Policy:
    """The administrator's settings; each drop-in, in the order of the names, replaces what it sets. Raises BadConfig,
    and Unreadable if a file exists but cannot be read."""
    return Policy(**{given.field: given.value for given in read_settings(host)})


class Given(NamedTuple):
    """A setting of a file: the field of the policy, its value, and where it is set."""

    field: str
    value: Any
    place: Place


def read_settings(host: Host) -> Iterator[Given]:
    """All settings in the order in which they are read: a later one replaces an earlier one. Raises like read_policy."""
    for path in (CONFIG, *sorted(host.glob(DROP_INS))):
        text = host.text(path)
        if text is not None:
            _check_owner(host, path)
        if text is None and (elsewhere := host.readlink(path)):
            raise BadConfig(f"{path} is a link to {elsewhere}, which does not exist")
        if text is not None:
            for section, values in _parsed(path, text).items():
                yield from _checked(path, text, section, values)


def _check_owner(host: Host, path: str) -> None:
    """Raises BadConfig for a file that somebody other than root could have written or put there."""
    system = host.stat("/")
    for place in (path, posixpath.dirname(path)):
        status = host.stat(place)
        if status and (status.uid not in (0, system.uid if system else 0) or status.mode & 0o022):
            raise BadConfig(f"{place} must belong to root, and nobody else may write to it: chown root, chmod go-w")


def _parsed(path: str, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    # Not TOML; or endless numbers and brackets, which exceed Python's own limits.
    except (ValueError, RecursionError) as error:
        line = _LINE.search(str(error))
        raise BadConfig(
            f"{Place(path, int(line[1]) if line else None)}: not valid TOML: {error} ({_EXAMPLE})"
        ) from error


def _place(path: str, text: str, section: str, name: str) -> Place:
    """Where a file has a setting: with the number of the line, unless it is written in an unusual way."""
    here = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            here = header[1]
        elif (key := _KEY.match(line)) and f"{here}.{key[1]}".strip(".") == f"{section}.{name}".strip("."):
            return Place(path, number)
    return Place(path)


def _risk(value: Any) -> Risk | None:
    return None if value == "none" else Risk(value)


def _attempts(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value


def _hours(value: Any) -> str:
    if not isinstance(value, str) or not (value == "" or _HOURS.fullmatch(value)):
        raise ValueError
    return value


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ValueError
    return tuple(value)


class ConfigValue(NamedTuple):
    """A setting: the field of the policy, how its value is read, and which values are allowed."""

    field: str
    read: Callable[[Any], Any]
    allowed: str


SETTINGS: Mapping[tuple[str, str], ConfigValue] = {
    ("repair", "max_risk"): ConfigValue("max_risk", _risk, '"none", "low", "medium" or "high"'),
    ("repair", "max_attempts"): ConfigValue("max_attempts", _attempts, "a number, 0 or more"),
    ("repair", "local_rules"): ConfigValue("local_rules", _names, 'a list of rule ids: ["my-rule"]'),
    ("reboot", "hours"): ConfigValue("reboot_hours", _hours, '"02:00-05:00", or "" for never'),
    ("rules", "ignore"): ConfigValue("ignore", _names, 'a list of rule ids: ["nvcc-not-in-path"]'),
    ("watch", "users"): ConfigValue("users", _names, 'a list of user names: ["alice"]'),
}
"""By section and name, in the order of the documentation."""


def _checked(path: str, text: str, section: str, values: Any) -> Iterator[Given]:
    if not isinstance(values, dict):
        place = _place(path, text, "", section)
        raise BadConfig(f"{place}: {section} is outside a section; known settings are {_known()}")
    for name, value in values.items():
        setting, place = SETTINGS.get((section, name)), _place(path, text, section, name)
        if setting is None:
            raise BadConfig(f"{place}: there is no setting {section}.{name}; known settings are {_known()}")
        try:
            yield Given(setting.field, setting.read(value), place)
        except ValueError as error:
            raise BadConfig(f"{place}: {section}.{name} = {value!r} must be {setting.allowed}") from error


def _known() -> str:
    return ", ".join(f"{section}.{name}" for section, name in SETTINGS)
