"""What is predicted of the next boot, and what it is: an emulated Debian with GRUB, NVIDIA's driver built by DKMS, and a
second kernel, with and without its headers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import LabMachine, machine
from tests.lab.qemu import Emulated, make_disk, needs_qemu, started

pytestmark = [pytest.mark.lab, needs_qemu]

DLHEALTH = "/opt/dlhealth/bin/dlhealth"
CLOUD = "6.1.0-50-cloud-amd64"
OLD = "6.1.0-50-amd64"
UNBUILT = {"kernel-headers-missing", "dkms-module-missing-for-running-kernel"}


def installed(lab: LabMachine) -> None:
    lab.install_dlhealth()
    lab.run(DLHEALTH, "service", "install")
    # Emulated, everything takes twenty times as long.
    lab.run("sed", "-i", "s/timeout 20 /timeout 400 /", "/usr/local/lib/dlhealth.hook")
    lab.run("apt-get", "-q", "update")


def doctor(guest: Emulated, *options: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(guest.run(DLHEALTH, "doctor", "--json", *options, check=False))
    return report


def faults(report: dict[str, Any], *severities: str) -> set[str]:
    return {f["id"] for f in report["findings"] if f["severity"] in (severities or ("error", "warning"))}


def kernel(guest: Emulated) -> str:
    return guest.run("uname", "-r").strip()


def test_a_kernel_without_headers_is_predicted_to_have_no_driver_and_has_none(tmp_path: Path) -> None:
    with machine("nvidia") as lab:
        installed(lab)
        lab.run("apt-get", "-qy", "install", "--download-only", "--no-install-recommends", "linux-image-cloud-amd64")
        disk = make_disk(lab, tmp_path / "disk.raw")
    with started(disk) as guest:
        guest.wait_for_boot()
        assert kernel(guest) == OLD
        assert faults(doctor(guest, "--next-boot")) == set()
        said = guest.run("sh", "-c", "apt-get -qy install --no-install-recommends linux-image-cloud-amd64 2>&1")
        assert f"The headers of kernel {CLOUD} are not installed" in said
        assert "details: dlhealth doctor --next-boot" in said
        predicted = doctor(guest, "--next-boot")
        assert predicted["host"]["kernel"] == CLOUD
        assert faults(predicted, "error") == UNBUILT
        # Everything works now: it is a warning.
        now = doctor(guest)
        assert (faults(now, "error"), faults(now, "warning")) == (set(), UNBUILT)
        assert now["host"]["kernel"] == OLD
        restart(guest)
    with started(disk) as guest:
        guest.wait_for_boot()
        assert kernel(guest) == CLOUD
        assert faults(doctor(guest), "error") == UNBUILT
        guest.run("modprobe", "nvidia-current", check=False)
        assert "NVRM" not in guest.run("dmesg")


def test_a_kernel_with_headers_has_its_driver_and_is_what_grub_reboot_chose(tmp_path: Path) -> None:
    with machine("nvidia") as lab:
        installed(lab)
        kernels = ("linux-image-cloud-amd64", "linux-headers-cloud-amd64")
        lab.run("apt-get", "-qy", "install", "--no-install-recommends", *kernels, timeout=3600)
        settings = lab.root / "etc/default/grub.d/chosen.cfg"
        settings.parent.mkdir()
        settings.write_text("GRUB_DEFAULT=saved\n")
        disk = make_disk(lab, tmp_path / "disk.raw")
        menu = "gnulinux-advanced-{0}>gnulinux-{1}-advanced-{0}"
    with started(disk) as guest:
        guest.wait_for_boot()
        entry: Callable[[str], str] = lambda release: menu.format(root(guest), release)  # noqa: E731
        first = kernel(guest)
        other = ({OLD, CLOUD} - {first}).pop()
        guest.run("grub-set-default", entry(first))
        guest.run("grub-reboot", entry(other))
        predicted = doctor(guest, "--next-boot")
        assert predicted["host"]["kernel"] == other
        assert faults(predicted) == set()
        restart(guest)
    with started(disk) as guest:
        guest.wait_for_boot()
        assert kernel(guest) == other
        assert has_driver(guest)
        # It was for once.
        assert doctor(guest, "--next-boot")["host"]["kernel"] == first
        restart(guest)
    with started(disk) as guest:
        guest.wait_for_boot()
        assert kernel(guest) == first
        assert has_driver(guest)


def root(guest: Emulated) -> str:
    """As GRUB's entries name the disk."""
    return guest.run("findmnt", "-n", "-o", "UUID", "/").strip()


def restart(guest: Emulated) -> None:
    guest.begin("systemctl", "reboot")
    guest.ended()


def has_driver(guest: Emulated) -> bool:
    """NVIDIA's module is NVIDIA's where it says that there is no GPU of its."""
    assert faults(doctor(guest)) == set()
    guest.run("modprobe", "nvidia-current", check=False)
    return "NVRM: No NVIDIA GPU found" in guest.run("dmesg")
