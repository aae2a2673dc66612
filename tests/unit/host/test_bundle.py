"""A bundle answers as the machine did, and nothing that is made to look like one harms its reader."""

import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlhealth.host import Host, NotAMachine, Output, Unreadable
from dlhealth.host.bundle import BundleHost, read_bundle, write_bundle
from dlhealth.host.locate import host_at
from dlhealth.host.root import RootHost
from dlhealth.testing import Machine


def unmasked(question: tuple[str, ...], content: bytes) -> bytes:
    return content


def ask(host: Host, question: Callable[[Host], Any]) -> Any:
    try:
        return question(host)
    except Unreadable as problem:
        return problem.path, problem.reason


QUESTIONS: tuple[Callable[[Host], Any], ...] = (
    lambda h: h.lstat("/bin"),
    lambda h: h.stat("/bin"),
    lambda h: h.stat("/nothing"),
    lambda h: h.realpath("/bin/nothing"),
    lambda h: h.realpath("/bin"),
    lambda h: h.readlink("/bin"),
    lambda h: h.readlink("/etc/hostname"),
    lambda h: h.listdir("/etc"),
    lambda h: h.folders("/etc"),
    lambda h: h.text("/etc/hostname"),
    lambda h: h.text("/etc/../etc/hostname"),
    lambda h: h.read("/etc/strange-\udcff"),
    lambda h: h.read("/etc/fifo"),
    lambda h: h.head("/etc/hostname", 3),
    lambda h: h.tail("/etc/hostname", 3),
    lambda h: h.elf("/usr/lib/libx.so"),
    lambda h: h.elf("/etc/hostname"),
    lambda h: h.sha256("/etc/hostname"),
    lambda h: h.initramfs("/etc/hostname"),
    lambda h: h.space("/"),
    lambda h: h.now(),
    lambda h: list(h.glob("/etc/*")),
    lambda h: h.run("journalctl", "--directory", "root:/nothing", timeout=1),
)


@pytest.mark.parametrize("live", [False, True])
def test_answers_are_the_same(live: bool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (
        Machine.debian12()
        .library("/usr/lib/libx.so", "libx.so.1", ["libc.so.6"], "$ORIGIN")
        .file("/etc/strange-\udcff", b"\xff\0\x80 bytes")
        .fifo("/etc/fifo")
        .build(root)
    )
    host = RootHost(str(root), live=live)
    answers = [ask(host, question) for question in QUESTIONS]
    bundle = tmp_path / "b.tar.gz"
    write_bundle(host, str(bundle), unmasked, {"dlhealth": "1"})
    again = read_bundle(str(bundle))
    assert [ask(again, question) for question in QUESTIONS] == answers
    assert again.live is live
    assert (again.now() is not None) is live


def test_every_question_can_be_kept() -> None:
    """A new method of Host needs its place in the bundle."""
    from dlhealth.host.bundle import _ANSWERS

    derived = {"exists", "glob", "text", "is_partial", "every_line_with", "posted", "cited", "some_names"}
    methods = {n for n in vars(Host) if not n.startswith("_") and callable(getattr(Host, n))}
    assert methods - derived == set(_ANSWERS)


def test_what_was_not_asked_is_unknown() -> None:
    host = BundleHost("x", True, {("run", "/opt/a/python3.11", "-I", "/opt/a/child.py"): Output(0, "yes")})
    with pytest.raises(Unreadable, match="not in the archive"):
        host.stat("/etc/passwd")
    assert host.run("/usr/bin/python3", "-I", "/usr/lib/child.py", timeout=1).stdout == "yes"
    assert host.run("journalctl", timeout=1).status is None


def test_is_private_and_overwrites_nothing(tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar.gz"
    host = BundleHost("x", False, {("read", "/a"): b"1"})
    os.umask(0)
    write_bundle(host, str(bundle), unmasked, {})
    os.umask(0o022)
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_bundle(host, str(bundle), unmasked, {})
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_bundle(host, str(link), unmasked, {})
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_is_left_of_one_that_failed(tmp_path: Path) -> None:
    def broken(question: tuple[str, ...], content: bytes) -> bytes:
        raise KeyError("a defect")

    bundle = tmp_path / "b.tar.gz"
    with pytest.raises(KeyError):
        write_bundle(BundleHost("x", False, {("read", "/a"): b"1"}), str(bundle), broken, {})
    assert not bundle.exists()


def index(*answers: Any, **changed: Any) -> bytes:
    return json.dumps({"dlhealth-bundle": 1, "live": False, "answers": answers, **changed}).encode()


def archive(path: Path, *members: tuple[str | tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, content in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def link_member(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("files/etc/passwd")
    member.type, member.linkname = kind, "/etc/shadow"
    return member


HOSTILE: dict[str, tuple[tuple[str | tarfile.TarInfo, bytes], ...]] = {
    "empty": (),
    "no index": (("a", b"1"),),
    "index is no JSON": (("index.json", b"{"),),
    "index is a list": (("index.json", b"[]"),),
    "index is deep": (("index.json", b"[" * 100_000),),
    "another version": (("index.json", index(**{"dlhealth-bundle": 2})),),
    "live is no boolean": (("index.json", index(live="yes")),),
    "an answer without its member": (("index.json", index([["read", "/a"], {"member": "files/a"}])),),
    "a text where bytes belong": (("index.json", index([["read", "/a"], {"is": "text"}])),),
    "a number where a text belongs": (("index.json", index([["readlink", "/a"], {"is": 7}])),),
    "a stat of texts": (("index.json", index([["stat", "/a"], {"is": ["file", "0644", 0, 0, 0, 0, 0]}])),),
    "a stat that is short": (("index.json", index([["stat", "/a"], {"is": ["file", 420]}])),),
    "an unknown question": (("index.json", index([["write", "/a"], {"is": None}])),),
    "a question without a path": (("index.json", index([["read"], {"is": None}])),),
    "a question that is no list": (("index.json", index(["read", {"is": None}])),),
    "an answer that is no object": (("index.json", index([["read", "/a"], None])),),
    "an answer of nothing": (("index.json", index([["read", "/a"], {}])),),
    "a program without its output": (("index.json", index([["run", "a"], {"status": 0, "problem": "", "members": []}])),),
    "a symbolic link": (("index.json", index()), (link_member(tarfile.SYMTYPE), b"")),
    "a hard link": (("index.json", index()), (link_member(tarfile.LNKTYPE), b"")),
    "a device": (("index.json", index()), (link_member(tarfile.CHRTYPE), b"")),
    "a member twice": (("index.json", index()), ("a", b"1"), ("a", b"2")),
}  # fmt: skip


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_bundle_is_refused(members: tuple[tuple[str | tarfile.TarInfo, bytes], ...], tmp_path: Path) -> None:
    with pytest.raises(NotAMachine, match=r"not an archive of dlhealth capture|recognizes nothing in it"):
        host_at(str(archive(tmp_path / "b.tar.gz", *members)))


def test_a_member_that_leads_out_is_only_a_name(tmp_path: Path) -> None:
    answer = index([["read", "/a"], {"member": "../../outside"}])
    host = host_at(str(archive(tmp_path / "b.tar.gz", ("index.json", answer), ("../../outside", b"1"))))
    assert host.read("/a") == b"1"
    assert [p.name for p in tmp_path.iterdir()] == ["b.tar.gz"]


@pytest.mark.parametrize(
    "content", [b"", b"text\n", gzip.compress(b"no archive", mtime=0), gzip.compress(b"x" * 5000, mtime=0)[:-20]]
)
def test_another_file_is_no_bundle(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NotAMachine, match="recognizes nothing in it"):
        host_at(str(path))


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = archive(tmp_path / "b.tar.gz", ("index.json", index([["read", "/a"], {"member": "a"}])), ("a", b"1" * 2000))
    content = whole.read_bytes()
    for length in range(0, len(content) - 8, 7):
        whole.write_bytes(content[:length])
        with pytest.raises(NotAMachine):
            host_at(str(whole))


def test_a_bomb_is_refused_with_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=9) as packed:
        first = index()
        member = tarfile.TarInfo("index.json")
        member.size = len(first)
        packed.write(member.tobuf() + first.ljust(512, b"\0"))
        for number in range(12):
            member = tarfile.TarInfo(f"files/{number}")
            member.size = 60 << 20
            packed.write(member.tobuf())
            for _ in range(60):
                packed.write(bytes(1 << 20))
    assert path.stat().st_size < 2 << 20
    code = (
        "import sys; from dlhealth.cli import run; status = run(sys.argv[1:]); "
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "doctor", "--root", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unpacks to more than 512 MiB" in done.stderr
    assert int(done.stdout) < 200 << 10


def test_where_a_machine_may_lie(tmp_path: Path) -> None:
    with pytest.raises(NotAMachine, match="no such file"):
        host_at(str(tmp_path / "nothing"))
    with pytest.raises(NotAMachine, match="does not look like the root"):
        host_at(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotAMachine, match="neither a directory nor a file"):
        host_at(str(tmp_path / "fifo"))
    (tmp_path / "etc").mkdir()
    assert not host_at(str(tmp_path)).live
    assert host_at("/").live
