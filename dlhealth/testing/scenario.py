"""One example of a rule at work."""

from dlhealth.lean import NamedTuple
from dlhealth.testing.machine import Machine


class Scenario(NamedTuple):
    """A machine, and what the rule must say of it.

    `finds` is the subject that must be found ("" for nothing), `unknown` that the rule must be skipped or say that it
    could not look. `causes` are the ids of the root causes that the finding must be folded under, when all rules run.
    `alone` (for a faulty machine): when all rules run, this rule's finding is the only root cause. `steps` are the kinds
    of the actions of the mildest plan that dlhealth can carry out on the running machine, in their order, each once
    ("write-file", "update-initramfs", "reboot"); where it is empty, the plan is not judged.
    """

    name: str
    machine: Machine
    finds: str = ""
    unknown: bool = False
    causes: tuple[str, ...] = ()
    alone: bool = True
    next_boot: bool = False
    steps: tuple[str, ...] = ()
