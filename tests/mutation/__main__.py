"""How many small defects in the repairs do the tests notice?

    python -m tests.mutation [RULE...]     mutants of `remedies`, with the helpers and constants that it uses
    python -m tests.mutation choose        mutants of dlhealth/engine/choose.py

A mutant is a copy of a function with one defect: a negated `if`, a dropped action or yield, another risk, a flipped
flag, a changed constant. Texts for people are left alone. The mutants of a rule meet what tests/contract asserts of its
scenarios and of tests/variants.py, in this process, on machines that are built once: milliseconds each. Those of choose.py meet its unit tests.
Those that no test notices are listed with their lines, rule by rule.
"""

import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from itertools import count
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple

import pytest

from dlhealth.engine import choose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.engine.rule import Rule
from dlhealth.host.root import RootHost
from dlhealth.model import Finding
from dlhealth.probes import Options
from dlhealth.testing import Scenario
from tests.ladders import check_ladder
from tests.mutation.mutants import Mutant, of_constant, of_function, used_by
from tests.variants import Case, case_of, variants_of

TESTS_OF_CHOOSE = (
    "tests/unit/engine/test_choose.py",
    "tests/unit/engine/test_repair.py",
    "tests/unit/engine/test_available.py",
)
SECONDS = 10
"""A mutant that takes longer does not end."""


class Cases(NamedTuple):
    """What judges the mutants of a rule."""

    scenarios: Sequence[tuple[Scenario, Facts]]
    variants: Sequence[Case]


def mutants_of(rule: Rule) -> Iterator[Mutant]:
    """Mutants of all that `remedies` is made of."""
    module = sys.modules[type(rule).__module__]
    function = rule.remedies.__func__  # type: ignore[attr-defined]
    functions, constants = used_by(module, type(rule), function)
    for each in functions:
        yield from of_function(module, each)
    for name in constants:
        yield from of_constant(module, name)


@contextmanager
def cases_of(rule: Rule) -> Iterator[Cases]:
    """The faulty machines of a rule, built, with facts that are looked up once."""
    with tempfile.TemporaryDirectory() as folder:
        faulty = [s for s in rule.scenarios() if s.finds]
        roots = (Path(folder, str(number)) for number in count())
        built = [(s, s.machine.build(root)) for s, root in zip(faulty, roots, strict=False)]
        yield Cases(
            [(s, Facts(RootHost(str(root)), Options(next_boot=s.next_boot))) for s, root in built],
            [case_of(v, rule, root) for v, root in zip(variants_of(rule), roots, strict=False)],
        )


def judge(rule: Rule, cases: Cases) -> str:
    """The first scenario that notices a defect; "" where none does."""
    for scenario, facts in cases.scenarios:
        try:
            with _in_time():
                found = [f for f in facts.call(rule.detect) if isinstance(f, Finding)]
                assert scenario.finds in {f.subject for f in found}
                for finding in found:
                    check_ladder(rule, scenario, finding, facts)
        except Exception as error:
            return f"{scenario.name}: {type(error).__name__}: {error}"
    for case in cases.variants:
        try:
            with _in_time():
                case.check(rule)
        except Exception as error:
            return f"{case.scenario.name}, changed: {type(error).__name__}: {error}"
    return ""


@contextmanager
def _in_time() -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """The functions of a module, and the methods and properties of its classes."""
    for value in vars(module).values():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            yield value
        elif isinstance(value, type) and value.__module__ == module.__name__:
            for member in vars(value).values():
                member = getattr(member, "fget", member)
                if isinstance(member, FunctionType) and member.__module__ == module.__name__:
                    yield member


def tests_fail(*paths: str) -> bool:
    """Whether one of these tests fails, in this process."""
    with redirect_stdout(StringIO()):
        return pytest.main(["-q", "-x", "-n0", "-p", "no:cacheprovider", *paths]) != 0


class Tally:
    """What became of the mutants."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.killed: Counter[str] = Counter()

    def add(self, mutant: Mutant, killed: bool) -> None:
        self.made[mutant.kind] += 1
        self.killed[mutant.kind] += killed
        if not killed:
            name = Path(mutant.module.__file__ or "").name
            print(f"{name}:{mutant.line}: {mutant.kind}: {' '.join(mutant.text.split())[:120]}", flush=True)

    def show(self) -> None:
        for kind, made in sorted(self.made.items()):
            print(f"{kind:20} {self.killed[kind]:5} of {made:5} killed")
        made, killed = self.made.total(), self.killed.total()
        print(f"{'all':20} {killed:5} of {made:5} killed: {killed / max(made, 1):.1%}")


def judge_rule(rule: Rule, tally: Tally) -> None:
    """Let the scenarios of one rule judge all its mutants."""
    with cases_of(rule) as cases:
        if why := judge(rule, cases):
            print(f"{rule.id} fails without a mutant: {why}", file=sys.stderr)
            return
        made, killed = tally.made.total(), tally.killed.total()
        for mutant in mutants_of(rule):
            with mutant.applied():
                tally.add(mutant, bool(judge(rule, cases)))
        print(f"{rule.id}: {tally.killed.total() - killed} of {tally.made.total() - made} killed", flush=True)


def main(names: Sequence[str]) -> int:
    tally = Tally()
    if list(names) == ["choose"]:
        assert not tests_fail(*TESTS_OF_CHOOSE), "they fail without a mutant"
        for function in functions_of(choose):
            for mutant in of_function(choose, function):
                with mutant.applied():
                    tally.add(mutant, tests_fail(*TESTS_OF_CHOOSE))
    else:
        for rule in load_rules("/nonexistent").rules:
            if not names or rule.id in names:
                judge_rule(rule, tally)
    tally.show()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
