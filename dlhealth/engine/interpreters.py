"""The Pythons of a machine that have a deep learning framework."""

from dlhealth.engine.facts import Facts, Unavailable
from dlhealth.host.account import Account
from dlhealth.probes.python.pythonenv import PythonEnvironments
from dlhealth.records import NamedTuple


class Interpreter(NamedTuple):
    """A Python environment: its directory, the path of its Python, and the frameworks in it ("torch", "tensorflow",
    "jax"). `account` is whose home it lies in (None: nobody's)."""

    path: str
    python: str
    frameworks: tuple[str, ...]
    account: Account | None


def interpreters(facts: Facts) -> tuple[Interpreter, ...] | None:
    """All environments with a framework; None if the environments cannot be read."""
    try:
        environments = facts.get(PythonEnvironments).environments
    except Unavailable:
        return None
    found = []
    for environment in environments:
        there = {"torch": environment.torch, "tensorflow": environment.tensorflow, "jax": "jax" in environment.packages}
        frameworks = tuple(name for name, present in there.items() if present)
        if frameworks:
            found.append(Interpreter(environment.path, environment.python, frameworks, environment.account))
    return tuple(found)
