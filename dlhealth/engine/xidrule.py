"""The common part of the rules about the driver's own error numbers (Xid)."""

from collections.abc import Iterator

from dlhealth.actions import ByHand
from dlhealth.data.kernel_log import Xid, xid
from dlhealth.engine.rule import Rule
from dlhealth.model import Evidence, Finding, Plan, Risk, Severity, Stage
from dlhealth.probes.driver.driverlog import XidEvent, XidEvents


class XidRule(Rule):
    """A fault that the driver reports by numbers. The table says which numbers belong to which rule, how bad each is,
    and what NVIDIA advises. A finding remains until the next boot."""

    stage = Stage.REBOOT
    severity = Severity.WARNING
    risk = Risk.MEDIUM

    def detect(self, xids: XidEvents) -> Iterator[Finding]:
        for event in xids.events:
            known = xid(event.number)
            if not event.switch and known.fault == self.id:
                yield self._found(event, known)

    def _found(self, event: XidEvent, known: Xid) -> Finding:
        name = f" ({known.name})" if known.name else ""
        return self.finding(
            f"gpu:{event.address}",
            f"The driver reported Xid {event.number}{name} for the GPU at {event.address}: {known.advice}",
            Evidence(event.source, event.text),
            severity=known.severity,
            advice=known.advice,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan("Follow NVIDIA's advice for this number", Risk.MEDIUM, (ByHand(finding.detail["advice"]),))
