"""Root's side of the repair socket: one request, then it ends.

The request says which finding, never what to do: the plan is computed here, from this process's own look at the
machine, and its digest is compared with the one that the asker was shown.
"""

import json
import os
import pwd
import re
import select
import socket
import time
from typing import Any

from dlhealth.engine.policy import Trigger, Verdict
from dlhealth.host.exec import run
from dlhealth.host.journal import send
from dlhealth.lean import NamedTuple
from dlhealth.model import Layer, Outcome, Risk
from dlhealth.probes import Unavailable
from dlhealth.probes.journal import Journal
from dlhealth.probes.sessions import Sessions
from dlhealth.service.request import LINE_LIMIT, VERSION, Peer, peer_of
from dlhealth.service.unattended import ROOT, Proposal, Seen, do, look, propose, settle, stop
from dlhealth.steps.base import Target
from dlhealth.txn.execute import undo
from dlhealth.txn.store import Busy, Record, Store, reading_plan

WATCHER = "dlhealth"
PATIENCE = 5.0
"""Seconds within which the whole request must have arrived."""
_UNREAD = 1 << 20
"""Bytes of a request that is too long that are read to be forgotten."""
_FIELDS = {"version": int, "verb": str, "finding": str, "subject": str, "digest": str}
_VERBS = ("preview", "apply", "confirm", "undo", "status")
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DIGEST = re.compile(r"[0-9a-f]{12}|")


class Refused(Exception):
    """A request that is not answered; the message says why."""


class Asked(NamedTuple):
    """A request that is well formed."""

    verb: str
    finding: str
    subject: str
    digest: str


def receive(channel: socket.socket, patience: float = PATIENCE) -> bytes:
    """One line. Raises Refused for one that is too long, or does not come in time."""
    deadline = time.monotonic() + patience
    line = b""
    while b"\n" not in line:
        if not select.select([channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise Refused(f"no complete request within {patience:g} seconds")
        chunk = channel.recv(LINE_LIMIT + 1)
        if not chunk:
            raise Refused("the request ended before its line did")
        line += chunk
        if len(line) > LINE_LIMIT:
            raise Refused(f"a request has at most {LINE_LIMIT} bytes")
    return line


def parse(line: bytes) -> Asked:
    """A request. Raises Refused for anything else than the known fields with the known kinds of values."""
    try:
        fields = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Refused("the request is no JSON") from error
    if not isinstance(fields, dict) or set(fields) != set(_FIELDS):
        raise Refused(f"a request has the fields {', '.join(_FIELDS)}")
    if any(type(fields[name]) is not kind for name, kind in _FIELDS.items()):
        raise Refused("a field of the request has the wrong type")
    if fields["version"] != VERSION:
        raise Refused(f"only version {VERSION} of the protocol is spoken")
    if fields["verb"] not in _VERBS:
        raise Refused(f"known verbs are {', '.join(_VERBS)}")
    needs_finding = fields["verb"] in ("preview", "apply")
    if needs_finding and not (_ID.fullmatch(fields["finding"]) and len(fields["finding"]) < 100):
        raise Refused("the finding is no id of a rule")
    if not _DIGEST.fullmatch(fields["digest"]) or (fields["verb"] == "apply" and not fields["digest"]):
        raise Refused("apply needs the digest that a preview gave")
    return Asked(*(fields[name] for name in Asked._fields))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a field that is given twice, nobody could say which one was meant."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError
    return fields


def serve(channel: socket.socket) -> dict[str, Any]:
    """The answer to the one request of a connection."""
    try:
        peer = peer_of(channel)
        asked = parse(receive(channel))
        trigger = _trigger(peer)
        store = Store(ROOT)
        if asked.verb == "status":
            current = store.current()
            return {"ok": True, "transaction": current.name if current else ""}
        if asked.verb == "undo":
            return _undo(store, peer, trigger)
        _allow(peer, trigger, "org.dlhealth.diagnose")
        if asked.verb == "confirm":
            return _confirm(store)
        if asked.verb == "preview":
            return _preview(store, trigger, asked)
        return _apply(store, peer, trigger, asked)
    except Refused as refusal:
        return {"ok": False, "error": str(refusal)}
    except (Busy, OSError) as problem:
        return {"ok": False, "error": Store(ROOT).explain(problem)}


def _preview(store: Store, trigger: Trigger, asked: Asked) -> dict[str, Any]:
    _, proposal = _proposed(store, trigger, asked)
    allowed = bool(proposal.repair.chosen) and _may(proposal, trigger)
    later = trigger is not Trigger.TERMINAL and proposal.decision.verdict is Verdict.LATER
    if trigger is not Trigger.TERMINAL and proposal.decision.verdict is Verdict.ENOUGH:
        stop(proposal, send)
    return {"ok": True, "allowed": allowed, "later": later, "digest": proposal.repair.digest, **_shown(proposal)}


def _apply(store: Store, peer: Peer, trigger: Trigger, asked: Asked) -> dict[str, Any]:
    _, proposal = _proposed(store, trigger, asked)
    risk = proposal.repair.risk
    # Before the lock is taken: a person may take long to answer, or not be one at all.
    _allow(peer, trigger, f"org.dlhealth.repair-{risk.value}")
    with store.locked():
        seen, proposal = _proposed(store, trigger, asked)
        if not proposal.repair.chosen:
            raise Refused(proposal.decision.reason)
        # Also what was allowed: who can change what is looked at might have shown polkit something milder.
        if (asked.digest, risk) != (proposal.repair.digest, proposal.repair.risk):
            raise Refused("the machine has changed since the preview: ask for a new one")
        if not _may(proposal, trigger):
            raise Refused(proposal.decision.reason)
        ended = do(proposal, seen, store, send)
    return {"ok": ended is not None, "outcome": ended.outcome if ended else Outcome.REFUSED}


def _proposed(store: Store, trigger: Trigger, asked: Asked) -> tuple[Seen, Proposal]:
    if store.current() is not None:
        raise Refused("an earlier repair waits for a reboot, or was cut off: dlhealth history")
    seen = look()
    highest = Risk.HIGH if trigger is Trigger.TERMINAL else seen.policy.max_risk or Risk.LOW
    return seen, propose(seen, store, trigger, asked.finding, asked.subject, highest)


def _may(proposal: Proposal, trigger: Trigger) -> bool:
    """The policy is for what happens unattended; a person was asked by polkit."""
    return trigger is Trigger.TERMINAL or proposal.decision.verdict is Verdict.DO


def _shown(proposal: Proposal) -> dict[str, Any]:
    repair = proposal.repair
    return {
        "risk": repair.risk.value,
        "reboot": repair.reboot,
        "summary": "; ".join(c.plan.summary for c in repair.chosen),
        "reason": proposal.decision.reason,
    }


def _confirm(store: Store) -> dict[str, Any]:
    """Judge what waited for a restart, as far as that can be judged by now."""
    with store.locked():
        waiting = store.current()
        ended = settle(store, send, lambda seen: waiting is not None and _login_seen(waiting, seen))
    return {"ok": True, "outcome": ended.outcome if ended else Outcome.NOTHING}


def _login_seen(waiting: Record, seen: Seen) -> bool:
    """Whether, since the machine was started, each person stayed in a session whose login was repaired. Where it was
    everybody's, one is enough; other repairs have no need of one."""
    rules, facts = seen.examined.rules, seen.examined.facts
    with reading_plan(waiting) as plan:
        ours = [f for f in plan["findings"] if f["id"] in rules and rules[f["id"]].layer is Layer.LOGIN]
    if not ours:
        return True
    try:
        sessions, boots = facts.get(Sessions), facts.get(Journal).boots
    except Unavailable:
        return False
    if not boots:
        return False
    here = sessions.of_boot(boots[-1])
    stayed = {user for user in here.users() if here.got_in(user)}
    people = {f["subject"].removeprefix("user:") for f in ours if f["subject"].startswith("user:")}
    return bool(stayed) and people <= stayed


def _undo(store: Store, peer: Peer, trigger: Trigger) -> dict[str, Any]:
    if trigger is not Trigger.TERMINAL:
        raise Refused("only a person takes a repair back")
    _allow(peer, trigger, "org.dlhealth.undo")
    with store.locked():
        done = [r for r in store.ended() if r.stands]
        record = store.current() or (done[-1] if done else None)
        if record is None:
            return {"ok": True, "outcome": Outcome.NOTHING}
        return {"ok": True, "outcome": undo(store, Target(ROOT, record.id), record).outcome}


def _allow(peer: Peer, trigger: Trigger, action: str) -> None:
    """Raises Refused for a person who is not root and whom polkit does not let."""
    if trigger is Trigger.TERMINAL and peer.uid:
        authorize(peer, action)


def _trigger(peer: Peer) -> Trigger:
    """The watcher asks by itself; all others are people."""
    try:
        return Trigger.JOURNAL if peer.uid == pwd.getpwnam(WATCHER).pw_uid else Trigger.TERMINAL
    except KeyError:
        return Trigger.TERMINAL


def authorize(peer: Peer, action: str) -> None:
    """Ask polkit. Raises Refused where it says no, or is not there."""
    from dlhealth.host.processes import started

    subject = f"{peer.pid},{started(peer.pid)},{peer.uid}"
    done = run(["pkcheck", "--action-id", action, "--process", subject, "--allow-user-interaction"], timeout=120)
    if done.status != 0:
        raise Refused(f"polkit does not allow {action}: {done.problem or done.stderr.strip() or 'not authorized'}")


def main() -> None:
    """What dlhealth-repair.service starts for each request: the connection is its standard input."""
    os.setpriority(os.PRIO_PROCESS, 0, 0)  # who lets requests in has a higher one
    channel = socket.socket(fileno=os.dup(0))
    answer = json.dumps(serve(channel)) + "\n"
    try:
        channel.settimeout(PATIENCE)
        channel.sendall(answer.encode())
        # A connection that is closed with something unread is reset, and the answer lost with it.
        channel.shutdown(socket.SHUT_WR)
        for _ in range(_UNREAD // LINE_LIMIT):
            if not channel.recv(LINE_LIMIT):
                break
    except OSError:
        pass  # who asked is gone; what was done is in the journal


if __name__ == "__main__":
    main()
