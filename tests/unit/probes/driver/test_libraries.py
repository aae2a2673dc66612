"""The driver's libraries and what uses the driver."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.driver.libraries import DriverLibraries, DriverUse, loaded_version, module_use
from dlhealth.probes.packaging.packages import Unowned
from dlhealth.testing import Machine

LIB = "/usr/lib/x86_64-linux-gnu"


@pytest.fixture
def facts(tmp_path: Path) -> Callable[[Machine], Facts]:
    return lambda machine: Facts(RootHost(str(machine.build(tmp_path))), Options())


@pytest.mark.parametrize(
    ("machine", "version", "owner"),
    [
        (Machine.debian12_gpu(), "535.261.03", "libcuda1"),
        (Machine.ubuntu2404_gpu(), "550.120", "libnvidia-compute-550"),
        (Machine.ubuntu1604_runfile(), "381.22", Unowned.NOBODY),
    ],
    ids=("debian", "ubuntu", "runfile"),
)
def test_layouts(facts: Callable[[Machine], Facts], machine: Machine, version: str, owner: str) -> None:
    libraries = facts(machine).get(DriverLibraries)
    assert libraries.version == version
    assert libraries.versions() == {version}
    library = libraries.find("libcuda.so.1")
    assert library.path == f"{LIB}/libcuda.so.1"
    assert library.real_path.endswith(f"/libcuda.so.{version}")
    assert library.owner == owner
    assert not any(x.problem for x in libraries.libraries)


def test_ubuntu_up_to_17_10_chooses_its_folder_in_ld_so_conf(facts: Callable[[Machine], Facts]) -> None:
    machine = (
        Machine()
        .os_release("ubuntu", "16.04", usrmerge=False)
        .library("/usr/lib/nvidia-381/libnvidia-ml.so.381.22", "libnvidia-ml.so.1")
        .link("/usr/lib/nvidia-381/libnvidia-ml.so.1", "libnvidia-ml.so.381.22")
        .file("/usr/lib/nvidia-381/ld.so.conf", "/usr/lib/nvidia-381\n/usr/lib32/nvidia-381\n")
        .link("/etc/alternatives/x86_64-linux-gnu_gl_conf", "/usr/lib/nvidia-381/ld.so.conf")
        .link("/etc/ld.so.conf.d/x86_64-linux-gnu_GL.conf", "/etc/alternatives/x86_64-linux-gnu_gl_conf")
    )
    libraries = facts(machine).get(DriverLibraries)
    assert libraries.version == "381.22"
    assert libraries.find("libnvidia-ml.so.1").path == "/usr/lib/nvidia-381/libnvidia-ml.so.1"


def test_the_toolkits_stubs_cuda_compat_and_helpers_are_left_out(facts: Callable[[Machine], Facts]) -> None:
    machine = (
        Machine.debian12()
        .cuda_toolkit("12.4", "12.4.131")
        .library("/usr/local/cuda-12.4/compat/libcuda.so.550.54.15", "libcuda.so.1")
        .link("/usr/local/cuda-12.4/compat/libcuda.so.1", "libcuda.so.550.54.15")
        .file("/etc/ld.so.conf.d/compat.conf", "/usr/local/cuda-12.4/compat\n/usr/local/cuda-12.4/lib64/stubs\n")
        .library(f"{LIB}/libnvidia-container.so.1.16.2")
        .library(f"{LIB}/libnvidia-egl-wayland.so.1.1.10")
        .library(f"{LIB}/libGL.so.1.7.0")
    )
    assert facts(machine).get(DriverLibraries).libraries == ()


def test_the_lists_of_all_packages_are_read_only_for_a_library_without_an_owner(tmp_path: Path) -> None:
    vdpau = (f"{LIB}/libvdpau.so.1", f"{LIB}/libvdpau.so.1.0.0")
    machine = Machine.debian12_gpu().library(vdpau[1], "libvdpau.so.1").link(vdpau[0], "libvdpau.so.1.0.0")
    machine.package("libvdpau1", "1.5-2", vdpau)
    read = ("read", "/var/lib/dpkg/info/libvdpau1.list")
    host = RootHost(str(machine.build(tmp_path / "healthy")))
    assert Facts(host, Options()).get(DriverLibraries)
    assert read not in host.seen
    machine.library(f"{LIB}/libnvidia-own.so.1").package("by-hand", "1", ["/lib/x86_64-linux-gnu/libnvidia-own.so.1"])
    host = RootHost(str(machine.build(tmp_path / "stray")))
    assert Facts(host, Options()).get(DriverLibraries).find("libnvidia-own.so.1").owner == "by-hand"
    assert read in host.seen


def test_a_link_to_a_stub_is_left_out(facts: Callable[[Machine], Facts]) -> None:
    machine = (
        Machine.debian12().cuda_toolkit().link(f"{LIB}/libcuda.so.1", "/usr/local/cuda-12.2/lib64/stubs/libcuda.so")
    )
    assert facts(machine).get(DriverLibraries).libraries == ()


def test_problems_are_told_apart(facts: Callable[[Machine], Facts]) -> None:
    machine = (
        Machine.debian12()
        .link(f"{LIB}/libcuda.so.1", "libcuda.so.525.60.11")
        .file(f"{LIB}/libnvidia-ml.so.1", b"")
        .file(f"{LIB}/libnvcuvid.so.1", b"#!/bin/sh\n")
        .fifo(f"{LIB}/libnvidia-cfg.so.1")
    )
    libraries = facts(machine).get(DriverLibraries)
    assert libraries.version is None
    assert {x.name: x.problem for x in libraries.libraries} == {
        "libcuda.so.1": f"a broken link to {LIB}/libcuda.so.525.60.11",
        "libnvidia-ml.so.1": "empty",
        "libnvcuvid.so.1": "not an ELF file",
        "libnvidia-cfg.so.1": "unreadable: a named pipe, not a file",
    }


def test_32_bit_libraries_are_apart(facts: Callable[[Machine], Facts]) -> None:
    libraries = facts(Machine.ubuntu1604_runfile()).get(DriverLibraries)
    assert {x.bits for x in libraries.libraries} == {32, 64}
    assert libraries.find("libcuda.so.1", bits=32).path == "/usr/lib/i386-linux-gnu/libcuda.so.1"


def test_a_32_bit_file_in_a_64_bit_folder(facts: Callable[[Machine], Facts]) -> None:
    machine = (
        Machine.debian12()
        .file("/usr/lib/libcuda.so.470.1", b"\x7fELF\x01")
        .link("/usr/lib/libcuda.so.1", "libcuda.so.470.1")
    )
    libraries = facts(machine).get(DriverLibraries)
    assert libraries.find("libcuda.so.1") is None
    assert libraries.version is None


def test_the_display_uses_the_driver(facts: Callable[[Machine], Facts]) -> None:
    use = facts(Machine.ubuntu2404_gpu()).get(DriverUse)
    assert use.modules == ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia")
    assert "nvidia_drm" in use.busy
    assert not use.elsewhere


IDLE = """\
nvidia_uvm 1540096 0 - Live 0x0000000000000000 (POE)
nvidia_drm 77824 0 - Live 0x0000000000000000 (POE)
nvidia_modeset 1306624 1 nvidia_drm, Live 0x0000000000000000 (POE)
nvidia 56770560 2 nvidia_uvm,nvidia_modeset, Live 0x0000000000000000 (POE)
video 65536 1 nvidia_modeset, Live 0x0000000000000000
"""


def test_modules_that_only_other_modules_use_are_idle(facts: Callable[[Machine], Facts]) -> None:
    assert facts(Machine().file("/proc/modules", IDLE)).get(DriverUse).busy == ()


def test_no_kernel(facts: Callable[[Machine], Facts]) -> None:
    with pytest.raises(Unavailable):
        facts(Machine().file("/etc/hostname", "x")).get(DriverUse)


def test_reload_only_where_nothing_uses_the_gpu(examine: Callable[..., Diagnosis]) -> None:
    rule = "driver-library-version-mismatch-after-upgrade"
    upgraded = Machine.ubuntu2404().gpu().ubuntu_driver("550.120", loaded=False).loaded_driver("550.90.07")
    (busy,) = examine(upgraded, rule).findings
    assert [a.summary() for a in busy.remedy.actions] == ["systemctl reboot"]
    (idle,) = examine(upgraded.file("/proc/modules", IDLE), rule).findings
    assert [a.summary() for a in idle.remedy.actions] == [
        "modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia && modprobe nvidia"
    ]
    assert idle.finding.title.startswith(
        "The loaded NVIDIA module has version 550.90.07, but the libraries have 550.120"
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Thu Jun 12 00:00:00 UTC 2025\nGCC version:\n",
            "535.261.03",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.120  Release Build  (builder@host)  Fri\n",
            "550.120",
        ),
        ("381.22\n", "381.22"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module\n", ""),
        ("", ""),
    ],
)
def test_the_loaded_version(text: str, version: str) -> None:
    assert loaded_version(text) == version


@given(st.text(max_size=300))
def test_hostile_text_never_raises(text: str) -> None:
    loaded_version(text)
    module_use(text)
    module_use(f"nvidia {text}\nnvidia_uvm 1 2 {text}")
