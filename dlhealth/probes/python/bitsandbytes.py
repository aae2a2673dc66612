"""For which versions of CUDA bitsandbytes was built, by the names of its libraries."""

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import may_read
from dlhealth.lazy import regex
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments
from dlhealth.records import NamedTuple

_LIBRARY = regex(r"libbitsandbytes_cuda(?P<major>\d{2})(?P<minor>\d)\.so")


class BitsandbytesBuild(NamedTuple):
    """One environment with bitsandbytes for CUDA in `folder`, and the versions of CUDA ("12.4") that it was built for."""

    environment: PythonEnvironment
    folder: str
    versions: tuple[str, ...]


class BitsandbytesBuilds(NamedTuple):
    """All of them. `problems` could not be read."""

    builds: tuple[BitsandbytesBuild, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, environments: PythonEnvironments) -> "BitsandbytesBuilds":
        builds, problems = [], list(environments.problems)
        for environment in environments.environments:
            folder = f"{environment.site}/bitsandbytes"
            if "bitsandbytes" not in environment.packages:
                continue
            try:
                account = environment.account
                names = host.listdir(folder) if account is None or may_read(host, account, folder) else ()
            except Unreadable as problem:
                problems.append(str(problem))
                continue
            matches = [match for name in sorted(names) if (match := _LIBRARY.fullmatch(name))]
            if matches:
                builds.append(
                    BitsandbytesBuild(environment, folder, tuple(f"{m['major']}.{m['minor']}" for m in matches))
                )
        return cls(tuple(builds), tuple(dict.fromkeys(problems)))
