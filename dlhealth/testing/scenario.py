"""One example of a rule at work."""

from dlhealth.records import NamedTuple
from dlhealth.testing.machine import Machine


class Scenario(NamedTuple):
    """A machine, and the expected result of the rule.

    `finds` is the subject that must be found ("" for nothing), `unknown` that the rule must be skipped or say that it
    could not check. `causes` are the ids of the root causes that must explain the finding, when all rules run. `alone`
    (for a faulty machine): when all rules run, this rule's finding is the only root cause. `steps` are the kinds of the
    actions of the mildest plan that dlhealth can run on the running machine, in their order, each once ("write-file",
    "update-initramfs", "reboot"); if it is empty, the plan is not checked.

    `ladder` lists every plan for the finding, the mildest first. A plan is its risk, with "reboot" and "network" if it
    needs them, then each action: its kind and its arguments ("apt-install dkms", "make-link /usr/lib/x.so x.so.1").
    After "by-hand" follow words that must occur in the text. If it is empty, the ladder is not checked.
    """

    name: str
    machine: Machine
    finds: str = ""
    unknown: bool = False
    causes: tuple[str, ...] = ()
    alone: bool = True
    next_boot: bool = False
    steps: tuple[str, ...] = ()
    ladder: tuple[tuple[str, ...], ...] = ()
