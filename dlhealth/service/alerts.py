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
_REPEAT = 600.0
"""Seconds within which the same event of the driver is not told again."""
_KINDS = 64
"""Different events that are told within that time: a GPU that dies has a dozen, not more."""


class Change(NamedTuple):
    """What is different from the last look."""

    appeared: tuple[Found, ...]
    gone: tuple[Found, ...]


class Known:
    """The findings that are open now."""

    def __init__(self, findings: Iterable[Found] = ()) -> None:
        self._open: dict[tuple[str, str, str], Found] = {_key(f): f for f in findings}

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
            del self._open[_key(finding)]
        self._open.update(found)
        return Change(tuple(appeared), tuple(gone))

    def _severity(self, key: tuple[str, str, str]) -> str:
        return self._open[key]["severity"] if key in self._open else ""


def _key(finding: Found) -> tuple[str, str, str]:
    return finding["id"], finding["subject"], finding["boot"]


def of_change(change: Change) -> list[bytes]:
    """The entries for the journal. What is explained by another finding is told at a lower priority, naming it."""
    entries = []
    for finding in change.appeared:
        cause = finding["caused_by"]
        because = f" (because of {cause.split()[0]})" if cause else ""
        entries.append(
            alert(
                Kind.NEXT_BOOT if finding["boot"] else Kind.APPEARED,
                f"{'At the next boot: ' if finding['boot'] else ''}{finding['title']}{because}",
                id=finding["id"],
                subject=finding["subject"],
                severity=finding["severity"],
                layer=finding["layer"],
                caused_by=cause,
                quiet=bool(cause),
            )
        )
    for finding in change.gone:
        entries.append(
            alert(
                Kind.GONE,
                f"No longer so: {finding['title']}",
                id=finding["id"],
                subject=finding["subject"],
                severity=finding["severity"],
                layer=finding["layer"],
                quiet=True,
            )
        )
    return entries


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


def save(path: str, content: str) -> None:
    """Replace a file of this process's own folder in one step."""
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(fd, "w", encoding="utf-8") as file:
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
        sound = all(_sound(f) for f in said["findings"]) and all(isinstance(said[n], k) for n, k in kinds.items())
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
