"""Which of the distribution's packages drives the GPUs of a machine that has no driver."""

from dlhealth.data import load
from dlhealth.data.compat import version_key
from dlhealth.host import Host
from dlhealth.judgements.driverfit import system_of
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.machine.secureboot import SecureBoot
from dlhealth.records import NamedTuple


class FirstDriver(NamedTuple):
    """`packages` are the newest driver that supports every GPU and kernel here, and the headers that its module is built
    with; none if the distribution is not known to have one. `branch` is its branch."""

    packages: tuple[str, ...]
    branch: int

    @classmethod
    def probe(cls, host: Host, gpus: Gpus, kernel: Kernel, secure: SecureBoot | None) -> "FirstDriver":
        own = [g for g in gpus.gpus if not g.passed_through]
        opened = any(g.needs_open for g in own)
        closed_only = any(g.supports_open is False for g in own)
        unfit = not own or not all(g.known for g in own) or (opened and closed_only)
        # With Secure Boot, a person must confirm the key of the new module at the next boot.
        if unfit or kernel.unseen or (secure and secure.enforced):
            return cls((), 0)
        lowest = max((g.needed or 0 for g in own), default=0)
        highest = min((g.last_branch for g in own if g.last_branch), default=None)
        system = system_of(host)
        key = "open" if opened else "closed"
        rows = [
            row
            for row in load("driver_branches")["packages"]
            if row["system"] == system
            and row[key]
            and "-server" not in row[key]
            # Debian's open module is a package beside the driver, which would bring the closed one.
            and not (opened and system.startswith("debian"))
            and lowest <= row["branch"]
            and (highest is None or row["branch"] <= highest)
            and all(_builds(row["kernel"], release) for release in kernel.starting)
        ]
        best = max(rows, key=lambda row: int(row["branch"]), default=None)
        if best is None:
            return cls((), 0)
        without = [k.release for k in kernel.installed if k.release in kernel.starting and not k.headers]
        return cls((best[key], *(f"linux-headers-{release}" for release in without)), best["branch"])


def _builds(newest: str | None, release: str) -> bool:
    """Whether the driver's changelog names a kernel as new as this one; None: no limit is known."""
    return newest is None or version_key(release)[:2] <= version_key(newest)[:2]
