"""What must hold for the ladder of a finding: the plans that a rule offers, from mild to drastic."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from dlhealth.actions import (
    AptFixBroken,
    AptInstall,
    AptPurgeReinstall,
    AptRemove,
    ByHand,
    ChangeMode,
    EditFile,
    MakeLink,
    MoveAside,
    PipInstall,
    Reboot,
    SetAlternative,
    WriteFile,
    action_from_json,
    action_to_json,
)
from dlhealth.engine.choose import Limits, offer_for
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule, plans
from dlhealth.model import Action, Finding, Plan, Risk, kind_of
from dlhealth.testing import Scenario

FETCHES = (AptFixBroken, AptInstall, AptPurgeReinstall, AptRemove, PipInstall)
"""These need the network: a package that is removed must be in apt's cache for the undo, or it is downloaded."""

MANY, WORDS = 4, 6
"""More actions of one kind in a row, or more values of one action, are stated by the ends and the number; advice by so
many of its words."""

# Never a repair, whatever the fault. Each of these has broken somebody's machine.
NEVER_SAID = (
    (r"chmod\s+(?:-R\s+)?0?777|chmod\s+-R", "opens more than is wrong"),
    (r"chown\s+-\w*R", "takes data sets and volumes away from their owners"),
    (r"--force-overwrite|--force-all|--force-remove", "breaks dpkg's records"),
    (r"\brm\s+-\w*[rf]", "deletes by a pattern, or a whole directory"),
    (r"(?:purge|remove)\s+'?\S*\*", "removes packages that nobody named, such as the container toolkit"),
    (r"trusted=yes|Check-Date|allow-unauthenticated", "unsigned packages, or a wrong clock"),
    (r"(?<!not )-allow-unsupported-compiler", "trades one error for hundreds"),
    (r"\brm\b[^;]*/lock", "apt is running"),
    (r"apt-mark hold[^;]*linux-(?:image|headers)-\d", "a hold on one kernel does not keep newer ones away"),
    (r"unattended-upgrades", "no security updates any more"),
    (r"curl|wget|http://", "runs a program from the network unchecked"),
)  # fmt: skip
NOT_OURS = re.compile(
    r"nvidia-cuda-toolkit|nvidia-container|libnvidia-container|nvidia-docker|.*fabricmanager|cuda-\d|cuda-toolkit"
    r"|linux-image-(?:amd64|generic)|ubuntu-|.*\*"
)


def check_ladder(rule: Rule, scenario: Scenario, finding: Finding, facts: Facts) -> None:
    """Raise AssertionError where the plans for a finding on a scenario's machine are wrong."""
    ladder = plans(rule, finding, facts)
    assert ladder, "neither a repair nor advice on what a person can do"
    order = [(p.risk, by_hand(p)) for p in ladder]
    assert order == sorted(order), "the mildest first; of two, the one that dlhealth can carry out itself"
    assert len({p.summary for p in ladder}) == len(ladder), "the summary tells which repair was tried before"
    for plan in ladder:
        _check_plan(plan)
    if finding.subject != scenario.finds:
        return
    if scenario.ladder:
        assert len(ladder) == len(scenario.ladder), [as_stated(p) for p in ladder]
        for plan, stated in zip(ladder, scenario.ladder, strict=True):
            assert is_as_stated(plan, stated), as_stated(plan)
    if scenario.steps:
        offer = offer_for(rule, finding, facts, Limits(Risk.HIGH))
        assert offer.plan is not None
        assert not offer.reason
        assert tuple(dict.fromkeys(map(kind_of, offer.plan.actions))) == scenario.steps


def by_hand(plan: Plan) -> bool:
    """Whether a person must do a part of it that is no command."""
    return any(isinstance(a, ByHand) for a in plan.actions)


def _check_plan(plan: Plan) -> None:
    assert plan.actions, "a plan without a step repairs nothing"
    assert [action_from_json(json.loads(json.dumps(action_to_json(a)))) for a in plan.actions] == list(plan.actions)
    if not by_hand(plan):
        assert plan.reboot == any(isinstance(a, Reboot) for a in plan.actions), plan
        assert plan.network == any(isinstance(a, FETCHES) for a in plan.actions), plan
    for action in plan.actions:
        if isinstance(action, ByHand):
            assert len(action.text.split()) >= 3, "too short to be advice"
            assert action.text != plan.summary, "repeats the summary"
        assert list(wrong(action)) == []


def wrong(action: Action) -> Iterator[str]:
    """What is wrong with an action, whichever fault it is for."""
    text = action.text if isinstance(action, ByHand) else action.summary()
    yield from (why for pattern, why in NEVER_SAID if re.search(pattern, text))
    if isinstance(action, ChangeMode) and (action.path.startswith("/dev/") or action.mode & 0o1002 == 0o002):
        yield "everybody may write"
    if isinstance(action, MoveAside) and re.match(
        r"/var/lib/(?:dpkg|apt)/|/boot/(?!initrd\.img)|/usr/lib/wsl/", action.path
    ):
        yield "the machine needs this file"
    if isinstance(action, AptRemove | AptPurgeReinstall):
        names = [n for n in action.packages if NOT_OURS.match(n) and n != "nvidia-cuda-toolkit"]
        yield from (f"{name} is no part of a broken driver" for name in names)
    if isinstance(action, AptInstall):
        yield from (f"{name} would be a second toolkit" for name in action.packages if name == "nvidia-cuda-toolkit")
        yield from (f"{name} goes unasked" for name in (*action.may_remove, *action.remove) if NOT_OURS.match(name))
    if isinstance(action, MakeLink):
        link, target = (re.match(r"(\D+?\.so)(?:\.(\d+))?", p.rpartition("/")[2]) for p in (action.path, action.target))
        # (The driver's libraries have its version after their name, cuDNN's one that begins with its major.)
        same_major = link and target and ("cudnn" not in link[1] or link[2] is None or link[2] == target[2])
        if link and (target is None or link[1] != target[1] or not same_major):
            yield "a library under the name of another one"
        if "/stubs/" in action.target:
            yield "a stub in the place of the driver's library"
    if isinstance(action, SetAlternative) and action.name in ("gcc", "g++", "cc", "python3", "python"):
        yield "the whole system gets another one"
    if isinstance(action, EditFile | WriteFile) and action.path == "/etc/environment":
        text = action.text if isinstance(action, WriteFile) else "\n".join(new or "" for _, _, new in action.changes)
        if re.search(r"export|\$|LD_LIBRARY_PATH=.*conda", text):
            yield "no shell reads this file"


def as_stated(plan: Plan) -> tuple[str, ...]:
    """A plan as `Scenario.ladder` states it."""
    head = " ".join([plan.risk.value, *["reboot"] * plan.reboot, *["network"] * plan.network])
    return head, *(text for _, text in _steps(plan))


def is_as_stated(plan: Plan, stated: tuple[str, ...]) -> bool:
    """Whether a plan is the stated one. The stated words must occur in the text of what a person does."""
    head, *lines = stated
    steps = list(_steps(plan))
    return (
        head == as_stated(plan)[0]
        and len(steps) == len(lines)
        and all(
            _says(action.text, line) if isinstance(action, ByHand) else step == line
            for (action, step), line in zip(steps, lines, strict=True)
        )
    )


def _says(text: str, line: str) -> bool:
    """Whether a text has all words of a statement, as whole words: "550" is not in "nvidia-driver-5500"."""
    kind, *words = line.split()
    # A path may stand below that of the machine under test.
    patterns = [rf"{re.escape(w)}(?!\w)" if w[0] == "/" else rf"(?<!\w){re.escape(w)}(?!\w)" for w in words]
    return kind == "by-hand" and all(re.search(pattern, text) for pattern in patterns)


def _steps(plan: Plan) -> Iterator[tuple[Action, str]]:
    """Each action and its statement. A row of many actions of one kind is one statement: the first, the last, the number."""
    for kind, group in groupby(plan.actions, kind_of):
        row = list(group)
        if isinstance(row[0], ByHand):
            yield from ((a, " ".join([kind, *_words(a.text)])) for a in row if isinstance(a, ByHand))
            continue
        texts = [" ".join([kind, *_arguments(a)]) for a in row]
        if len(row) > MANY:
            yield row[0], f"{texts[0]} ... {texts[-1]} ({len(row)})"
        else:
            yield from zip(row, texts, strict=True)


def _words(text: str) -> Iterator[str]:
    """The words of a text that stay when it is worded differently: paths, commands' options, versions; if there are none,
    the first long words."""
    words = list(dict.fromkeys(word.strip(".,:;()'\"") for word in text.split()))
    technical = [w for w in words if re.search(r"[/_=\d]|\w-\w.*-|^-", w)]
    yield from (technical or [w for w in words if len(w) > 3])[:WORDS]


def _arguments(action: Action) -> Iterator[str]:
    if isinstance(action, EditFile):
        yield action.path
        yield from (f"{number}: {'-' if new is None else new.strip()}" for number, _, new in action.changes)
        return
    if isinstance(action, WriteFile):
        lines = (line.strip() for line in action.text.splitlines())
        yield from (action.path, " / ".join(line for line in lines if line and not line.startswith("#")))
        return
    defaults = getattr(action, "_field_defaults", {})
    for name, value in action._asdict().items():  # type: ignore[attr-defined]
        if name not in defaults:
            yield f"{value:04o}" if name == "mode" else _listed(value, " ") if isinstance(value, tuple) else str(value)
        elif value is True:
            yield name
        elif value != defaults[name]:
            yield f"{name}={_listed(value, ',')}"


def _listed(values: Sequence[str], between: str) -> str:
    """All of a short list; of a long one the ends and the number."""
    return between.join(values) if len(values) <= MANY else f"{values[0]}..{values[-1]}({len(values)})"
