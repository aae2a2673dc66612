"""Whether packages are being changed right now, so that a half-finished change is not reported as a fault."""

from contextlib import suppress

from dlhealth.engine.facts import Facts, Options, Unavailable
from dlhealth.host import Host
from dlhealth.probes.packaging.apt import PackageLocks
from dlhealth.probes.packaging.packages import Packages


def being_changed(host: Host) -> str:
    """The program that changes packages or builds modules right now; "" if there is none, or if it is unknown."""
    with suppress(Unavailable):
        locks: PackageLocks = Facts(host, Options()).get(PackageLocks)
        if locks.busy:
            return locks.busy
    if not host.live:
        return ""
    from dlhealth.host.processes import building

    return building()


def all_configured(facts: Facts) -> bool:
    """Whether dpkg has configured every package that it unpacked; False also if that is unknown."""
    try:
        packages: Packages = facts.get(Packages)
    except Unavailable:
        return False
    return all(p.state == "installed" for p in packages.all() if p.unpacked)
