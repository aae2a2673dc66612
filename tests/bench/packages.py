"""What a transaction adds to changes of packages and modules, beside the same commands by hand: in the real Debian root
with the NVIDIA packages, which are downloaded already. Run as root:

python -m tests.bench.packages [apt|dkms|hook]
"""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from dlhealth.actions import AptInstall, DkmsBuild
from dlhealth.model import Action
from dlhealth.steps.base import Target
from dlhealth.txn.execute import apply
from dlhealth.txn.store import Store
from tests.lab.lab import LabMachine, machine

PACKAGES = ("nvidia-smi", "libcuda1")
ROUNDS = {"apt": 3, "dkms": 1, "hook": 3}
"""A build takes minutes, and nearly all of them are the compiler's."""
BOUND = 1.05
HOOK = "usr/local/lib/dlhealth.hook"
HOOKED = {
    "a driver's package, with its initramfs": ["libcuda1"],
    "a library of the driver's": ["libnvidia-ml1"],
    "nothing of the driver": ["tzdata"],
}
HOOK_BOUND = 0.05
# In the place of the hook: it notes the CPU time of what it starts.
CLOCK = """#!/bin/bash
/usr/local/lib/dlhealth.real
times > /root/times
"""


class Cost(NamedTuple):
    """CPU seconds and bytes that were written are those of this process and of all that it started. On a machine that
    does other things too, they say more than the seconds that passed."""

    cpu: float
    wall: float
    written: int


def main(wanted: list[str]) -> int:
    """Print the tables; the exit status says whether the bounds hold."""
    held = []
    with machine("nvidia") as lab:
        if "apt" in wanted:
            held.append(reinstall(lab))
        if "dkms" in wanted:
            held.append(build(lab))
        if "hook" in wanted:
            held.append(hook(lab))
    return 0 if all(held) else 1


def reinstall(lab: LabMachine) -> bool:
    words = ["apt-get", "-q", "-y", "install", "--reinstall", *PACKAGES]
    lab.run("apt-get", "-q", "update")
    lab.run(*words, "--download-only")
    lab.run(*words)  # an overlay copies what is changed for the first time: that is no cost of either
    return _compare("apt", lab, lambda: None, words, AptInstall(PACKAGES, reinstall=True))


def build(lab: LabMachine) -> bool:
    version = lab.run("sh", "-c", "ls /var/lib/dkms/nvidia-current | grep '^[0-9]'").stdout.split()[0]
    kernel = lab.run("sh", "-c", f"ls /var/lib/dkms/nvidia-current/{version} | grep -v source").stdout.split()[0]
    module = f"nvidia-current/{version}"

    def prepare() -> None:
        lab.run("dkms", "remove", module, "--all")
        lab.run("dkms", "add", module)

    words = ["dkms", "install", module, "-k", kernel]
    return _compare("dkms", lab, prepare, words, DkmsBuild("nvidia-current", version, kernel))


def hook(lab: LabMachine) -> bool:
    """The share of apt's hook in the CPU time of a run of apt, beside what it was last told."""
    lab.run(lab.install_dlhealth(), "service", "install")
    (lab.root / HOOK).rename(lab.root / "usr/local/lib/dlhealth.real")
    (lab.root / HOOK).write_text(CLOCK)
    (lab.root / HOOK).chmod(0o755)
    lab.run("apt-get", "-q", "update")
    print(f"{'apt-get install --reinstall':60} {'hook CPU s':>11} {'apt CPU s':>11} {'share':>8}")
    shares = []
    for label, packages in HOOKED.items():
        words = f"apt-get -q -y install --reinstall {' '.join(packages)}"
        lab.run("sh", "-c", f"{words} --download-only && {words}")
        # /run is made anew each time; the check at boot has left its file there.
        script = f"mkdir -p /run/dlhealth && echo > /run/dlhealth/boot.json && sleep 0.1 && {words}"
        rows = []
        for _ in range(ROUNDS["hook"]):
            cpu = _cost(lambda: lab.run("sh", "-c", script)).cpu  # noqa: B023  (called at once)
            ours = _seconds((lab.root / "root/times").read_text())
            rows.append((ours, cpu - ours))
        ours, others = (statistics.median(column) for column in zip(*rows, strict=True))
        shares.append(ours / others)
        print(f"{label + ' (' + ' '.join(packages) + ')':60} {ours:11.3f} {others:11.3f} {shares[-1]:8.2%}", flush=True)
    print(f"(bound {HOOK_BOUND:.0%})")
    return max(shares) < HOOK_BOUND


def _seconds(times: str) -> float:
    """What the children used, of what the shell's `times` prints: "0m0.012s 0m0.003s" in its second line."""
    parts = (value.removesuffix("s").split("m") for value in times.splitlines()[1].split())
    return sum(int(minutes) * 60 + float(seconds) for minutes, seconds in parts)


def _compare(name: str, lab: LabMachine, prepare: Callable[[], None], words: list[str], action: Action) -> bool:
    folder = str(lab.root)
    store = Store(folder)

    def by_hand() -> None:
        Target(folder, "ab").command(*words, timeout=3600)

    def repaired() -> None:
        with store.locked():
            ended = apply(store, Target(folder, "ab"), "ab", [action], {}, lambda: None, False, lambda text: None)
        assert ended.outcome == "applied", ended.said

    samples: dict[str, list[Cost]] = {"by hand": [], "as a transaction": []}
    for _ in range(ROUNDS[name]):
        for label, work in (("by hand", by_hand), ("as a transaction", repaired)):
            prepare()
            samples[label].append(_cost(work))
    plain, ours = (Cost(*map(statistics.median, zip(*rows, strict=True))) for rows in samples.values())
    print(f"{' '.join(words):60} {'CPU s':>8} {'wall s':>8} {'MB written':>11}")
    for label, cost in zip(samples, (plain, ours), strict=True):
        print(f"{label:60} {cost.cpu:8.2f} {cost.wall:8.2f} {cost.written / 1e6:11.2f}")
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    print(
        f"{f'ratio (bound {BOUND}; of the wall only where nothing else runs)':60} {'':>0}"
        + "".join(f"{r:9.3f}" for r in ratios),
        flush=True,
    )
    return ratios[0] <= BOUND and ratios[2] <= BOUND


def _cost(work: Callable[[], None]) -> Cost:
    os.sync()
    before, started = _used(), time.monotonic()
    work()
    wall, after = time.monotonic() - started, _used()
    return Cost(after[0] - before[0], wall, after[1] - before[1])


def _used() -> tuple[float, int]:
    """CPU seconds and bytes of this process and of its children that have ended (proc_pid_io(5))."""
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    with open("/proc/self/io") as file:
        fields = dict(line.split(": ") for line in file)
    return sum(t.ru_utime + t.ru_stime for t in times), int(fields["write_bytes"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(ROUNDS)))
