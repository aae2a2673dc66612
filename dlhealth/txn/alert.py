"""What the journal is told of a transaction that was brought to its end after it had been cut off, or after a restart."""

from dlhealth.host.journal import Kind, alert
from dlhealth.model import Outcome
from dlhealth.txn.execute import Ended
from dlhealth.txn.store import reading_plan

_BECAME = {
    Outcome.APPLIED: "was verified after the restart",
    Outcome.NOT_PROVED: "was kept, and nothing could check whether it helped",
    Outcome.ROLLED_BACK: "was undone",
    Outcome.UNDONE: "was undone",
}


def of_ended(ended: Ended) -> bytes:
    """The entry; where several findings were repaired at once, it is about the first."""
    with reading_plan(ended.record) as plan:
        about: dict[str, str] = next(iter(plan.get("findings", [])), {})
    holds = ended.outcome is Outcome.APPLIED
    said = f": {'; '.join(ended.said)}" if ended.said else ""
    return alert(
        Kind.REPAIRED if holds else Kind.RECOVERED,
        f"The repair {ended.record.name} {_BECAME.get(ended.outcome, 'was undone in part')}{said}",
        id=about.get("id", ""),
        subject=about.get("subject", ""),
        layer=about.get("layer", ""),
        severity="note" if holds else "warning",
        transaction=ended.record.name,
    )
