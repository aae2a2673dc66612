"""Traces of NVIDIA's installer."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.actions import AptInstall, MoveAside
from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis
from dlhealth.probes import Options
from dlhealth.probes.packaging.runfile import InstalledFiles, Runfile, installed_version
from dlhealth.testing import Machine, layouts


@pytest.fixture
def runfile(tmp_path: Path) -> Callable[[Machine], Runfile]:
    def probe(machine: Machine) -> Runfile:
        found: Runfile = Facts(RootHost(str(machine.build(tmp_path))), Options()).get(Runfile)
        return found

    return probe


def listed(machine: Machine, folder: Path) -> dict[str, str]:
    found: InstalledFiles = Facts(RootHost(str(machine.build(folder))), Options()).get(InstalledFiles)
    return {f.path: f.owner for f in found.files}


def test_an_installed_driver(runfile: Callable[[Machine], Runfile]) -> None:
    found = runfile(Machine.ubuntu1604_runfile())
    assert found.installed
    assert found.programs == ("/usr/bin/nvidia-uninstall", "/usr/bin/nvidia-installer")
    assert found.version == "381.22"
    assert found.blacklists == ("/etc/modprobe.d/nvidia-installer-disable-nouveau.conf",)
    assert [(t.module, t.version, t.sound) for t in found.trees] == [("nvidia", "381.22", True)]


def test_all_that_a_driver_consists_of(tmp_path: Path) -> None:
    files = listed(Machine.ubuntu1604_runfile(), tmp_path)
    assert files["/usr/lib/xorg/modules/extensions/libglx.so"] == ""
    assert files["/usr/lib/x86_64-linux-gnu/libcuda.so.381.22"] == ""


def test_what_the_list_of_the_installer_has(tmp_path: Path) -> None:
    """Files and links that it made, as far as they are there, and whose they would be; not what it replaced."""
    manifest = [
        "570.86.10", "NVIDIA Accelerated Graphics Driver for Linux-x86_64 (570.86.10)",
        "100: /usr/lib/old.so", "12345 100644 0 0", "2: /usr/bin/old-link", "x", "0777 0 0",
        "1: /usr/bin/nvidia-smi", "12345", "1: /usr/bin/gone", "12345", "1: /usr/src/nvidia-570.86.10", "1",
        "0: /lib/x86_64-linux-gnu/libGL.so.1", "libGL.so.1.7.0", "0: /lib/i386-linux-gnu/libGL.so.1", "libGL.so.1.7.0",
    ]  # fmt: skip
    machine = Machine.ubuntu2404_gpu().file("/var/lib/nvidia/log", "\n".join([*manifest, ""]), 0o600)
    for path in ("/usr/lib/old.so", "/usr/bin/nvidia-smi", "/usr/src/nvidia-570.86.10/nv.c"):
        machine.file(path)
    for triplet in ("x86_64-linux-gnu", "i386-linux-gnu"):
        machine.link(f"/usr/lib/{triplet}/libGL.so.1", "libGL.so.1.7.0")
    machine.link("/usr/bin/old-link", "x")
    machine.file("/var/lib/dpkg/info/libgl1:amd64.list", "/.\n/usr\n/usr/lib/x86_64-linux-gnu/libGL.so.1\n")
    machine.file("/var/lib/dpkg/info/libgl1:i386.list", "/.\n/usr\n/usr/lib/i386-linux-gnu/libGL.so.1\n")
    assert listed(machine, tmp_path) == {
        "/usr/bin/nvidia-smi": "nvidia-utils-550",
        "/lib/x86_64-linux-gnu/libGL.so.1": "libgl1",
        "/lib/i386-linux-gnu/libGL.so.1": "libgl1:i386",
    }


def test_packages_leave_no_trace_of_it(runfile: Callable[[Machine], Runfile]) -> None:
    found = runfile(Machine.debian12_gpu())
    assert not found.installed
    assert (found.log, found.manifest, found.version, found.blacklists) == ("", "", "", ())


@pytest.mark.parametrize(
    "text",
    [
        layouts.RUNFILE_LOG.format(version="381.22"),
        "381.22\nNVIDIA Accelerated Graphics Driver for Linux-x86_64 (381.22)\n1: /usr/lib/x\n",
        "-> Installing NVIDIA driver version 381.22.\n",
        "WARNING: x\n-> Installation of the kernel module for the NVIDIA Accelerated Graphics Driver for Linux-x86_64 (version 381.22) is now complete.\n",
    ],
)
def test_the_version_in_the_log(text: str) -> None:
    assert installed_version(text) == "381.22"


@given(st.text(max_size=500))
def test_hostile_logs_never_raise(text: str) -> None:
    assert isinstance(installed_version(text), str)


def test_a_dkms_tree_without_its_source(runfile: Callable[[Machine], Runfile]) -> None:
    machine = Machine.debian12().link("/var/lib/dkms/nvidia/470.57.02/source", "/usr/src/nvidia-470.57.02")
    (tree,) = runfile(machine).trees
    assert not tree.sound
    assert tree.source == "/usr/src/nvidia-470.57.02"


def test_the_mixture_is_taken_apart_by_moving_not_by_deleting(examine: Callable[..., Diagnosis]) -> None:
    machine = (
        Machine.ubuntu2404()
        .gpu()
        .ubuntu_driver("550.120", loaded=False)
        .runfile_driver("570.86.10", ("6.8.0-50-generic",))
        .library("/usr/lib/x86_64-linux-gnu/libvdpau.so.1.0.0", "libvdpau.so.1")
        .link("/usr/lib/x86_64-linux-gnu/libvdpau.so.1", "libvdpau.so.1.0.0")
        .file("/var/lib/dpkg/info/xserver-xorg-core.list", "/usr/lib/xorg/modules/extensions/libglx.so\n")
    )
    (found,) = examine(machine, "mixed-runfile-and-apt").findings
    actions = found.remedy.actions
    steps = [a.summary() for a in actions]
    # Its source is among the files of the installer.
    assert steps[0] == "dkms remove nvidia/570.86.10 --all"
    moved = [a.path for a in actions if isinstance(a, MoveAside)]
    assert {
        "/usr/bin/nvidia-uninstall", "/usr/bin/nvidia-installer",
        "/var/lib/nvidia/log", "/usr/bin/nvidia-smi", "/usr/lib/xorg/modules/extensions/libglx.so",
        "/usr/lib/modules/6.8.0-50-generic/kernel/drivers/video/nvidia.ko",
        "/usr/lib/modules/6.8.0-50-generic/kernel/drivers/video/nvidia-drm.ko",
    } <= {p.replace("/lib/modules", "/usr/lib/modules") if p.startswith("/lib/") else p for p in moved}  # fmt: skip
    assert not [p for p in moved if "libvdpau.so" in p]  # of a package that is none of NVIDIA's
    (install,) = [a for a in actions if isinstance(a, AptInstall)]
    assert install.reinstall
    assert {"nvidia-driver-550", "xserver-xorg-core"} <= set(install.packages)
    assert list(install.instead_of) == moved
    assert steps[-3:] == ["ldconfig", "depmod -a 6.8.0-50-generic", "update-initramfs -u -k all"]
    assert not any("purge" in s for s in steps)
    assert found.remedy.risk == "high"
