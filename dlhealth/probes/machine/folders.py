"""Owner and mode of the directories that every session needs."""

from dlhealth.host import Host, Stat, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.records import NamedTuple

PATHS = ("/tmp", "/tmp/.X11-unix", "/tmp/.ICE-unix")


class SharedFolder(NamedTuple):
    """One directory that is there. `status` is that of what a link leads to; `link` says so ("" for none)."""

    path: str
    status: Stat
    link: str


class SharedFolders(NamedTuple):
    """The directories that are there; `problems` are those that could not be checked."""

    folders: tuple[SharedFolder, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host) -> "SharedFolders":
        if not host.exists("/tmp"):
            raise Unavailable("/tmp does not exist: its file system may not be mounted")
        found, problems = [], []
        for path in PATHS:
            try:
                if status := host.stat(path):
                    found.append(SharedFolder(path, status, host.readlink(path) or ""))
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(tuple(found), tuple(problems))
