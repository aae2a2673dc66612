"""A module that the kernel rejected for its signature, on a machine whose modules are not visible."""

from dlhealth.host import Host, Symptom
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.records import NamedTuple

_KEY = r"^(?:\S+: )?[Ll]oading of module with unavailable key is rejected"
_UNSIGNED = r"^(?:\S+: )?[Ll]oading of unsigned module is rejected|unsigned module loading is restricted"
_FOREIGN = r"^nvidia[\w-]*: (?:version magic|disagrees about version of symbol)"
_RUNS = r"^NVRM:|^nvidia-nvlink: Nvlink Core is being initialized|\[drm\] Initialized nvidia"
"""What only a module says that was loaded."""


class RejectedModule(NamedTuple):
    """What the kernel log says: `key` of a module whose key is not trusted, `unsigned` of one without a signature,
    `foreign` of an NVIDIA module that was built for another kernel; None for none of them. All are None if the NVIDIA
    module was loaded, or can be looked at itself. `subject` is what a finding is about."""

    key: Line | None
    unsigned: Line | None
    foreign: Line | None
    subject: str

    @classmethod
    def probe(cls, host: Host, kernel: Kernel, modules: KernelModules, journal: Journal) -> "RejectedModule":
        subject = f"kernel:{kernel.running}" if kernel.running else "host"
        loaded = modules.loaded_version or "nvidia" in (modules.loaded or ())
        seen = not modules.unseen or modules.seen(kernel.running)
        if loaded or seen or next(journal.kernel(_RUNS, last_boot=True), None):
            return cls(None, None, None, subject)
        key, unsigned, foreign = (next(journal.kernel(p, last_boot=True), None) for p in (_KEY, _UNSIGNED, _FOREIGN))
        # The kernel does not always name the module; who posted this may say that it was another one.
        said = {s.symptom for s in host.symptoms}
        if Symptom.OTHER_REFUSED in said and Symptom.NO_DRIVER not in said:
            key, unsigned = (line if line and "nvidia" in line.text else None for line in (key, unsigned))
        return cls(key, unsigned, foreign, subject)
