"""The mildest rung of the driver's ladder on a real kernel: libraries were upgraded below a loaded module, and nothing
uses the GPU. The module is a stand-in: NVIDIA's refuses to be loaded where there is no GPU."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import LabMachine, machine
from tests.lab.qemu import GUEST, Emulated, make_disk, needs_qemu, started

pytestmark = [pytest.mark.lab, needs_qemu]

DLHEALTH = "/opt/dlhealth/bin/dlhealth"
INSTALLED, LOADED = "535.261.03", "535.183.01"
MISMATCH = "driver-library-version-mismatch-after-upgrade"
BUILD = """
set -e
cd /root/module && printf 'obj-m := nvidia.o\\nccflags-y := -DSTAND_IN=\\\\"$(STAND_IN)\\\\"\\n' > Makefile
kernel=$(ls /lib/modules)
make -s -C /lib/modules/$kernel/build M=$PWD STAND_IN=$1 modules >/dev/null
cp nvidia.ko "$2" && make -s -C /lib/modules/$kernel/build M=$PWD clean && depmod -a $kernel
"""


def build(lab: LabMachine, version: str, path: str) -> None:
    (lab.root / "root/module").mkdir(exist_ok=True)
    shutil.copy(GUEST / "nvidia.c", lab.root / "root/module/nvidia.c")
    lab.run("sh", "-c", BUILD, "sh", version, path)


def loaded(guest: Emulated) -> str:
    return guest.run("cat", "/proc/driver/nvidia/version", check=False)


def doctor(guest: Emulated) -> dict[str, dict[str, Any]]:
    report = json.loads(guest.run(DLHEALTH, "doctor", "--json", check=False))
    return {f["id"]: f for f in report["findings"] if f["severity"] != "note"}


def test_a_module_that_nothing_uses_is_loaded_anew(tmp_path: Path) -> None:
    with machine("nvidia") as lab:
        lab.install_dlhealth()
        lab.run("apt-get", "-q", "update")
        (real,) = (lab.root / "usr/lib/modules").glob("*/updates/dkms/nvidia-current.ko")
        build(lab, INSTALLED, f"/{real.relative_to(lab.root)}")
        build(lab, LOADED, "/root/old.ko")
        disk = make_disk(lab, tmp_path / "disk.raw")
    with started(disk) as guest:
        guest.wait_for_boot()
        guest.run("modprobe", "-r", "nvidia")
        guest.run("insmod", "/root/old.ko")
        assert LOADED in loaded(guest)
        found = doctor(guest)
        assert set(found) == {MISMATCH}
        assert [a["kind"] for a in found[MISMATCH]["remedy"]["actions"]] == ["reload-modules"]
        fixed = json.loads(guest.run(DLHEALTH, "fix", "--yes", "--json"))
        assert fixed["outcome"] == "applied"
        assert INSTALLED in loaded(guest)
        assert doctor(guest) == {}
        assert json.loads(guest.run(DLHEALTH, "fix", "--yes", "--json"))["outcome"] == "nothing-to-do"
