"""Whether CUDA still starts after the machine slept."""

import posixpath
import re
import sys

from dlhealth.host import Host
from dlhealth.lazy import regex
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.records import NamedTuple

_WOKE = regex(
    r"PM: suspend exit|PM: hibernation: hibernation exit|PM: hibernation exit|ACPI: (?:PM: )?Waking up from system sleep"
)
"""kernel/power/suspend.c, kernel/power/hibernate.c and drivers/acpi/sleep.c of Linux."""
_UNKNOWN = regex(r"CUDA unknown error|CUDA_ERROR_UNKNOWN|UNKNOWN_ERROR\(999?\)|unknown error \(999\)", re.IGNORECASE)
UNKNOWN_ERROR = 999
_SECONDS = 3.0


class CudaStart(NamedTuple):
    """`woke` is the kernel's line of the last wake-up since the newest start, None without one; then CUDA is not
    started. `code` is what cuInit returned (0: CUDA starts) and `source` where that is from; None if it is not known,
    and `why` says why not."""

    woke: Line | None
    code: int | None
    source: str
    why: str

    @classmethod
    def probe(cls, host: Host, journal: Journal, modules: KernelModules) -> "CudaStart":
        woke = next(reversed(list(journal.kernel(_WOKE.pattern, last_boot=True))), None)
        if woke is None:
            return cls(None, None, "", "")
        if said := next((post for post in host.posts if _UNKNOWN.search(post.text)), None):
            return cls(woke, UNKNOWN_ERROR, said.source, "")
        if not host.live:
            return cls(woke, None, "", "only a running machine can start CUDA")
        if "nvidia_uvm" not in (modules.loaded or ()) or not host.exists("/dev/nvidia-uvm"):
            return cls(woke, None, "", "not started: the module nvidia_uvm is not loaded, and CUDA would load it")
        program = posixpath.join(posixpath.dirname(__file__), "cuda_child.py")
        output = host.run(sys.executable or "/usr/bin/python3", "-I", "-B", program, timeout=_SECONDS)
        told = output.stdout.strip()
        if output.status == 0 and told.isdecimal():
            return cls(woke, int(told), "cuInit", "")
        return cls(woke, None, "", f"CUDA was not started ({told or output.problem or f'status {output.status}'})")
