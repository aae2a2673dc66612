"""The base class of all rules."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from dlhealth.model import Evidence, Finding, Layer, Plan, Risk, Severity, Stage, Unknown

if TYPE_CHECKING:
    from dlhealth.engine.facts import Facts
    from dlhealth.testing import Scenario


ADVICE = "advice on a posted error"
"""In the detail of a finding that no rule made: what a person does about it."""
BUILT_IN = "dlhealth_rules"
"""The package of the built-in rules."""


def folder_of(layer: Layer) -> str:
    """Where the built-in rules of a layer are below their package."""
    return layer.value.replace("-", "_")


_LAYERS = {folder_of(layer): layer for layer in Layer}


class Rule:
    """One fault: how it is recognized and how it is repaired. The module's docstring is its documentation.

    `layer` is the directory of a built-in rule; other rules set it themselves. `severity` is the usual one, `risk` the
    usual one of the mildest repair. `explains` names the faults that follow directly from this one, `explained_by` the
    ones that it follows directly from. Either end may name the other; the graph finds indirect causes. The parameters
    of `detect` (after self) and of `remedies` (after self and the finding) are facts, given by annotation. `gpu_wheels`
    means that the repairs download Python packages that are built for the GPUs of PCs.
    """

    id: str
    title: str
    layer: Layer
    stage: Stage
    severity: Severity
    risk: Risk = Risk.LOW
    explains: tuple[str, ...] = ()
    explained_by: tuple[str, ...] = ()
    gpu_wheels: bool = False

    detect: Callable[..., Iterable[Finding | Unknown]]
    remedies: Callable[..., Iterable[Plan]]

    def __init_subclass__(cls) -> None:
        package, _, place = cls.__module__.partition(".")
        if package == BUILT_IN:
            cls.layer = _LAYERS[place.partition(".")[0]]

    @staticmethod
    def scenarios() -> "Iterator[Scenario]":
        """Machines on which the rule must report, must stay silent, or must say that it cannot tell."""
        raise NotImplementedError

    def finding(
        self,
        subject: str,
        title: str,
        *evidence: Evidence,
        severity: Severity | None = None,
        about: Iterable[str] = (),
        coming: bool = False,
        **detail: Any,
    ) -> Finding:
        """A finding of this rule; `title` is one line with the values found."""
        severity = severity or self.severity
        return Finding(self.id, subject, severity, self.layer, title, evidence, tuple(about), detail, coming)

    @property
    def documentation(self) -> str:
        """The text that `dlhealth explain` shows."""
        return (sys.modules[type(self).__module__].__doc__ or "").strip()


def plans(rule: Rule, finding: Finding, facts: "Facts") -> tuple[Plan, ...]:
    """Every remedy of a finding, mild first, within the limits of the machine."""
    from dlhealth.engine.bounds import Bounds  # needs the actions, which the search for faults does not

    with redirect_stdout(sys.stderr):  # the output of a rule must not become part of a report
        ladder = tuple(facts.call(rule.remedies, finding))
    if not all(isinstance(plan, Plan) for plan in ladder):
        raise TypeError("remedies must yield plans")
    bounds: Bounds = facts.get(Bounds)
    return tuple(bounds.within(plan, wheels=rule.gpu_wheels) for plan in ladder)
