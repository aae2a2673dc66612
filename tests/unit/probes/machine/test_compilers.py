"""Which gcc there is, and which one nvcc takes."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.data import load
from dlhealth.data.compat import version_key
from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.machine.compilers import Compilers, HostLimit, parse_limit, table_limit
from dlhealth.testing import Machine

# As CUDA 13.0's crt/host_config.h has it.
HEADER = """\
#if !defined(__GNUC__) && !defined(_WIN32)

#error --- !!! UNSUPPORTED COMPILER !!! ---

#endif /* !__GNUC__ && !_WIN32 */

#if defined(__GNUC__)

#if __GNUC__ > 15

#error -- unsupported GNU version! gcc versions later than 15 are not supported! The nvcc flag '-allow-unsupported-compiler' can be used to override this version check

#endif /* __GNUC__ > 15 */
"""
OLD_HEADER = """\
#if defined(__GNUC__)

#if __GNUC__ > 4 || (__GNUC__ == 4 && __GNUC_MINOR__ > 9)

#error -- unsupported GNU version! gcc versions later than 4.9 are not supported!
"""


def compilers(machine: Machine, folder: Path) -> Any:
    return Facts(RootHost(str(machine.build(folder))), Options()).get(Compilers)


def test_limits_of_real_headers() -> None:
    assert parse_limit(HEADER, "h") == HostLimit("15", "h:9")
    assert parse_limit(OLD_HEADER, "h") == HostLimit("4.9", "h:3")
    assert parse_limit(HEADER.replace("__GNUC__ > 15", "0"), "h") is None


@pytest.mark.parametrize(
    ("limit", "version", "allowed"),
    [
        ("11", "11", True), ("11", "11.4", True), ("11", "12", False), ("11", "4.9", True), ("9", "10", False),
        ("4.9", "4.9", True), ("4.9", "4.8", True), ("4.9", "5", False), ("4.9", "5.4", False), ("5", "5.4.0", True),
    ],
)  # fmt: skip
def test_what_a_limit_allows(limit: str, version: str, allowed: bool) -> None:
    assert HostLimit(limit, "").allows(version) is allowed


@pytest.mark.parametrize(
    ("release", "newest"),
    [
        ("7.5.18", "4.9"), ("8.0.61", "5"), ("10.1.243", "8"), ("11.4.0", "10"), ("11.4.2", "11"), ("11.4", "11"),
        ("11.8.89", "11"), ("12.2.140", "12"), ("13.0", "15"), ("13.5.37", "16"),
    ],
)  # fmt: skip
def test_limits_of_the_table(release: str, newest: str) -> None:
    limit = table_limit(release)
    assert limit
    assert limit.newest == newest


@pytest.mark.parametrize("release", ["", "6.5", "19.0", "12"])
def test_what_is_not_in_the_table_has_no_limit(release: str) -> None:
    assert table_limit(release) is None


def test_the_table_grows_with_the_versions() -> None:
    rows = load("host_compiler")["rows"]
    assert [version_key(r["cuda"]) for r in rows] == sorted(version_key(r["cuda"]) for r in rows)
    limits = [version_key(r["gcc"]) for r in rows]
    assert limits == sorted(limits)
    assert all(r["source"] for r in rows)


def test_the_default_compiler_by_its_links(tmp_path: Path) -> None:
    machine = (
        Machine.debian12()
        .file("/usr/bin/x86_64-linux-gnu-gcc-12", mode=0o755)
        .link("/usr/bin/gcc-12", "x86_64-linux-gnu-gcc-12")
        .link("/usr/bin/gcc", "gcc-12")
        .file("/usr/bin/g++-9")
        .link("/etc/alternatives/g++", "/usr/bin/g++-9")
        .link("/usr/bin/g++", "/etc/alternatives/g++")
        .file("/usr/bin/g++-11")
        .link("/usr/bin/g++-13", "nowhere")
        .file("/usr/bin/gcc-ar-12")
    )
    found = compilers(machine, tmp_path)
    assert (found.gcc.version, found.gcc.real) == ("12", "/usr/bin/x86_64-linux-gnu-gcc-12")
    assert found.gcc.source == "/usr/bin/gcc -> gcc-12"
    assert found.gxx.version == "9"
    assert {(c.name, c.version) for c in found.installed} == {("gcc", "12"), ("g++", "9"), ("g++", "11")}
    assert found.best(HostLimit("12", "")).path == "/usr/bin/g++-11"
    assert found.best(HostLimit("8", "")) is None


@pytest.mark.parametrize(
    ("package", "version"), [("4:12.2.0-3", "12"), ("4:4.9.2-2", "4.9"), ("4:5.3.1-1ubuntu1", "5")]
)
def test_the_package_tells_where_no_link_does(tmp_path: Path, package: str, version: str) -> None:
    found = compilers(Machine.debian12().package("gcc", package), tmp_path)
    assert found.gcc.version == version
    assert found.gcc.source == f"package gcc {package}"


def test_one_that_somebody_built_has_no_known_version(tmp_path: Path) -> None:
    machine = Machine.debian12().file("/usr/local/bin/gcc", mode=0o755).package("gcc", "4:12.2.0-3")
    assert compilers(machine, tmp_path).gcc.version == ""


def test_no_compiler(tmp_path: Path) -> None:
    found = compilers(Machine.debian12(), tmp_path)
    assert (found.gcc, found.gxx, found.installed) == (None, None, ())


def test_the_toolkits_own_header_counts_before_the_table(tmp_path: Path) -> None:
    machine = Machine.debian12().cuda_toolkit("12.2").cuda_toolkit("11.8", default=False).cuda_toolkit("8.0", "8.0.61")
    machine.file("/usr/local/cuda-12.2/include/crt/host_config.h", HEADER)
    machine.file("/usr/local/cuda-8.0/include/host_config.h", OLD_HEADER)
    limits = compilers(machine, tmp_path).limits
    assert {path: limit.newest for path, limit in limits.items()} == {
        "/usr/local/cuda-12.2": "15",
        "/usr/local/cuda-11.8": "11",
        "/usr/local/cuda-8.0": "4.9",
    }
    assert limits["/usr/local/cuda-12.2"].source == "/usr/local/cuda-12.2/include/crt/host_config.h:9"


@given(st.text(alphabet="#if _GNUCMINOR>=|&()\n0123456789", max_size=200))
def test_any_text_is_a_header(text: str) -> None:
    limit = parse_limit(text, "h")
    assert limit is None or re.fullmatch(r"\d+(\.\d+)?", limit.newest)
