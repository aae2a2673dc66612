"""Which alerts a look at the machine gives: one when a finding appears, one when it is gone, never a flood."""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dlhealth.host.exec import as_root
from dlhealth.host.journal import Kind, alert
from dlhealth.lean import NamedTuple
from dlhealth.service.events import Event

Found = Mapping[str, str]
"""A finding as `check.told` gives it."""
_FIELDS = frozenset(
    ("id", "subject", "severity", "layer", "title", "boot", "fingerprint", "caused_by", "files", "repair")
)
_OPTIONAL = {"checked": int, "began": float, "problem": str, "unchecked": str, "gone": list, "untold": list}
"""What a saved state may hold besides."""
_OF_THE_SYSTEM = (
    "/bin/", "/boot/", "/dev/", "/etc/", "/lib", "/opt/", "/proc/", "/run/", "/sbin/", "/sys/", "/tmp", "/usr/", "/var/",
)  # fmt: skip
"""Where no person's own files lie; a home may be anywhere else."""
_REPEAT = 600.0
"""Seconds within which the same event of the driver is not told again."""
_ALONE = 3
"""So many findings of one kind have an alert each."""
_SUBJECTS = 256
"""Of one alert; an entry must fit into a datagram."""
_NAMED = 5
_KINDS = 64
"""Different events that are told within that time: a GPU that dies has a dozen, not more."""


class Change(NamedTuple):
    """What is different from the last look."""

    appeared: tuple[Found, ...]
    gone: tuple[Found, ...]


class Alert(NamedTuple):
    """An entry for the journal, and the findings that it tells of: that they have appeared, or are `gone`."""

    entry: bytes
    findings: tuple[Found, ...]
    gone: bool


_Key = tuple[str, str, str]


class Known:
    """The findings that are open now, and what of them the journal was told. What it did not take is not kept as entries:
    they are made again from this, so that however many there are none is lost."""

    def __init__(self, findings: Iterable[Found] = ()) -> None:
        """What is given was told."""
        self._open: dict[_Key, Found] = {_key(f): f for f in findings}
        self._told: dict[_Key, str] = {key: f["severity"] for key, f in self._open.items()}
        self._gone: dict[_Key, Found] = {}

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Known":
        """From a state that `saved` gave, or the check at boot."""
        known = cls(saved.get("findings", ()))
        untold = {(id, subject, boot) for id, subject, boot in saved.get("untold", ())}
        known._told = {key: severity for key, severity in known._told.items() if key not in untold}
        known._gone = {_key(f): f for f in saved.get("gone", ())}
        return known

    def saved(self) -> dict[str, Any]:
        """What `of` makes the same of."""
        untold = [key for key, f in self._open.items() if self._is_news(key, f)]
        return {"findings": self.findings, "untold": untold, "gone": tuple(self._gone.values())}

    @property
    def findings(self) -> tuple[Found, ...]:
        return tuple(self._open.values())

    def update(self, findings: Iterable[Found], judged: Iterable[str], boots: Collection[str] = ("", "next")) -> Change:
        """What a look found, of the rules that it could judge, on the boots that it looked at. A finding that gets
        worse has appeared; one whose text changes has not."""
        found = {_key(f): f for f in findings}
        sure = set(judged)
        gone = [f for key, f in self._open.items() if key not in found and f["id"] in sure and f["boot"] in boots]
        appeared = [f for key, f in found.items() if self._severity(key) not in (f["severity"], "error")]
        for finding in gone:
            key = _key(finding)
            del self._open[key]
            if self._told.pop(key, ""):
                self._gone[key] = finding
        for key in found:
            if self._gone.pop(key, None):
                self._told[key] = found[key]["severity"]
        self._told.update({key: found[key]["severity"] for key in found if not self._is_news(key, found[key])})
        self._open.update(found)
        return Change(tuple(appeared), tuple(gone))

    def untold(self) -> Change:
        """What the journal has not been told yet."""
        news = (f for key, f in self._open.items() if self._is_news(key, f))
        return Change(tuple(news), tuple(self._gone.values()))

    def was_told(self, alert: Alert) -> None:
        """The journal took it."""
        for finding in alert.findings:
            if alert.gone:
                self._gone.pop(_key(finding), None)
            else:
                self._told[_key(finding)] = finding["severity"]

    def _is_news(self, key: _Key, finding: Found) -> bool:
        return self._told.get(key, "") not in (finding["severity"], "error")

    def _severity(self, key: _Key) -> str:
        return self._open[key]["severity"] if key in self._open else ""


def _key(finding: Found) -> _Key:
    return finding["id"], finding["subject"], finding["boot"]


def of_change(change: Change) -> list[Alert]:
    """The alerts for the journal. A finding that another explains has a lower priority, and names it. One fault of many
    people, as of a line that all of their files have, is one alert that counts them."""
    return [
        *(_appeared(group) for group in _groups(change.appeared)),
        *(_gone(group) for group in _groups(change.gone)),
    ]


def _groups(findings: Iterable[Found]) -> list[tuple[Found, ...]]:
    alike: dict[tuple[str, ...], list[Found]] = {}
    for f in findings:
        kind = f["subject"].partition(":")[0]
        alike.setdefault((f["id"], f["severity"], f["boot"], f["caused_by"], kind), []).append(f)
    groups: list[tuple[Found, ...]] = []
    for group in alike.values():
        groups += [tuple(group)] if len(group) > _ALONE else [(f,) for f in group]
    return groups


def _appeared(group: tuple[Found, ...]) -> Alert:
    finding = group[0]
    cause = finding["caused_by"]
    because = f" (because of {cause.split()[0]})" if cause else ""
    entry = alert(
        Kind.NEXT_BOOT if finding["boot"] else Kind.APPEARED,
        f"{'At the next boot: ' if finding['boot'] else ''}{finding['title']}{because}{_others(group)}",
        id=finding["id"],
        subject=[f["subject"] for f in group[:_SUBJECTS]],
        severity=finding["severity"],
        layer=finding["layer"],
        caused_by=cause,
        quiet=bool(cause),
    )
    return Alert(entry, group, gone=False)


def _gone(group: tuple[Found, ...]) -> Alert:
    finding = group[0]
    entry = alert(
        Kind.GONE,
        f"Resolved: {finding['title']}{_others(group)}",
        id=finding["id"],
        subject=[f["subject"] for f in group[:_SUBJECTS]],
        severity=finding["severity"],
        layer=finding["layer"],
        quiet=True,
    )
    return Alert(entry, group, gone=True)


def _others(group: tuple[Found, ...]) -> str:
    names = [f["subject"].partition(":")[2] or f["subject"] for f in group[1 : 1 + _NAMED]]
    if not names:
        return ""
    more = ", ..." if len(group) - 1 > len(names) else ""
    return f" (the same problem for {len(group) - 1} others: {', '.join(names)}{more})"


class Repeats:
    """Tells the first of many equal events, and how many were left out when it tells it again."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str, str], tuple[float, int]] = {}

    def entry(self, event: Event, now: float) -> bytes | None:
        """The entry for an event, None where it was told a moment ago."""
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
        more = f" ({left_out} more since it was last told)" if left_out else ""
        return alert(
            Kind.DRIVER_EVENT,
            event.text + more,
            id=event.id,
            subject=event.subject,
            severity=event.severity,
            layer=event.layer,
        )


def sign(findings: Iterable[Found]) -> str:
    """What a person reads above the login prompt of a text console; "" where all is well."""
    roots = [f for f in findings if not f["caused_by"] and f["severity"] == "error"]
    if not roots:
        return ""
    # A backslash would be a command to agetty.
    lines = ["".join(c if c.isprintable() and c != "\\" else "?" for c in f["title"])[:150] for f in roots[:3]]
    more = f"\n  and {len(roots) - 3} more" if len(roots) > 3 else ""
    return (
        "\ndlhealth: this machine has a problem.\n"
        + "".join(f"  {line}\n" for line in lines)
        + (f"{more}\nLog in here and type: {as_root('dlhealth fix')}\n\n")
    )


def public(findings: Iterable[Found]) -> list[Found]:
    """What everybody may read: nothing of a person's login, and nothing that a file outside of the system shows."""
    return [f for f in findings if _is_common(f)]


def _is_common(finding: Found) -> bool:
    kind, _, name = finding["subject"].partition(":")
    paths = [p for p in (*finding["files"].split("\n"), name) if p.startswith("/")]
    return kind != "user" and all(p.startswith(_OF_THE_SYSTEM) for p in paths)


def save(path: str, content: str, mode: int = 0o644) -> None:
    """Replace a file of this process's own folder in one step."""
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, mode)
        file.write(content)
    os.replace(new, path)


def load(path: str) -> dict[str, Any]:
    """What was saved; empty where nothing was, or nothing that can be read: another version may have written it."""
    try:
        with open(path, "rb") as file:
            return understood(file.read())
    except (OSError, ValueError):
        return {}


def understood(text: bytes | bytearray, **kinds: type) -> dict[str, Any]:
    """A JSON object that has findings, and what else is named, of these kinds. Raises ValueError for anything else."""
    try:
        said: dict[str, Any] = json.loads(text)
        kinds = {**{name: kind for name, kind in _OPTIONAL.items() if name in said}, **kinds}
        sound = (
            all(isinstance(said[n], k) for n, k in kinds.items())
            and all(_sound(f) for f in (*said["findings"], *said.get("gone", ())))
            and all(isinstance(key, list) and len(key) == 3 for key in said.get("untold", ()))
        )
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError("what it said can't be read")
    return said


def _sound(finding: Found) -> bool:
    return (
        finding.keys() >= _FIELDS
        and all(isinstance(v, str) for v in finding.values())
        and finding["severity"] in ("error", "warning")
    )
