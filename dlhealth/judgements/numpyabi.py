"""Packages whose compiled code was built for another major version of NumPy than the installed one."""

from dlhealth.data import load
from dlhealth.data.compat import version_key
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments
from dlhealth.records import NamedTuple


class BuiltForNumpy1(NamedTuple):
    """A package of an environment, and the first version of it that works with NumPy 2."""

    name: str
    version: str
    first: str


class NumpyClash(NamedTuple):
    """An environment with NumPy 2 (`numpy` is its version) and packages that were built for NumPy 1."""

    environment: PythonEnvironment
    numpy: str
    packages: tuple[BuiltForNumpy1, ...]


class NumpyClashes(NamedTuple):
    """One entry for each such environment. `problems` could not be read."""

    clashes: tuple[NumpyClash, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, environments: PythonEnvironments) -> "NumpyClashes":
        clashes = []
        for environment in environments.environments:
            numpy = environment.packages.get("numpy", "")
            # A distribution compiles the packages in /usr again for its own NumPy.
            if version_key(numpy) < (2,) or environment.path == "/usr":
                continue
            if old := _built_for_numpy_1(environment):
                clashes.append(NumpyClash(environment, numpy, old))
        return cls(tuple(clashes), environments.problems)


def _built_for_numpy_1(environment: PythonEnvironment) -> tuple[BuiltForNumpy1, ...]:
    found = []
    for row in load("numpy_abi")["first"]:
        for name in row["packages"]:
            version = environment.packages.get(name, "")
            if version and version_key(version) < version_key(row["version"]):
                found.append(BuiltForNumpy1(name, version, row["version"]))
    return tuple(found)
