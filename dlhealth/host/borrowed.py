"""Which file systems of the running machine are mounted below another root: what is written there changes this machine.

Standard library only (rescue core).
"""

import os

from dlhealth.lazy import regex
from dlhealth.records import NamedTuple

_MOUNTS = "/proc/self/mountinfo"
_OCTAL = regex(r"\\([0-7]{3})")
_OWN = (
    "bin", "boot", "dev", "etc", "home", "lib", "lib64", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr",
    "var",
)  # fmt: skip
"""Directories of the running machine. Elsewhere, as in /mnt and /media, other disks are mounted."""
_FOR_DISKS = "/run/media/"
_KERNEL = ("proc", "sysfs", "devtmpfs")


class _Mounted(NamedTuple):
    """A line of mountinfo (proc_pid_mountinfo(5)): its number, its file system, and which directory of that is where."""

    number: str
    device: str
    directory: str
    place: str
    kind: str

    def shares(self, other: "_Mounted") -> bool:
        """Whether some file can be reached through both."""
        if self.device != other.device:
            return False
        one, two = (f"{m.directory.rstrip('/')}/" for m in (self, other))
        return one.startswith(two) or two.startswith(one)


def borrowed(folder: str, *, kernel: bool) -> dict[str, str]:
    """The numbers and places of the running machine's file systems below a folder; without its /proc, /sys, /dev and /run
    where `kernel` is set."""
    top = os.path.realpath(folder)
    mounts = _mounts()
    inside = [m for m in mounts if m.place.startswith(f"{top}/")]
    if kernel:
        # By their places too: containers have a /dev of another kind.
        shown = tuple(f"{top}/{name}/" for name in ("proc", "sys", "dev", "run"))
        inside = [m for m in inside if m.kind not in _KERNEL and not f"{m.place}/".startswith(shown)]
    own = [m for m in mounts if _is_own(m.place) and not f"{m.place}/".startswith(f"{top}/")] if inside else []
    return {m.number: m.place for m in inside if any(map(m.shares, own))}


def mount_number(fd: int) -> str:
    """In mountinfo, of the mount through which a file was opened; "" where the kernel does not say."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            found = next((line for line in file if line.startswith("mnt_id:")), "")
    except OSError:
        return ""
    return found.partition(":")[2].strip()


def _is_own(place: str) -> bool:
    return place == "/" or (place.split("/")[1] in _OWN and not place.startswith(_FOR_DISKS))


def _mounts() -> list[_Mounted]:
    try:
        with open(_MOUNTS, errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        words, _, rest = line.partition(" - ")
        fields = [_OCTAL.sub(lambda m: chr(int(m[1], 8)), word) for word in words.split(" ")]
        if len(fields) > 4 and rest:
            found.append(_Mounted(fields[0], fields[2], fields[3], fields[4], rest.split(" ")[0]))
    return found
