"""The libraries of Windows' driver in WSL2."""

from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.records import NamedTuple

FOLDER = "/usr/lib/wsl/lib"
NAMES = ("libcuda.so", "libcuda.so.1", "libcuda.so.1.1")
"""Windows' driver has three equal files, where Linux has a library and two links."""


class WslLibraries(NamedTuple):
    """`files` are the names of libcuda that lead to a file; `broken` are links that lead nowhere, with their targets."""

    files: tuple[str, ...]
    broken: dict[str, str]

    @classmethod
    def probe(cls, host: Host) -> "WslLibraries":
        try:
            there = set(host.listdir(FOLDER)) & set(NAMES)
            files = tuple(name for name in NAMES if name in there and host.exists(f"{FOLDER}/{name}"))
            links = {name: host.readlink(f"{FOLDER}/{name}") or "" for name in NAMES if name in there}
        except Unreadable as problem:
            raise Unavailable(str(problem)) from problem
        return cls(files, {name: target for name, target in links.items() if name not in files})
