"""How bad it is when a kernel has no driver."""

from dlhealth.model import Severity
from dlhealth.probes.driver.dkms import Dkms
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.kernel import Kernel


def kernels_to_judge(kernel: Kernel) -> tuple[tuple[str, Severity], ...]:
    """Kernels that must have a driver, and how bad it is if one has none: an error for the target, a warning for the
    next one."""
    return tuple((r, Severity.ERROR if r == kernel.target else Severity.WARNING) for r in kernel.starting)


def kernels_without_module(
    kernel: Kernel, modules: KernelModules, dkms: Dkms | None
) -> tuple[tuple[str, Severity], ...]:
    """Those of them that have no usable NVIDIA module. If nothing shows which kernel runs or starts next: those for
    which a build failed."""
    if kernel.target or not kernel.unseen:
        return tuple((release, how) for release, how in kernels_to_judge(kernel) if not modules.usable(release))
    failed = (b.kernel for m in (dkms.modules if dkms else ()) for b in m.builds if b.fault and b.kernel)
    return tuple((release, Severity.ERROR) for release in dict.fromkeys(failed) if not modules.seen(release))
