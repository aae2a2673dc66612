"""The one way to a diagnosis: load the rules, build the facts, run the rules, all under supervision."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from dlhealth.engine.diagnose import diagnose, select
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import Loaded, load_rules
from dlhealth.engine.rule import Rule
from dlhealth.host import Host
from dlhealth.host.base import Watch
from dlhealth.host.supervise import supervised
from dlhealth.model import Diagnosis
from dlhealth.probes import Options
from dlhealth.records import NamedTuple

T = TypeVar("T")


class Examined(NamedTuple):
    """A diagnosis, and what it was made from."""

    host: Host
    facts: Facts
    rules: Mapping[str, Rule]
    diagnosis: Diagnosis


class Examiner:
    """Diagnoses one machine; `examining` gives it to the work that it supervises."""

    def __init__(self, host: Host, loaded: Loaded, watch: Watch) -> None:
        self.host = host
        self.loaded = loaded
        self._watch = watch
        self._facts: dict[Options, Facts] = {}

    def facts(self, options: Options) -> Facts:
        """The facts for these options, each built once."""
        return self._facts.setdefault(options, Facts(self.host, options, self._watch))

    def diagnose(self, options: Options, rules: Loaded | None = None) -> Diagnosis:
        """The diagnosis by some of the rules, or by all that were loaded."""
        rules = self.loaded if rules is None else rules
        return diagnose(rules.rules, self.facts(options), failed=rules.failed)


def examining(host: Host, work: Callable[[Examiner], T], loaded: Loaded | None = None, watch: Watch | None = None) -> T:
    """What `work` returns, within the time limits of one diagnosis. It runs in a child process on the running machine
    (see `supervised`), which also says what may be returned and what is raised."""
    rules = load_rules() if loaded is None else loaded
    return supervised(host, lambda watch: work(Examiner(host, rules, watch)), watch)


def examine(
    host: Host, choose: Callable[[Examiner], Options], loaded: Loaded | None = None, watch: Watch | None = None
) -> Examined:
    """Diagnose once, with the options that `choose` returns. It may read the machine, and what it raises is raised."""
    rules = load_rules() if loaded is None else loaded

    def work(examiner: Examiner) -> tuple[Options, Diagnosis]:
        options = choose(examiner)
        return options, examiner.diagnose(options)

    options, diagnosis = examining(host, work, rules, watch)
    # The child's facts are gone, but the host now knows all that they were made from.
    return Examined(host, Facts(host, options), {rule.id: rule for rule in rules.rules}, diagnosis)


def chosen(loaded: Loaded, only: Iterable[str]) -> Loaded:
    """The rules that these ids and layers name, with the rules for their possible causes; all rules for no names. A
    rule of another name that did not load is left out. Raises KeyError as `select` does."""
    names = tuple(only)
    failed = tuple(f for f in loaded.failed if not names or f.id in names)
    return Loaded(tuple(select(loaded.rules, names)), failed)
