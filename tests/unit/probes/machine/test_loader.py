"""The loader's configuration and cache, compared with what the real ldconfig says and makes."""

import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.engine.facts import Facts
from dlhealth.host.place import Place
from dlhealth.host.root import RootHost
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.machine.loader import (
    BadCache,
    LoaderConfig,
    UserPaths,
    parse_cache,
    parse_conf,
    plain_assignment,
    without_element,
)
from dlhealth.testing import Machine

LDCONFIG = "/sbin/ldconfig"
LIB = "/usr/lib/x86_64-linux-gnu"


def config(root: Path) -> LoaderConfig:
    return LoaderConfig.probe(RootHost(str(root)))


def printed(*options: str) -> list[tuple[str, str]]:
    """What `ldconfig -p` says: SONAME and path."""
    output = subprocess.run([LDCONFIG, *options, "-p"], check=True, capture_output=True, text=True).stdout
    return re.findall(r"^\t(\S+) \(.*\) => (\S+)$", output, re.MULTILINE)


def with_real_library(root: Path, path: str, source: str = "libz.so.1") -> None:
    """ldconfig takes only libraries with program headers: a real one of this machine."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(Path(LIB, source).resolve().read_bytes())


def test_this_machines_cache_as_ldconfig_prints_it() -> None:
    ours = LoaderConfig.probe(RootHost("/")).cache
    assert ours
    assert [(entry.soname, entry.path) for entry in ours] == printed()
    assert {entry.bits for entry in ours if entry.path.startswith(LIB)} <= {64}


@pytest.mark.parametrize("form", ["new", "compat", "old"])
def test_caches_that_ldconfig_makes(tmp_path: Path, form: str) -> None:
    Machine.ubuntu2404().build(tmp_path)
    with_real_library(tmp_path, "/usr/local/cuda-12.2/lib64/libz.so.1.2")
    (tmp_path / "etc/ld.so.conf.d/cuda.conf").write_text("/usr/local/cuda-12.2/lib64\n")
    before = config(tmp_path)
    assert before.cache is None
    assert before.find("libz.so.1") is None, "ldconfig makes the link of the SONAME; it has not run yet"
    subprocess.run([LDCONFIG, "-r", str(tmp_path), "-c", form], check=True, capture_output=True)
    after = config(tmp_path)
    assert [(e.soname, e.path, e.bits) for e in after.cache or ()] == [
        ("libz.so.1", "/usr/local/cuda-12.2/lib64/libz.so.1", 64)
    ]
    assert after.find("libz.so.1") == "/usr/local/cuda-12.2/lib64/libz.so.1"


def test_a_cached_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    Machine.ubuntu2404().build(tmp_path)
    with_real_library(tmp_path, f"{LIB}/libz.so.1")
    subprocess.run([LDCONFIG, "-r", str(tmp_path)], check=True, capture_output=True)
    assert config(tmp_path).find("libz.so.1") == "/lib/x86_64-linux-gnu/libz.so.1"
    (tmp_path / f"{LIB}/libz.so.1".lstrip("/")).unlink()
    assert config(tmp_path).find("libz.so.1") is None


def test_order_and_sources_of_the_folders(tmp_path: Path) -> None:
    machine = (
        Machine()
        .file("/etc/hostname", "")
        .file("/usr/lib/x", "")
        .file("/var/lib/x", "")
        .file(
            "/etc/ld.so.conf",
            "/first/\nhwcap 0 nosegneg\ninclude ld.so.conf.d/*.conf /etc/more.conf # rest\n/last=libc6\n",
        )
        .file("/etc/ld.so.conf.d/b.conf", "# nothing\n\n  /b/lib  # comment\n")
        .file("/etc/ld.so.conf.d/a.conf", "/a/lib\nrelative/lib\ninclude /etc/ld.so.conf\n")
        .file("/etc/ld.so.conf.d/a.conf.dpkg-old", "/not/this\n")
        .file("/etc/more.conf", "/more\n/a/lib\n")
        .library("/b/lib/libcudart.so.12")
        .link("/a/lib", "/b/lib")
    )
    found = config(machine.build(tmp_path))
    written = [(d.path, d.source) for d in found.directories if d.source]
    assert written == [
        ("/first", "/etc/ld.so.conf:1"),
        ("/a/lib", "/etc/ld.so.conf.d/a.conf:1"),
        ("/b/lib", "/etc/ld.so.conf.d/b.conf:3"),
        ("/more", "/etc/more.conf:1"),
        ("/last", "/etc/ld.so.conf:4"),
    ]
    by_path = {d.path: d for d in found.directories}
    assert by_path["/b/lib"].line == "  /b/lib  # comment"
    assert by_path["/a/lib"].real == by_path["/b/lib"].real == "/b/lib"
    assert found.find("libcudart.so.12") == "/a/lib/libcudart.so.12"


def test_without_a_cache_the_folders_count_and_with_one_only_the_built_in_ones(tmp_path: Path) -> None:
    machine = (
        Machine.ubuntu2404()
        .file("/etc/ld.so.conf.d/cuda.conf", "/opt/lib\n")
        .library("/opt/lib/libcudart.so.12")
        .library(f"{LIB}/libcuda.so.1")
    )
    assert config(machine.build(tmp_path)).find("libcudart.so.12") == "/opt/lib/libcudart.so.12"
    (tmp_path / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1" + bytes(28))
    stale = config(tmp_path)
    assert stale.find("libcudart.so.12") is None
    assert stale.find("libcuda.so.1") == "/lib/x86_64-linux-gnu/libcuda.so.1"
    assert stale.find("libcudart.so.12", {"/mine": {"libcudart.so.12"}}) == "/mine/libcudart.so.12"


def test_what_can_not_be_read(tmp_path: Path) -> None:
    machine = Machine.ubuntu2404().fifo("/etc/ld.so.conf.d/odd.conf").file("/etc/ld.so.cache", b"garbage")
    found = config(machine.build(tmp_path))
    assert found.cache is None
    assert found.cache_problem == "/etc/ld.so.cache: not a cache of glibc's loader"
    assert found.problems == ("/etc/ld.so.conf.d/odd.conf: a named pipe, not a file",)
    assert f"{LIB}" in {d.path for d in found.directories}


def test_a_configuration_without_end_is_cut_off_and_that_is_said(tmp_path: Path) -> None:
    lines = "".join(f"/opt/{number}/lib\n" for number in range(200_000))
    found = config(Machine.ubuntu2404().file("/etc/ld.so.conf", lines).build(tmp_path))
    assert len(found.directories) < 1100
    assert any(d.built_in for d in found.directories)
    assert found.problems == (
        "/etc/ld.so.conf:1001: too many directories, the rest of /etc/ld.so.conf was not checked",
    )


def test_a_configuration_that_is_no_file_is_no_answer(tmp_path: Path) -> None:
    root = Machine.ubuntu2404().fifo("/etc/ld.so.conf").build(tmp_path)
    with pytest.raises(Unavailable, match=r"ld\.so\.conf"):
        Facts(RootHost(str(root)), Options()).get(LoaderConfig)


def test_paths_of_a_person(tmp_path: Path) -> None:
    machine = (
        Machine.ubuntu2404()
        .library("/usr/local/cuda-12.2/lib64/libcudart.so.12")
        .link("/usr/local/cuda", "/usr/local/cuda-12.2")
        .append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=/usr/local/cuda/lib64/:/nowhere\n")
    )
    paths = Facts(RootHost(str(machine.build(tmp_path))), Options()).get(UserPaths)
    assert [(d.path, d.real, d.names) for d in paths.of("alice", "LD_LIBRARY_PATH")] == [
        ("/usr/local/cuda/lib64", "/usr/local/cuda-12.2/lib64", frozenset({"libcudart.so.12"})),
        ("/nowhere", "", frozenset()),
    ]
    assert paths.users_with("/usr/local/cuda-12.2/lib64") == {"alice"}
    assert paths.users_with("") == set()


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("export LD_LIBRARY_PATH=/s:$LD_LIBRARY_PATH", None),
        ('LD_LIBRARY_PATH="/s"', None),
        ("  export LD_LIBRARY_PATH=/s/${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}", None),
        ("export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/s", None),
        ("export LD_LIBRARY_PATH=/a:/s:$LD_LIBRARY_PATH", "export LD_LIBRARY_PATH=/a:$LD_LIBRARY_PATH"),
        ("LD_LIBRARY_PATH='/s/:/a'", "LD_LIBRARY_PATH='/a'"),
        ("LD_LIBRARY_PATH=/a:/s", "LD_LIBRARY_PATH=/a"),
        ("LD_LIBRARY_PATH=/sub:/a/s:/s2", "LD_LIBRARY_PATH=/sub:/a/s:/s2"),
        ("export LD_LIBRARY_PATH=$HOME/s", "export LD_LIBRARY_PATH=$HOME/s"),
    ],
)
def test_an_element_is_taken_out_of_a_line(line: str, rest: str | None) -> None:
    assert without_element(line, "/s") == rest


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("export LD_LIBRARY_PATH=/s", True),
        ('LD_LIBRARY_PATH="/s:$LD_LIBRARY_PATH"', True),
        ("export TOKEN=secret LD_LIBRARY_PATH=/s", False),
        ("export LD_LIBRARY_PATH=/s; TOKEN=secret", False),
        ("LD_LIBRARY_PATH=$(cat /secret)", False),
        ("[ -d /s ] && export LD_LIBRARY_PATH=/s", False),
        ("export PATH=/s", False),
    ],
)
def test_only_lines_that_do_nothing_else_are_kept(tmp_path: Path, line: str, plain: bool) -> None:
    host = RootHost(str(Machine().file("/etc/some", f"\n{line}\n").build(tmp_path)))
    assert plain_assignment(host, Place("/etc/some", 2), "LD_LIBRARY_PATH") == (line if plain else "")
    for path, number in (("/etc/some", 9), ("/etc/some", 0), ("/etc/other", 1), ("the default of pam", 0), ("/etc", 1)):
        assert plain_assignment(host, Place(path, number), "LD_LIBRARY_PATH") == ""


@given(st.text(alphabet="LD_LIBRARY_PATH=/s:${}+\"' ", max_size=60), st.sampled_from(["/s", "/L", "s"]))
def test_taking_an_element_out_twice_changes_nothing(line: str, element: str) -> None:
    once = without_element(line, element)
    assert once is None or len(once) <= len(line)


def new_cache(count: int, entries: bytes, endian: int = 2) -> bytes:
    return b"glibc-ld.so.cache1.1" + struct.pack("<IIB3xI12x", count, 0, endian, 0) + entries


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a cache"),
        (b"glibc-ld.so.cache1.1", "incomplete"),
        (new_cache(3, b""), "incomplete"),
        (new_cache(0xFFFFFFFF, b""), "incomplete"),
        (new_cache(0, b"", endian=3), "byte order"),
        (new_cache(1, struct.pack("<iIIIQ", 0x303, 9999, 0, 0, 0)), "without a name"),
        (b"ld.so-1.7.0\0" + struct.pack("<I", 1 << 30), "incomplete"),
    ],
)
def test_hostile_caches(content: bytes, reason: str) -> None:
    with pytest.raises(BadCache, match=reason):
        parse_cache(content)


@given(st.sampled_from([b"", b"ld.so-1.7.0\0", b"glibc-ld.so.cache1.1"]), st.binary(max_size=400))
def test_any_bytes_are_a_cache_or_a_bad_one(magic: bytes, rest: bytes) -> None:
    try:
        entries = parse_cache(magic + rest)
    except BadCache:
        return
    assert len(entries) * 12 <= len(rest)


@given(st.text(max_size=300))
def test_any_text_is_a_configuration(text: str) -> None:
    lines = text.split("\n")
    for number, folder, includes in parse_conf(text):
        assert 1 <= number <= len(lines)
        assert bool(folder) != bool(includes) or (not folder and "include" in lines[number - 1])
        assert not folder or (folder.startswith("/") and (folder == "/" or not folder.endswith("/")))
