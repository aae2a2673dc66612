"""The check at boot: finishes repairs that waited for the reboot, checks, and repairs what the policy allows."""

import json
import os
import time
from contextlib import suppress

from dlhealth.engine.baseline import keep
from dlhealth.engine.busy import all_configured
from dlhealth.engine.examine import Examiner, examining
from dlhealth.engine.facts import Options
from dlhealth.engine.load import chosen
from dlhealth.engine.policy import Trigger, Verdict
from dlhealth.engine.record import inventory_of
from dlhealth.engine.repair import in_rounds
from dlhealth.host.alert import Kind, alert, send
from dlhealth.host.newfile import replace
from dlhealth.host.root import live_host
from dlhealth.model import OF_THE_BOOT, Health, Outcome, Risk
from dlhealth.report.story import Line, reboot_of
from dlhealth.service.alerts import Known, of_change
from dlhealth.service.check import open_problems, policy_of
from dlhealth.service.notify import Manager
from dlhealth.service.unattended import ROOT, Seen, do, look, propose, settle, stop
from dlhealth.service.watch import BOOT_STATE
from dlhealth.txn.store import Store

_REPAIR_SECONDS = 900
"""How much longer the boot may take during a repair or an undo: building a module takes minutes."""
_ROUNDS = 3


def boot_check() -> Seen:
    """Run the check. Raises Busy if another dlhealth is changing the machine."""
    store = Store(ROOT)
    try:
        with store.locked():
            seen = _settled_and_repaired(store)
    except OSError as problem:
        # /var is full or read-only: repair nothing, but report the problems.
        send(alert(Kind.NOT_REPAIRED, store.explain(problem), severity="warning"))
        seen = look()
    found = open_problems(seen.diagnosis, seen.policy)
    known = Known()
    known.update(found, ())
    for told_of in of_change(known.untold()):
        if send(told_of.entry):
            known.was_told(told_of)
    os.makedirs(os.path.dirname(BOOT_STATE), exist_ok=True)
    if seen.diagnosis.health is Health.HEALTHY:
        _remember(seen)
    replace(BOOT_STATE, json.dumps({"checked": int(time.time()), **known.saved()}).encode(), mode=0o600)
    return seen


def _remember(seen: Seen) -> None:
    """Save the known-good record: what this machine is while it works."""
    with suppress(OSError):  # a full or read-only /var: the boot matters more
        keep(inventory_of(seen.examined.facts), ROOT)


def _settled_and_repaired(store: Store) -> Seen:
    if store.current() is not None:
        Manager().needs(_REPAIR_SECONDS)
    settle(store, send, lambda seen: False)
    return in_rounds(_ROUNDS, look, lambda seen: store.current() is None and _repair(seen, store))


def _repair(seen: Seen, store: Store) -> bool:
    """Run the first allowed repair; whether there was one that helped."""
    if seen.policy.max_risk is None:
        return False
    enough = []
    for finding in seen.diagnosis.root_causes:
        highest = seen.policy.max_risk or Risk.LOW
        proposal = propose(seen, store, Trigger.BOOT, finding.id, finding.subject, highest)
        if proposal.decision.verdict is Verdict.DO:
            Manager().needs(_REPAIR_SECONDS)
            ended = do(proposal, seen, store, send)
            return ended is not None and ended.outcome is Outcome.APPLIED
        if proposal.decision.verdict is Verdict.ENOUGH:
            enough.append(proposal)
    for proposal in enough:
        stop(proposal, send)
    return False


def next_boot_verdict() -> Line | None:
    """Whether the next boot will have a driver and a login screen. None while packages wait to be configured (apt calls
    dpkg several times, and a half-finished change is not a fault), and where no driver of this system will be loaded."""

    def work(examiner: Examiner) -> Line | None:
        policy, _ = policy_of(examiner.host)
        options = Options(users=policy.users, next_boot=True)
        if not all_configured(examiner.facts(options)):
            return None
        # These rules are all that decide about a boot.
        rules = chosen(examiner.loaded, [layer.value for layer in OF_THE_BOOT])._replace(whole=True)
        diagnosis = examiner.diagnose(options, rules)
        found = tuple(d for d in diagnosis.findings if d.finding.id not in policy.ignore)
        setting = (diagnosis.machine.get("platform") or {}).get("setting")
        if not found and (diagnosis.lacks_driver or setting != "machine"):
            return None
        return reboot_of(diagnosis._replace(findings=found))

    return examining(live_host(), work)
