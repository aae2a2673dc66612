"""What holds for the remedies of every rule: there is one, or a person is told what to do; the mildest comes first; and
no popular wrong fix is among them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

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
)
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.engine.rule import Rule, plans
from dlhealth.host.root import RootHost
from dlhealth.model import Action, Finding, Plan
from dlhealth.probes import Options
from dlhealth.testing import Scenario

RULES = load_rules("/nonexistent").rules
CASES = [pytest.param(r, s, id=f"{r.id}: {s.name}") for r in RULES for s in r.scenarios() if s.finds]
FETCHES = (AptFixBroken, AptInstall, AptPurgeReinstall, AptRemove, PipInstall)
"""A package that goes has to lie here to come back: what apt's cache no longer has is fetched for that."""


def by_hand(plan: Plan) -> bool:
    """Whether a person has to do some of it that is no command."""
    return any(isinstance(a, ByHand) for a in plan.actions)


@pytest.mark.parametrize(("rule", "scenario"), CASES)
def test_remedies(rule: Rule, scenario: Scenario, tmp_path: Path) -> None:
    scenario.machine.build(tmp_path)
    facts = Facts(RootHost(str(tmp_path)), Options(next_boot=scenario.next_boot))
    for finding in [f for f in facts.call(rule.detect) if isinstance(f, Finding)]:
        ladder = list(plans(rule, finding, facts.call))
        assert ladder, "neither a repair nor a word on what a person can do"
        steps = [(p.risk, by_hand(p)) for p in ladder]
        assert steps == sorted(steps), "the mildest first, and of two that dlhealth can carry out itself"
        # What was tried before is told by these.
        assert len({p.summary for p in ladder}) == len(ladder)
        for plan in ladder:
            check_plan(plan)


def check_plan(plan: Plan) -> None:
    if not by_hand(plan):
        assert plan.reboot == any(isinstance(a, Reboot) for a in plan.actions), plan
        assert plan.network == any(isinstance(a, FETCHES) for a in plan.actions), plan
    for action in plan.actions:
        if isinstance(action, ByHand):
            assert len(action.text.split()) >= 3, "what a person is to do"
            assert action.text != plan.summary, "that is said already"
        assert list(wrong(action)) == []


# Never anybody's repair, whatever the fault (why, and where it was seen: each has done damage to somebody).
NEVER_SAID = (
    (r"chmod\s+(?:-R\s+)?0?777|chmod\s+-R", "opens more than is wrong"),
    (r"chown\s+-\w*R", "takes data sets and volumes away from their owners"),
    (r"--force-overwrite|--force-all|--force-remove", "breaks what dpkg knows"),
    (r"\brm\s+-\w*[rf]", "nothing is deleted by a pattern or with what is below"),
    (r"(?:purge|remove)\s+'?\S*\*", "takes packages along that nobody named, the containers' toolkit among them"),
    (r"trusted=yes|Check-Date|allow-unauthenticated", "unsigned packages, or a wrong clock"),
    (r"(?<!not )-allow-unsupported-compiler", "trades one error for hundreds"),
    (r"\brm\b[^;]*/lock", "apt is at work"),
    (r"apt-mark hold[^;]*linux-(?:image|headers)-\d", "a hold on one kernel keeps no newer one away"),
    (r"unattended-upgrades", "no security updates any more"),
    (r"curl|wget|http://", "runs what somebody put there"),
)  # fmt: skip
NOT_OURS = re.compile(
    r"nvidia-cuda-toolkit|nvidia-container|libnvidia-container|nvidia-docker|.*fabricmanager|cuda-\d|cuda-toolkit"
    r"|linux-image-(?:amd64|generic)|ubuntu-|.*\*"
)


def wrong(action: Action) -> Iterator[str]:
    """What is wrong with an action, whichever fault it is for."""
    text = action.text if isinstance(action, ByHand) else action.summary()
    yield from (why for pattern, why in NEVER_SAID if re.search(pattern, text))
    if isinstance(action, ChangeMode) and (action.path.startswith("/dev/") or action.mode & 0o1002 == 0o002):
        yield "everybody may write"
    if isinstance(action, MoveAside) and re.match(
        r"/var/lib/(?:dpkg|apt)/|/boot/(?!initrd\.img)|/usr/lib/wsl/", action.path
    ):
        yield "not a thing to take away"
    if isinstance(action, AptRemove | AptPurgeReinstall):
        names = [n for n in action.packages if NOT_OURS.match(n) and n != "nvidia-cuda-toolkit"]
        yield from (f"{name} is no part of a broken driver" for name in names)
    if isinstance(action, AptInstall):
        yield from (f"{name} would be a second toolkit" for name in action.packages if name == "nvidia-cuda-toolkit")
        yield from (f"{name} goes unasked" for name in (*action.may_remove, *action.remove) if NOT_OURS.match(name))
    if isinstance(action, MakeLink):
        link, target = (re.match(r"(\D+?\.so)(?:\.(\d+))?", p.rpartition("/")[2]) for p in (action.path, action.target))
        # (The driver's libraries have its version behind their name, cuDNN's one that begins with its major.)
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


@pytest.mark.parametrize("rule", [pytest.param(r, id=r.id) for r in RULES])
def test_what_is_written_on_a_rule_says_none_of_it_either(rule: Rule) -> None:
    by_hand = re.split(r"^By hand$", rule.documentation, flags=re.MULTILINE)[1]
    assert [why for pattern, why in NEVER_SAID if re.search(pattern, by_hand)] == []


@pytest.mark.parametrize(
    "action",
    [
        ChangeMode("/dev/nvidia0", 0o666),
        ChangeMode("/usr/local/cuda/lib64", 0o777),
        MoveAside("/var/lib/dpkg/lock-frontend"),
        MoveAside("/boot/vmlinuz-6.1.0-50-amd64"),
        AptRemove(("nvidia-container-toolkit",)),
        AptRemove(("nvidia*",), purge=True),
        AptInstall(("nvidia-cuda-toolkit",)),
        AptInstall(("nvidia-driver-580",), may_remove=("ubuntu-desktop",)),
        MakeLink("/usr/lib/x86_64-linux-gnu/libcudnn.so.8", "libcuda.so.515.43.04"),
        MakeLink("/usr/lib/x86_64-linux-gnu/libcudnn.so.8", "libcudnn.so.9.1.0"),
        MakeLink("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/local/cuda/lib64/stubs/libcuda.so"),
        SetAlternative("gcc", "/usr/bin/gcc-9"),
        SetAlternative("python3", "/usr/bin/python3.9"),
        WriteFile("/etc/environment", "export PATH=/usr/local/cuda/bin:$PATH\n"),
        ByHand("sudo chmod 777 /dev/nvidia*"),
        ByHand("chown -R alice /home/alice"),
        ByHand("apt purge 'nvidia*' and install it again"),
        ByHand("dpkg -i --force-overwrite x.deb"),
        ByHand("rm -rf /boot/*-4.4.0-1*"),
        ByHand("rm /var/lib/dpkg/lock"),
        ByHand("apt-get remove unattended-upgrades"),
    ],
    ids=lambda a: a.summary(),
)
def test_a_wrong_fix_would_be_noticed(action: Action) -> None:
    assert list(wrong(action))
