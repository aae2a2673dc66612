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
from dlhealth.engine.bounds import Bounds
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule, plans
from dlhealth.host.locate import host_at
from dlhealth.judgements.driverupgrade import DriverUpgrade
from dlhealth.model import Action, Finding
from dlhealth.probes import Options
from dlhealth.probes.machine.platform import Family, Platform, PlatformSetting
from dlhealth.testing import Machine, Scenario
from tests.ladders import NEVER_SAID, check_ladder, wrong
from tests.rules import FAULTY, RULES
from tests.variants import VARIANTS, case_of


@pytest.mark.parametrize(("rule", "scenario"), FAULTY)
def test_remedies(rule: Rule, scenario: Scenario, tmp_path: Path) -> None:
    """On the running machine, whatever the risk; the scenario's `ladder` and `steps` are part of it."""
    scenario.machine.build(tmp_path)
    facts = Facts(host_at(str(tmp_path)), Options(next_boot=scenario.next_boot))
    found = [f for f in facts.call(rule.detect) if isinstance(f, Finding)]
    for finding in found:
        check_ladder(rule, scenario, finding, facts)
        printed = (
            finding.title,
            *(e.shows for e in finding.evidence),
            *(p.summary for p in plans(rule, finding, facts)),
        )
        assert not [text for text in printed if ODD.search(text)]
        assert not SMALL.match(finding.title), finding.title
    # The same findings on a system without Debian's programs.
    facts._known[Platform] = FEDORA
    facts._known.pop(Bounds, None)
    named = [step for finding in found for step in told(rule, finding, facts) if DEBIANS.search(step)]
    assert named == []


ODD = re.compile(
    r"(?<![\w.:/-])1 (?:more )?(?:(?!other)[a-zA-Z]+ )?"
    r"(?:errors|files|GPUs|libraries|links|packages|programs|sessions|steps|switches|times)\b|\bUnowned\b"
)
"""A plural for one thing, or a name from the program's source."""
SMALL = re.compile(r"(?:a|an|another|module|no|only|the|users|without) ")
"""The first word of a sentence that does not begin with a capital. Names such as nvcc and paths may stand there."""
FEDORA = Platform(
    "Fedora Linux 41", Family.FEDORA, PlatformSetting.MACHINE, None, "/var/lib/dpkg/status does not exist"
)
DEBIANS = re.compile(
    r"\bapt-(?:get|mark|cache)\b|\bapt (?:install|remove)|\bdpkg(?:-\w+| -)|update-(?:initramfs|grub|glx)|ubuntu-drivers"
)
"""Commands of Debian and Ubuntu."""


def told(rule: Rule, finding: Finding, facts: Facts) -> list[str]:
    """What a person reads of the steps that a person must do."""
    return [a.text for p in plans(rule, finding, facts) for a in p.actions if isinstance(a, ByHand)]


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        (PlatformSetting.WSL, "in Windows"),
        (PlatformSetting.CONTAINER, "on the host"),
        (PlatformSetting.JETSON, "JetPack"),
    ],
)
def test_a_driver_is_upgraded_on_the_system_that_has_it(setting: PlatformSetting, place: str, tmp_path: Path) -> None:
    """A program needs a newer driver, and this system's driver belongs to another one."""
    venv, toolkit = "/home/alice/venv", "13.0"
    machine = Machine.ubuntu2404_gpu().gpu("2204").cuda_toolkit(toolkit)
    machine.python_environment(venv, torch="2.9.1+cu130", cuda="13.0").build(tmp_path)
    facts = Facts(host_at(str(tmp_path)), Options())
    for name in ("torch-wheel-newer-than-driver", "cuda-runtime-newer-than-driver"):
        rule = next(r for r in RULES if r.id == name)
        (finding,) = (f for f in facts.call(rule.detect) if isinstance(f, Finding))
        other = Facts(host_at(str(tmp_path)), Options())
        other._known.update({**facts._known, Platform: Platform("Ubuntu 24.04", Family.DEBIAN, setting, None, None)})
        other._known.pop(DriverUpgrade, None)
        (step,) = (text for text in told(rule, finding, other) if "580" in text)
        assert place in step
        assert "apt-get" not in step


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
