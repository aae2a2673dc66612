"""A program is changing packages right now and holds apt's lock.

What you see
    E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1595 (packagekitd)
Why
    Only one program may change packages at a time. Often it is the nightly update (unattended-upgrades) or the
    software centre; soon after the first start of a machine it is nearly always one of them. While it works, packages
    are half configured, modules are being built: that is no fault, and is not reported as one.
Repair
    Wait until it has finished. apt can wait by itself.
What the repair risks
    Nothing. Deleting the lock file, or killing apt, is what leaves packages half configured.
By hand
    apt-get -o DPkg::Lock::Timeout=600 install ...
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    PackageLocks,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)


class AptLockHeld(Rule):
    id = "apt-lock-held"
    title = "A program is changing packages right now"
    stage = Stage.PACKAGE_STATE
    severity = Severity.NOTE
    explains = ("dpkg-interrupted",)

    def detect(self, locks: PackageLocks) -> Iterator[Finding]:
        if locks.holders:
            holder = locks.holders[0]
            yield self.finding(
                "host",
                f"{locks.busy}; wait for it to finish",
                *(
                    Evidence(h.path, f"held by process {h.pid} ({h.command or 'name not known'})")
                    for h in locks.holders
                ),
                pid=holder.pid,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            f"Wait until process {finding.detail['pid']} has finished",
            Risk.LOW,
            (ByHand("wait, or let apt wait: apt-get -o DPkg::Lock::Timeout=600 ...; never delete the lock file"),),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "the nightly update",
            Machine.ubuntu2404_gpu().locked("/var/lib/dpkg/lock-frontend", 1595, "unattended-upgr"),
            finds="host",
        )
        yield Scenario(
            "apt-get update, its name hidden",
            Machine.debian12().locked("/var/lib/apt/lists/lock", 731, ""),
            finds="host",
        )
        yield Scenario(
            "a stale lock file that nobody holds",
            Machine.debian12()
            .file("/var/lib/dpkg/lock-frontend")
            .file("/proc/locks", "1: FLOCK  ADVISORY  WRITE 9 00:1a:4711 0 EOF\n"),
        )
        yield Scenario(
            "a disk of another machine", Machine.debian12().file("/var/lib/dpkg/lock-frontend"), unknown=True
        )
