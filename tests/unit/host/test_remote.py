"""File systems that do not answer: which they are, and that nothing waits for them."""

import sys
from pathlib import Path

import pytest

from dlhealth.host.remote import Mounted, may_hang, mounts_in, on_server, remote_of
from tests.fuse import beside


@pytest.mark.parametrize(
    ("kind", "hangs", "server"),
    [
        ("ext4", False, False),
        ("tmpfs", False, False),
        ("fusectl", False, False),
        ("nfs4", True, True),
        ("autofs", True, True),
        ("beegfs", True, True),
        ("fuse", True, False),
        ("fuseblk", True, False),
        ("fuse.gocryptfs", True, False),
        ("fuse.sshfs", True, True),
    ],
)
def test_types(kind: str, hangs: bool, server: bool) -> None:
    assert (may_hang(kind), on_server(kind)) == (hangs, server)


def test_a_later_mount_covers_what_is_below() -> None:
    text = "s:/x /data nfs rw 0 0\ns:/y /data/a\\040b nfs rw 0 0\n/dev/sda1 /data ext4 rw 0 0\nbroken\n"
    assert mounts_in(text) == {"/data": Mounted("/data", "ext4", ("rw",))}
    assert "/data/a b" in mounts_in(text.replace("/dev/sda1 /data ", "/dev/sda1 /other "))
    assert set(mounts_in("proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw 0 0\n")) == {"/", "/proc"}


def test_nothing_is_paid_where_nothing_can_hang() -> None:
    assert remote_of([Mounted("/", "ext4"), Mounted("/run/user/1000/gvfs", "fuse.gvfsd-fuse")]) is None
    assert remote_of([Mounted("/proc/sys/fs/binfmt_misc", "autofs", ("direct",))]) is None


def test_a_file_system_that_answers_is_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "far/file")
    remote = remote_of([Mounted(str(tmp_path), "nfs4"), Mounted("/net", "autofs", ("indirect",))])
    assert remote
    for path in ("", "/link", "/none/x", "/link/x", "/\0"):
        assert remote.silent(f"{tmp_path}{path}", follow=True) is None
    assert remote.silent("/net", follow=True) is None


def python_beside(arguments: list[str], program: str) -> tuple[str, float]:
    """What a program prints beside a FUSE, and how long it took."""
    done = beside(arguments, [sys.executable, "-c", program])
    assert done.status == 0, done.stderr
    return done.stdout, done.seconds


ASK = """
from dlhealth.host import NoAnswer
from dlhealth.host.root import live_host
import os, sys
os.makedirs("/home/here")
os.symlink("/home/stuck/far", "/home/here/link")
os.symlink("../stuck", "/home/here/folder")
host = live_host()
for question, path in (
    ("lstat", "/home/stuck"), ("read", "/home/here/link"), ("listdir", "/home/here/folder/x"),
    ("folders", "/home/stuck/x"), ("realpath", "/home/here/folder/../stuck"), ("space", "/home/stuck"),
):
    try:
        print(getattr(host, question)(path))
    except NoAnswer as problem:
        print(problem)
print(host.readlink("/home/here/link"), host.listdir("/home/here"), host.listdir("/home"))
print(host.run("stat", "root:/home/stuck", timeout=3).problem)
"""


@pytest.mark.usefixtures("fuse")
def test_nothing_below_a_silent_mount_is_touched() -> None:
    said, took = python_beside(["--at", "/home/stuck"], ASK)
    lines = said.splitlines()
    assert lines[:6] == ["/home/stuck (fuse.sshfs) does not answer"] * 6
    assert lines[6] == "/home/stuck/far ('folder', 'link') ('here', 'stuck')"
    assert lines[7] == "/home/stuck (fuse.sshfs) does not answer"
    assert took < 10


@pytest.mark.usefixtures("fuse")
def test_a_silent_mount_that_nobody_asks_for_costs_nothing() -> None:
    said, _ = python_beside(
        ["--at", "/srv"],
        "import os; from dlhealth.host.root import live_host; fork, count = os.fork, []\n"
        "os.fork = lambda: count.append(1) or fork()\n"
        "host = live_host(); host.text('/etc/passwd'); host.listdir('/'); print(len(count))",
    )
    assert said == "0\n"


@pytest.mark.usefixtures("fuse")
def test_a_mount_that_answers_is_read() -> None:
    said, _ = python_beside(
        ["--at", "/home/far", "--file", ".profile", "--file", ".bashrc"],
        "from dlhealth.host.root import live_host; host = live_host()\n"
        "print(host.listdir('/home/far'), host.text('/home/far/.profile'))",
    )
    assert said == "('.bashrc', '.profile') # nothing\n\n"
