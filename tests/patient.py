"""A machine in a directory that is examined and repaired."""

from pathlib import Path

from dlhealth.engine.choose import Limits, Repair, choose
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.host.locate import host_at
from dlhealth.model import Diagnosis, Risk
from dlhealth.probes import Options
from dlhealth.testing import Scenario
from tests.rules import BY_ID, RULES


class Patient:
    """A machine in a directory, and what dlhealth says of it now."""

    def __init__(self, root: Path, scenario: Scenario) -> None:
        self.root = root
        self._options = Options(next_boot=scenario.next_boot)

    def examine(self) -> tuple[Diagnosis, Facts]:
        facts = Facts(host_at(str(self.root)), self._options)
        return diagnose(RULES, facts), facts

    def choose(self, wanted: frozenset[str]) -> tuple[Diagnosis, Repair]:
        diagnosis, facts = self.examine()
        return diagnosis, choose(diagnosis, BY_ID, facts, Limits(Risk.HIGH, live=False, wanted=wanted))
