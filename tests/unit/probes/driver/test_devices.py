"""Device nodes and what decides about them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.driver.devices import DeviceNodes, read_majors, read_parameters
from dlhealth.testing import Machine

DEVICES = """\
Character devices:
  1 mem
195 nvidia
195 nvidia-modeset
195 nvidiactl
511 nvidia-uvm

Block devices:
259 blkext
"""
PARAMETERS = """\
ResmanDebugLevel: 4294967295
ModifyDeviceFiles: 1
DeviceFileUID: 0
DeviceFileGID: 44
DeviceFileMode: 432
InitializeSystemMemoryAllocations: 1
RegistryDwords: ""
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Callable[[Machine], DeviceNodes]:
    def build(machine: Machine) -> DeviceNodes:
        found: DeviceNodes = Facts(RootHost(str(machine.build(tmp_path))), Options()).get(DeviceNodes)
        return found

    return build


def test_majors() -> None:
    assert read_majors(DEVICES) == {"mem": 1, "nvidia": 195, "nvidia-modeset": 195, "nvidiactl": 195, "nvidia-uvm": 511}


def test_parameters() -> None:
    assert read_parameters(PARAMETERS) == {
        "ModifyDeviceFiles": "1", "DeviceFileUID": "0", "DeviceFileGID": "44", "DeviceFileMode": "432",
    }  # fmt: skip


@given(st.text(max_size=300))
def test_parsers_never_crash(text: str) -> None:
    assert all(isinstance(number, int) for number in read_majors(text).values())
    assert all(isinstance(value, str) for value in read_parameters(text).values())


def test_nodes(nodes: Callable[[Machine], DeviceNodes]) -> None:
    machine = (
        Machine()
        .file("/etc/hostname", "")
        .file("/usr/lib/x", "")
        .file("/var/lib/x", "")
        .file("/proc/devices", DEVICES)
        .node("/dev/nvidiactl", 195, 255)
        .node("/dev/nvidia-uvm", 511)
    )
    found = nodes(machine.node("/dev/nvidia12", 195, 12, 0o660, 0, 44).file("/dev/nvidia-caps").file("/dev/null"))
    assert [(n.path, n.kind, n.mode, n.gid, n.major) for n in found.nodes] == [
        ("/dev/nvidia-uvm", "char", 0o666, 0, 511),
        ("/dev/nvidia12", "char", 0o660, 44, 195),
        ("/dev/nvidiactl", "char", 0o666, 0, 195),
    ]
    assert not found.live
    assert (found.creates, found.modprobe) == (False, "does not exist")


@pytest.mark.parametrize(("mode", "uid", "creates"), [(0o4755, 0, True), (0o755, 0, False), (0o4755, 1000, False)])
def test_who_may_make_nodes(nodes: Callable[[Machine], DeviceNodes], mode: int, uid: int, creates: bool) -> None:
    machine = (
        Machine()
        .file("/etc/hostname", "")
        .file("/usr/lib/x", "")
        .file("/var/lib/x", "")
        .node("/dev/nvidiactl", 195, 255)
        .file("/usr/bin/nvidia-modprobe", "", mode, uid)
    )
    assert nodes(machine).creates is creates


def test_makers_of_odd_nodes(nodes: Callable[[Machine], DeviceNodes]) -> None:
    rule = '# mknod nvidia\nKERNEL=="nvidia", RUN+="/bin/mknod -m 666 /dev/nvidia-uvm c 250 0"\nKERNEL=="sda", MODE="0600"\n'
    machine = (
        Machine()
        .file("/etc/hostname", "")
        .file("/usr/lib/x", "")
        .file("/var/lib/x", "")
        .file("/etc/udev/rules.d/70-gpu.rules", rule)
        .file("/proc/devices", DEVICES)
    )
    (maker,) = nodes(machine.node("/dev/nvidia-uvm", 250)).makers
    assert maker.source == "/etc/udev/rules.d/70-gpu.rules:2"


def test_nobody_is_suspected_where_nodes_are_as_they_must_be(nodes: Callable[[Machine], DeviceNodes]) -> None:
    rule = 'KERNEL=="nvidia*", MODE="0666"\n'
    machine = (
        Machine()
        .file("/etc/hostname", "")
        .file("/usr/lib/x", "")
        .file("/var/lib/x", "")
        .file("/etc/udev/rules.d/70-gpu.rules", rule)
        .file("/proc/devices", DEVICES)
    )
    assert nodes(machine.node("/dev/nvidia-uvm", 511)).makers == ()


def test_nothing_to_see(nodes: Callable[[Machine], DeviceNodes]) -> None:
    with pytest.raises(Unavailable):
        nodes(Machine().file("/etc/hostname", "").file("/usr/lib/x", "").file("/var/lib/x", "").file("/dev/null"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("NVreg_DeviceFileUID=0 NVreg_DeviceFileGID=44 NVreg_DeviceFileMode=0660", (0o660, 0, 44)),
        ("NVreg_DeviceFileMode=432", (0o660, 0, 0)),
        ("NVreg_DeviceFileGID=44", (0o666, 0, 44)),
        ("NVreg_DeviceFileMode=rw", (0o666, 0, 0)),
    ],
)
def test_options_of_the_module(
    nodes: Callable[[Machine], DeviceNodes], arguments: str, expected: tuple[int, int, int]
) -> None:
    found = nodes(
        Machine()
        .file("/etc/hostname", "")
        .file("/usr/lib/x", "")
        .file("/var/lib/x", "")
        .file("/etc/modprobe.d/gpu.conf", f"# gpu\noptions nvidia-current {arguments}\n")
    )
    assert found.configured() == expected
    assert [o.source for o in found.options] == ["/etc/modprobe.d/gpu.conf:2"]


def test_the_loaded_module_counts_more_than_its_options(nodes: Callable[[Machine], DeviceNodes]) -> None:
    machine = (
        Machine()
        .file("/etc/hostname", "")
        .file("/usr/lib/x", "")
        .file("/var/lib/x", "")
        .file("/proc/driver/nvidia/params", PARAMETERS)
    )
    assert nodes(machine.file("/etc/modprobe.d/gpu.conf", "options nvidia NVreg_DeviceFileMode=0600\n")).configured() == (
        0o660, 0, 44,
    )  # fmt: skip
