"""Which system it is, from files of the form that each of them has."""

from pathlib import Path

import pytest

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.judgements.cudadriver import UsableGpu
from dlhealth.probes import Options
from dlhealth.probes.machine.platform import Family, Platform, PlatformSetting
from dlhealth.testing import Machine

RELEASES = {
    'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=41\nPRETTY_NAME="Fedora Linux 41 (Workstation Edition)"\n': Family.FEDORA,
    'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\nPRETTY_NAME="Red Hat Enterprise Linux 9.4 (Plow)"\n': Family.FEDORA,
    'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4"\n': Family.FEDORA,
    'ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"\nPRETTY_NAME="Amazon Linux 2023"\n': Family.FEDORA,
    'ID=arch\nBUILD_ID=rolling\nPRETTY_NAME="Arch Linux"\n': Family.ARCH,
    'ID=manjaro\nID_LIKE=arch\nPRETTY_NAME="Manjaro Linux"\n': Family.ARCH,
    'ID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\n': Family.ALPINE,
    'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\nPRETTY_NAME="openSUSE Tumbleweed"\n': Family.SUSE,
    'ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.6"\n': Family.SUSE,
    'ID=nixos\nVERSION_ID="24.05"\nPRETTY_NAME="NixOS 24.05 (Uakari)"\n': Family.NIX,
    "ID=void\nPRETTY_NAME=\"Void Linux\"\n": Family.OTHER,
    'ID=pop\nID_LIKE="ubuntu debian"\nVERSION_ID="22.04"\n': Family.DEBIAN,
    "ID=linuxmint\nID_LIKE=ubuntu\n": Family.DEBIAN,
    "ID=debian\n": Family.DEBIAN,
}  # fmt: skip


def platform(machine: Machine, folder: Path) -> Platform:
    machine.build(folder)
    found = Facts(RootHost(str(folder)), Options()).get(Platform)
    assert isinstance(found, Platform)
    return found


@pytest.mark.parametrize(("text", "family"), RELEASES.items())
def test_family(text: str, family: Family, tmp_path: Path) -> None:
    found = platform(Machine().file("/etc/os-release", text).folder("/usr/bin").folder("/var/lib"), tmp_path)
    assert found.family is family
    assert not found.managed
    assert found.setting is PlatformSetting.MACHINE
    reason = "cannot read dpkg's records" if family is Family.DEBIAN else "is not Debian or Ubuntu"
    assert found.unsupported is not None
    assert reason in found.unsupported


def test_a_debian_with_its_records_is_ordinary(tmp_path: Path) -> None:
    found = platform(Machine.debian12_gpu(), tmp_path)
    assert found.managed
    assert found.sentences == ()


@pytest.mark.parametrize("spoil", ["missing", "empty", "a folder"])
def test_records_that_are_not_there(spoil: str, tmp_path: Path) -> None:
    machine = Machine.debian12_gpu().remove("/var/lib/dpkg/status")
    if spoil == "empty":
        machine.file("/var/lib/dpkg/status")
    elif spoil == "a folder":
        machine.folder("/var/lib/dpkg/status")
    found = platform(machine, tmp_path)
    assert found.family is Family.DEBIAN
    assert not found.managed


@pytest.mark.parametrize(
    ("path", "content", "manager"),
    [
        ("/.dockerenv", "", "docker"),
        ("/run/.containerenv", 'engine="podman-4.9.3"\nname="work"\n', "podman"),
        ("/run/.containerenv", "", "podman"),
        ("/run/systemd/container", "lxc\n", "lxc"),
        ("/run/host/container-manager", "systemd-nspawn\n", "systemd-nspawn"),
        ("/.singularity.d/runscript", "#!/bin/sh\n", "apptainer"),
        ("/run/secrets/kubernetes.io/serviceaccount/token", "x", "kubernetes"),
        ("/proc/1/environ", "PATH=/bin\0container=lxc\0", "lxc"),
        ("/proc/1/cgroup", "12:devices:/kubepods/burstable/pod1/abc\n", "kubernetes"),
        ("/proc/mounts", "overlay / overlay rw,lowerdir=/var/lib/containerd/io/1/fs:/x 0 0\n", None),
    ],
)
def test_containers(path: str, content: str, manager: str | None, tmp_path: Path) -> None:
    found = platform(Machine.debian12().file(path, content), tmp_path)
    assert (found.setting, found.manager) == (PlatformSetting.CONTAINER, manager)
    assert found.driver_elsewhere
    assert not found.own_kernel


def test_the_overlay_of_a_live_system_is_no_container(tmp_path: Path) -> None:
    mounts = "overlay / overlay rw,lowerdir=/run/live/rootfs/filesystem.squashfs,upperdir=/run/live/overlay/rw 0 0\n"
    assert platform(Machine.debian12().file("/proc/mounts", mounts), tmp_path).setting is PlatformSetting.MACHINE


def test_wsl(tmp_path: Path) -> None:
    # systemd takes WSL for a container.
    machine = (
        Machine()
        .os_release("ubuntu", "24.04")
        .package("libc6", "2.39")
        .file("/proc/sys/kernel/osrelease", "5.15.153.1-microsoft-standard-WSL2\n")
        .file("/run/systemd/container", "wsl\n")
        .file("/sys/bus/pci/devices/0000:00:00.0/vendor", "0x1414\n")
        .library("/usr/lib/wsl/lib/libcuda.so.1", "libcuda.so.1")
        .file("/dev/dxg")
    )
    found = platform(machine, tmp_path)
    assert found.setting is PlatformSetting.WSL
    assert found.managed
    gpu = Facts(RootHost(str(tmp_path)), Options()).get(UsableGpu)
    assert gpu.source == "/dev/dxg"


def test_jetson(tmp_path: Path) -> None:
    machine = Machine().os_release("ubuntu", "22.04").package("nvidia-l4t-core", "36.4.0-20240912212859")
    machine.file("/proc/device-tree/compatible", b"nvidia,p3701-0000\0nvidia,tegra234\0").folder("/sys/bus/pci/devices")
    found = platform(machine, tmp_path)
    assert found.setting is PlatformSetting.JETSON
    assert found.own_kernel
    assert Facts(RootHost(str(tmp_path)), Options()).get(UsableGpu).source
