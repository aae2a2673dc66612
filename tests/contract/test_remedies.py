"""What holds for the remedies of every rule: there is one, or advice on what a person can do; the mildest comes first;
and no popular wrong fix is among them."""

import re
from pathlib import Path

import pytest

from dlhealth.actions import (
    AptInstall,
    AptRemove,
    ByHand,
    ChangeMode,
    MakeLink,
    MoveAside,
    SetAlternative,
    WriteFile,
)
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.engine.rule import Rule
from dlhealth.host.locate import host_at
from dlhealth.model import Action, Finding
from dlhealth.probes import Options
from dlhealth.testing import Scenario
from tests.ladders import NEVER_SAID, check_ladder, wrong
from tests.variants import VARIANTS, case_of

RULES = load_rules("/nonexistent").rules
CASES = [pytest.param(r, s, id=f"{r.id}: {s.name}") for r in RULES for s in r.scenarios() if s.finds]


@pytest.mark.parametrize(("rule", "scenario"), CASES)
def test_remedies(rule: Rule, scenario: Scenario, tmp_path: Path) -> None:
    """On the running machine, whatever the risk; the scenario's `ladder` and `steps` are part of it."""
    scenario.machine.build(tmp_path)
    facts = Facts(host_at(str(tmp_path)), Options(next_boot=scenario.next_boot))
    for finding in [f for f in facts.call(rule.detect) if isinstance(f, Finding)]:
        check_ladder(rule, scenario, finding, facts)


@pytest.mark.parametrize("number", range(len(VARIANTS)), ids=lambda n: f"{n}: {VARIANTS[n].rule}")
def test_remedies_of_a_variant(number: int, tmp_path: Path) -> None:
    variant = VARIANTS[number]
    rule = next(r for r in RULES if r.id == variant.rule)
    case_of(variant, rule, tmp_path).check(rule)


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
