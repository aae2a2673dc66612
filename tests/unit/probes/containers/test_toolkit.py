"""What containers get of the driver, as the files of the host and of the container tell."""

from pathlib import Path
from typing import Any

import pytest

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.containers.toolkit import CdiSpecs, ContainerDevices, DockerContainers, ToolkitConfig
from dlhealth.testing import Machine

# As nvidia-ctk 1.17 writes it, shortened.
SPEC = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-modeset
  - path: /dev/nvidia-uvm
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /run/nvidia-persistenced/socket
    hostPath: /run/nvidia-persistenced/socket
    options:
    - ro
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.120
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.120
    options:
    - ro
  - containerPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.90.07
    hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.90.07
  - containerPath: /lib/firmware/nvidia/550.90.07/gsp_ga10x.bin
    hostPath: /lib/firmware/nvidia/550.90.07/gsp_ga10x.bin
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/dri/renderD128
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
"""
IDENTITY = "5f0c" * 16


def fact(kind: type, machine: Machine, folder: Path) -> Any:
    return Facts(RootHost(str(machine.build(folder))), Options()).get(kind)


def test_a_specification_as_the_toolkit_writes_it(tmp_path: Path) -> None:
    cdi: CdiSpecs = fact(CdiSpecs, Machine.ubuntu2404_gpu().file("/etc/cdi/nvidia.yaml", SPEC), tmp_path)
    (spec,) = cdi.specs
    assert spec.kind == "nvidia.com/gpu"
    assert spec.names == {"0", "all", "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"}
    assert set(spec.nodes) >= {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"}
    # A socket comes and goes; of the firmware not even the directory is there, so it may lie elsewhere.
    assert spec.missing == ("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.90.07",)


def test_files_below_a_directory_that_is_not_there_accuse_nobody(tmp_path: Path) -> None:
    machine = Machine.ubuntu2404().file("/etc/cdi/nvidia.yaml", SPEC)
    assert [s.missing for s in fact(CdiSpecs, machine, tmp_path).specs] == [()]


def test_what_is_generated_in_run_replaces_what_lies_in_etc(tmp_path: Path) -> None:
    complete = SPEC.replace("550.90.07", "550.120")
    machine = Machine.ubuntu2404_gpu().file("/etc/cdi/nvidia.yaml", SPEC).file("/run/cdi/nvidia.yaml", complete)
    cdi: CdiSpecs = fact(CdiSpecs, machine, tmp_path)
    assert [s.path for s in cdi.specs] == ["/run/cdi/nvidia.yaml", "/etc/cdi/nvidia.yaml"]
    assert cdi.better(cdi.specs[1]) is cdi.specs[0]
    assert cdi.better(cdi.specs[0]) is None


def test_other_vendors_and_other_files_are_left_out(tmp_path: Path) -> None:
    machine = (
        Machine.ubuntu2404_gpu()
        .file("/etc/cdi/intel.yaml", SPEC.replace("nvidia.com/gpu", "intel.com/gpu"))
        .file("/etc/cdi/README", SPEC)
        .file("/etc/cdi/empty.yaml")
    )
    assert fact(CdiSpecs, machine, tmp_path).specs == ()


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ('ldconfig = "@/sbin/ldconfig.real"', "/sbin/ldconfig.real"),
        ("  ldconfig='@/sbin/ldconfig'  # Debian", "/sbin/ldconfig"),
        ('#ldconfig = "@/sbin/ldconfig.real"', ""),
        ('ldconfig = "/sbin/ldconfig"', ""),  # a program of the container
    ],
)
def test_the_ldconfig_of_the_host(line: str, program: str, tmp_path: Path) -> None:
    machine = Machine.debian12().file("/etc/nvidia-container-runtime/config.toml", f"[nvidia-container-cli]\n{line}\n")
    config: ToolkitConfig = fact(ToolkitConfig, machine, tmp_path)
    assert (config.number, config.ldconfig, config.exists) == ((2, program, False) if program else (0, "", False))


def docker(settings: str, daemon: str = "{}", root: str = "/var/lib/docker") -> Machine:
    return (
        Machine.ubuntu2404_gpu()
        .file("/usr/bin/dockerd", "", 0o755)
        .file("/usr/bin/nvidia-ctk", "", 0o755)
        .file("/etc/docker/daemon.json", daemon)
        .folder(f"/run/containerd/io.containerd.runtime.v2.task/moby/{IDENTITY}")
        .file(f"{root}/containers/{IDENTITY}/hostconfig.json", settings, 0o600)
    )


def test_a_running_container(tmp_path: Path) -> None:
    settings = (
        '{"DeviceRequests": [{"Driver": "", "Count": -1, "DeviceIDs": null, "Capabilities": [["gpu"]]}], '
        '"Devices": [{"PathOnHost": "/dev/nvidiactl", "PathInContainer": "/dev/nvidiactl"}], "Privileged": false}'
    )
    machine = docker(settings, '{"data-root": "/data/docker"}', "/data/docker")
    found: DockerContainers = fact(DockerContainers, machine, tmp_path)
    (container,) = found.containers
    assert (container.id, container.gpus, container.devices, container.privileged) == (
        IDENTITY[:12],
        True,
        ("/dev/nvidiactl",),
        False,
    )
    assert (found.cgroups, found.links) == ("cgroupfs", False)


@pytest.mark.parametrize("settings", ["", "null", "[]", "{", '{"Devices": 3}', '{"DeviceRequests": 3}'])
def test_settings_that_make_no_sense(settings: str, tmp_path: Path) -> None:
    found: DockerContainers = fact(DockerContainers, docker(settings), tmp_path)
    assert not any(c.gpus for c in found.containers)


def test_a_machine_of_its_own_is_no_container(tmp_path: Path) -> None:
    inside: ContainerDevices = fact(ContainerDevices, Machine.ubuntu2404_gpu(), tmp_path)
    assert not inside.container
    assert not inside.has_gpu


def test_what_a_container_sees(tmp_path: Path) -> None:
    machine = (
        Machine()
        .os_release("debian", "12")
        .file("/.dockerenv")
        .node("/dev/nvidiactl", 195, 255)
        .node("/dev/nvidia1", 195, 1)
        .file("/proc/1/environ", "A=1\0NVIDIA_VISIBLE_DEVICES=1\0")
        .file("/proc/mounts", "shm /dev/shm tmpfs rw,nosuid,size=65536k,inode64 0 0\n")
        .file("/sys/fs/cgroup/devices/devices.list", "c 1:3 rwm\nc 195:1 rw\n")
    )
    inside: ContainerDevices = fact(ContainerDevices, machine, tmp_path)
    assert inside.has_gpu
    assert (inside.visible, inside.driver, inside.shm, inside.allowed) == ("1", False, 64 << 20, ("c 195:1 rw",))


def test_a_control_node_alone_is_no_gpu(tmp_path: Path) -> None:
    machine = Machine().os_release("debian", "12").file("/.dockerenv").node("/dev/nvidiactl", 195, 255)
    assert not fact(ContainerDevices, machine, tmp_path).has_gpu
