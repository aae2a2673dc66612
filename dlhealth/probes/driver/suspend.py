"""How the driver is set up for suspend, and whether a suspend failed because of it."""

import re

from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.records import NamedTuple

_REFUSED = regex(
    r"NVRM: (?:GPU (?P<gpu>[0-9a-f:.]{7,16}): )?PreserveVideoMemoryAllocations module parameter is set\."
    r" System Power Management attempted without driver procfs suspend interface",
    re.IGNORECASE,
)
"""nv.c of NVIDIA's kernel module: the module was told to save the video memory, and nobody asked it to before."""
UNITS = ("nvidia-suspend.service", "nvidia-hibernate.service", "nvidia-resume.service")
_FOLDERS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


class SuspendSetup(NamedTuple):
    """`refused` is the line of the newest start in which the driver refused a suspend, None where there is none. `preserves`
    says whether the loaded module saves video memory (None: not known). `missing` are the units that no directory has,
    `disabled` those that nothing starts; `unseen` says why neither is known ("" if they are)."""

    refused: Line | None
    preserves: bool | None
    missing: tuple[str, ...]
    disabled: tuple[str, ...]
    unseen: str = ""

    @classmethod
    def probe(cls, host: Host, journal: Journal) -> "SuspendSetup":
        line = next(journal.kernel(_REFUSED.pattern, last_boot=True), None)
        try:
            parameters = host.text("/proc/driver/nvidia/params") or ""
            installed = {u for u in UNITS if any(host.exists(f"{folder}/{u}") for folder in _FOLDERS)}
            started = {u for u in installed if _started(host, u)}
        except Unreadable as problem:
            if line is None:
                raise Unavailable(str(problem)) from problem
            return cls(line, None, (), (), str(problem))
        said = re.search(r"^PreserveVideoMemoryAllocations: (\d)", parameters, re.MULTILINE)
        return cls(
            line,
            said[1] == "1" if said else None,
            tuple(u for u in UNITS if u not in installed),
            tuple(u for u in UNITS if u in installed and u not in started),
        )


def _started(host: Host, unit: str) -> bool:
    """Whether another unit pulls it in, by a link of an administrator or of its package."""
    return any(
        next(iter(host.glob(f"{f}/systemd-*.{kind}/{unit}")), "") for f in _FOLDERS for kind in ("wants", "requires")
    )
