"""The few facts that say which machine a report is about."""

from pathlib import Path
from typing import Any

from dlhealth.engine.facts import Facts
from dlhealth.engine.machine import describe_machine
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.testing import Machine


def described(machine: Machine, root: Path) -> dict[str, Any]:
    machine.build(root)
    told = describe_machine(Facts(RootHost(str(root)), Options()))
    assert told.pop("root") == str(root)
    assert told.pop("platform")["setting"] in ("machine", "container")
    told.pop("python_environments")
    return told


def test_a_machine_with_a_gpu(tmp_path: Path) -> None:
    assert described(Machine.ubuntu2404_gpu(), tmp_path) == {
        "hostname": "workstation",
        "os": "ubuntu 24.04",
        "kernel": "6.8.0-50-generic",
        "gpus": [
            {
                "pci": "0000:01:00.0",
                "id": "10de:1b06",
                "name": "NVIDIA GeForce GTX 1080 Ti",
                "compute_capability": "6.1",
            }
        ],
        "driver": {"loaded": "550.120", "on_disk": "550.120", "libraries": "550.120"},
        "cuda": [],
    }


def test_the_toolkits_of_a_machine(tmp_path: Path) -> None:
    assert described(Machine.debian12_gpu().cuda_toolkit("12.2"), tmp_path)["cuda"] == ["12.2"]


def test_a_machine_without_one(tmp_path: Path) -> None:
    told = described(Machine.debian12(), tmp_path)
    nothing = {"loaded": None, "on_disk": None, "libraries": None}
    assert (told["os"], told["kernel"], told["gpus"], told["driver"]) == ("debian 12", "6.1.0-50-amd64", [], nothing)
    assert told["cuda"] == []


def test_an_empty_root_and_one_that_says_its_name_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    told = described(Machine(), tmp_path / "a")
    assert (told["hostname"], told["os"], told["kernel"]) == (None, None, None)
    unnumbered = (
        Machine()
        .file("/etc/os-release", "ID=debian\nVERSION_CODENAME=forky\n")
        .file("/proc/sys/kernel/hostname", "rescue\nmore\n")
        .file("/etc/hostname", "installed\n")
        .file("/proc/sys/kernel/osrelease", "6.12.1\n")
    )
    told = described(unnumbered, tmp_path / "b")
    assert (told["hostname"], told["os"], told["kernel"]) == ("rescue", "debian forky", "6.12.1")


def test_a_container_shows_the_kernel_that_it_runs_on(tmp_path: Path) -> None:
    container = Machine().file("/.dockerenv").file("/proc/sys/kernel/osrelease", "6.12.1\n").fifo("/etc/hostname")
    told = described(container, tmp_path)
    assert (told["kernel"], told["hostname"]) == ("6.12.1", None)
