"""Wheels that unpack the same library, and extensions that need a newer libstdc++."""

from pathlib import Path
from typing import Any

import pytest

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.python.stdcxx import StdcxxNeeds
from dlhealth.probes.python.wheelfiles import OverwrittenWheels, build_of
from dlhealth.testing import Machine

SITE = "/home/alice/venv/lib/python3.11/site-packages"
LIBRARY = "faiss/_swigfaiss.cpython-311-x86_64-linux-gnu.so"


def fact(kind: type, machine: Machine, folder: Path) -> Any:
    return Facts(RootHost(str(machine.build(folder))), Options()).get(kind)


def wheels(*recorded: tuple[str, str, int], size: int) -> Machine:
    machine = Machine.ubuntu2404_gpu().python_environment(packages=[name for name, _, _ in recorded])
    for name, digest, recorded_size in recorded:
        record = (
            f"faiss/__init__.py,sha256=same,10\n{LIBRARY},sha256={digest},{recorded_size}\n{name}.dist-info/RECORD,,\n"
        )
        machine.file(f"{SITE}/{name}.dist-info/RECORD", record, uid=1000)
    return machine.file(f"{SITE}/{LIBRARY}", bytes(size), uid=1000)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("onnxruntime-gpu", "gpu"),
        ("nvidia-cudnn-cu12", "cu12"),
        ("cupy-cuda12x", "cuda12x"),
        ("tensorflow-cpu", "cpu"),
        ("tensorflow", ""),
        ("jax-cuda12-plugin", ""),
    ],
)
def test_what_a_name_says_of_the_build(name: str, build: str) -> None:
    assert build_of(name) == build


def test_the_size_tells_whose_library_is_on_the_disk(tmp_path: Path) -> None:
    machine = wheels(("faiss_cpu-1.8.0", "a", 100), ("faiss_gpu_cu12-1.8.0", "b", 200), size=100)
    (found,) = fact(OverwrittenWheels, machine, tmp_path).found
    assert found.path == f"{SITE}/{LIBRARY}"
    assert (found.present, dict(found.owners)) == ("faiss-cpu", {"faiss-cpu": 100, "faiss-gpu-cu12": 200})


def test_a_library_of_neither_package(tmp_path: Path) -> None:
    machine = wheels(("faiss_cpu-1.8.0", "a", 100), ("faiss_gpu-1.8.0", "b", 200), size=150)
    (found,) = fact(OverwrittenWheels, machine, tmp_path).found
    assert found.present == ""


def test_the_same_contents_harm_nobody(tmp_path: Path) -> None:
    machine = wheels(("faiss_cpu-1.8.0", "a", 100), ("faiss_gpu-1.8.0", "a", 100), size=100)
    assert fact(OverwrittenWheels, machine, tmp_path).found == ()


def test_a_list_of_files_of_somebody_else_is_not_read(tmp_path: Path) -> None:
    machine = wheels(("faiss_cpu-1.8.0", "a", 100), ("faiss_gpu-1.8.0", "b", 200), size=100)
    machine.file("/root/RECORD", f"{LIBRARY},sha256=c,100\n", 0o600)
    machine.link(f"{SITE}/faiss_cpu-1.8.0.dist-info/RECORD", "/root/RECORD")
    assert fact(OverwrittenWheels, machine, tmp_path).found == ()


def test_the_newest_version_counts_by_its_numbers(tmp_path: Path) -> None:
    conda = "/home/alice/miniconda3"
    machine = (
        Machine.ubuntu2404_gpu()
        .python_environment(conda, torch="2.3.0+cu121", cuda="12.1")
        .remove(f"{conda}/pyvenv.cfg")
        .file(f"{conda}/conda-meta/history", uid=1000)
        .library(f"{conda}/lib/libstdc++.so.6.0.29", "libstdc++.so.6")
        .link(f"{conda}/lib/libstdc++.so.6", "libstdc++.so.6.0.29")
        .library(
            f"{conda}/lib/python3.11/site-packages/fused_cuda.so",
            "",
            ("libstdc++.so.6", "libcudart.so.12"),
            versions=("GLIBCXX_3.4.9", "GLIBCXX_3.4.30", "CXXABI_1.3.13", "GLIBC_2.34"),
        )
    )
    (found,) = fact(StdcxxNeeds, machine, tmp_path).too_new
    assert (found.needs, found.has) == ("GLIBCXX_3.4.30", "GLIBCXX_3.4.29")
