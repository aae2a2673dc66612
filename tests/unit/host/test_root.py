"""The host that is a directory: what is odd is said, never followed, never waited for."""

import os
from pathlib import Path

import pytest

from dlhealth.host import Unreadable
from dlhealth.host.compressed import scan_module
from dlhealth.host.elf import NotElf
from dlhealth.host.root import RootHost


@pytest.fixture
def host(tmp_path: Path) -> RootHost:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/b.conf").write_text("two")
    (tmp_path / "etc/a.conf").write_text("one")
    (tmp_path / "etc/link").symlink_to("/etc/a.conf")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "odd").write_bytes(b"caf\xe9")
    return RootHost(str(tmp_path))


def test_absent_is_not_unreadable(host: RootHost) -> None:
    assert host.text("/none") is None
    assert host.stat("/none") is None
    assert host.lstat("/none") is None
    assert host.listdir("/none") == ()
    assert host.readlink("/etc/a.conf") is None
    assert host.realpath("/none") is None
    assert not host.exists("/etc/a.conf/below")


def test_reads_follow_links_inside(host: RootHost) -> None:
    assert host.text("/etc/link") == "one"
    assert host.readlink("/etc/link") == "/etc/a.conf"
    assert host.realpath("/etc/link") == "/etc/a.conf"
    link, target = host.lstat("/etc/link"), host.stat("/etc/link")
    assert link and target and (link.kind, target.kind, target.size) == ("link", "file", 3)


def test_glob_is_sorted_and_stays_in_a_component(host: RootHost) -> None:
    assert list(host.glob("/etc/*.conf")) == ["/etc/a.conf", "/etc/b.conf"]
    assert list(host.glob("/*/a.conf")) == ["/etc/a.conf"]
    assert list(host.glob("/etc/a.conf")) == ["/etc/a.conf"]
    assert list(host.glob("/*.conf")) == []


def test_a_fifo_is_said_and_not_waited_for(host: RootHost) -> None:
    with pytest.raises(Unreadable, match="a named pipe, not a file"):
        host.text("/fifo")


def test_a_folder_is_not_a_file(host: RootHost) -> None:
    with pytest.raises(Unreadable, match="a directory, not a file"):
        host.text("/etc")


def test_the_limit(host: RootHost) -> None:
    assert host.read("/etc/a.conf", limit=3) == b"one"
    with pytest.raises(Unreadable, match="larger than"):
        host.read("/etc/b.conf", limit=2)
    assert host.head("/etc/b.conf", 2) == b"tw"


def test_bytes_survive(host: RootHost) -> None:
    text = host.text("/odd")
    assert text is not None
    assert text.encode(errors="surrogateescape") == b"caf\xe9"


def test_an_impossible_name(host: RootHost) -> None:
    with pytest.raises(Unreadable, match="not a possible file name"):
        host.text("/etc/\0")


def test_each_answer_is_kept(host: RootHost, tmp_path: Path) -> None:
    assert host.text("/etc/a.conf") == "one"
    (tmp_path / "etc/a.conf").unlink()
    assert host.text("/etc/a.conf") == "one"
    for _ in range(2):
        with pytest.raises(Unreadable):
            host.text("/fifo")
    assert isinstance(host.seen["read", "/fifo"], Unreadable)


def test_a_file_without_permission_says_what_it_needs(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    pid = os.fork()
    if pid == 0:  # a child that is nobody, because root may read anything
        os.setuid(65534)
        try:
            RootHost("/").text(str(secret))
        except Unreadable as problem:
            os._exit(0 if problem.reason == "needs root" else 2)
        os._exit(1)
    # The directories above are the test runner's own, closed to others; either way the answer is the same.
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.real_programs
def test_a_program_gets_the_folder_inside_the_root(host: RootHost, tmp_path: Path) -> None:
    output = host.run("ls", "root:/etc/", timeout=5)
    assert output.stdout.split() == ["a.conf", "b.conf", "link"]
    assert "no such file" in host.run("ls", "root:/none", timeout=5).problem


@pytest.mark.real_programs
def test_all_programs_together_have_a_limit(tmp_path: Path) -> None:
    host = RootHost(str(tmp_path), seconds=0)
    assert host.run("true", timeout=5).problem == "the time limit of the diagnosis was used up"


def test_what_is_no_module_is_not_unpacked_to_its_end() -> None:
    class Endless:
        asked = 0

        def read(self, size: int = -1) -> bytes:
            self.asked += 1
            return bytes(size)

    stream = Endless()
    with pytest.raises(NotElf, match="not an ELF file"):
        scan_module(stream)
    assert stream.asked == 1
