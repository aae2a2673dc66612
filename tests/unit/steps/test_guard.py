"""That the tests themselves change nothing of the machine that they run on: the guard of conftest.py."""

from collections.abc import Callable

import pytest

from dlhealth.actions import AptUnhold, LoadModules
from dlhealth.host.exec import start
from dlhealth.steps import step_of
from dlhealth.steps.base import Target

LIVE = Target("/", "abc")


@pytest.mark.parametrize(
    "act",
    [
        lambda: LIVE.command("true", timeout=5),
        lambda: LIVE.command("no-such-program", timeout=5, check=False),
        lambda: step_of(LoadModules(("nvidia",))).apply(LIVE, {}),
        lambda: step_of(AptUnhold(("libcuda1",))).observe(LIVE),
        lambda: start(["/bin/true"]),
    ],
    ids=["a command", "one that is not installed", "modprobe", "apt-mark", "one that runs beside"],
)
def test_no_action_starts_a_program_of_this_machine(act: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match=r"^a test started "):
        act()


@pytest.mark.real_programs
def test_a_test_that_says_so_may() -> None:
    assert LIVE.command("true", timeout=5).status == 0
