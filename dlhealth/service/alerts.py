"""The alerts of a check: one when a problem appears, one when it is resolved, never a flood."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dlhealth.host.alert import Kind, alert
from dlhealth.host.exec import as_root
from dlhealth.model import OpenProblem, Severity
from dlhealth.records import NamedTuple
from dlhealth.service.events import Event

SCHEMA = 1
"""The form of a saved state, which docs/schema/state.json describes. A state that does not name its form has this one."""
_OPTIONAL = {
    "checked": int, "began": float, "problem": str, "unchecked": str, "gone": list, "untold": list, "run": int, "skipped": int,
    "cards": dict,
}  # fmt: skip
"""Further fields that a saved state may have."""
_OF_THE_SYSTEM = (
    "/bin/", "/boot/", "/dev/", "/etc/", "/lib", "/opt/", "/proc/", "/run/", "/sbin/", "/sys/", "/tmp", "/usr/", "/var/",
)  # fmt: skip
"""Directories without personal files. Homes may be anywhere else."""
_REPEAT = 600.0
"""Seconds within which the same driver event gives no second alert."""
_ALONE = 3
"""Up to this many findings of one kind get an alert each; more share one."""
_SUBJECTS = 256
"""Subjects of one alert, at most: an entry must fit into a datagram."""
_NAMED = 5
_KINDS = 64
"""Different events reported within that time, at most: a failing GPU gives about a dozen."""


class Change(NamedTuple):
    """The difference from the last check."""

    appeared: tuple[OpenProblem, ...]
    gone: tuple[OpenProblem, ...]


class Alert(NamedTuple):
    """A journal entry and its findings: they have appeared or, with `gone`, are resolved."""

    entry: bytes
    findings: tuple[OpenProblem, ...]
    gone: bool


_Key = tuple[str, str, bool]


class Known:
    """The open findings, and which of them the journal has. Entries that the journal did not accept are not stored; they
    are made again from this state, so that none is lost, however many there are."""

    def __init__(self, findings: Iterable[OpenProblem] = ()) -> None:
        """The given findings count as reported."""
        self._open: dict[_Key, OpenProblem] = {_key(f): f for f in findings}
        self._told: dict[_Key, Severity] = {key: f.severity for key, f in self._open.items()}
        self._gone: dict[_Key, OpenProblem] = {}

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Known":
        """Restore from what `load` reads: the result of `saved`, or that of the check at boot."""
        known = cls(saved.get("findings", ()))
        untold = set(map(tuple, saved.get("untold", ())))
        known._told = {key: severity for key, severity in known._told.items() if key not in untold}
        known._gone = {_key(f): f for f in saved.get("gone", ())}
        return known

    def saved(self) -> dict[str, Any]:
        """The state as a JSON object."""
        untold = [key for key, f in self._open.items() if self._is_news(key, f)]
        gone = [f._asdict() for f in self._gone.values()]
        return {"schema": SCHEMA, "findings": [f._asdict() for f in self.findings], "untold": untold, "gone": gone}

    @property
    def findings(self) -> tuple[OpenProblem, ...]:
        return tuple(self._open.values())

    def update(self, findings: Iterable[OpenProblem], judged: Iterable[str], *, next_boot: bool = True) -> Change:
        """Take over the result of a check. `judged` are the rules that could decide; `next_boot` says whether the next
        boot was checked, too. A finding that gets worse counts as appeared; one whose text changes does not."""
        found = {_key(f): f for f in findings}
        sure = set(judged)
        gone = [
            f for key, f in self._open.items() if key not in found and f.id in sure and (next_boot or not f.next_boot)
        ]
        appeared = [f for key, f in found.items() if self._severity(key) not in (f.severity, Severity.ERROR)]
        for finding in gone:
            key = _key(finding)
            del self._open[key]
            if self._told.pop(key, None):
                self._gone[key] = finding
        for key in found:
            if self._gone.pop(key, None):
                self._told[key] = found[key].severity
        self._told.update({key: found[key].severity for key in found if not self._is_news(key, found[key])})
        self._open.update(found)
        return Change(tuple(appeared), tuple(gone))

    def untold(self) -> Change:
        """What the journal does not have yet."""
        news = (f for key, f in self._open.items() if self._is_news(key, f))
        return Change(tuple(news), tuple(self._gone.values()))

    def was_told(self, alert: Alert) -> None:
        """Note that the journal accepted this alert."""
        for finding in alert.findings:
            if alert.gone:
                self._gone.pop(_key(finding), None)
            else:
                self._told[_key(finding)] = finding.severity

    def _is_news(self, key: _Key, finding: OpenProblem) -> bool:
        return self._told.get(key) not in (finding.severity, Severity.ERROR)

    def _severity(self, key: _Key) -> Severity | None:
        return self._open[key].severity if key in self._open else None


def _key(finding: OpenProblem) -> _Key:
    return finding.id, finding.subject, finding.next_boot


def of_change(change: Change) -> list[Alert]:
    """The alerts for the journal. A consequence has a lower priority and names its cause. The same problem of many
    users, as from a line that all their files have, gives one alert that counts them."""
    return [
        *(_appeared(group) for group in _groups(change.appeared)),
        *(_gone(group) for group in _groups(change.gone)),
    ]


def _groups(findings: Iterable[OpenProblem]) -> list[tuple[OpenProblem, ...]]:
    alike: dict[tuple[object, ...], list[OpenProblem]] = {}
    for f in findings:
        kind = f.subject.partition(":")[0]
        alike.setdefault((f.id, f.severity, f.next_boot, f.caused_by, kind), []).append(f)
    groups: list[tuple[OpenProblem, ...]] = []
    for group in alike.values():
        groups += [tuple(group)] if len(group) > _ALONE else [(f,) for f in group]
    return groups


def _appeared(group: tuple[OpenProblem, ...]) -> Alert:
    finding = group[0]
    because = f" (because of {finding.caused_by[0]})" if finding.caused_by else ""
    entry = alert(
        Kind.NEXT_BOOT if finding.next_boot else Kind.APPEARED,
        f"{'At the next boot: ' if finding.next_boot else ''}{finding.title}{because}{_others(group)}",
        id=finding.id,
        subject=[f.subject for f in group[:_SUBJECTS]],
        severity=finding.severity,
        layer=finding.layer,
        caused_by=" ".join(finding.caused_by),
        quiet=bool(finding.caused_by),
    )
    return Alert(entry, group, gone=False)


def _gone(group: tuple[OpenProblem, ...]) -> Alert:
    finding = group[0]
    entry = alert(
        Kind.GONE,
        f"Resolved: {finding.title}{_others(group)}",
        id=finding.id,
        subject=[f.subject for f in group[:_SUBJECTS]],
        severity=finding.severity,
        layer=finding.layer,
        quiet=True,
    )
    return Alert(entry, group, gone=True)


def _others(group: tuple[OpenProblem, ...]) -> str:
    names = [f.subject.partition(":")[2] or f.subject for f in group[1 : 1 + _NAMED]]
    if not names:
        return ""
    more = ", ..." if len(group) - 1 > len(names) else ""
    return f" (the same problem for {len(group) - 1} others: {', '.join(names)}{more})"


class Repeats:
    """Reports the first of many equal events; the next report says how many were left out."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str, str], tuple[float, int]] = {}

    def entry(self, event: Event, now: float) -> bytes | None:
        """The entry for an event; None if it was reported a moment ago."""
        key = (event.id, event.subject, event.severity)
        since, left_out = self._told.get(key, (now - _REPEAT, 0))
        if now - since < _REPEAT:
            self._told[key] = (since, left_out + 1)
            return None
        if len(self._told) >= _KINDS:
            oldest = min(self._told, key=lambda k: self._told[k][0])
            if now - self._told[oldest][0] < _REPEAT:
                return None
            del self._told[oldest]
        self._told[key] = (now, 0)
        more = f" ({left_out} more since the last alert)" if left_out else ""
        return alert(
            Kind.DRIVER_EVENT,
            event.text + more,
            id=event.id,
            subject=event.subject,
            severity=event.severity,
            layer=event.layer,
        )


def sign(findings: Iterable[OpenProblem]) -> str:
    """The warning above the login prompt of a text console; "" without an error."""
    roots = [f for f in findings if not f.caused_by and f.severity is Severity.ERROR]
    if not roots:
        return ""
    # agetty would take a backslash for a command.
    lines = ["".join(c if c.isprintable() and c != "\\" else "?" for c in f.title)[:150] for f in roots[:3]]
    more = f"\n  and {len(roots) - 3} more" if len(roots) > 3 else ""
    return (
        "\ndlhealth: this machine has a problem.\n"
        + "".join(f"  {line}\n" for line in lines)
        + (f"{more}\nTo repair it, log in here and run: {as_root('dlhealth fix')}\n\n")
    )


def public(findings: Iterable[OpenProblem]) -> list[OpenProblem]:
    """The findings that everybody may read."""
    return [f for f in findings if is_common(f)]


def is_common(finding: OpenProblem) -> bool:
    """Whether a finding is neither about a user's login nor from a file outside the system."""
    kind, _, name = finding.subject.partition(":")
    paths = [p for p in (*finding.files, name) if p.startswith("/")]
    return kind != "user" and all(p.startswith(_OF_THE_SYSTEM) for p in paths)


def load(path: str) -> dict[str, Any]:
    """The saved state, its findings as problems; empty if there is none, or none that this version understands."""
    try:
        return read(path)
    except (OSError, ValueError):
        return {}


def read(path: str) -> dict[str, Any]:
    """The saved state, its findings as problems. Raises OSError and ValueError."""
    with open(path, "rb") as file:
        return understood(file.read())


def understood(text: bytes | bytearray, **kinds: type) -> dict[str, Any]:
    """Parse a JSON object with findings and the named fields of these types. Raises ValueError for anything else."""
    try:
        said: dict[str, Any] = json.loads(text)
        known = said.get("schema", SCHEMA) == SCHEMA
    except (ValueError, RecursionError, AttributeError) as error:
        raise ValueError("its result is not valid") from error
    if not known:
        raise ValueError("its result is of another version of dlhealth")
    try:
        kinds = {**{name: kind for name, kind in _OPTIONAL.items() if name in said}, **kinds}
        sound = all(isinstance(said[n], k) for n, k in kinds.items())
        sound = sound and all(isinstance(key, list) and len(key) == 3 for key in said.get("untold", ()))
        for name in ("findings", "gone"):
            if name in said or name == "findings":
                said[name] = tuple(map(OpenProblem.of, said[name]))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError("its result is not valid")
    return said
