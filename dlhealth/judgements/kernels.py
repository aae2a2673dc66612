"""How bad it is when a kernel has no driver."""

from dlhealth.model import Severity
from dlhealth.probes.machine.kernel import Kernel


def kernels_to_judge(kernel: Kernel) -> tuple[tuple[str, Severity], ...]:
    """Kernels that must have a driver, and how bad it is if one has none: an error for the target, a warning for the
    next one."""
    return tuple((r, Severity.ERROR if r == kernel.target else Severity.WARNING) for r in kernel.starting)
