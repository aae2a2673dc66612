"""People, and what each of them may read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dlhealth.host.account import Account, may_read
from dlhealth.host.root import RootHost
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.login.users import Users
from dlhealth.testing import Machine

Build = Callable[[Machine], RootHost]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return lambda machine: RootHost(str(machine.build(tmp_path)))


def names(users: Users) -> list[str]:
    return [a.name for a in users.people]


def test_people_are_those_in_the_range_of_login_defs(build: Build) -> None:
    machine = Machine.debian12().user("bob", 500).user("carol", 60001).user("dave", 1002, "/usr/sbin/nologin")
    machine.append(
        "/etc/passwd", "# comment\n+::::::\nbad:x:notanumber:1::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
    )
    assert names(Users.probe(build(machine), Options())) == ["alice"]


def test_another_range(build: Build) -> None:
    machine = (
        Machine.debian12().user("bob", 500).file("/etc/login.defs", "# UID_MIN 1\nUID_MIN\t\t  500\nUID_MAX 900 \n")
    )
    assert names(Users.probe(build(machine), Options())) == ["bob"]


def test_who_is_asked_for(build: Build) -> None:
    users = Users.probe(build(Machine.debian12()), Options(users=("root", "ghost")))
    assert names(users) == ["root"]
    assert users.missing == ("ghost",)


def test_groups_and_defaults(build: Build) -> None:
    machine = (
        Machine.debian12().append("/etc/group", "video:x:44:alice,bob\n").append("/etc/passwd", "bob:x:1001:1001:::\n")
    )
    alice, bob = Users.probe(build(machine), Options()).people
    assert alice == Account("alice", 1000, 1000, (1000, 44), "/home/alice", "/bin/bash")
    assert (bob.home, bob.shell, bob.gids) == ("/", "/bin/sh", (1001, 44))


def test_without_passwd(build: Build) -> None:
    with pytest.raises(Unavailable):
        Users.probe(build(Machine().file("/etc/hostname")), Options())


ALICE = Account("alice", 1000, 1000, (1000, 44), "/home/alice", "/bin/bash")


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "readable"),
    [(0o600, 1000, 0, True), (0o600, 0, 0, False), (0o640, 0, 44, True), (0o044, 1000, 44, False), (0o604, 0, 44, False), (0o644, 0, 0, True)],
)  # fmt: skip
def test_the_first_class_that_fits_decides(build: Build, mode: int, uid: int, gid: int, readable: bool) -> None:
    host = build(Machine().file("/etc/x", "", mode, uid, gid))
    assert may_read(host, ALICE, "/etc/x") is readable


def test_a_link_gives_no_right(build: Build) -> None:
    machine = (
        Machine()
        .file("/etc/shadow", "secret", 0o640)
        .folder("/home/alice", 0o755, 1000)
        .link("/home/alice/.profile", "/etc/shadow")
    )
    host = build(machine)
    assert not may_read(host, ALICE, "/home/alice/.profile")
    assert may_read(host, ALICE._replace(uid=0), "/home/alice/.profile")


def test_folders_above_count(build: Build) -> None:
    host = build(Machine().folder("/root", 0o700).file("/root/x", "", 0o644))
    assert not may_read(host, ALICE, "/root/x")
    assert not may_read(host, ALICE, "/root/absent")
