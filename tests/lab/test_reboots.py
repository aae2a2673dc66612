"""Power cuts and reboots: an emulated Debian with the real packages of the driver, a kernel and a GRUB of its own. One
repair, which waits for a reboot, is cut off at many moments; each time the machine starts again and is compared."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab.conftest import Table
from tests.lab.lab import machine
from tests.lab.qemu import Emulated, layer, make_disk, needs_qemu, started

pytestmark = [pytest.mark.lab, needs_qemu]

DLHEALTH = "/opt/dlhealth/bin/dlhealth"
ACTIVE = "/var/lib/dlhealth/txn/active"
ENDS = 1800.0
PACKAGES = ("libcuda1", "glx-alternative-nvidia")  # a trigger of the second one rebuilds the initramfs
# What the initramfs holds is seen in what is loaded after a start: a module that stands for an old driver's.
RULE = f'''
"""A module of an old driver is loaded from the initramfs."""
from dlhealth.api import (
    AptInstall, EditFile, Evidence, KernelModules, Layer, Plan, Reboot, RefreshLoaderCache, Risk, Rule, Severity, Stage,
    UpdateInitramfs, WriteFile,
)

class OldModule(Rule):
    id = "old-module"
    title = "An old module is loaded"
    layer = Layer.KERNEL_MODULE
    stage = Stage.MODULE
    severity = Severity.ERROR

    def detect(self, modules: KernelModules):
        if "dummy" in (modules.loaded or ()):
            yield self.finding("host", "dummy is loaded", Evidence("/proc/modules", "dummy"))

    def remedies(self, finding):
        steps = (
            AptInstall({PACKAGES}, reinstall=True),
            EditFile("/etc/initramfs-tools/modules", ((1, "dummy", "# dummy"),)),
            EditFile("/home/alice/.bashrc", ((1, "export PATH=/usr/local/cuda/bin", "export PATH=/usr/bin:/bin"),)),
            WriteFile("/etc/modprobe.d/old.conf", "blacklist dummy\\n"),
            RefreshLoaderCache(),
            UpdateInitramfs("all"),
            Reboot(),
        )
        yield Plan("Take the old module out", Risk.LOW, steps, reboot=True)
'''

CUTS = {
    "nothing is changed yet": (r'"kind": "BEGIN"', 0),
    "the first package is unpacked": (r"status half-installed glx-alternative-nvidia", 0),
    "the second package is unpacked": (r"status half-installed libcuda1", 0),
    "dpkg configures": (r"status half-configured glx-alternative-nvidia", 0),
    "a trigger writes the initramfs": (r"status half-configured initramfs-tools", 10),
    "a file is about to be edited": (r'"kind": "INTENT", "n": 1', 0),
    "a file of a user is edited": (r'"kind": "INTENT", "n": 2', 0),
    "a file has been made": (r'"kind": "DONE", "n": 3', 0),
    "the loader's cache is made": (r'"kind": "INTENT", "n": 4', 0),
    "the initramfs is rebuilt": (r'"kind": "INTENT", "n": 5', 10),
    "it is being proved": (r'"kind": "DONE", "n": 5', 0),
}
"""The moments, in their order: the line that tells that one has come, and how many seconds later it is."""
AGAIN = "the first package is unpacked"
AGAIN_IN_RECOVERY = "the first package is unpacked, and again in the recovery"
NO_CUT, WAITING = "without a cut", "the repair waits for the reboot"


class State(NamedTuple):
    """A machine, as far as a repair could change it."""

    files: dict[str, str]
    packages: str
    not_whole: str
    in_initramfs: bool


class Started(NamedTuple):
    """A machine that has started again: what became of the repair, and of the machine."""

    outcome: str
    state: State
    loaded: bool
    seconds: float


def state(guest: Emulated) -> State:
    listed = guest.run(
        "find", "/boot", "/etc", "/home", "/usr", "/root", "-xdev", "-printf", "%p\t%y %#m %U %G %s %l\n"
    )
    files = dict(line.split("\t") for line in listed.splitlines())
    # An initramfs is never twice the same; what matters is what is in it.
    kept = {
        p: "" if "initrd" in p else s for p, s in files.items() if "__pycache__" not in p and p != "/etc/ld.so.cache"
    }
    packages = guest.run("dpkg-query", "-W", "-f", "${binary:Package} ${Version} ${db:Status-Abbrev}\n")
    not_whole = guest.run("sh", "-c", f"dpkg --audit; dpkg --verify {' '.join(PACKAGES)}", check=False)
    return State(kept, packages, not_whole, "/dummy.ko" in guest.run("sh", "-c", "lsinitramfs /boot/initrd.img-*64"))


def loaded(guest: Emulated) -> bool:
    return "dummy" in guest.run("lsmod").split()


def start_again(disk: Path, cut: str = "") -> Started:
    """Start from a disk whose power went; with `cut` it goes once more, when the recovery comes to that."""
    began = time.monotonic()
    if cut:
        with started(disk) as guest:
            until(guest.told(), cut)
    with started(disk) as guest:
        guest.wait_for_boot()
        # The recovery is at it, or the service has not yet confirmed it.
        while guest.run("sh", "-c", f"test ! -e {ACTIVE}/plan.json || echo yes") and time.monotonic() - began < ENDS:
            time.sleep(2)
        (ended,) = json.loads(guest.run(DLHEALTH, "history", "--json"))["transactions"]
        return Started(ended["outcome"], state(guest), loaded(guest), time.monotonic() - began)


def until(lines: Iterator[str], pattern: str) -> None:
    for line in lines:
        if re.search(pattern, line):
            return
    raise AssertionError(f"the machine is off, and nothing was told like {pattern}")


class Repair(NamedTuple):
    """The machine before the repair, what the repair ended with, and what each copy of its disk became."""

    before: State
    status: int
    again: dict[str, "Future[Started]"]


@pytest.fixture(scope="module")
def repair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repair]:
    folder = tmp_path_factory.mktemp("reboots")
    disk = layer(broken_machine(folder / "disk.raw"), folder / "repaired.qcow2")
    disks, before, status = carry_out(disk, folder)
    wanted = [i.callspec.params["name"] for i in request.session.items if i.path == request.path]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        cuts = {AGAIN_IN_RECOVERY: CUTS[AGAIN][0]}
        yield Repair(before, status, {n: pool.submit(start_again, disks[n], cuts.get(n, "")) for n in wanted})


def carry_out(disk: Path, folder: Path) -> tuple[dict[str, Path], State, int]:
    """The disk at each moment of the repair, how the machine was before it, and the repair's status."""
    copies = {NO_CUT: disk}
    with started(disk) as guest:
        guest.wait_for_boot()
        assert loaded(guest)
        before = state(guest)
        guest.begin(DLHEALTH, "fix", "old-module", "--yes")
        lines = guest.told()
        for number, (name, (line, later)) in enumerate(CUTS.items()):
            until(lines, line)
            time.sleep(later)
            copies[name] = guest.copy_of_disk(folder / f"cut-{number}.qcow2")
        status = int(guest.end()["status"])
        copies[WAITING] = guest.copy_of_disk(folder / "waiting.qcow2")
        copies[AGAIN_IN_RECOVERY] = Path(shutil.copy(copies[AGAIN], folder / "again.qcow2"))
        guest.begin("systemctl", "reboot")
        guest.ended()
    return copies, before, status


def broken_machine(disk: Path) -> Path:
    with machine("nvidia") as lab:
        lab.run("useradd", "-m", "-s", "/bin/bash", "alice")
        (lab.root / "home/alice/.bashrc").write_text("export PATH=/usr/local/cuda/bin\n")
        (lab.root / "etc/initramfs-tools/modules").write_text("dummy\n")
        lab.run("apt-get", "-q", "update")
        lab.run("apt-get", "-qy", "install", "--reinstall", "--download-only", *PACKAGES)
        lab.install_dlhealth()
        rules = lab.root / "etc/dlhealth/rules.d"
        rules.mkdir(parents=True)
        (rules / "old_module.py").write_text(RULE)
        (lab.root / "etc/dlhealth/config.toml").write_text(
            '[repair]\nmax_risk = "none"\n'
        )  # nothing but what is asked for
        lab.run(DLHEALTH, "service", "install")
        return make_disk(lab, disk)


@pytest.fixture
def again(name: str, repair: Repair, power_cuts: Table) -> Started:
    """What became of a machine, as a row of the table."""
    found = repair.again[name].result()
    kept = "as before" if found.state == repair.before else "neither" if found.state.in_initramfs else "as planned"
    power_cuts.row(name, outcome=found.outcome, state=kept, seconds=round(found.seconds))
    return found


@pytest.mark.parametrize("name", [NO_CUT, WAITING])
def test_the_repair_waits_for_the_reboot_and_is_confirmed_by_it(name: str, repair: Repair, again: Started) -> None:
    assert repair.status == 4
    assert again.outcome == "applied"
    assert not again.loaded
    assert not again.state.in_initramfs
    assert again.state.not_whole == ""


@pytest.mark.parametrize("name", [*CUTS, AGAIN_IN_RECOVERY])
def test_after_a_power_cut_the_machine_is_as_before(name: str, repair: Repair, again: Started) -> None:
    assert again.outcome == "rolled-back"
    files, before = again.state.files, repair.before.files
    assert {
        p: (before.get(p), files.get(p)) for p in before.keys() | files.keys() if before.get(p) != files.get(p)
    } == {}
    assert again.state == repair.before
