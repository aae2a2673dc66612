"""Chooses the repair for a diagnosis: for each root cause, the mildest allowed plan."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dlhealth.actions import (
    OF_A_PERSON,
    ByHand,
    DkmsBuild,
    EditFile,
    LoadModules,
    PipInstall,
    Reboot,
    RefreshLoaderCache,
    RefreshModuleIndex,
    ReloadModules,
    UpdateInitramfs,
    action_to_json,
    changed_path,
)
from dlhealth.engine.available import not_available
from dlhealth.engine.bounds import Bounds
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule, plans
from dlhealth.host import Host, Unreadable
from dlhealth.model import Action, Diagnosis, Finding, Plan, Risk
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.dkms import known_to_fail
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.records import NamedTuple

# They use the results of the other actions, so they come last, and once; the last contains results of the first.
_DERIVED = (RefreshLoaderCache, RefreshModuleIndex, UpdateInitramfs)
# On a disk that is not running, no modules are loaded and no services run.
ONLY_LIVE = (LoadModules, ReloadModules, Reboot)


class Limits(NamedTuple):
    """The limits of a repair.

    `highest` is the highest allowed risk; `offline` forbids the network; `live` means the running machine.
    `tried` are repairs that did not help in an earlier run, `given_up` those that did not help in this run, each as the
    finding's fingerprint and the plan's summary: the next plan follows. `refused` says, by fingerprint, why a repair could
    not begin: a lock or a missing package is no reason for a more drastic plan. `wanted` are the rules to repair, empty
    for all; `subject` limits their findings to one subject, empty for any. Naming a rule or its layer also allows what was
    tried before, and findings that are only a note."""

    highest: Risk = Risk.MEDIUM
    offline: bool = False
    live: bool = True
    tried: frozenset[tuple[str, str]] = frozenset()
    given_up: frozenset[tuple[str, str]] = frozenset()
    refused: Mapping[str, str] = {}
    wanted: frozenset[str] = frozenset()
    subject: str = ""


class Chosen(NamedTuple):
    """A finding and the plan that was chosen for it."""

    finding: Finding
    plan: Plan


class Left(NamedTuple):
    """A finding that will not be repaired, and why; `by_hand` are the steps for a person."""

    finding: Finding
    reason: str
    by_hand: tuple[Action, ...]


class Repair(NamedTuple):
    """Everything that will be done at once, in order. It is built once; later only its digest is compared."""

    chosen: tuple[Chosen, ...]
    left: tuple[Left, ...]
    actions: tuple[Action, ...]
    live: bool = True
    """Whether it is for the running machine."""

    @property
    def risk(self) -> Risk:
        return max((c.plan.risk for c in self.chosen), default=Risk.LOW)

    @property
    def reboot(self) -> bool:
        return self.live and any(c.plan.reboot for c in self.chosen)

    @property
    def network(self) -> bool:
        return any(c.plan.network for c in self.chosen)

    @property
    def digest(self) -> str:
        import hashlib  # loads OpenSSL, which a diagnosis does not need
        import json

        text = json.dumps([action_to_json(a) for a in self.actions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def choose(diagnosis: Diagnosis, rules: Mapping[str, Rule], facts: Facts, limits: Limits) -> Repair:
    """What can be repaired now, in the order of repair. If two plans change the same file differently, the later one waits
    for the next round."""
    chosen: list[Chosen] = []
    left: list[Left] = []
    taken: dict[str, list[Action]] = {}
    bounds: Bounds = facts.get(Bounds)
    for finding in _to_repair(diagnosis, rules, limits):
        try:
            offer = offer_for(rules[finding.id], finding, facts, limits)
            steps = offer.plan.actions if offer.plan else ()
            for action in steps:
                action.summary()  # shows a defect of the rule now, not while the plan is printed
        except Unavailable as problem:
            left.append(Left(finding, str(problem), ()))
            continue
        except (Exception, SystemExit) as error:  # a rule's defect must not prevent the repairs of other rules
            reason = f"the rule {finding.id} has a defect: remedies: {type(error).__name__}: {error}"
            left.append(Left(finding, reason, ()))
            continue
        plan = offer.plan
        if plan is None or offer.reason:
            left.append(Left(finding, offer.reason, steps))
        elif lost := bounds.lost([a for p in (*(c.plan for c in chosen), plan) for a in p.actions]):
            left.append(Left(finding, f"together with the other repairs it would leave no usable {lost}", steps))
        elif _agrees(plan, taken):
            chosen.append(Chosen(finding, plan))
            for action in filter(changed_path, plan.actions):
                taken.setdefault(changed_path(action), []).append(action)
        else:
            left.append(Left(finding, "another repair changes the same file: run dlhealth fix again", ()))
    return Repair(tuple(chosen), tuple(left), merge([c.plan for c in chosen]), limits.live)


class Offer(NamedTuple):
    """The plan that `doctor` and `fix` offer for a finding: the mildest one that dlhealth can run here and now. If
    there is none, `reason` says why, and the plan is for a person."""

    plan: Plan | None
    reason: str = ""


def offer_for(rule: Rule, finding: Finding, facts: Facts, limits: Limits) -> Offer:
    """Try a finding's plans from mild to drastic. Raises Unavailable if a fact is missing that the rule needs."""
    host = facts.get(Host)
    rungs = plans(rule, finding, facts)
    if limits.refused and (refused := limits.refused.get(finding.fingerprint)):
        return Offer(next(iter(rungs), None), refused)
    reasons = []
    for rung in rungs:
        plan = _in_place(_for_target(rung, limits.live), host)
        reason = _refusal(plan, limits) or _hopeless(plan, facts) or _failed_before(finding, plan, limits)
        if not reason:
            return Offer(plan)
        reasons.append(reason)
        if isinstance(plan.actions[0] if plan.actions else None, PipInstall):
            break  # the owner's command is the repair; do not install something for the whole system instead
    if not rungs:
        return Offer(None, "dlhealth has no repair for this")
    # Without steps that would reach the machine that dlhealth runs on, unless there are no others.
    shown = [here if (here := _for_target(rung, limits.live)).actions else rung for rung in rungs]
    return Offer(_by_person(finding, shown, facts), reasons[0])


def _to_repair(diagnosis: Diagnosis, rules: Mapping[str, Rule], limits: Limits) -> list[Finding]:
    """The wanted root causes, and the causes of wanted findings."""
    roots: Iterable[Finding] = diagnosis.root_causes
    if limits.wanted:
        wanted = [d for d in diagnosis.findings if d.finding.id in limits.wanted]
        meant = [d for d in wanted if limits.subject in ("", d.finding.subject)]
        causes = {i for d in meant for i in d.caused_by}
        roots = [d.finding for d in diagnosis.findings if not d.caused_by and (d in meant or d.finding.id in causes)]
    return sorted((f for f in roots if f.id in rules), key=lambda f: rules[f.id].stage)


def _hopeless(plan: Plan, facts: Facts) -> str:
    """Why a plan would fail, if that is known in advance; "" if it may work."""
    for build in plan.actions:
        if isinstance(build, DkmsBuild):
            what = (build.module, build.version, build.kernel)
            if seen := facts.call(known_to_fail, *what):
                return f"{build.module} {build.version} does not build for kernel {build.kernel} (seen on {seen})"
    return not_available(plan, facts)


def _by_person(finding: Finding, rungs: Sequence[Plan], facts: Facts) -> Plan:
    """The plan for a person, if dlhealth can run none: the mildest plan, or the missing part of that plan. A kernel
    that has its module comes first: booting it is the quickest solution."""
    first = next((p for p in rungs if not _hopeless(p, facts)), rungs[0])
    older = facts.call(_other_kernels, finding)
    named = any(release in action.summary() for action in first.actions for release in older)
    start = (
        ByHand(f"start kernel {release} from the boot menu (Advanced options): it has its NVIDIA module")
        for release in older[: not named]
    )
    if why := _hopeless(first, facts):
        lacking = ByHand(f"first solve this, then run dlhealth fix: {why}")
        return Plan(first.summary, first.risk, (*start, lacking), reboot=bool(older), network=first.network)
    return first._replace(actions=(*start, *first.actions))


def _other_kernels(finding: Finding, kernel: Kernel | None, modules: KernelModules | None) -> tuple[str, ...]:
    """Installed kernels with a module, newest first, if the finding is about a kernel."""
    kind, _, release = finding.subject.partition(":")
    if kind != "kernel" or kernel is None or modules is None:
        return ()
    return tuple(
        k.release
        for k in reversed(kernel.installed)
        if k.has_image and k.release != release and modules.usable(k.release)
    )


def _refusal(plan: Plan, limits: Limits) -> str:
    if not plan.actions:
        return "this works only on the running machine: start it, then run dlhealth fix there"
    if any(isinstance(a, PipInstall) for a in plan.actions):
        return "only its owner may change a Python environment: run this as that user, without sudo"
    if any(not _can_be_done(a) for a in plan.actions):
        return "it has steps that only a person can do"
    if plan.risk > limits.highest:
        return f"its risk is {plan.risk.value}; to allow it: --max-risk {plan.risk.value}"
    if plan.network and limits.offline:
        return "it needs the network"
    return ""


def _failed_before(finding: Finding, plan: Plan, limits: Limits) -> str:
    if not (limits.given_up or limits.tried):
        return ""
    tried = (finding.fingerprint, plan.summary)
    if tried in limits.given_up:
        return "its repair did not help and was undone"
    if tried in limits.tried and finding.id not in limits.wanted:
        return f"the same repair did not help before; to try it again: dlhealth fix {finding.id}"
    return ""


def _can_be_done(action: Action) -> bool:
    return not isinstance(action, OF_A_PERSON)


def _for_target(plan: Plan, live: bool) -> Plan:
    """The plan for a machine that is not running: its next boot loads the modules, and counts as the reboot."""
    if live:
        return plan
    actions = tuple(a for a in plan.actions if not isinstance(a, ONLY_LIVE))
    return plan._replace(actions=actions, reboot=plan.reboot or actions != plan.actions)


def _in_place(plan: Plan, host: Host) -> Plan:
    """Replace a linked file by its target, for example in a directory of dotfiles: edits follow no links. Only if the
    link's owner also owns the file."""
    actions = tuple(_edit_in_place(a, host) if isinstance(a, EditFile) else a for a in plan.actions)
    return plan._replace(actions=actions)


def _edit_in_place(edit: EditFile, host: Host) -> EditFile:
    try:
        link, real = host.lstat(edit.path), host.realpath(edit.path)
        file = host.lstat(real) if link and link.kind == "link" and real else None
    except Unreadable:
        return edit
    return edit._replace(path=real) if real and file and link and file.uid == link.uid else edit


def _agrees(plan: Plan, taken: Mapping[str, Sequence[Action]]) -> bool:
    return all(_together(action, other) for action in plan.actions for other in taken.get(changed_path(action), ()))


def _together(one: Action, other: Action) -> bool:
    if isinstance(one, EditFile) and isinstance(other, EditFile):
        lines = {c[0]: c for c in other.changes}
        return all(lines.get(c[0], c) == c for c in one.changes)
    return type(one) is type(other) and one == other


def merge(plans_chosen: Sequence[Plan]) -> tuple[Action, ...]:
    """The actions of several plans as one list: each once, edits of one file together, derived steps last. A reboot is not
    a step: a transaction waits for it."""
    actions = [a for plan in plans_chosen for a in plan.actions if not isinstance(a, Reboot)]
    # Tuples with the same content are equal, whatever their kind.
    merged = {(type(a), a): a for a in _edits_together(actions)}
    return tuple(
        sorted(merged.values(), key=lambda a: next((n for n, kind in enumerate(_DERIVED, 1) if isinstance(a, kind)), 0))
    )


def _edits_together(actions: Sequence[Action]) -> Iterator[Action]:
    edits: dict[str, dict[int, tuple[int, str, str | None]]] = {}
    for action in actions:
        if isinstance(action, EditFile):
            edits.setdefault(action.path, {}).update({c[0]: c for c in action.changes})
    for action in actions:
        yield EditFile(action.path, tuple(edits[action.path].values())) if isinstance(action, EditFile) else action
