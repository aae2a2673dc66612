"""What apt's lists say of a plan, before it is offered."""

import ctypes
import gzip
import subprocess
from itertools import product
from pathlib import Path

import pytest

from dlhealth.actions import AptInstall
from dlhealth.engine.available import not_available
from dlhealth.engine.facts import Facts
from dlhealth.host.bundle import read_bundle, write_bundle
from dlhealth.host.root import RootHost
from dlhealth.model import Plan, Risk
from dlhealth.probes import Options
from dlhealth.probes.packaging.packages import debian_order
from dlhealth.testing import Machine

LIST = "/var/lib/apt/lists/archive.ubuntu.com_ubuntu_dists_jammy_restricted_binary-amd64_Packages"


def stanza(name: str, version: str, depends: str = "") -> str:
    needs = f"Depends: {depends}\n" if depends else ""
    return f"Package: {name}\nArchitecture: amd64\nVersion: {version}\n{needs}Filename: pool/x.deb\nSize: 1\n\n"


def lz4_frame(content: bytes) -> bytes:
    library = ctypes.CDLL("liblz4.so.1")
    packed = ctypes.create_string_buffer(len(content) + 1000)
    size = library.LZ4F_compressFrame(packed, len(packed), content, len(content), None)
    return packed.raw[:size]


def said(machine: Machine, folder: Path, *names: str, **more: object) -> str:
    machine.build(folder)
    plan = Plan("install", Risk.LOW, (AptInstall(names, **more),), network=True)  # type: ignore[arg-type]
    return not_available(plan, Facts(RootHost(str(folder)), Options()))


def ubuntu(*stanzas: str) -> Machine:
    return Machine.ubuntu2404_gpu().file(LIST, "".join(stanzas))


def test_what_no_source_has_is_named(tmp_path: Path) -> None:
    machine = ubuntu(stanza("bash", "5.2"), stanza("libcudnn9-cuda-12", "9.5.1.17-1"))
    assert said(machine, tmp_path, "libcudnn9-cuda-12", "libcudnn8", "libcudnn8-dev") == (
        "no configured package source has libcudnn8 libcudnn8-dev"
    )


@pytest.mark.parametrize(
    ("name", "can"),
    [("libcudnn8=8.9.7.29-1+cuda12.2", True), ("libcudnn8=8.9.7.*", True), ("libcudnn8=8.9.1.23-1+cuda12.1", False)],
)
def test_a_version_is_looked_for_as_apt_does(name: str, can: bool, tmp_path: Path) -> None:
    machine = ubuntu(stanza("libcudnn8", "8.9.7.29-1+cuda12.2"), stanza("libcudnn8", "8.9.6.50-1+cuda12.2"))
    assert (said(machine, tmp_path, name) == "") is can


def test_what_is_installed_needs_no_source_unless_it_is_installed_again(tmp_path: Path) -> None:
    machine = ubuntu(stanza("bash", "5.2"))
    assert said(machine, tmp_path / "a", "nvidia-driver-550") == ""
    assert said(machine, tmp_path / "b", "nvidia-driver-550", reinstall=True)


def test_a_dependency_that_nothing_fulfils(tmp_path: Path) -> None:
    """As after an update of the driver, when the built module of an older kernel wants the driver from before."""
    wants = "nvidia-kernel-common-470 (<= 470.86-1), nvidia-kernel-common-470 (>= 470.86)"
    machine = ubuntu(
        stanza("linux-modules-nvidia-470-5.10.0-1057-oem", "5.10.0-1057.61", wants),
        stanza(
            "linux-modules-nvidia-470-oem-20.04b", "1", "linux-modules-nvidia-470-5.10.0-1057-oem (= 5.10.0-1057.61)"
        ),
        stanza("nvidia-kernel-common-470", "470.103.01-0ubuntu0.20.04.1"),
    )
    assert said(machine, tmp_path, "linux-modules-nvidia-470-oem-20.04b").startswith(
        "linux-modules-nvidia-470-5.10.0-1057-oem 5.10.0-1057.61 cannot be installed: no configured package source has "
        "nvidia-kernel-common-470 (<= 470.86-1), nvidia-kernel-common-470 (>= 470.86)"
    )


def test_other_dependencies_and_alternatives_are_not_judged(tmp_path: Path) -> None:
    """Which packages are installed that have nothing to do with a GPU is not known here."""
    depends = "libc6 (>= 2.99), nvidia-x | nvidia-y, nvidia-alternative--v1"
    assert said(ubuntu(stanza("nvidia-z", "1", depends)), tmp_path, "nvidia-z") == ""


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (Machine.ubuntu2404_gpu(), ""),
        (Machine.ubuntu2404_gpu().folder("/var/lib/apt/lists/partial"), "apt has no package lists: run apt-get update"),
        (Machine.ubuntu2404_gpu().file(f"{LIST}.lz4", b"\4\x22\x4d\x18 damaged"), ""),
        (Machine.ubuntu2404_gpu().file(f"{LIST}.lz4", lz4_frame(stanza("x", "1").encode())), "no configured"),
        (Machine.ubuntu2404_gpu().file(f"{LIST}.lz4", lz4_frame(stanza("x", "1").encode())[:-6]), ""),
        (Machine.ubuntu2404_gpu().file(f"{LIST}.gz", gzip.compress(stanza("x", "1").encode())), "no configured"),
    ],
    ids=["no folder", "never updated", "a list that can't be read", "lz4", "lz4, cut off", "gzip"],
)
def test_what_could_not_be_read_refuses_nothing(machine: Machine, expected: str, tmp_path: Path) -> None:
    why = said(machine, tmp_path, "libcudnn8")
    assert why.startswith(expected)
    assert bool(why) is bool(expected)


def test_a_bundle_answers_as_the_machine(tmp_path: Path) -> None:
    host = RootHost(str(ubuntu(stanza("bash", "5.2")).build(tmp_path / "root")))
    plan = Plan("install", Risk.LOW, (AptInstall(("libcudnn8",)),))
    live = not_available(plan, Facts(host, Options()))
    write_bundle(host, str(tmp_path / "bundle"), lambda question, answer: answer, {})
    again = not_available(plan, Facts(read_bundle(str(tmp_path / "bundle")), Options()))
    assert again == live == "no configured package source has libcudnn8"


VERSIONS = (
    "1.0", "1.0-1", "1.0~rc1-1", "1:0.5", "535.161.08-0ubuntu2.22.04.1", "535.161.08-0ubuntu2", "470.86-1", "470.86",
    "1.0a", "1.0+b", "1.0-1~bpo1", "1.0-1+deb12u1", "2:1.0", "1.0-10", "1.0-9", "10", "9",
)  # fmt: skip


@pytest.mark.real_programs
def test_versions_are_ordered_as_by_dpkg() -> None:
    pairs = list(product(VERSIONS, VERSIONS))
    script = "\n".join(f"dpkg --compare-versions '{a}' lt '{b}' && echo y || echo n" for a, b in pairs)
    answers = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert [a == "y" for a in answers] == [debian_order(a) < debian_order(b) for a, b in pairs]
