"""Root's side of the repair socket: answers one request, then ends.

A request names a finding, never what to do. This process checks the machine itself, computes the plan, and compares its
digest with the one that the asker saw.
"""

import json
import os
import pwd
import select
import socket
import time
from typing import Any

from dlhealth.engine.people import logged_in
from dlhealth.engine.policy import Trigger, Verdict
from dlhealth.host.alert import send
from dlhealth.host.exec import run
from dlhealth.lazy import regex
from dlhealth.model import Layer, Outcome, Risk
from dlhealth.records import NamedTuple
from dlhealth.service.request import LINE_LIMIT, VERSION, Peer, peer_of
from dlhealth.service.unattended import ROOT, Proposal, Seen, do, look, propose, settle, stop
from dlhealth.steps.base import Target
from dlhealth.txn.execute import undo
from dlhealth.txn.store import Busy, Record, Store, reading_plan

WATCHER = "dlhealth"
PATIENCE = 5.0
"""Seconds within which the whole request must arrive."""
_UNREAD = 1 << 20
"""Bytes of a too long request that are read and ignored."""
_FIELDS = {"version": int, "verb": str, "finding": str, "subject": str, "digest": str}
_VERBS = ("preview", "apply", "confirm", "undo", "status")
_ID = regex(r"[a-z0-9]+(-[a-z0-9]+)*")
_DIGEST = regex(r"[0-9a-f]{12}|")


class Refused(Exception):
    """A refused request; the message says why."""


class Asked(NamedTuple):
    """A valid request."""

    verb: str
    finding: str
    subject: str
    digest: str


def receive(channel: socket.socket, patience: float = PATIENCE) -> bytes:
    """Read one line. Raises Refused if it is too long or too late."""
    deadline = time.monotonic() + patience
    line = b""
    while b"\n" not in line:
        if not select.select([channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise Refused(f"no complete request within {patience:g} seconds")
        chunk = channel.recv(LINE_LIMIT + 1)
        if not chunk:
            raise Refused("the request ended in the middle of its line")
        line += chunk
        if len(line) > LINE_LIMIT:
            raise Refused(f"a request has at most {LINE_LIMIT} bytes")
    return line


def parse(line: bytes) -> Asked:
    """Parse a request. Raises Refused unless it has exactly the known fields with values of the right types."""
    try:
        fields = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Refused("the request is not valid JSON") from error
    if not isinstance(fields, dict) or set(fields) != set(_FIELDS):
        raise Refused(f"a request needs exactly the fields {', '.join(_FIELDS)}")
    if any(type(fields[name]) is not kind for name, kind in _FIELDS.items()):
        raise Refused("a field of the request has the wrong type")
    if fields["version"] != VERSION:
        raise Refused(f"only version {VERSION} of the protocol is supported")
    if fields["verb"] not in _VERBS:
        raise Refused(f"known verbs are {', '.join(_VERBS)}")
    needs_finding = fields["verb"] in ("preview", "apply")
    if needs_finding and not (_ID.fullmatch(fields["finding"]) and len(fields["finding"]) < 100):
        raise Refused("the finding is not the id of a rule")
    if not _DIGEST.fullmatch(fields["digest"]) or (fields["verb"] == "apply" and not fields["digest"]):
        raise Refused("apply needs the digest from a preview")
    return Asked(*(fields[name] for name in Asked._fields))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a field that is given twice: it is unclear which value counts."""
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
    # Ask before taking the lock: a person may answer late or never.
    _allow(peer, trigger, f"org.dlhealth.repair-{risk.value}")
    with store.locked():
        seen, proposal = _proposed(store, trigger, asked)
        if not proposal.repair.chosen:
            raise Refused(proposal.decision.reason)
        # Compare the risk, too: somebody who can change the machine might have shown polkit a milder repair.
        if (asked.digest, risk) != (proposal.repair.digest, proposal.repair.risk):
            raise Refused("the machine has changed since the preview: ask for a new one")
        if not _may(proposal, trigger):
            raise Refused(proposal.decision.reason)
        ended = do(proposal, seen, store, send)
    return {"ok": ended is not None, "outcome": ended.outcome if ended else Outcome.REFUSED}


def _proposed(store: Store, trigger: Trigger, asked: Asked) -> tuple[Seen, Proposal]:
    if store.current() is not None:
        raise Refused("an earlier repair waits for a reboot or was interrupted: see dlhealth history")
    seen = look()
    highest = Risk.HIGH if trigger is Trigger.TERMINAL else seen.policy.max_risk or Risk.LOW
    return seen, propose(seen, store, trigger, asked.finding, asked.subject, highest)


def _may(proposal: Proposal, trigger: Trigger) -> bool:
    """The policy decides about unattended repairs; for a person, polkit has decided."""
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
    """Finish a repair that waited for a reboot, if its result can be checked by now."""
    with store.locked():
        waiting = store.current()
        ended = settle(store, send, lambda seen: waiting is not None and _login_seen(waiting, seen))
    return {"ok": True, "outcome": ended.outcome if ended else Outcome.NOTHING}


def _login_seen(waiting: Record, seen: Seen) -> bool:
    """Whether every user whose login was repaired stayed in a session since boot. If the repair concerned everybody, one
    user is enough. Other repairs need no login."""
    rules = seen.examined.rules
    with reading_plan(waiting) as plan:
        ours = [f for f in plan["findings"] if f["id"] in rules and rules[f["id"]].layer is Layer.LOGIN]
    if not ours:
        return True
    stayed = logged_in(seen.examined.facts)
    people = {f["subject"].removeprefix("user:") for f in ours if f["subject"].startswith("user:")}
    return bool(stayed) and people <= stayed


def _undo(store: Store, peer: Peer, trigger: Trigger) -> dict[str, Any]:
    if trigger is not Trigger.TERMINAL:
        raise Refused("only a person may undo a repair")
    _allow(peer, trigger, "org.dlhealth.undo")
    with store.locked():
        done = [r for r in store.ended() if r.stands]
        record = store.current() or (done[-1] if done else None)
        if record is None:
            return {"ok": True, "outcome": Outcome.NOTHING}
        return {"ok": True, "outcome": undo(store, Target(ROOT, record.id), record).outcome}


def _allow(peer: Peer, trigger: Trigger, action: str) -> None:
    """Raises Refused for a person who is not root and whom polkit does not allow this."""
    if trigger is Trigger.TERMINAL and peer.uid:
        authorize(peer, action)


def _trigger(peer: Peer) -> Trigger:
    """Who asks: the watcher by itself, or a person."""
    try:
        return Trigger.JOURNAL if peer.uid == pwd.getpwnam(WATCHER).pw_uid else Trigger.TERMINAL
    except KeyError:
        return Trigger.TERMINAL


def authorize(peer: Peer, action: str) -> None:
    """Ask polkit. Raises Refused if it says no, or is not installed."""
    from dlhealth.host.processes import started

    subject = f"{peer.pid},{started(peer.pid)},{peer.uid}"
    done = run(["pkcheck", "--action-id", action, "--process", subject, "--allow-user-interaction"], timeout=120)
    if done.status != 0:
        raise Refused(f"polkit does not allow {action}: {done.problem or done.stderr.strip() or 'not authorized'}")


def main() -> None:
    """Answer one request; dlhealth-repair.service starts this with the connection as standard input."""
    os.setpriority(os.PRIO_PROCESS, 0, 0)  # the process that accepts connections has a higher one
    channel = socket.socket(fileno=os.dup(0))
    answer = json.dumps(serve(channel)) + "\n"
    try:
        channel.settimeout(PATIENCE)
        channel.sendall(answer.encode())
        # Closing a connection with unread data resets it, and the answer would be lost.
        channel.shutdown(socket.SHUT_WR)
        for _ in range(_UNREAD // LINE_LIMIT):
            if not channel.recv(LINE_LIMIT):
                break
    except OSError:
        pass  # the asker is gone; the journal has the result


if __name__ == "__main__":
    main()
