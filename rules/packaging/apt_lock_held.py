"""Another program is changing packages right now and holds the apt lock.

What you see
    E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1595 (packagekitd)
Why
    Only one program can change packages at a time. Often it is the automatic update (unattended-upgrades) or the
    software center, especially soon after boot.

    While it works, packages are half-configured and modules are being built. That is normal, so dlhealth does not
    report it as a problem.
Repair
    Wait until it finishes. apt can wait for the lock.
What the repair risks
    Nothing. But if you delete the lock file or kill apt, packages can stay half-configured.
By hand
    apt-get -o DPkg::Lock::Timeout=600 install PACKAGE
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
                *(Evidence(h.path, f"held by process {h.pid} ({h.command or 'unknown name'})") for h in locks.holders),
                pid=holder.pid,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            f"Wait until process {finding.detail['pid']} finishes",
            Risk.LOW,
            (
                ByHand(
                    "wait, or let apt wait: apt-get -o DPkg::Lock::Timeout=600 install PACKAGE; never delete the lock file"
                ),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "the automatic update",
            Machine.ubuntu2404_gpu().locked("/var/lib/dpkg/lock-frontend", 1595, "unattended-upgr"),
            finds="host",
            ladder=(("low", "by-hand -o DPkg::Lock::Timeout=600"),),
        )
        yield Scenario(
            "apt-get update, with a hidden name",
            Machine.debian12().locked("/var/lib/apt/lists/lock", 731, ""),
            finds="host",
        )
        yield Scenario(
            "a lock file that no process holds",
            Machine.debian12()
            .file("/var/lib/dpkg/lock-frontend")
            .file("/proc/locks", "1: FLOCK  ADVISORY  WRITE 9 00:1a:4711 0 EOF\n"),
        )
        yield Scenario("a mounted disk", Machine.debian12().file("/var/lib/dpkg/lock-frontend"), unknown=True)
