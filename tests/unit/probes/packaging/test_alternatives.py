"""The glx alternative, the X server's GLX module and the system's python3."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.packaging.alternatives import GlxAlternative, SystemPython, XorgGlx, alternative_choices
from dlhealth.testing import Machine


@pytest.fixture
def facts(tmp_path: Path) -> Callable[[Machine], Facts]:
    return lambda machine: Facts(RootHost(str(machine.build(tmp_path))), Options())


def test_debians_choice(facts: Callable[[Machine], Facts]) -> None:
    glx = facts(Machine.debian12_gpu()).get(GlxAlternative)
    assert glx.glx.target == glx.glx.real == "/usr/lib/nvidia"
    assert glx.nvidia.real == "/usr/lib/nvidia/current"
    assert glx.choices == ("/usr/lib/mesa-diverted", "/usr/lib/nvidia")
    assert glx.registered
    assert not glx.manual
    assert all(link.real.startswith("/usr/lib/mesa-diverted/") for link in glx.libraries)
    assert glx.hybrid is False


def test_a_choice_by_hand_and_what_x_wants(facts: Callable[[Machine], Facts]) -> None:
    machine = (
        Machine()
        .file("/etc/hostname", "")
        .file("/usr/lib/x", "")
        .file("/var/lib/x", "")
        .link("/etc/alternatives/glx", "/usr/lib/mesa-diverted")
        .file(
            "/var/lib/dpkg/alternatives/glx",
            "manual\n/usr/lib/glx\nglx--a\n/usr/lib/a\n\n/usr/lib/mesa-diverted\n5\n/x\n\n\n",
        )
        .file("/etc/X11/xorg.conf.d/20-nvidia.conf", '# Driver "nvidia"\nSection "Device"\n  driver "NVIDIA"\n')
    )
    glx = facts(machine).get(GlxAlternative)
    assert glx.manual
    assert glx.choices == ("/usr/lib/mesa-diverted",)
    assert glx.wanted == "/etc/X11/xorg.conf.d/20-nvidia.conf:3"
    assert glx.hybrid is None


def test_ubuntu_has_no_such_alternative(facts: Callable[[Machine], Facts]) -> None:
    with pytest.raises(Unavailable, match="only Debian"):
        facts(Machine.ubuntu2404_gpu()).get(GlxAlternative)


@given(st.lists(st.sampled_from(["auto", "/usr/lib/glx", "glx--a", "", "/x", "5"]), max_size=30))
def test_hostile_records_never_raise(lines: list[str]) -> None:
    assert len(alternative_choices(lines)) <= len(lines)


def test_glx_modules_that_are_links(facts: Callable[[Machine], Facts]) -> None:
    (link,) = facts(Machine.ubuntu1604_runfile()).get(XorgGlx).links
    assert (link.target, link.real) == ("libglx.so.381.22", "/usr/lib/xorg/modules/extensions/libglx.so.381.22")


@pytest.mark.parametrize(
    ("machine", "version", "expected"),
    [
        (Machine.ubuntu1604_runfile(), "3.5", "3.5"),
        (
            Machine()
            .file("/etc/hostname", "")
            .file("/usr/lib/x", "")
            .file("/var/lib/x", "")
            .os_release("ubuntu", "22.04")
            .link("/usr/bin/python3", "python3.11"),
            "3.11",
            "3.10",
        ),
        (
            Machine()
            .file("/etc/hostname", "")
            .file("/usr/lib/x", "")
            .file("/var/lib/x", "")
            .os_release("debian", "12")
            .link("/usr/bin/python3", "/opt/conda/bin/python3.12"),
            "3.12",
            "3.11",
        ),
        (
            Machine()
            .file("/etc/hostname", "")
            .file("/usr/lib/x", "")
            .file("/var/lib/x", "")
            .os_release("debian", "99")
            .file("/usr/bin/python3", "x"),
            "",
            "",
        ),
        (
            Machine()
            .file("/etc/hostname", "")
            .file("/usr/lib/x", "")
            .file("/var/lib/x", "")
            .link("/usr/bin/python3", "python3"),
            "",
            "",
        ),
    ],
    ids=("package", "os-release", "outside", "a file", "a loop"),
)
def test_system_python(facts: Callable[[Machine], Facts], machine: Machine, version: str, expected: str) -> None:
    python = facts(machine).get(SystemPython)
    assert (python.version, python.expected) == (version, expected)
    assert python.chain[0] == "/usr/bin/python3"
