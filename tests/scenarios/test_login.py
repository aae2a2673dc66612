"""Login loops in combination: what explains what, whose loop it is, and disks that are really full."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis
from dlhealth.probes import Options
from dlhealth.testing import Machine, logs
from tests.conftest import WriteJournal

LOOP = "login-loop-unexplained"
FULL = "login-loop-disk-full"
COOKIE = b"\x01\x00\x00\x01h\x00\x010\x00\x12MIT-MAGIC-COOKIE-1\x00\x10" + bytes(16)
WHALE = "Unrecoverable failure in required component org.gnome.Shell.desktop"


def causes(diagnosis: Diagnosis) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(d.finding.id, d.finding.subject): d.caused_by for d in diagnosis.findings if d.finding.severity != "note"}


def test_a_loop_is_folded_under_its_cause(examine: Callable[..., Diagnosis]) -> None:
    machine = Machine.debian12().file("/home/alice/.Xauthority", COOKIE, 0o600).login_loop()
    assert causes(examine(machine)) == {
        ("login-loop-xauthority-wrong-owner", "file:/home/alice/.Xauthority"): (),
        (LOOP, "user:alice"): ("login-loop-xauthority-wrong-owner",),
    }


def test_a_file_in_one_home_explains_nothing_of_another(examine: Callable[..., Diagnosis]) -> None:
    machine = Machine.debian12().user("bob", 1001).file("/home/alice/.Xauthority", COOKIE, 0o600).login_loop("bob")
    found = causes(examine(machine))
    assert found[(LOOP, "user:bob")] == ()
    assert found[("login-loop-xauthority-wrong-owner", "file:/home/alice/.Xauthority")] == ()


def test_tmp_explains_everybodys_loop(examine: Callable[..., Diagnosis]) -> None:
    machine = Machine.debian12().user("bob", 1001).folder("/tmp", 0o700).login_loop("alice").login_loop("bob")
    found = causes(examine(machine))
    assert found[(LOOP, "user:alice")] == found[(LOOP, "user:bob")] == ("login-loop-tmp-permissions",)


def test_two_causes_of_one_loop_are_both_roots(examine: Callable[..., Diagnosis]) -> None:
    machine = (
        Machine.debian12()
        .file("/home/alice/.Xauthority", COOKIE, 0o600)
        .folder("/home/alice/.config", 0o755)
        .login_loop(manager="sddm")
    )
    found = examine(machine)
    assert [d.finding.id for d in found.findings if not d.caused_by] == [
        "login-loop-home-dotfile-permissions",
        "login-loop-xauthority-wrong-owner",
    ]


def test_a_malformed_line_that_ends_the_session_is_one_root_and_is_corrected(examine: Callable[..., Diagnosis]) -> None:
    line = "export PATH = /usr/local/cuda/bin:$PATH"
    found = examine(Machine.debian12().file("/etc/profile.d/cuda.sh", f"{line}\n").login_loop()).findings
    assert [d.finding.id for d in found if not d.caused_by] == ["ld-library-path-malformed"]
    assert "login-loop-profile-script-error" in {d.finding.id for d in found}
    assert found[0].remedy
    (action,) = found[0].remedy.actions
    assert "export PATH=/usr/local/cuda/bin:$PATH" in str(action)


def test_a_stale_configuration_explains_the_drivers_complaint(examine: Callable[..., Diagnosis]) -> None:
    machine = (
        Machine.debian12()
        .gpu(driver="nouveau")
        .library("/usr/lib/xorg/modules/drivers/modesetting_drv.so")
        .file("/etc/X11/xorg.conf", 'Section "Device"\n Identifier "a"\n Driver "nvidia"\nEndSection\n')
        .file("/var/log/Xorg.0.log", "[ 9.1] (EE) NVIDIA: Failed to load the NVIDIA kernel module.\n")
        .login_loop(manager="gdm")
    )
    found = causes(examine(machine))
    assert "stale-xorg-conf-nvidia" in found[("login-loop-glx-broken-driver-mismatch", "host")]
    assert "stale-xorg-conf-nvidia" in found[(LOOP, "user:alice")]


def test_a_driver_that_was_upgraded_explains_gnomes_loop(examine: Callable[..., Diagnosis]) -> None:
    machine = (
        Machine.ubuntu2404_gpu()
        .loaded_driver("550.90.07")
        .login_loop(manager="gdm")
        .says("gnome-session-binary", WHALE, 1100.0)
        .says("gdm3", "Gdm: GdmDisplay: Session never registered, failing", 1101.0)
    )
    found = causes(examine(machine))
    mismatch = "driver-library-version-mismatch-after-upgrade"
    assert mismatch in found[("login-loop-glx-broken-driver-mismatch", "host")]
    assert {name for (name, _), by in found.items() if not by} == {mismatch}


def test_a_real_journal_is_judged_as_text_is(
    tmp_path: Path, rules: tuple[Rule, ...], write_journal: WriteJournal
) -> None:
    Machine.debian12().build(tmp_path)
    tries = [e for n in range(4) for e in logs.session("alice", 100 + 60 * n, 2, "gdm", n + 1)]
    write_journal(tmp_path, [[logs.Entry(0, "kernel", "Linux version 6.1.0")], tries])
    found = diagnose(rules, Facts(RootHost(str(tmp_path)), Options()))
    assert [d.finding.subject for d in found.findings if d.finding.id == LOOP] == ["user:alice"]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "dlhealth-test", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, free: int) -> None:
    """Write until only so many bytes are left."""
    with (folder / "data").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(file.tell() - free)


def on_small_disk(tmp_path: Path, rules: tuple[Rule, ...], path: str, free: int) -> Diagnosis:
    root = tmp_path / "root"
    root.mkdir()
    Machine.debian12().login_loop().build(root)
    with mounted(root / path, "size=256k,mode=1777"):
        if path == "home":
            home = root / "home/alice"
            home.mkdir()
            (home / ".Xauthority").touch()
            for entry in (home, home / ".Xauthority"):
                subprocess.run(["chown", "1000:1000", str(entry)], check=True)
        fill(root / path, free)
        return diagnose(rules, Facts(RootHost(str(root)), Options()))


@pytest.mark.parametrize("path", ["home", "tmp", "var/tmp"])
def test_a_full_disk(path: str, tmp_path: Path, rules: tuple[Rule, ...]) -> None:
    found = causes(on_small_disk(tmp_path, rules, path, 0))
    assert found == {(FULL, f"file:/{path}"): (), (LOOP, "user:alice"): (FULL,)}


def test_little_space_is_not_the_cause(tmp_path: Path, rules: tuple[Rule, ...]) -> None:
    assert causes(on_small_disk(tmp_path, rules, "home", 65536)) == {(LOOP, "user:alice"): ()}


def test_no_inodes_left(tmp_path: Path, rules: tuple[Rule, ...]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    Machine.debian12().build(root)
    with mounted(root / "tmp", "size=1m,nr_inodes=4,mode=1777"):
        for number in range(3):
            (root / f"tmp/{number}").touch()
        found = diagnose(rules, Facts(RootHost(str(root)), Options()))
    (full,) = [d.finding for d in found.findings if d.finding.id == FULL]
    assert full.subject == "file:/tmp"
    assert "0 of 4 inodes free" in full.title
