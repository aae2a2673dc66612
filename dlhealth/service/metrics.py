"""What the service knows, in the text format of Prometheus, for the textfile collector of node_exporter."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from dlhealth.model import Health, OpenProblem
from dlhealth.service.alerts import is_common
from dlhealth.service.state import ServiceState

SERIES = 200
"""Series of findings, at most: each costs every scraper memory."""
CARDS = 64
"""GPUs, at most: each has up to 17 series."""
_READINGS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("temperature_celsius", "Temperature of a GPU.", {"temperature": ""}),
    ("power_watts", "Power that a GPU draws.", {"power": ""}),
    ("power_limit_watts", "Power that a GPU may draw.", {"power_limit": ""}),
    ("replaced_rows", "Memory rows of a GPU that were replaced after errors.", {"remapped_rows": ""}),
    ("retired_pages", "Memory pages of an older GPU that were taken out of use.", {"retired_pages": ""}),
    ("replacement_pending", "1 if a replaced memory row is used only after a reset.", {"remap_pending": ""}),
    ("replacement_failed", "1 if a GPU has no spare memory row left.", {"remap_failed": ""}),
    (
        "memory_errors",
        "Memory errors since the driver was loaded.",
        {"corrected": "corrected", "uncorrected": "uncorrected"},
    ),
    (
        "link",
        "The PCIe link of a GPU, and what GPU and slot can do. It is lower while nothing runs.",
        {
            "link_generation": "generation",
            "link_width": "width",
            "most_link_generation": "most_generation",
            "most_link_width": "most_width",
        },
    ),
)
"""Each metric without its prefix, and the readings in it, with the label "kind" that tells them apart."""
_SLOWDOWNS = ("hardware slowdown", "hardware thermal slowdown", "hardware power brake", "software thermal slowdown")
"""Reasons that are not normal; idle and the power limit are."""


def exposition(known: ServiceState, *, users: bool = False) -> bytes:
    """The text. Subjects name users, and files outside the system's directories, only with `users`."""
    registry = CollectorRegistry()
    _verdict(registry, known.health)
    _findings(registry, known.findings, users=users)
    _checks(registry, known)
    _cards(registry, {name: known.cards[name] for name in sorted(known.cards)[:CARDS]})
    if known.outcomes is not None:
        repairs = Gauge("dlhealth_repairs", "Repairs in the history, by outcome.", ["outcome"], registry=registry)
        for outcome, count in known.outcomes.items():
            repairs.labels(_text(outcome)).set(count)
    waiting = Gauge("dlhealth_repair_pending", "1 if a repair runs or waits for a reboot.", registry=registry)
    waiting.set(bool(known.waits))
    return generate_latest(registry)


def _verdict(registry: CollectorRegistry, health: Health) -> None:
    verdict = Gauge("dlhealth_verdict", "1 for the present verdict, 0 for the others.", ["verdict"], registry=registry)
    for one in Health:
        verdict.labels(one.value).set(one is health)


def _findings(registry: CollectorRegistry, findings: tuple[OpenProblem, ...], *, users: bool) -> None:
    names = ["id", "layer", "next_boot", "root", "severity", "subject"]
    gauge = Gauge("dlhealth_findings", "Open problems, by what they are about.", names, registry=registry)
    alike = Counter(_labels(f, users=users) for f in findings)
    # Causes first, so that they are not the ones that are left out.
    listed = sorted(alike, key=lambda labels: (labels[3] != "true", labels))
    for labels in listed[:SERIES]:
        gauge.labels(*labels).set(alike[labels])
    left_out = Gauge("dlhealth_findings_left_out", f"Open problems beyond {SERIES} series.", registry=registry)
    left_out.set(sum(alike[labels] for labels in listed[SERIES:]))


def _labels(finding: OpenProblem, *, users: bool) -> tuple[str, ...]:
    subject = finding.subject if users or is_common(finding) else finding.subject.partition(":")[0]
    root = "false" if finding.caused_by else "true"
    later = "true" if finding.next_boot else "false"
    return finding.id, finding.layer.value, later, root, finding.severity.value, _text(subject)


def _checks(registry: CollectorRegistry, known: ServiceState) -> None:
    if known.run is not None and known.skipped is not None:
        checks = Gauge(
            "dlhealth_checks", "Rules of the last complete check, by outcome.", ["outcome"], registry=registry
        )
        checks.labels("run").set(known.run)
        checks.labels("skipped").set(known.skipped)
    if known.checked is not None:
        when = Gauge("dlhealth_check_timestamp_seconds", "When the last check ended.", registry=registry)
        when.set(known.checked)


def _cards(registry: CollectorRegistry, cards: Mapping[str, Mapping[str, Any]]) -> None:
    """Only what a GPU supports has a series."""
    for name, about, readings in _READINGS:
        labels = ["gpu", "kind"] if len(readings) > 1 else ["gpu"]
        gauge = Gauge(f"dlhealth_gpu_{name}", about, labels, registry=registry)
        for card, said in cards.items():
            for reading, kind in readings.items():
                if reading in said:
                    gauge.labels(_text(card), *filter(None, [kind])).set(said[reading])
    slowed = Gauge(
        "dlhealth_gpu_slowdown", "1 if a GPU is slowed down for this reason.", ["gpu", "reason"], registry=registry
    )
    for card, said in cards.items():
        for reason in _SLOWDOWNS if "slowdowns" in said else ():
            slowed.labels(_text(card), reason).set(reason in said["slowdowns"])


def _text(text: str) -> str:
    """Bytes of a name that are not UTF-8, written out: the format allows none."""
    return text.encode(errors="backslashreplace").decode()
