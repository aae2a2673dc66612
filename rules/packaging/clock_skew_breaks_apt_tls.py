"""The machine's clock is behind, so apt and TLS reject files and certificates that are newer than it.

What you see
    E: Release file for http://... is not valid yet (invalid for another 1d 18h 41min 35s)

    Downloads with https, pip or git fail, because certificates are not valid yet.
Why
    The clock was reset: the mainboard's battery is empty, a virtual machine or WSL2 woke up from a snapshot, or another
    system on this machine sets the clock to local time. Without a time server it stays wrong.

    dlhealth compares the clock with the dates that servers wrote into apt's lists. Less than an hour does no harm.
Repair
    Let the machine get its time from a time server.
What the repair risks
    A large jump can end sessions and licenses that have a time limit. Do not switch off apt's check of the date: that
    only hides the wrong clock.
By hand
    timedatectl set-ntp true
    timedatectl
    # In WSL2:
    hwclock -s
    apt-get update
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptFailures,
    ByHand,
    Clock,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

HARMLESS = 3600.0
"""Seconds."""
UNITS = {"d": 86400, "h": 3600, "min": 60, "s": 1}


class ClockSkewBreaksAptTls(Rule):
    id = "clock-skew-breaks-apt-tls"
    title = "The machine's clock is behind"
    stage = Stage.CLOCK
    severity = Severity.ERROR

    def detect(self, clock: Clock | None, failures: AptFailures | None) -> Iterator[Finding | Unknown]:
        said = failures.of("clock") if failures else None
        if clock and clock.behind > HARMLESS:
            yield self.finding(
                "host",
                f"The clock is behind by at least {clock.behind / 3600:.0f} hours: apt's lists were signed later",
                Evidence(clock.source, clock.date),
            )
        elif said and clock is None and _seconds(said.text) > HARMLESS:
            yield self.finding(
                "host", "The clock is behind: apt got lists that are not valid yet", Evidence(said.source, said.text)
            )
        elif clock is None and said is None:
            yield Unknown("cannot compare the clock with apt's lists")

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = (
            "set the clock from a time server: timedatectl set-ntp true (in WSL2: hwclock -s), then run apt-get update"
        )
        yield Plan("Correct the clock", Risk.LOW, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(left: str) -> Machine:
            return Machine.ubuntu2404_gpu().file(
                "/var/log/apt/term.log",
                "E: Release file for https://archive.ubuntu.com/ubuntu/dists/noble-updates/InRelease is not valid yet "
                f"(invalid for another {left}). Updates for this repository will not be applied.\n",
            )

        ladder = (("low network", "by-hand set-ntp hwclock"),)
        yield Scenario("almost two days, as apt said", said("1d 18h 41min 35s"), finds="host", ladder=ladder)
        yield Scenario("some hours, as apt said", said("5h 2min 1s"), finds="host", ladder=ladder)
        yield Scenario("minutes do no harm", said("12min 3s"))
        yield Scenario("no clock, and nothing that apt said", Machine.ubuntu2404_gpu(), unknown=True)


def _seconds(text: str) -> int:
    """The time that apt names: "1d 18h 41min 35s"."""
    left = re.search(r"invalid for another ([^)]*)\)", text)
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)(d|h|min|s)\b", left[1] if left else ""))
