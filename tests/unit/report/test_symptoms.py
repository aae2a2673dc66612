"""What people see leads to the problems whose pages describe it."""

import pytest

from dlhealth.cli.explain import _possible
from dlhealth.engine.rule import Rule
from dlhealth.report.symptoms import described, seen
from tests.rules import RULES

LINES = [pytest.param(rule, line, id=f"{rule.id}: {line[:40]}") for rule in RULES for line in seen(rule)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_page_says_what_people_see(rule: Rule) -> None:
    assert seen(rule)


@pytest.mark.parametrize(("rule", "line"), LINES)
def test_what_a_page_describes_leads_to_its_problem(rule: Rule, line: str) -> None:
    assert rule in _possible(line, RULES)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[    3.1] pci 0000:41:00.0: 15.7 Gb/s available PCIe bandwidth, limited by 8.0 GT/s PCIe x2 link at 0000:40:01.0",
         "pcie-link-degraded"),
        ("Graphics driver 'nvidia-470-86' for Flatpak has not been found on your system.", "flatpak-gl-runtime-mismatch"),
        ("/sbin/ldconfig.real: /usr/lib/wsl/lib/libcuda.so.1 is not a symbolic link", "wsl-libcuda-not-symlink"),
        ("CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable",
         "uvm-broken-after-suspend"),
        ("nvidia-smi -q says: HW Slowdown, HW Thermal Slowdown, HW Power Brake", "thermal-or-power-throttle"),
    ],
)  # fmt: skip
def test_numbers_and_the_rest_of_a_line_do_not_matter(text: str, problem: str) -> None:
    assert problem in [rule.id for rule in _possible(text, RULES)]


@pytest.mark.parametrize("text", ["", "nvidia", "login-loop", "it does not work", "12 34 56", "GPU GPU"])
def test_other_texts_belong_to_no_problem(text: str) -> None:
    assert described(text, RULES) == []
