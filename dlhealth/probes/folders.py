"""Owner and mode of the folders that every session needs."""

from typing import NamedTuple

from dlhealth.host import Host, Stat
from dlhealth.probes import Unavailable

PATHS = ("/tmp", "/tmp/.X11-unix", "/tmp/.ICE-unix", "/var/tmp")


class SharedFolders(NamedTuple):
    """The folders that are there, by path."""

    folders: tuple[tuple[str, Stat], ...]

    @classmethod
    def probe(cls, host: Host) -> "SharedFolders":
        if not host.exists("/tmp"):
            raise Unavailable("there is no /tmp here: its file system may not be mounted")
        found = ((path, host.lstat(path)) for path in PATHS)
        return cls(tuple((path, status) for path, status in found if status))
