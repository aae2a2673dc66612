"""Repairs on real Debian machines with the real NVIDIA packages: broken as people break them, found, repaired, undone.

The table at the end is docs/lab.md's.
"""

import json
import os
import time

import pytest

from dlhealth.engine.choose import Limits, choose
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.load import load_rules
from dlhealth.engine.repair import carry_out
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis, Risk
from dlhealth.probes import Options
from dlhealth.steps.base import Target
from dlhealth.testing import Machine
from dlhealth.txn.execute import undo
from dlhealth.txn.store import Store
from tests.lab import faults
from tests.lab.conftest import Fresh, Table
from tests.lab.lab import LabMachine
from tests.lab.looks import dlhealth, doctor, packages, roots, snapshot

pytestmark = pytest.mark.lab


def assert_one_driver(lab: LabMachine, version: str = "535.261.03") -> None:
    """Modules of every kernel, libraries, packages and images of the initramfs are of one version, and whole."""
    assert lab.run("dpkg", "--audit").stdout == ""
    assert lab.run("sh", "-c", "dpkg --verify | grep -v ' c /' || true").stdout == ""
    for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libGLX_nvidia.so.0"):
        assert lab.run("readlink", "-f", f"{faults.LIB}/{name}").stdout.strip().endswith(f".so.{version}")
    for kernel in os.listdir(lab.root / "lib/modules"):
        index = (lab.root / f"lib/modules/{kernel}/modules.dep").read_text().splitlines()
        ours = ("updates/dkms/nvidia", "kernel/drivers/video/nvidia")  # DKMS's, and those of a .run file
        modules = [line.split(":")[0] for line in index if line.startswith(ours)]
        assert modules, kernel
        for module in modules:
            found = lab.run("modinfo", "-F", "version", f"/lib/modules/{kernel}/{module}").stdout.strip()
            assert found in (version, ""), (kernel, module)  # that of unified memory has none in old branches
        # A module of NVIDIA's in the image would be loaded instead of the one on the disk.
        image = f"unmkinitramfs /boot/initrd.img-{kernel} /tmp/image && cd /tmp/image && find . -name 'nvidia*.ko*'"
        assert lab.run("sh", "-c", f"{image} && diff -r etc/modprobe.d /etc/modprobe.d").stdout == "", kernel


def assert_nothing_else_removed(before: str, now: str) -> None:
    gone = {line.split()[0] for line in before.splitlines()} - {line.split()[0] for line in now.splitlines()}
    assert not [name for name in gone if "nvidia" not in name and "cuda" not in name]


RELEASES = {"nvidia": "535.261.03", "trixie": "550.163.01", "bullseye": "470.256.02"}
"""The driver of each base root: Debian 12, 13 and 11."""

# A half-configured package and a file that was deleted from one are no state to go back to: the undo leaves what is whole,
# and says so.
_FORWARD = (faults.an_interrupted_upgrade, faults.dpkg_cut_off_while_it_unpacks, faults.libraries_deleted_by_hand)

FILES = [
    (faults.tmp_without_its_mode, "login-loop-tmp-permissions"),
    (faults.path_lost_in_environment, "login-loop-broken-path-environment"),
    (faults.path_swallowed_in_bashrc, "ld-library-path-malformed"),
    (faults.sudo_startx, "login-loop-xauthority-wrong-owner"),
]
PACKAGES = [
    (faults.an_interrupted_upgrade, "half-configured-driver-packages"),
    (faults.dpkg_cut_off_while_it_unpacks, "dpkg-interrupted"),
    (faults.a_purged_half, "partial-driver-install"),
    (faults.libraries_deleted_by_hand, "libcuda-missing-from-loader"),
    (faults.a_module_that_was_never_built, "dkms-module-missing-for-running-kernel"),
    (faults.a_kernel_without_headers, "kernel-headers-missing"),
    (faults.another_kernel_without_headers, "kernel-headers-missing"),
]


# A change of files takes seconds, one of packages minutes.
_CASES = [pytest.param("nvidia", *case, marks=pytest.mark.ci) for case in FILES]
_CASES += [pytest.param("nvidia", *case) for case in PACKAGES]
_ELSEWHERE = [*FILES, (faults.libraries_deleted_by_hand, "libcuda-missing-from-loader")]
_CASES += [pytest.param(release, *case) for release in ("trixie", "bullseye") for case in _ELSEWHERE]


@pytest.mark.parametrize("release", RELEASES)
def test_a_healthy_release_is_silent(release: str, fresh: Fresh) -> None:
    _, report = doctor(fresh(release).root)
    assert (report["verdict"], report["findings"]) == ("healthy", [])


@pytest.mark.parametrize(("release", "broken", "expected"), _CASES, ids=lambda v: getattr(v, "__name__", v))
def test_repair_from_outside(release: str, broken: faults.Break, expected: str, fresh: Fresh, table: Table) -> None:
    lab = fresh(release)
    broken(lab)
    before, installed = snapshot(lab.root), packages(lab)
    _, report = doctor(lab.root)
    name = broken.__name__ if release == "nvidia" else f"{broken.__name__} ({release})"
    table.row(name, found=expected in roots(report), root=roots(report) == {expected})
    assert expected in roots(report), report["findings"]
    _, planned = dlhealth(lab, "fix", "--dry-run")
    assert planned["plan"]["actions"], planned["plan"]
    assert snapshot(lab.root) == before
    started = time.monotonic()
    status, fixed = dlhealth(lab, "fix", "--yes")
    table.row(name, repaired=status == 0, seconds=round(time.monotonic() - started, 1))
    assert (status, fixed["outcome"]) == (0, "applied"), json.dumps(fixed, indent=1)
    assert [t["outcome"] for t in fixed["transactions"]] == ["applied"]
    assert dlhealth(lab, "fix", "--yes")[1]["outcome"] == "nothing-to-do"
    if (broken, expected) in PACKAGES:
        assert_one_driver(lab, RELEASES[release])
        assert_nothing_else_removed(installed, packages(lab))
    status, undone = dlhealth(lab, "undo", "--yes")
    ended = (1, "conflict") if broken in _FORWARD else (0, "undone")
    assert (status, undone["transaction"]["outcome"]) == ended, undone
    assert packages(lab) == installed or broken in _FORWARD
    after = snapshot(lab.root)
    changed = {p: (before.get(p), after.get(p)) for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    table.row(name, undone="stays whole" if broken in _FORWARD else not changed)
    assert not changed or broken in _FORWARD, dict(sorted(changed.items())[:20])


def test_without_the_network_nothing_is_changed(fresh: Fresh) -> None:
    lab = fresh("nvidia")
    faults.a_kernel_without_headers(lab)
    lab.run(
        "sh",
        "-c",
        "apt-get clean; sed -i 's,^URIs:.*,URIs: http://127.0.0.1:9/debian,; s,http[^ ]*,http://127.0.0.1:9/debian,' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null; true",
    )
    before, installed = snapshot(lab.root), packages(lab)
    status, fixed = dlhealth(lab, "fix", "--yes")
    assert (status, fixed["outcome"]) == (3, "refused"), fixed
    assert (snapshot(lab.root), packages(lab)) == (before, installed)


def test_the_last_rung_purges_and_reinstalls(fresh: Fresh, table: Table) -> None:
    """The mild repair of a deleted library is taken for tried: what is left is purge and reinstall, and its undo."""
    lab = fresh("nvidia")
    faults.libraries_deleted_by_hand(lab)
    mine = lab.root / "etc/nvidia/current/nvidia-load.conf"
    mine.write_text(mine.read_text() + "# mine\n")
    before, installed = snapshot(lab.root), packages(lab)
    rules = load_rules("/nonexistent").rules
    by_id = {rule.id: rule for rule in rules}

    def look() -> tuple[Diagnosis, Facts]:
        known = Facts(RootHost(str(lab.root)), Options())
        return diagnose(rules, known), known

    diagnosis, known = look()
    (finding,) = [d for d in diagnosis.findings if d.finding.id == "libcuda-missing-from-loader"]
    assert finding.remedy
    given_up = frozenset({(finding.finding.fingerprint, finding.remedy.summary)})
    repair = choose(diagnosis, by_id, known, Limits(Risk.HIGH, live=False, given_up=given_up))
    assert [type(a).__name__ for a in repair.actions] == ["AptPurgeReinstall", "RefreshLoaderCache"]
    store, started = Store(str(lab.root)), time.monotonic()
    with store.locked():
        ended = carry_out(repair, diagnosis, store, str(lab.root), lambda: look()[0], print)
        assert (ended.outcome, ended.said) == ("applied", ())
        table.row("purge and reinstall", repaired=True, seconds=round(time.monotonic() - started, 1))
        assert doctor(lab.root)[1]["verdict"] == "healthy"
        assert packages(lab) == installed
        assert_one_driver(lab)
        assert "# mine" not in mine.read_text()
        assert undo(store, Target(str(lab.root), ended.record.id), ended.record).outcome == "undone"
    assert "# mine" in mine.read_text()
    assert packages(lab) == installed
    table.row("purge and reinstall", undone="stays whole")
    kept = snapshot(lab.root)
    assert {p for p in before if p not in kept} == set()


def test_what_a_run_file_left_beside_the_packages_goes(fresh: Fresh, table: Table) -> None:
    lab = fresh("nvidia")
    healthy, installed = snapshot(lab.root), packages(lab)
    faults.a_run_file_over_the_packages(lab)
    before = snapshot(lab.root)
    _, report = doctor(lab.root)
    table.row("a .run file over the packages", found="mixed-runfile-and-apt" in roots(report))
    table.row("a .run file over the packages", root=roots(report) == {"mixed-runfile-and-apt"})
    assert roots(report) == {"mixed-runfile-and-apt"}, json.dumps(report["findings"], indent=1)
    started = time.monotonic()
    status, fixed = dlhealth(lab, "fix", "--yes", "--max-risk", "high")
    assert (status, fixed["outcome"]) == (0, "applied"), json.dumps(fixed, indent=1)
    table.row("a .run file over the packages", repaired=True, seconds=round(time.monotonic() - started, 1))
    assert packages(lab) == installed
    assert_one_driver(lab)
    repaired = snapshot(lab.root)
    gone = {p for p in healthy if p not in repaired}
    assert not gone, sorted(gone)
    left = {p for p in repaired if p not in healthy and not p.startswith("var/lib/nvidia/")}
    assert not left, sorted(left)
    assert dlhealth(lab, "fix", "--yes", "--max-risk", "high")[1]["outcome"] == "nothing-to-do"
    status, undone = dlhealth(lab, "undo", "--yes")
    assert (status, undone["transaction"]["outcome"]) == (0, "undone"), undone
    after = snapshot(lab.root)
    changed = {p: (before.get(p), after.get(p)) for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    table.row("a .run file over the packages", undone=not changed)
    assert not changed, dict(sorted(changed.items())[:20])
    assert packages(lab) == installed


def test_switch_to_the_branch_that_the_gpu_needs_and_back(fresh: Fresh, table: Table) -> None:
    lab = fresh("nvidia")
    Machine().gpu(device="1180").build(lab.root)  # a GeForce GTX 680
    installed = packages(lab)
    _, report = doctor(lab.root)
    table.row("a GPU of an old branch", found="legacy-gpu-needs-470-390-340" in roots(report))
    started = time.monotonic()
    status, fixed = dlhealth(lab, "fix", "legacy-gpu-needs-470-390-340", "--yes", "--max-risk", "high")
    assert fixed["outcome"] == "applied", json.dumps(fixed, indent=1)
    now = packages(lab)
    assert "nvidia-tesla-470-driver" in now
    assert_one_driver(lab, "470.256.02")
    table.row("a GPU of an old branch", repaired=status in (0, 1), seconds=round(time.monotonic() - started, 1))
    assert_nothing_else_removed(installed, now)
    assert dlhealth(lab, "undo", "--yes")[1]["transaction"]["outcome"] == "undone"
    assert packages(lab) == installed
    table.row("a GPU of an old branch", undone=True)
