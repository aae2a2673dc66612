"""On which terminal LightDM shows its greeter, and which one the screen shows."""

import posixpath
import re

from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.records import NamedTuple

LOG = "/var/log/lightdm/lightdm.log"
_FOLDERS = ("/usr/share/lightdm/lightdm.conf.d", "/etc/lightdm/lightdm.conf.d")
_LAST = "/etc/lightdm/lightdm.conf"
_ACTIVE = "/sys/class/tty/tty0/active"
_MODESET = "/sys/module/nvidia_drm/parameters/modeset"
_TERMINAL = regex(r"Starting local X display on VT (\d{1,3})")
_SHOWN = regex(r"Greeter connected|Session pid=\d+: Greeter")
_MINIMUM = regex(r"\s*minimum-vt\s*=\s*(\d{1,3})\s*")


class LightdmScreen(NamedTuple):
    """`active` is the terminal on the screen ("tty1"), `terminal` the number of the one where LightDM started the X server
    of its greeter (None: it did not). `minimum` is the line that sets minimum-vt, None without one. `modeset` says whether
    nvidia-drm sets modes itself (None: not known)."""

    active: str
    terminal: int | None
    minimum: Place | None
    modeset: bool | None

    @classmethod
    def probe(cls, host: Host) -> "LightdmScreen":
        try:
            active = (host.text(_ACTIVE) or "").strip()
            log = host.text(LOG)
            minimum = _minimum(host)
        except Unreadable as problem:
            raise Unavailable(str(problem)) from problem
        if not active:
            raise Unavailable("only a running machine shows which terminal is on the screen")
        if log is None:
            raise Unavailable(f"{LOG} does not exist")
        started = _TERMINAL.findall(log)
        terminal = int(started[-1]) if started and _SHOWN.search(log) else None
        return cls(active, terminal, minimum, _modeset(host))


def _modeset(host: Host) -> bool | None:
    try:
        said = (host.text(_MODESET) or "").strip()
    except Unreadable:
        return None
    return said == "Y" if said in ("Y", "N") else None


def _minimum(host: Host) -> Place | None:
    """The line that counts: later files win, and LightDM's own file is the last."""
    found = None
    folders = [f"{folder}/{name}" for folder in _FOLDERS for name in sorted(host.listdir(folder))]
    for path in (*(p for p in folders if posixpath.splitext(p)[1] == ".conf"), _LAST):
        section = ""
        for number, line in enumerate((host.text(path) or "").splitlines(), 1):
            if header := re.fullmatch(r"\s*\[([^\]]*)\]\s*", line):
                section = header[1]
            elif section == "LightDM" and _MINIMUM.fullmatch(line):
                found = Place(path, number)
    return found
