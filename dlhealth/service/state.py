"""What the service knows, for programs that ask it instead of checking the machine again."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dlhealth.host.exec import as_root, run
from dlhealth.model import Health, OpenProblem, Severity
from dlhealth.records import NamedTuple
from dlhealth.service.alerts import read
from dlhealth.service.watch import BOOT_STATE, FOLDER, PUBLIC
from dlhealth.txn.store import Store


class ServiceState(NamedTuple):
    """The open problems at the last check, which ended at `checked` (seconds since 1970; None before the first one).
    `run` and `skipped` count the rules of the last complete check, None if there was none; `cards` is what each GPU then
    said of its health, by its address. `unknown` says why the
    machine's state is not known now, "" if it is. `partly` is set if the problems count nevertheless. `waits` is the
    repair that runs or waits for a reboot, and `trouble` says why it cannot be read. `outcomes` counts the repairs, None
    for a user who may not read them."""

    checked: int | None
    findings: tuple[OpenProblem, ...]
    run: int | None
    skipped: int | None
    unknown: str
    partly: bool
    waits: str
    trouble: str
    outcomes: Mapping[str, int] | None
    cards: Mapping[str, Any] = {}

    @property
    def health(self) -> Health:
        """UNKNOWN also with open problems, if they may be out of date."""
        severities = {f.severity for f in self.findings}
        if self.unknown and not (severities and self.partly):
            return Health.UNKNOWN
        return Health.BROKEN if Severity.ERROR in severities else Health.DEGRADED if severities else Health.HEALTHY

    @property
    def roots(self) -> tuple[OpenProblem, ...]:
        return tuple(f for f in self.findings if not f.caused_by)


def read_known() -> ServiceState:
    """What the service knows about this machine, as far as this user may read it."""
    state = _saved()
    store = Store("/")
    waits, trouble, outcomes = "", "", None
    try:
        if store.readable:
            current = store.current()
            waits = current.name if current else ""
            outcomes = Counter(record.outcome for record in store.ended())
    except OSError as problem:
        trouble = store.explain(problem)
    return ServiceState(
        checked=state.get("checked"),
        findings=tuple(state.get("findings", ())),
        run=state.get("run"),
        skipped=state.get("skipped"),
        unknown=_unknown(state, store),
        partly=bool(state.get("unchecked")),
        waits=waits,
        trouble=trouble,
        outcomes=outcomes,
        cards=state.get("cards", {}),
    )


def _saved() -> dict[str, Any]:
    """What the service wrote last, as far as this user may read it; where this version does not understand that, only
    the problem."""
    problem = ""
    # The first are for root only; the last is for everybody.
    for path in (f"{FOLDER}/state.json", BOOT_STATE, f"{FOLDER}/{PUBLIC}"):
        try:
            return read(path)
        except OSError:
            continue
        except ValueError as error:
            problem = problem or f"{path} cannot be used: {error}. To write it again: systemctl restart dlhealth"
    return {"problem": problem}


def _unknown(state: dict[str, Any], store: Store) -> str:
    """Why the machine's state is not known now; "" if the service knows it."""
    if silent := _silent():
        return silent
    if "checked" not in state:
        return state.get("problem", "") or "the service has not checked this machine since it started"
    if state.get("problem"):
        return str(state["problem"])
    if store.changed() > state.get("began", state["checked"]):
        return "a repair or an undo ended after the last check"
    return ""


def _silent() -> str:
    """Why the service does not check this machine; "" if it runs, or if systemd does not run and cannot be asked."""
    from dlhealth.service.install import running

    if not running():
        return ""
    asked = run(["systemctl", "show", "-p", "LoadState", "-p", "ActiveState", "dlhealth.service"], timeout=10)
    told = dict(line.split("=", 1) for line in asked.stdout.splitlines() if "=" in line)
    if told.get("LoadState") == "not-found":
        return f"the service is not installed. To install it: {as_root('dlhealth service install')}"
    state = told.get("ActiveState", "active")
    if state in ("active", "reloading"):
        return ""
    return f"the service does not run ({state}). Details: systemctl status dlhealth.service"
