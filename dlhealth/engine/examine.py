"""The one way to a diagnosis: load the rules, build the facts, run the rules, all under supervision."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from dlhealth.engine.facts import Facts, Options
from dlhealth.engine.load import Loaded, load_rules
from dlhealth.engine.rule import Rule
from dlhealth.host import Host
from dlhealth.host.base import Watch
from dlhealth.host.supervise import supervised
from dlhealth.model import Diagnosis
from dlhealth.records import NamedTuple

T = TypeVar("T")


class Examined(NamedTuple):
    """A diagnosis, and what it was made from."""

    host: Host
    facts: Facts
    rules: Mapping[str, Rule]
    diagnosis: Diagnosis


class Examiner:
    """Diagnoses one machine; `examining` passes it to the work that it supervises."""

    def __init__(self, host: Host, loaded: Loaded, watch: Watch) -> None:
        self.host = host
        self.loaded = loaded
        self._watch = watch
        self._facts: dict[Options, Facts] = {}

    def facts(self, options: Options) -> Facts:
        """The facts for these options, each built once."""
        return self._facts.setdefault(options, Facts(self.host, options, self._watch))

    def diagnose(self, options: Options, rules: Loaded | None = None) -> Diagnosis:
        """The diagnosis by some of the rules, or by all loaded rules."""
        from dlhealth.engine.diagnose import diagnose  # only the process that diagnoses needs it

        rules = self.loaded if rules is None else rules
        return diagnose(rules.rules, self.facts(options), failed=rules.failed, whole=rules.whole)


def examining(host: Host, work: Callable[[Examiner], T], watch: Watch | None = None, *, answers: bool = False) -> T:
    """The result of `work`, within the time limits of one diagnosis. On the running machine, `work` runs in a child
    process (see `supervised`, which says what it may return and raise). Only the child loads the rules: the kernel
    copies each page of memory that a parent and its child share when either of them changes it."""
    return supervised(host, lambda watch: work(Examiner(host, load_rules(), watch)), watch, answers=answers)


def examine(
    host: Host, choose: Callable[[Examiner], Options], loaded: Loaded | None = None, watch: Watch | None = None
) -> Examined:
    """Diagnose once, with the options that `choose` returns. `choose` may read the machine, and its exceptions are
    passed on."""
    rules = load_rules() if loaded is None else loaded

    def work(watch: Watch) -> tuple[Options, Diagnosis]:
        examiner = Examiner(host, rules, watch)
        options = choose(examiner)
        return options, examiner.diagnose(options)

    options, diagnosis = supervised(host, work, watch, answers=True)
    # The child's facts are gone, but the host now has all answers that they were made from.
    return Examined(host, Facts(host, options), {rule.id: rule for rule in rules.rules}, diagnosis)
