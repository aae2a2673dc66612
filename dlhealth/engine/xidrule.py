"""The common part of the rules about the driver's own error numbers (Xid)."""

from collections.abc import Iterator, Sequence

from dlhealth.actions import ByHand
from dlhealth.data.kernel_log import Xid, xid
from dlhealth.engine.rule import Rule
from dlhealth.model import Evidence, Finding, Plan, Risk, Severity, Stage
from dlhealth.probes.driver.driverlog import NEEDS, XidEvent, XidEvents

SUMMARIES = {
    "application": "Check the program: the machine needs no repair",
    "hardware": "Reset the GPU; if the error comes back, have the hardware repaired",
    "link": "Reset the GPUs; if the error comes back, have the connection repaired",
}
"""By whose fault a number usually is."""


_SOON = 60.0
"""Seconds. What follows an error within this time is mostly its effect."""


def _followed(event: XidEvent, known: Xid, events: Sequence[XidEvent]) -> Xid | None:
    """The error of the same GPU that came just before, and that another rule reports; none for the number that says what
    the GPU needs now."""
    if event.number == NEEDS:
        return None
    for other in events[: events.index(event)]:
        first = xid(other.number)
        near = other.address == event.address and 0 <= event.began - other.began <= _SOON
        if near and first.severity is Severity.ERROR and first.fault != known.fault and not other.switch:
            return first
    return None


class XidRule(Rule):
    """A fault that the driver reports by numbers: the table says what each means, which rule it belongs to, how severe it
    is, whose fault, and what NVIDIA advises. A finding stands until the next start."""

    stage = Stage.REBOOT
    severity = Severity.WARNING
    risk = Risk.MEDIUM

    def detect(self, xids: XidEvents) -> Iterator[Finding]:
        for event in xids.events:
            known = xid(event.number)
            if not event.switch and known.fault == self.id:
                yield self._found(event, known, _followed(event, known, xids.events))

    def _found(self, event: XidEvent, known: Xid, first: Xid | None) -> Finding:
        """A number that followed another one is what that one led to."""
        led = f"; it followed {first.called}, which is nearer to the cause" if first else ""
        return self.finding(
            f"gpu:{event.address}",
            f"{known.told(event.address, event.times)}{led}",
            Evidence(event.source, event.text),
            severity=Severity.NOTE if first else known.severity_of(event.times),
            advice=known.advice,
            whose=known.whose,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        summary = SUMMARIES.get(finding.detail["whose"], "Follow NVIDIA's advice for this number")
        yield Plan(summary, Risk.MEDIUM, (ByHand(finding.detail["advice"]),))
