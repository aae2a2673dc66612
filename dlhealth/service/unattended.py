"""A repair without a person at the terminal: chosen for one finding, checked against the policy, run, reported."""

import os
import time
from collections.abc import Callable, Collection
from functools import cache
from typing import TypedDict

from dlhealth.engine.busy import being_changed
from dlhealth.engine.choose import Limits, Repair, choose
from dlhealth.engine.examine import Examined, examine
from dlhealth.engine.facts import Options
from dlhealth.engine.load import LOCAL_RULES
from dlhealth.engine.policy import Decision, Policy, Trigger, Verdict, decide, restart_at
from dlhealth.engine.repair import carry_out, confirm_after_reboot, tried
from dlhealth.host.alert import Kind, alert
from dlhealth.host.exec import run
from dlhealth.host.root import live_host
from dlhealth.model import TIME_FORMAT, Diagnosis, Outcome, Risk, Severity
from dlhealth.records import NamedTuple
from dlhealth.service.check import policy_of
from dlhealth.service.watch import FOLDER, REPORT_ONLY
from dlhealth.steps.base import Target
from dlhealth.txn.alert import of_ended
from dlhealth.txn.execute import Ended, NotPrepared, recover
from dlhealth.txn.store import Store, reading_plan

ROOT = "/"
STOPPED = "/run/dlhealth/stopped"
"""Holds the fingerprint of each finding that was reported as left to a person."""
_DAY = 86400
_ALERTS = {
    Outcome.APPLIED: (Kind.REPAIRED, "note", "Repaired: {what}. To undo it: dlhealth undo {name}"),
    Outcome.AWAITING_REBOOT: (Kind.AWAITING_REBOOT, "warning", "Repair needs a reboot to finish: {what}"),
}
_NO_HELP = (Kind.NOT_REPAIRED, "warning", "Tried, did not help, undone: {what} ({why})")
"""The alert about each outcome of a repair, and about all others."""


class Seen(NamedTuple):
    """The machine as this process itself sees it now, and what its administrator allows."""

    examined: Examined
    policy: Policy

    @property
    def diagnosis(self) -> Diagnosis:
        """What all rules found."""
        return self.examined.diagnosis


class _About(TypedDict):
    id: str
    subject: str
    layer: str


class Proposal(NamedTuple):
    """The repair of a finding, and whether it is allowed."""

    repair: Repair
    decision: Decision


def look() -> Seen:
    """Diagnose the running machine with all rules."""
    host = live_host()
    examined = examine(host, lambda examiner: Options(users=policy_of(host)[0].users))
    return Seen(examined, policy_of(host)[0])


def propose(seen: Seen, store: Store, trigger: Trigger, finding: str, subject: str, highest: Risk) -> Proposal:
    """The mildest repair of a finding whose risk is at most `highest`."""
    notes = {(d.finding.id, d.finding.subject) for d in seen.diagnosis.findings if d.finding.severity is Severity.NOTE}
    if trigger is not Trigger.TERMINAL and (finding, subject) in notes:
        return Proposal(Repair((), (), ()), Decision(Verdict.NEVER, "a note is repaired only on request"))
    if trigger is Trigger.JOURNAL and os.path.lexists(f"{FOLDER}/{REPORT_ONLY}"):
        return Proposal(
            Repair((), (), ()), Decision(Verdict.LATER, "the first check after the installation only reports")
        )
    failed = tried(store)
    offline = trigger is Trigger.BOOT  # before the network is up
    limits = Limits(highest, offline, tried=failed, given_up=failed, wanted=frozenset({finding}), subject=subject)
    repair = choose(seen.diagnosis, seen.examined.rules, seen.examined.facts, limits)
    if not repair.chosen:
        left = next((x.reason for x in repair.left), f"{finding} is not found, or another finding explains it")
        return Proposal(repair, Decision(Verdict.NEVER, left))
    if trigger is not Trigger.TERMINAL and (busy := being_changed(live_host())):
        return Proposal(repair, Decision(Verdict.LATER, busy))
    decisions = [
        decide(
            seen.policy,
            trigger,
            c.finding.id,
            c.plan,
            _attempts(store, c.finding.fingerprint, failed),
            not type(seen.examined.rules[c.finding.id]).__module__.startswith(LOCAL_RULES),
        )
        for c in repair.chosen
    ]
    refused = (d for d in decisions if d.verdict is not Verdict.DO)
    return Proposal(repair, next(refused, Decision(Verdict.DO)))


def _attempts(store: Store, fingerprint: str, failed: Collection[tuple[str, str]]) -> int:
    """How often a finding was repaired on the same evidence within a day. A repair that a person undid, or that may have
    crashed the machine, counts whenever it was. Repairs that did not help are not counted: the next plan follows them."""
    yesterday = time.strftime(TIME_FORMAT, time.gmtime(time.time() - _DAY))
    count = 0
    for record in store.ended():
        # An unreadable record may have been any repair: its error stops every unattended repair.
        with reading_plan(record) as plan:
            pairs = {(f["fingerprint"], f["summary"]) for f in plan["findings"]} - set(failed)
            recent = record.outcome != Outcome.APPLIED or plan["time"] >= yesterday
        if recent:
            count += any(own == fingerprint for own, _ in pairs)
    return count


def settle(store: Store, tell: Callable[[bytes], object], sure: Callable[[Seen], bool]) -> Ended | None:
    """Finish an earlier transaction: undo it if it was interrupted or did not help after the reboot; keep it once it is
    sure that it helped."""
    current = store.current()
    if current is None:
        return None
    now = cache(look)
    ended = recover(store, Target(ROOT, current.id)) or confirm_after_reboot(
        store, ROOT, lambda: now().diagnosis, lambda: sure(now())
    )
    if ended is None:
        return None
    tell(of_ended(ended))
    return ended


def do(proposal: Proposal, seen: Seen, store: Store, tell: Callable[[bytes], object]) -> Ended | None:
    """Run a proposal and report it to the journal; None if it could not begin."""
    about = _about(proposal)
    try:
        ended = carry_out(proposal.repair, seen.diagnosis, store, ROOT, lambda: look().diagnosis, lambda text: None)
    except NotPrepared as problem:
        tell(alert(Kind.NOT_REPAIRED, f"Not repaired, nothing was changed: {problem}", severity="warning", **about))
        return None
    what = "; ".join(c.plan.summary for c in proposal.repair.chosen)
    kind, severity, said = _ALERTS.get(ended.outcome, _NO_HELP)
    text = said.format(what=what, name=ended.record.name, why="; ".join(ended.said))
    tell(alert(kind, text, severity=severity, transaction=ended.record.name, **about))
    if ended.outcome is Outcome.AWAITING_REBOOT and seen.policy.reboot_hours:
        now = time.localtime()
        moment = restart_at(seen.policy.reboot_hours, now.tm_hour * 60 + now.tm_min)
        run(
            ["shutdown", "-r", moment, "This reboot finishes a repair by dlhealth. To cancel it: shutdown -c"],
            timeout=10,
        )
    return ended


def stop(proposal: Proposal, tell: Callable[[bytes], object]) -> None:
    """Report that a problem came back after its repair and is left to a person; a repair loop would never end. Reported
    once per boot, although both the check at boot and the watcher find it."""
    finding = proposal.repair.chosen[0].finding
    try:
        os.makedirs(f"{STOPPED}/{finding.fingerprint}")
    except FileExistsError:
        return
    text = f"Not repaired again: {finding.title} ({proposal.decision.reason})"
    tell(alert(Kind.NOT_REPAIRED, text, severity="warning", **_about(proposal)))


def _about(proposal: Proposal) -> _About:
    finding = proposal.repair.chosen[0].finding
    return {"id": finding.id, "subject": finding.subject, "layer": finding.layer.value}
