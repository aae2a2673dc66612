"""cuDNN's libraries, headers and packages, in the layouts that archives, packages and people make."""

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlhealth.data import load
from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.cuda.cudnn import CudaPermissions, Cudnn, CudnnNeeds, needed_major, package_names
from dlhealth.probes.packaging.packages import Unowned
from dlhealth.testing import Machine

LIB = "/usr/local/cuda-12.2/targets/x86_64-linux/lib"
INCLUDE = "/usr/local/cuda-12.2/targets/x86_64-linux/include"
MULTIARCH = "/usr/lib/x86_64-linux-gnu"


def fact(kind: type, machine: Machine, folder: Path) -> Any:
    return Facts(RootHost(str(machine.build(folder))), Options()).get(kind)


def cuda() -> Machine:
    return Machine.ubuntu2404().cuda_toolkit("12.2")


def test_an_archive_in_a_toolkit(tmp_path: Path) -> None:
    found: Cudnn = fact(Cudnn, cuda().cudnn("8.9.7"), tmp_path)
    (folder,) = found.folders
    assert (folder.path, folder.toolkit) == (LIB, "/usr/local/cuda-12.2")
    assert folder.sources == ("/etc/ld.so.conf.d/000_cuda.conf:1",)
    assert folder.majors == {8}
    assert folder.version(8) == "8.9.7"
    assert folder.for_development
    assert len(folder.libraries) == 21
    main = folder.get("libcudnn.so.8")
    assert main
    assert (main.target, main.real, main.version) == ("libcudnn.so.8.9.7", f"{LIB}/libcudnn.so.8.9.7", "8.9.7")
    assert (main.soname, main.major, main.owner, main.digest) == ("libcudnn.so.8", 8, Unowned.NOBODY, "")
    (headers,) = found.headers
    assert (headers.main, headers.version) == (f"{INCLUDE}/cudnn.h", "8.9.7")
    assert headers.source == f"{INCLUDE}/cudnn_version.h:1"
    assert headers.missing == ()


def test_packages_with_the_alternative(tmp_path: Path) -> None:
    found: Cudnn = fact(Cudnn, Machine.ubuntu2404().cudnn_packages("8.9.7.29-1+cuda12.2"), tmp_path)
    (folder,) = found.folders
    assert folder.path == MULTIARCH
    assert {x.owner for x in folder.libraries if x.suffix} == {"libcudnn8"}
    assert folder.get("libcudnn.so").version == "8.9.7"  # type: ignore[union-attr]
    headers = found.headers_in("/usr/include")
    assert headers
    assert headers.real == "/usr/include/x86_64-linux-gnu/cudnn_v8.h"
    assert (headers.version, headers.owner, headers.missing) == ("8.9.7", "libcudnn8-dev", ())
    assert [(p.package.name, p.major, p.cuda, p.role, p.absent) for p in found.packages] == [
        ("libcudnn8", 8, "12.2", "runtime", ()),
        ("libcudnn8-dev", 8, "12.2", "dev", ()),
    ]


def test_names_of_packages_of_version_9(tmp_path: Path) -> None:
    machine = Machine.ubuntu2404()
    for name in ("libcudnn9-cuda-12", "libcudnn9-dev-cuda-12", "libcudnn9-headers-cuda-12", "libcudnn9-static-cuda-12"):
        machine.package(name, "9.1.0.70-1")
    machine.package("libcudnn8", "8.9.7.29-1+cuda12.2", status="deinstall ok config-files")
    machine.package("nvidia-cudnn", "8.7.0.84~cuda11.8")
    found = fact(Cudnn, machine, tmp_path).packages
    assert [(p.major, p.cuda, p.role) for p in found] == [
        (9, "12", "runtime"),
        (9, "12", "dev"),
        (9, "12", "headers"),
        (9, "12", "static"),
        (8, "11.8", "runtime"),
    ]


def test_what_a_package_lacks(tmp_path: Path) -> None:
    machine = Machine.ubuntu2404().cudnn_packages().remove(f"{MULTIARCH}/libcudnn_ops_infer.so.8.9.7")
    found = fact(Cudnn, machine, tmp_path)
    assert found.packages[0].absent == (f"{MULTIARCH}/libcudnn_ops_infer.so.8.9.7",)


def test_includes_are_followed_to_what_is_missing(tmp_path: Path) -> None:
    machine = (
        Machine()
        .file(
            "/usr/local/cuda/include/cudnn.h",
            '/* 9 */\n#include "cudnn_graph.h"\n# include <cuda_runtime.h>\n#include "cudnn_ops.h"\n',
        )
        .file("/usr/local/cuda/include/cudnn_graph.h", '#include "cudnn_version.h"\n#include "cudnn.h"\n')
        .file(
            "/usr/include/cudnn_version.h",
            "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 1\n  #  define CUDNN_PATCHLEVEL 0\n",
        )
    )
    headers = fact(Cudnn, machine.os_release("ubuntu", "24.04"), tmp_path).headers_in("/usr/local/cuda/include")
    assert headers.missing == (("/usr/local/cuda/include/cudnn.h:4", "cudnn_ops.h"),)
    assert (headers.version, headers.source) == ("9.1.0", "/usr/include/cudnn_version.h:1")


def test_a_broken_link_and_a_missing_alternative(tmp_path: Path) -> None:
    machine = Machine.ubuntu2404().cudnn_packages().link("/etc/alternatives/libcudnn", "/usr/include/gone.h")
    found = fact(Cudnn, machine, tmp_path)
    headers = found.headers_in("/usr/include")
    assert (headers.main, headers.real) == ("/usr/include/cudnn.h", "")
    assert "cudnn_v8.h" in found.headers_in("/usr/include/x86_64-linux-gnu").others


def test_the_order_of_the_folders_is_the_loaders(tmp_path: Path) -> None:
    machine = (
        cuda()
        .cudnn("8.6.0")
        .cudnn_packages("8.9.7.29-1+cuda12.2")
        .cudnn("9.1.0", lib="/opt/cudnn-9/lib", include="/opt/cudnn-9/include")
        .library("/opt/mine/libcudnn.so.7.6.5", "libcudnn.so.7")
        .append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=/opt/mine\n")
    )
    found: Cudnn = fact(Cudnn, machine, tmp_path)
    assert [f.path for f in found.folders] == [LIB, MULTIARCH, "/opt/cudnn-9/lib", "/opt/mine"]
    assert [f.path for f in found.search_path()] == [LIB, MULTIARCH]
    assert [f.path for f in found.search_path("alice")] == ["/opt/mine", LIB, MULTIARCH]
    assert found.majors() == {8}
    assert found.majors("alice") == {7, 8}


def test_pythons_own_are_left_alone(tmp_path: Path) -> None:
    wheel = "/home/alice/venv/lib/python3.11/site-packages/nvidia/cudnn/lib"
    machine = (
        Machine.ubuntu2404()
        .library(f"{wheel}/libcudnn.so.9", "libcudnn.so.9")
        .append("/home/alice/.bashrc", f"export LD_LIBRARY_PATH={wheel}\n")
    )
    assert fact(Cudnn, machine, tmp_path).folders == ()


def test_only_files_that_could_be_copies_are_hashed(tmp_path: Path) -> None:
    machine = (
        cuda()
        .cudnn("8.9.7")
        .file(f"{LIB}/libcudnn.so.8", b"content")
        .file(f"{LIB}/libcudnn.so", b"content")
        .file(f"{LIB}/libcudnn.so.8.9.7", b"content")
    )
    (folder,) = fact(Cudnn, machine, tmp_path).folders
    assert {x.digest for x in folder.libraries if x.stem == "libcudnn"} == {
        "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    }
    assert {x.digest for x in folder.libraries if x.stem != "libcudnn"} == {""}


def test_what_is_no_library_is_told_apart(tmp_path: Path) -> None:
    machine = cuda().cudnn("8.9.7").file(f"{LIB}/libcudnn.so.8.9.7", "text").fifo(f"{LIB}/libcudnn_ops_infer.so.8.9.7")
    (folder,) = fact(Cudnn, machine, tmp_path).folders
    text, fifo = (folder.get(f"{stem}.so.8.9.7") for stem in ("libcudnn", "libcudnn_ops_infer"))
    assert (text.special, text.version, "not a sound ELF" in text.problem) == (False, "8.9.7", True)
    assert (fifo.special, "named pipe" in fifo.problem) == (True, True)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((9, 13, False), ("libcudnn9-cuda-13",)),
        ((9, None, True), ("libcudnn9-cuda-12", "libcudnn9-dev-cuda-12")),
        ((8, 11, True), ("libcudnn8=8.9.7.29-1+cuda11.8", "libcudnn8-dev=8.9.7.29-1+cuda11.8")),
        ((5, 8, False), ("libcudnn5",)),
        ((5, "12.2", False), ()),
        ((9, "13.0", False), ("libcudnn9-cuda-13",)),
        ((8, "11.2", False), ("libcudnn8=8.9.7.29-1+cuda11.8",)),
        ((8, "10.2", False), ("libcudnn8=8.1.0.77-1+cuda10.2",)),
        ((8, "", False), ("libcudnn8",)),
        ((7, "10.0", True), ("libcudnn7=7.6.5.32-1+cuda10.0", "libcudnn7-dev=7.6.5.32-1+cuda10.0")),
        ((7, "10.1", False), ("libcudnn7=7.6.5.32-1+cuda10.1",)),
        ((7, "9.1", False), ()),
        ((7, "11.8", False), ()),
        ((8, "13.0", True), ()),
    ],
)
def test_names_for_apt(arguments: tuple[int, int | str | None, bool], names: tuple[str, ...]) -> None:
    major, cuda_major, development = arguments
    assert package_names(major, cuda_major, development=development) == names


@pytest.mark.parametrize(
    ("program", "version", "major"),
    [
        ("ctranslate2", "3.24.0", 8), ("ctranslate2", "4.4.0", 8), ("ctranslate2", "4.5.0", 9), ("ctranslate2", "2.0", None),
        ("onnxruntime-gpu", "1.18.1", 8), ("onnxruntime-gpu", "1.19.0", 9), ("numpy", "1.26.4", None),
    ],
)  # fmt: skip
def test_what_programs_need(program: str, version: str, major: int | None) -> None:
    assert needed_major(program, version) == major


def test_every_row_has_a_source() -> None:
    tables = load("cudnn")
    assert all(row["source"] for name in ("packages", "programs") for row in tables[name])


def test_needs_of_environments_and_programs(tmp_path: Path) -> None:
    machine = (
        cuda()
        .cudnn("9.1.0")
        .python_environment("/home/alice/whisper", ["ctranslate2-4.4.0"])
        .python_environment("/home/alice/torch", ["ctranslate2-4.4.0"], torch="2.3.0+cu121", cuda="12.1")
        .library("/usr/local/lib/libopencv_dnn.so.4.8.0", "libopencv_dnn.so.408", ["libc.so.6", "libcudnn.so.8"])
        .link("/usr/local/lib/libopencv_dnn.so", "libopencv_dnn.so.4.8.0")
        .file("/usr/local/bin/script", "#!/bin/sh\n", 0o755)
    )
    needs = fact(CudnnNeeds, machine, tmp_path).needs
    assert [(n.what, n.major, n.subject, n.user) for n in needs] == [
        ("ctranslate2 4.4.0", 8, "python:/home/alice/whisper", "alice"),
        ("libopencv_dnn.so.4.8.0", 8, "file:/usr/local/lib/libopencv_dnn.so.4.8.0", ""),
    ]


def test_modes_that_shut_users_out(tmp_path: Path) -> None:
    machine = (
        cuda()
        .cudnn("8.9.7")
        .file("/usr/local/cuda-12.2/bin/nvcc", mode=0o744)
        .file(f"{INCLUDE}/cudnn.h", "", 0o640)
        .file(f"{LIB}/libcudnn.so.8.9.7", "", 0o604, gid=4)
        .file(f"{LIB}/libcudnn_ops_infer.so.8.9.7", "", 0o604)
        .file(f"{LIB}/README", "", 0o600)
    )
    found = fact(CudaPermissions, machine, tmp_path)
    assert sorted((r.path, r.mode, r.wanted) for r in found.restricted) == [
        ("/usr/local/cuda-12.2/bin/nvcc", 0o744, 0o755),
        (f"{INCLUDE}/cudnn.h", 0o640, 0o644),
        (f"{LIB}/libcudnn.so.8.9.7", 0o604, 0o644),
    ]


HEADER = st.text(alphabet='#include"<cudnn_abv.h>\n define CUDNN_MAJOR 19', max_size=200)


@settings(max_examples=40, deadline=None)
@given(HEADER, HEADER)
def test_any_text_is_a_header(first: str, second: str) -> None:
    machine = Machine().os_release("ubuntu", "24.04")
    machine.file("/usr/include/cudnn.h", '#include "cudnn_a.h"\n' + first).file("/usr/include/cudnn_a.h", second)
    with tempfile.TemporaryDirectory() as folder:
        (headers,) = fact(Cudnn, machine, Path(folder)).headers
    assert headers.main == "/usr/include/cudnn.h"
    assert re.fullmatch(r"(\d+(\.\d+){0,2})?", headers.version)
    assert all(re.fullmatch(r"cudnn[A-Za-z0-9_]*\.h", name) for _, name in headers.missing)
