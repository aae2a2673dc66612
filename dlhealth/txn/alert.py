"""What the journal is told of a transaction that was brought to its end after it had been cut off, or after a restart."""

from dlhealth.host.journal import Kind, alert
from dlhealth.txn.execute import Ended
from dlhealth.txn.store import read_plan

_BECAME = {"applied": "holds after the restart", "rolled-back": "was taken back", "undone": "was taken back"}


def of_ended(ended: Ended) -> bytes:
    """The entry; where several findings were repaired at once, it is about the first."""
    findings: list[dict[str, str]] = read_plan(ended.record).get("findings", [])
    about = findings[0] if findings else {}
    holds = ended.outcome == "applied"
    said = f": {'; '.join(ended.said)}" if ended.said else ""
    return alert(
        Kind.REPAIRED if holds else Kind.RECOVERED,
        f"The repair {ended.record.name} {_BECAME.get(ended.outcome, 'was taken back in part')}{said}",
        id=about.get("id", ""),
        subject=about.get("subject", ""),
        layer=about.get("layer", ""),
        severity="note" if holds else "warning",
        transaction=ended.record.name,
    )
