"""A module that the kernel rejected for its signature, on a machine whose modules are not visible."""

from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.records import NamedTuple

_KEY = r"^(?:\S+: )?[Ll]oading of module with unavailable key is rejected"
_UNSIGNED = r"^(?:\S+: )?[Ll]oading of unsigned module is rejected|unsigned module loading is restricted"
_RUNS = r"^NVRM:|^nvidia-nvlink: Nvlink Core is being initialized|\[drm\] Initialized nvidia"
"""What only a module says that was loaded."""


class RejectedModule(NamedTuple):
    """What the kernel log says: `key` of a module whose key is not trusted, `unsigned` of one without a signature; None
    for neither. Both are None if the NVIDIA module was loaded, or can be looked at itself. `subject` is what a
    finding is about."""

    key: Line | None
    unsigned: Line | None
    subject: str

    @classmethod
    def probe(cls, kernel: Kernel, modules: KernelModules, journal: Journal) -> "RejectedModule":
        subject = f"kernel:{kernel.running}" if kernel.running else "host"
        loaded = modules.loaded_version or "nvidia" in (modules.loaded or ())
        seen = not modules.unseen or modules.seen(kernel.running)
        if loaded or seen or next(journal.kernel(_RUNS, last_boot=True), None):
            return cls(None, None, subject)
        key, unsigned = (next(journal.kernel(p, last_boot=True), None) for p in (_KEY, _UNSIGNED))
        return cls(key, unsigned, subject)
