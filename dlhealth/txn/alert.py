"""The alert about a repair that was finished or undone after an interruption or a reboot."""

from dlhealth.host.alert import Kind, alert
from dlhealth.model import Outcome
from dlhealth.txn.execute import Ended
from dlhealth.txn.store import reading_plan

_BECAME = {
    Outcome.APPLIED: "was verified after the reboot",
    Outcome.NOT_PROVED: "was kept, but no check could verify that it helped",
    Outcome.ROLLED_BACK: "was undone",
    Outcome.UNDONE: "was undone",
}


def of_ended(ended: Ended) -> bytes:
    """The journal entry. If several findings were repaired at once, it names the first."""
    with reading_plan(ended.record) as plan:
        about: dict[str, str] = next(iter(plan.get("findings", [])), {})
    holds = ended.outcome is Outcome.APPLIED
    said = f": {'; '.join(ended.said)}" if ended.said else ""
    return alert(
        Kind.REPAIRED if holds else Kind.RECOVERED,
        f"Repair {ended.record.name} {_BECAME.get(ended.outcome, 'was undone only in part')}{said}",
        id=about.get("id", ""),
        subject=about.get("subject", ""),
        layer=about.get("layer", ""),
        severity="note" if holds else "warning",
        transaction=ended.record.name,
    )
