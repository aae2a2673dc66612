"""Space, and a /boot of its own. File systems are real ones, small and in memory."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosed, Severity
from dlhealth.probes import Options
from dlhealth.probes.machine.storage import BootFolder, Storage
from dlhealth.testing import Machine

SIZE = 4 << 20


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A machine's directory whose /boot is a file system of 4 MiB."""
    boot = tmp_path / "boot"
    boot.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", boot], check=True)
    yield tmp_path
    subprocess.run(["umount", boot], check=True)


@pytest.fixture
def find(root: Path, rules: tuple[Rule, ...]) -> Callable[[Machine], list[Diagnosed]]:
    chosen = [r for r in rules if r.id == "boot-partition-full"]

    def run(machine: Machine) -> list[Diagnosed]:
        return list(diagnose(chosen, Facts(RootHost(str(machine.build(root))), Options())).findings)

    return run


def machine(*initrds: int) -> Machine:
    result = Machine.ubuntu2404()
    for number, size in enumerate(initrds):
        release = f"6.8.0-{50 + number}-generic"
        result.kernel(release, running=number == len(initrds) - 1).file(f"/boot/initrd.img-{release}", bytes(size))
    return result


def test_a_file_system_of_its_own(root: Path) -> None:
    storage = Facts(RootHost(str(machine(1000).build(root))), Options()).get(Storage)
    assert storage.separate("/boot")
    assert not storage.separate("/usr")
    assert not storage.separate("/nowhere")
    assert storage.systems["/boot"].space.total == SIZE
    assert not storage.live


def test_enough_for_one_more(find: Callable[[Machine], list[Diagnosed]]) -> None:
    assert find(machine(1 << 20, 1 << 20)) == []


def test_too_little_for_one_more_is_a_warning(find: Callable[[Machine], list[Diagnosed]]) -> None:
    (found,) = find(machine(1 << 20, 1 << 20, (3 << 20) // 2))
    assert found.finding.severity is Severity.WARNING
    assert "the next kernel or driver update will fail" in found.finding.title
    assert [a.summary() for a in found.remedy.actions] == [
        "apt-get purge linux-image-6.8.0-50-generic linux-headers-6.8.0-50-generic",
        "update-initramfs -u -k all",
    ]


def test_too_little_with_unfinished_packages_is_an_error(find: Callable[[Machine], list[Diagnosed]]) -> None:
    full = machine(1 << 20, 1 << 20, (3 << 20) // 2).package(
        "initramfs-tools", "0.142", status="install ok half-configured"
    )
    (found,) = find(full)
    assert found.finding.severity is Severity.ERROR
    steps = [a.summary() for a in found.remedy.actions]
    assert steps[0] == "move /boot/initrd.img-6.8.0-50-generic aside (kept in /var/lib/dlhealth)"
    assert steps[1] == "dpkg --configure -a && apt-get -f install"


def test_the_only_kernel_is_never_offered(find: Callable[[Machine], list[Diagnosed]]) -> None:
    (found,) = find(machine((5 << 20) // 2))
    assert "initramfs.conf" in found.remedy.actions[0].summary()


def test_boot_folder(tmp_path: Path) -> None:
    described = (
        Machine()
        .file("/boot/vmlinuz-6.1.0-50-amd64", "k")
        .file("/boot/initrd.img-6.1.0-50-amd64", b"x" * 10)
        .file("/boot/vmlinuz-6.1.0-49-amd64", "k")
        .file("/boot/vmlinuz-6.1.0-48-amd64", "k")
        .file("/boot/initrd.img-6.1.0-48-amd64", b"")
        .file("/boot/vmlinuz-6.1.0-50-amd64.dpkg-new", "k")
        .file("/etc/fstab", "# <file system>\n/dev/sda2 / ext4 x 0 1\n/dev/sda1 /boot ext4 x 0 2\n")
    )
    boot = Facts(RootHost(str(described.build(tmp_path))), Options()).get(BootFolder)
    assert boot.initrds == {"6.1.0-48-amd64": 0, "6.1.0-49-amd64": None, "6.1.0-50-amd64": 10}
    assert boot.broken == ("6.1.0-48-amd64", "6.1.0-49-amd64")
    assert (boot.largest, boot.mount, boot.fstab) == (10, "/etc/fstab:3", True)
