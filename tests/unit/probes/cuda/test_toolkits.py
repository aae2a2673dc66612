"""Where toolkits are found, of which version they are, and which libcuda the loader would take."""

from pathlib import Path
from typing import Any

import pytest

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.cuda.toolkits import CudaToolkits, CudaVariables, LibcudaChoice
from dlhealth.testing import Machine


def fact(kind: type, machine: Machine, folder: Path) -> Any:
    return Facts(RootHost(str(machine.build(folder))), Options()).get(kind)


def test_a_toolkit_of_nvidias_packages(tmp_path: Path) -> None:
    found: CudaToolkits = fact(CudaToolkits, Machine.ubuntu2404().cuda_toolkit("12.2"), tmp_path)
    (toolkit,) = found.toolkits
    assert found.default == toolkit
    assert (toolkit.path, toolkit.version, toolkit.release) == ("/usr/local/cuda-12.2", "12.2", "12.2.140")
    assert toolkit.source == "/usr/local/cuda-12.2/version.json"
    assert toolkit.nvcc == "/usr/local/cuda-12.2/bin/nvcc"
    assert toolkit.libraries == ("/usr/local/cuda-12.2/targets/x86_64-linux/lib",)
    assert toolkit.runtime == "libcudart.so.12"
    assert toolkit.needs_driver == "525.60.13"
    assert found.at("/usr/local/cuda-12.2") == found.holding(toolkit.libraries[0]) == toolkit
    assert found.holding("/usr/local/cuda-12.20/lib64") is None


def test_cuda_8_of_its_run_file(tmp_path: Path) -> None:
    home = "/usr/local/cuda-8.0"
    machine = (
        Machine()
        .file(f"{home}/version.txt", "CUDA Version 8.0.61\n")
        .file(f"{home}/bin/nvcc", mode=0o755)
        .library(f"{home}/lib64/libcudart.so.8.0.61", "libcudart.so.8.0")
        .link(f"{home}/lib64/libcudart.so.8.0", "libcudart.so.8.0.61")
        .library(f"{home}/extras/CUPTI/lib64/libcupti.so.8.0.61", "libcupti.so.8.0")
        .link(f"{home}/extras/CUPTI/lib64/libcupti.so.8.0", "libcupti.so.8.0.61")
        .link("/usr/local/cuda", home)
    )
    toolkit = fact(CudaToolkits, machine, tmp_path).default
    assert (toolkit.version, toolkit.release, toolkit.major) == ("8.0", "8.0.61", 8)
    assert toolkit.libraries == (f"{home}/lib64",)
    assert (toolkit.runtime, toolkit.runtime_path) == ("libcudart.so.8.0", f"{home}/lib64/libcudart.so.8.0")
    assert toolkit.cupti == f"{home}/extras/CUPTI/lib64/libcupti.so.8.0"


@pytest.mark.parametrize(
    ("files", "release", "source"),
    [
        (
            {"version.json": '{"cuda": {"version": "12.4.1"}}', "version.txt": "CUDA Version 8.0.61\n"},
            "12.4.1",
            "version.json",
        ),
        (
            {"version.json": '{"cuda": {"version": 12}}', "version.txt": "CUDA Version 10.2.89\n"},
            "10.2.89",
            "version.txt",
        ),
        (
            {"version.json": "[" * 9999, "include/cuda.h": "/**/\n#define CUDA_VERSION 11080\n"},
            "11.8",
            "include/cuda.h",
        ),
        ({"lib64/libcudart.so.9.2.148": ""}, "9.2.148", "lib64/libcudart.so.9.2.148"),
        ({}, "13.0", ""),
    ],
)
def test_what_tells_the_version(tmp_path: Path, files: dict[str, str], release: str, source: str) -> None:
    machine = Machine().file("/usr/local/cuda-13.0/bin/nvcc")
    for name, text in files.items():
        machine.file(f"/usr/local/cuda-13.0/{name}", text)
    (toolkit,) = fact(CudaToolkits, machine, tmp_path).toolkits
    assert toolkit.release == release
    assert toolkit.source == f"/usr/local/cuda-13.0/{source}".rstrip("/")


def test_a_version_file_that_can_not_be_read_is_a_problem(tmp_path: Path) -> None:
    found = fact(CudaToolkits, Machine().cuda_toolkit("12.2").fifo("/usr/local/cuda-12.2/version.json"), tmp_path)
    assert found.problems == ("/usr/local/cuda-12.2/version.json: a named pipe, not a file",)
    assert found.default.version == "12.2"


def test_links_say_where_they_lead(tmp_path: Path) -> None:
    machine = (
        Machine()
        .cuda_toolkit("12.2", default=False)
        .link("/usr/local/cuda", "/etc/alternatives/cuda")
        .link("/etc/alternatives/cuda", "/usr/local/cuda-11.8")
        .link("/usr/local/cuda-12", "cuda-12.2")
        .link("/usr/local/cuda-9", "/usr/local/cuda-9")
    )
    found = fact(CudaToolkits, machine, tmp_path)
    links = {link.path: (link.real, link.removed, link.alternative) for link in found.links}
    assert links == {
        "/usr/local/cuda": ("", "/usr/local/cuda-11.8", True),
        "/usr/local/cuda-12": ("/usr/local/cuda-12.2", "", False),
        "/usr/local/cuda-9": ("", "/usr/local/cuda-9", False),
    }
    assert found.default is None
    assert found.versions == ("12.2",)


def test_a_folder_without_compiler_and_runtime_is_what_is_left_over(tmp_path: Path) -> None:
    machine = Machine().cuda_toolkit("12.2").file("/usr/local/cuda-11.8/lib64/libcudnn.so.8")
    found = fact(CudaToolkits, machine, tmp_path)
    assert found.leftovers == ("/usr/local/cuda-11.8",)
    assert found.versions == ("12.2",)


def test_the_newest_is_first_and_the_link_is_the_default(tmp_path: Path) -> None:
    machine = (
        Machine().cuda_toolkit("12.10", "12.10.1", default=False).cuda_toolkit("9.2", "9.2.148").cuda_toolkit("12.9")
    )
    found = fact(CudaToolkits, machine.link("/usr/local/cuda", "cuda-9.2"), tmp_path)
    assert found.versions == ("12.10", "12.9", "9.2")
    assert found.default.path == "/usr/local/cuda-9.2"


def test_the_distributions_own_package(tmp_path: Path) -> None:
    lib = "/usr/lib/x86_64-linux-gnu"
    machine = (
        Machine.debian12()
        .package("nvidia-cuda-toolkit", "11.8.89~11.8.0-5~deb12u1", ["/usr/bin/nvcc"])
        .file("/usr/bin/nvcc", "#!/bin/sh\n", 0o755)
        .library(f"{lib}/libcudart.so.11.8.89", "libcudart.so.11.0")
        .link(f"{lib}/libcudart.so.11.0", "libcudart.so.11.8.89")
    )
    found = fact(CudaToolkits, machine, tmp_path)
    own = found.distribution
    assert (own.version, own.release, own.source) == ("11.8", "11.8.89", "package nvidia-cuda-toolkit")
    assert (own.nvcc, own.runtime) == ("/usr/bin/nvcc", "libcudart.so.11.0")
    assert found.default is None
    assert found.holding(f"{lib}/libcudart.so.11.0") is None


def test_a_link_in_usr_bin_is_not_a_toolkit_of_its_own(tmp_path: Path) -> None:
    machine = Machine.debian12().cuda_toolkit("12.2").link("/usr/bin/nvcc", "/usr/local/cuda/bin/nvcc")
    assert fact(CudaToolkits, machine, tmp_path).distribution is None


def test_wheels_are_no_toolkits(tmp_path: Path) -> None:
    site = "/home/alice/venv/lib/python3.11/site-packages/nvidia/cuda_nvcc"
    machine = Machine.debian12().file(f"{site}/bin/nvcc", mode=0o755).file("/usr/local/bin/nvcc", mode=0o755)
    assert fact(CudaToolkits, machine, tmp_path).toolkits == ()


def test_a_host_compiler_that_the_toolkit_names(tmp_path: Path) -> None:
    machine = Machine().cuda_toolkit("12.2").cuda_toolkit("11.8", default=False)
    machine.file("/usr/local/cuda-12.2/bin/nvcc.profile", "TOP = $(_HERE_)/..\ncompiler-bindir = /usr/bin/g++-11\n")
    machine.file("/usr/bin/gcc-10").link("/usr/local/cuda-11.8/bin/gcc", "/usr/bin/gcc-10")
    found = fact(CudaToolkits, machine, tmp_path)
    assert found.at("/usr/local/cuda-12.2").host_compiler == "/usr/bin/g++-11"
    assert found.at("/usr/local/cuda-11.8").host_compiler == "/usr/bin/gcc-10"


def test_variables_of_people(tmp_path: Path) -> None:
    machine = (
        Machine.debian12()
        .cuda_toolkit("12.2")
        .append("/home/alice/.profile", "export CUDA_HOME=/usr/local/cuda CUDA_PATH=/usr/local/cuda-9.0\n")
        .append("/home/alice/.bashrc", "export NVCC_PREPEND_FLAGS='-ccbin g++-11'\n")
    )
    variables = fact(CudaVariables, machine, tmp_path)
    lines = len(Path(tmp_path, "home/alice/.profile").read_text().splitlines())
    assert {(v.name, v.value, v.real) for v in variables.of("alice", "CUDA_HOME", "CUDA_PATH")} == {
        ("CUDA_HOME", "/usr/local/cuda", "/usr/local/cuda-12.2"),
        ("CUDA_PATH", "/usr/local/cuda-9.0", ""),
    }
    assert variables.of("alice", "CUDA_HOME")[0].source == f"/home/alice/.profile:{lines}"
    assert variables.of("alice", "NVCC_PREPEND_FLAGS")[0].value == "-ccbin g++-11"


def test_which_libcuda_is_which(tmp_path: Path) -> None:
    machine = (
        Machine.ubuntu2404_gpu()
        .cuda_toolkit("12.2")
        .file("/etc/ld.so.conf.d/000_cuda.conf", "/usr/local/cuda/compat\n/usr/local/cuda/lib64/stubs\n/opt/copy\n")
        .library("/usr/local/cuda-12.2/compat/libcuda.so.535.104.05", "libcuda.so.1")
        .link("/usr/local/cuda-12.2/compat/libcuda.so.1", "libcuda.so.535.104.05")
        .library("/opt/copy/libcuda.so.1", "libcuda.so.1")
    )
    found: LibcudaChoice = fact(LibcudaChoice, machine, tmp_path)
    assert [(x.path, x.kind, x.version, x.source) for x in found.common[:4]] == [
        ("/usr/local/cuda/compat/libcuda.so.1", "compat", "535.104.05", "/etc/ld.so.conf.d/000_cuda.conf:1"),
        ("/usr/local/cuda/lib64/stubs/libcuda.so", "stub", "", "/etc/ld.so.conf.d/000_cuda.conf:2"),
        ("/opt/copy/libcuda.so.1", "stub", "", "/etc/ld.so.conf.d/000_cuda.conf:3"),
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "driver", "550.120", "/etc/ld.so.conf.d/x86_64-linux-gnu.conf:2"),
    ]
