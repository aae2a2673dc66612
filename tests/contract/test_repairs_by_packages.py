"""Repairs that install packages, with stand-ins for apt, dpkg and the next start of the machine."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from dlhealth.engine.facts import Facts
from dlhealth.engine.repair import carry_out, confirm_after_reboot
from dlhealth.host.locate import host_at
from dlhealth.probes import Options
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.steps.base import Target
from dlhealth.testing import Machine
from dlhealth.txn import execute
from dlhealth.txn.execute import undo
from dlhealth.txn.store import Store
from tests.patient import Patient
from tests.rules import BY_ID
from tests.snapshot import snapshot
from tests.stand_in_root import StandInRoot

XORG = "/usr/lib/xorg/modules/extensions/libglx.so"


OFFERED: dict[str, Machine | None] = {
    "closed-module-on-blackwell": Machine.ubuntu2404().ubuntu_driver("580.95.05", open_flavour=True),
    "cudnn-headers-missing-or-split": Machine.ubuntu2404().cudnn_packages(),
    "cudnn-major-8-vs-9": Machine.ubuntu2404().cudnn_packages(),
    "cudnn-runtime-missing": Machine.ubuntu2404().cudnn_packages(),
    "cudnn-wrong-cuda-major": Machine.ubuntu2404().cudnn_packages("8.9.7.29-1+cuda11.8"),
    "dkms-compiler-mismatch": Machine.ubuntu2404()
    .library("/usr/bin/gcc-13")
    .package("gcc-13", "13.3.0-6ubuntu2", ["/usr/bin/gcc-13"]),
    "driver-too-old-for-new-gpu": Machine.ubuntu2404().ubuntu_driver("595.58.03"),
    "gpu-without-driver": Machine.ubuntu2404().ubuntu_driver("595.58.03"),
    "held-packages-block-driver": Machine.ubuntu2404_gpu(),
    "library-damaged": Machine.ubuntu2404().cudnn_packages(),
    "login-loop-glx-broken-driver-mismatch": Machine.ubuntu2404_gpu(),
    "maxwell-pascal-volta-dropped-after-580": Machine.ubuntu2404().ubuntu_driver("580.95.05"),
    "mixed-repositories": Machine.ubuntu2404_gpu(),
    "nouveau-bound-instead-of-nvidia": None,
    "nova-core-claims-gpu": None,
    "open-module-on-unsupported-gpu": Machine.ubuntu2404().ubuntu_driver("560.35.03"),
    "other-dkms-module-fails": None,
    "stale-libglx-symlink": Machine().library(XORG).package("xserver-xorg-core", "2:21.1.7-3", [XORG]),
    "third-party-package-pulls-other-libnvidia": Machine.ubuntu2404_gpu(),
}
"""Rule → a machine that has the packages which its repair needs; None if it needs none."""
MIXED = {"held-packages-block-driver", "mixed-repositories", "third-party-package-pulls-other-libnvidia"}
"""In the scenarios of these rules, dpkg's records name other versions than the files have: an undo restores the records."""


NOT_RUNNING = {"dkms-compiler-mismatch"}
"""Repaired as on a disk whose machine does not run: the repair loads no module."""


@pytest.mark.real_programs  # the stand-ins
@pytest.mark.parametrize("name", OFFERED)
def test_repair_by_packages(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = next(s for s in BY_ID[name].scenarios() if s.steps)
    stand_in = StandInRoot(tmp_path, monkeypatch)
    patient = Patient(scenario.machine.build(stand_in.folder), scenario)
    (patient.root / "etc/modprobe.d").mkdir(exist_ok=True)  # kmod's package has it
    if name in NOT_RUNNING:
        (patient.root / "proc/modules").unlink()
    source = tmp_path / "source"
    source.mkdir()
    offered = OFFERED[name]
    sources = [offered.build(source)] if offered else []
    for tree in (patient.root, *sources):
        as_packed(tree)
    stand_in.archive(*sources)
    stand_in.system_programs()
    before = comparable(patient.root)
    diagnosis, repair = patient.choose(frozenset({name}))
    assert [c.finding.id for c in repair.chosen] == [name], repair.left
    store = Store(str(patient.root))
    with store.locked():
        ended = carry_out(repair, diagnosis, store, str(patient.root), lambda: patient.examine()[0], lambda text: None)
        if ended.outcome == "awaiting-reboot":
            start(patient.root)
            monkeypatch.setattr(execute, "_boot_id", lambda: "the next boot")
            confirmed = confirm_after_reboot(store, str(patient.root), lambda: patient.examine()[0])
            assert confirmed is not None
            ended = confirmed
        assert (ended.outcome, ended.said) == ("applied", ()), ended
        _, again = patient.choose(frozenset())
        assert not {c.finding.id for c in again.chosen} & {name}
        undone = undo(store, Target(str(patient.root), ended.record.id), ended.record)
    stays = re.findall(r"(\S+) stays (?:as in the package|configured)", "; ".join(undone.said))
    assert undone.outcome == ("conflict" if stays else "undone")
    after = comparable(patient.root)
    names = {"status"} if name in MIXED else {*before, *after} - {path.lstrip("/") for path in stays}
    assert {n: after.get(n) for n in names} == {n: before.get(n) for n in names}


def as_packed(root: Path) -> None:
    """Give all files of packages one time: each has its time in the package, on every machine."""
    for path in (root / "usr").rglob("*"):
        os.utime(path, (1.7e9, 1.7e9), follow_symlinks=False)


def start(root: Path) -> None:
    """Start the machine: its kernel loads the driver's module, which takes the GPU, and people log in."""
    facts = Facts(host_at(str(root)), Options())
    modules: KernelModules = facts.get(KernelModules)
    (module,) = (f for f in modules.files if f.name == "nvidia")
    (device,) = (p for p in (root / "sys/bus/pci/devices").iterdir())
    machine = Machine().gpu((device / "device").read_text().strip()[2:], device.name)
    logs = [*root.glob("home/*/.xsession-errors"), *root.glob("var/log/*.log")]
    for old in (*logs, root / "proc/modules", root / "proc/driver/nvidia/version"):
        old.unlink(missing_ok=True)
    (device / "driver").unlink(missing_ok=True)
    machine.loaded_driver(module.version, open_flavour=module.open).build(root)


PASSING = r"proc|sys|var/log|var/lib/dpkg/status$|home/[^/]+/.xsession-errors|var/lib/dkms/.*/build/"
"""What a start of the machine changes; dpkg's records, whose order may change; and the remains of a failed build, which
are removed before the next one."""


def comparable(root: Path) -> dict[str, object]:
    """All files that must be as before after an undo."""
    found: dict[str, Any] = snapshot(root)
    status = (root / "var/lib/dpkg/status").read_text().replace("half-configured", "installed")
    kept = {k: v for k, v in found.items() if not re.match(PASSING, k) and v[3] is not None}
    return {**kept, "status": sorted(status.splitlines())}
