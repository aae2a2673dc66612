"""Homes: what a session needs there, the X authority file, and units that are tied to graphical sessions."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.host import Stat
from dlhealth.host.account import Account
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.login.homes import Home, HomeFiles, authority_fault, may_write
from dlhealth.probes.login.users import Users
from dlhealth.testing import Machine

HOME = "/home/alice"
UNITS = f"{HOME}/.config/systemd/user"
ALICE = Account("alice", 1000, 1000, (1000, 44), HOME, "/bin/bash")


def home(machine: Machine, root: Path) -> Home:
    machine.build(root)
    host = RootHost(str(root))
    (found,) = HomeFiles.probe(host, Users.probe(host, Options())).homes
    return found


def record(family: int, *fields: bytes) -> bytes:
    return struct.pack(">H", family) + b"".join(struct.pack(">H", len(f)) + f for f in fields)


COOKIE = record(256, b"workstation", b"0", b"MIT-MAGIC-COOKIE-1", bytes(16))


def test_what_is_there_is_listed(tmp_path: Path) -> None:
    found = home(Machine.debian12().folder(f"{HOME}/.config", 0o700, 1000).folder(f"{HOME}/other"), tmp_path)
    assert [f.path for f in found.files] == [HOME, f"{HOME}/.config", f"{HOME}/.profile"]
    assert found.problem == ""
    assert found.space
    config = found.file(".config")
    assert config
    assert (config.status.mode, config.status.uid, config.link) == (0o700, 1000, "")
    assert found.file(".cache") is None


@pytest.mark.parametrize(
    ("machine", "problem"),
    [
        (Machine.debian12().file("/etc/fstab", "server:/h /home nfs4 defaults 0 0\n"), "is on nfs4 at /home"),
        (
            Machine.debian12().file("/etc/fstab", "auto /home/alice autofs defaults 0 0\n"),
            "is on autofs at /home/alice",
        ),
        (Machine.debian12().file(f"{HOME}/Access-Your-Private-Data.desktop"), "encrypted"),
        (Machine.debian12().append("/etc/passwd", ""), ""),
        (Machine.debian12().file("/etc/fstab", "# server:/h /home nfs4 defaults 0 0\n/dev/sda3 /home ext4\n"), ""),
    ],
)
def test_homes_that_are_not_looked_at(machine: Machine, problem: str, tmp_path: Path) -> None:
    found = home(machine, tmp_path)
    assert problem in found.problem
    assert bool(found.files) is not bool(problem)


def test_homes_that_are_not_mounted(tmp_path: Path) -> None:
    machine = Machine.debian12().file("/etc/fstab", "/dev/sda3 /home ext4 defaults 0 2\n")
    machine.build(tmp_path)
    for name in (".bashrc", ".profile"):
        (tmp_path / "home/alice" / name).unlink()
    host = RootHost(str(tmp_path))
    (empty,) = HomeFiles.probe(host, Users.probe(host, Options())).homes
    assert "is empty: it may not be mounted" in empty.problem
    (tmp_path / "home/alice").rename(tmp_path / "home/bob")
    host = RootHost(str(tmp_path))
    (gone,) = HomeFiles.probe(host, Users.probe(host, Options())).homes
    assert "does not exist: it may not be mounted" in gone.problem
    (tmp_path / "home/bob").rmdir()
    host = RootHost(str(tmp_path))
    (all_gone,) = HomeFiles.probe(host, Users.probe(host, Options())).homes
    assert all_gone.problem == f"/home: not mounted: mount /dev/sda3 {tmp_path}/home"


def test_what_the_user_may_not_read_is_not_read_for_him(tmp_path: Path) -> None:
    machine = Machine.debian12().file("/etc/shadow", "secret", 0o600)
    assert home(machine.link(f"{HOME}/.Xauthority", "/etc/shadow"), tmp_path).authority is None


def test_the_authority_file_is_read(tmp_path: Path) -> None:
    assert home(Machine.debian12().file(f"{HOME}/.Xauthority", COOKIE, 0o600, 1000), tmp_path).authority == COOKIE


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", ""),
        (COOKIE, ""),
        (COOKIE + record(65535, b"", b"0", b"MIT-MAGIC-COOKIE-1", bytes(16)), ""),
        (COOKIE + record(0, b"\x7f\0\0\1", b"1", b"XDM-AUTHORIZATION-1", b""), ""),
        (b"garbage\n", "no X authority entry in it"),
        (b"x", "no X authority entry in it"),
        (bytes(4096), "no X authority entry in it"),
        (COOKIE[:-1], "no X authority entry in it"),
        (COOKIE + bytes(20), f"not an entry at byte {len(COOKIE)}"),
        (COOKIE + COOKIE[:5], f"not an entry at byte {len(COOKIE)}"),
    ],
)
def test_authority_files(content: bytes, fault: str) -> None:
    assert authority_fault(content) == fault


@given(st.binary())
def test_any_content_has_a_verdict(content: bytes) -> None:
    assert isinstance(authority_fault(content), str)


FIELD = st.binary(max_size=40)


@given(st.lists(st.tuples(st.integers(0, 65535), FIELD, FIELD, FIELD), max_size=9))
def test_what_is_written_by_the_format_is_sound(entries: list[tuple[int, bytes, bytes, bytes]]) -> None:
    content = b"".join(record(family, a, b, b"MIT-MAGIC-COOKIE-1", c) for family, a, b, c in entries)
    assert authority_fault(content) == ""


@pytest.mark.parametrize(
    ("kind", "mode", "uid", "gid", "writable"),
    [
        ("file", 0o600, 1000, 0, True),
        ("file", 0o600, 0, 0, False),
        ("file", 0o400, 1000, 0, False),
        ("file", 0o066, 1000, 1000, False),
        ("file", 0o660, 0, 44, True),
        ("file", 0o606, 0, 44, False),
        ("dir", 0o600, 1000, 0, False),
        ("dir", 0o700, 1000, 0, True),
        ("dir", 0o777, 0, 0, True),
    ],
)
def test_who_may_write(kind: str, mode: int, uid: int, gid: int, writable: bool) -> None:
    assert may_write(ALICE, Stat(kind, mode, uid, gid, 0, 0.0, 0)) is writable


def enabled(unit: str, target: str = "default.target", name: str = "x.service") -> Machine:
    return (
        Machine.debian12()
        .file(f"{UNITS}/{name}", unit, uid=1000)
        .link(f"{UNITS}/{target}.wants/{name}", f"{UNITS}/{name}")
    )


@pytest.mark.parametrize(
    ("unit", "target", "starts"),
    [
        ("[Unit]\nWants=graphical-session.target\n", "default.target", True),
        ("[Unit]\nRequires = x.service graphical-session-pre.target\n", "basic.target", True),
        ("[Unit]\nBindsTo=gnome-session@ubuntu.target\n", "default.target", True),
        ("[Unit]\nPartOf=graphical-session.target\n", "default.target", False),
        ("[Install]\nWantedBy=graphical-session.target\n", "graphical-session.target", False),
        ("[Unit]\nRequires=graphical-session.target\n", "graphical-session.target", False),
        ("[Unit]\nAfter=graphical-session.target\n", "default.target", None),
        ("[Unit]\n#Wants=graphical-session.target\n", "default.target", None),
        ("[Unit]\nWants=network.target\n", "default.target", None),
    ],
)
def test_units(unit: str, target: str, starts: bool | None, tmp_path: Path) -> None:
    found = home(enabled(unit, target), tmp_path).units
    assert [u.starts for u in found] == ([] if starts is None else [starts])
    for one in found:
        assert one.path == f"{UNITS}/x.service"
        assert one.source == f"{UNITS}/x.service:2"
        assert one.links == (f"{UNITS}/{target}.wants/x.service",)


def test_a_unit_that_is_not_enabled(tmp_path: Path) -> None:
    machine = Machine.debian12().file(f"{UNITS}/x.service", "[Unit]\nWants=graphical-session.target\n", uid=1000)
    assert home(machine, tmp_path).units == ()


def test_a_unit_of_a_package_counts_only_where_it_starts_the_target(tmp_path: Path) -> None:
    machine = Machine.debian12()
    for name, unit in (("early", "Wants"), ("late", "PartOf")):
        machine.file(f"/usr/lib/systemd/user/{name}.service", f"[Unit]\n{unit}=graphical-session.target\n").link(
            f"/etc/systemd/user/default.target.wants/{name}.service", f"/usr/lib/systemd/user/{name}.service"
        )
    assert [u.path for u in home(machine, tmp_path).units] == ["/usr/lib/systemd/user/early.service"]
