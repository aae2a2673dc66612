"""The partitions of a machine that lies in a directory: which of them are not mounted there, and what is not done
then."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dlhealth.actions import AptInstall, EditFile, RefreshLoaderCache, UpdateInitramfs, WriteFile
from dlhealth.host import NotAMachine, Unreadable
from dlhealth.host.locate import host_at
from dlhealth.host.mounts import Mounts, parse_fstab
from dlhealth.host.path import Root
from dlhealth.host.root import RootHost
from dlhealth.model import Action
from dlhealth.steps import step_of
from dlhealth.steps.base import Target
from dlhealth.steps.reach import out_of_reach
from dlhealth.txn.__main__ import main
from dlhealth.txn.execute import apply, recover, undo
from dlhealth.txn.store import Busy, Store
from tests.mounts import own_mounts

pytestmark = pytest.mark.real_programs

FSTAB = """# <file system> <mount point> <type> <options>
UUID=1 /         ext4  errors=remount-ro 0 1
UUID=2 /boot     ext4  defaults 0 2
UUID=3 /boot/efi vfat  umask=0077 0 1
UUID=4 /var      ext4  defaults
UUID=5 /home     btrfs defaults,subvol=@home 0 0
/data/opt /opt   none  bind 0 0
LABEL=more\\040room /srv/more\\040room/ xfs defaults 0 0
UUID=6 none      swap  sw 0 0
tmpfs  /tmp      tmpfs defaults 0 0
/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0
/dev/sdb1 /efi   vfat  noauto,x-systemd.automount 0 0
incomplete
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root é"
    for name in ("etc", "boot", "efi", "home", "var", "opt", "srv/more room", "usr/lib", "proc", "dev", "sys"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/fstab").write_text(FSTAB)
    return folder


@contextmanager
def tmpfs(at: Path, options: str = "size=8m") -> Iterator[Path]:
    at.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "test", at], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def missing(root: Path) -> list[str]:
    return [m.path for m in Mounts(Root(str(root))).missing]


def test_what_is_mounted_at_the_start_is_read_from_fstab() -> None:
    paths = [m.path for m in parse_fstab(FSTAB)]
    assert paths == ["/boot", "/boot/efi", "/efi", "/home", "/opt", "/srv/more room", "/var"]


def test_what_is_not_mounted_is_named_with_the_command_that_mounts_it(root: Path) -> None:
    told = [m.command("/mnt") for m in Mounts(Root(str(root))).missing]
    assert told == [
        "mount UUID=2 /mnt/boot",
        "mount /dev/sdb1 /mnt/efi",
        "mount -o subvol=@home UUID=5 /mnt/home",
        "mount --bind /mnt/data/opt /mnt/opt",
        "mount 'LABEL=more room' '/mnt/srv/more room'",
        "mount UUID=4 /mnt/var",
    ]


def test_what_is_mounted_is_not_missed_even_where_it_is_empty(root: Path) -> None:
    with tmpfs(root / "boot"), tmpfs(root / "boot/efi"), tmpfs(root / "var"), tmpfs(root / "home"):
        assert missing(root) == ["/efi", "/opt", "/srv/more room"]


def test_a_copy_of_a_whole_machine_in_one_folder_misses_nothing_of_it(root: Path) -> None:
    (root / "boot/vmlinuz").touch()
    (root / "opt/program").touch()
    assert missing(root) == ["/efi", "/home", "/srv/more room", "/var"]


def test_of_a_part_of_a_machine_what_has_no_folder_is_not_missed(root: Path) -> None:
    for name in ("var", "home", "efi"):
        (root / name).rmdir()
    assert missing(root) == ["/boot", "/opt", "/srv/more room"]


def test_what_the_firmware_starts_is_not_missed_where_grub_has_its_menu_in_boot(root: Path) -> None:
    (root / "boot/efi").mkdir()
    assert {"/boot/efi", "/efi"} <= set(missing(root))
    (root / "boot/grub").mkdir()
    (root / "boot/grub/grub.cfg").write_text("set default=0\n")
    assert missing(root) == ["/home", "/opt", "/srv/more room", "/var"]


def test_on_the_machine_s_own_disk_files_in_the_place_of_a_partition_lie_below_it(root: Path) -> None:
    """As those of an earlier repair with chroot, where nobody had mounted it. What is only bound may lie on that disk."""
    with tmpfs(root.parent / "disk") as disk:
        for name in ("etc", "boot", "opt", "var"):
            (disk / name).mkdir()
        (disk / "etc/fstab").write_text(FSTAB)
        (disk / "boot/initrd.img-6.1.0-50-amd64").touch()
        (disk / "opt/program").touch()
        assert missing(disk) == ["/boot", "/var"]


def test_of_a_disk_with_subvolumes_the_one_with_the_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "@home/alice").mkdir(parents=True)
    with pytest.raises(NotAMachine, match=r"it has no etc, usr, var$"):
        host_at(str(tmp_path))
    (tmp_path / "@rootfs/etc").mkdir(parents=True)
    with pytest.raises(NotAMachine, match=rf"it has no etc, usr, var; {tmp_path}/@rootfs has$"):
        host_at(str(tmp_path))


@pytest.mark.parametrize("fstab", [None, "folder", "fifo", "link"])
def test_without_a_fstab_nothing_is_missed(root: Path, fstab: str | None) -> None:
    at = root / "etc/fstab"
    at.unlink()
    if fstab == "folder":
        at.mkdir()
    elif fstab == "fifo":
        os.mkfifo(at)
    elif fstab == "link":
        at.symlink_to("fstab")
    assert missing(root) == []


def test_of_an_endless_fstab_a_bounded_number_is_looked_at_and_what_programs_write_to_first(root: Path) -> None:
    for number in range(2100):
        (root / f"srv/{number}").mkdir()
    lines = [f"/data/{number} /srv/{number} none bind\n" for number in range(2100)]
    (root / "etc/fstab").write_text("".join([*lines, "UUID=4 /var ext4 defaults\n"]))
    found = Mounts(Root(str(root)))
    assert len([m for m in found.missing if not m.unsure]) == 2000
    assert found.needed and found.needed.path == "/var"


def test_below_a_mount_point_that_was_not_looked_at_nothing_is_read_or_written(root: Path) -> None:
    lines = [f"/data/{number} /disks/{number} none bind\n" for number in range(2000)]
    (root / "etc/fstab").write_text("".join([*lines, "UUID=5 /home ext4 defaults\n"]))
    (root / "home/.profile").write_text("export A=1\n")
    with pytest.raises(Unreadable, match=r"^/home: /etc/fstab has more than 2000 mount points"):
        RootHost(str(root)).read("/home/.profile")
    action = WriteFile("/home/new", "new\n")
    told = out_of_reach(Target(str(root), "test"), [action])[action]
    assert told == f"/home of {root} may not be mounted: /etc/fstab has more than 2000 mount points"


def test_of_an_fstab_that_is_too_large_nothing_is_guessed(root: Path) -> None:
    """The lines that were not read may mount something over each directory."""
    (root / "etc/fstab").write_text("# a comment\n" * 100_000 + "UUID=6 /home ext4 defaults\n")
    (root / "home/.profile").write_text("export A=1\n")
    host = RootHost(str(root))
    for path in ("/home/.profile", "/usr/lib"):
        with pytest.raises(Unreadable, match=r"/etc/fstab is larger than 1 MiB"):
            host.stat(path)
    assert host.stat("/etc/fstab")
    action = WriteFile("/home/new", "new\n")
    told = out_of_reach(Target(str(root), "test"), [action])[action]
    assert told == f"/home of {root} may not be mounted: /etc/fstab is larger than 1 MiB"


def test_of_two_lines_for_one_mount_point_the_later_counts(root: Path) -> None:
    (root / "etc/fstab").write_text("UUID=1 /opt ext4 defaults\nUUID=2 /opt ext4 defaults\n" * 2000)
    assert [(m.device, m.path) for m in Mounts(Root(str(root))).missing] == [("UUID=2", "/opt")]


def test_what_can_not_be_seen_is_not_called_absent(root: Path) -> None:
    host = RootHost(str(root))
    for look in (host.lstat, host.stat, host.listdir, host.read, host.readlink, host.realpath, host.space, host.sha256):
        with pytest.raises(Unreadable, match="not mounted: mount UUID=2 "):
            look("/boot/vmlinuz")
    assert "not mounted" in host.run("true", "root:/var/log/journal", timeout=5).problem
    assert host.listdir("/usr") == ("lib",)


def test_nor_is_what_a_link_at_the_top_leads_to(root: Path) -> None:
    (root / "usr/lib").rmdir()
    (root / "etc/fstab").write_text("UUID=7 /usr ext4 defaults 0 0\n")
    (root / "lib").symlink_to("usr/lib")
    (root / "media").symlink_to("/home")
    host = RootHost(str(root))
    with pytest.raises(Unreadable, match=r"^/usr: not mounted"):
        host.listdir("/lib/modules")
    assert host.listdir("/media") == ()


@pytest.mark.parametrize(
    "path", ["/boot", "/boot/efi", "/efi", "/usr", "/usr/src", "/var", "/var/lib", "/var/lib/dkms"]
)
def test_no_program_changes_a_machine_of_which_it_does_not_see_a_part_that_it_writes_to(root: Path, path: str) -> None:
    (root / "etc/fstab").write_text(f"UUID=7 {path} ext4 defaults 0 0\n")
    (root / "usr/lib").rmdir()
    (root / path[1:]).mkdir(parents=True, exist_ok=True)
    (found,) = out_of_reach(Target(str(root), "abc"), [UpdateInitramfs("all")]).values()
    command = f"mount UUID=7 '{root}{path}'"
    assert found == f"{path} of {root} is not mounted; first: {command}"


def test_what_programs_do_not_write_to_may_be_missing(root: Path) -> None:
    (root / "etc/fstab").write_text(
        "UUID=7 /home ext4 defaults 0 0\nUUID=8 /var/lib/docker ext4 defaults 0 0\nUUID=9 /srv xfs x 0 0\n"
    )
    edit, home = WriteFile("/etc/one", "new\n"), WriteFile("/home/alice/.profile", "new\n")
    target = Target(str(root), "abc")
    assert target.mounts.needed is None
    assert set(out_of_reach(target, [edit, home])) == {home}


def test_the_running_machine_is_not_asked() -> None:
    assert Mounts(Root("/")).missing == ()


# Taken back from where it can be.


def applied(root: Path, *actions: Action) -> Store:
    store = Store(str(root))
    with store.locked():
        apply(store, Target(str(root), "abc"), "abc", actions, {}, lambda: None, False, lambda text: None)
    return store


def test_an_undo_that_would_find_another_folder_waits_until_the_right_one_is_mounted(root: Path) -> None:
    """What is not mounted was taken for what somebody else had changed since, and the transaction was over."""
    with tmpfs(root / "var"):
        with tmpfs(root / "home") as home:
            (home / "profile").write_text("bad\n")
            store = applied(root, EditFile("/home/profile", ((1, "bad", "good"),)))
        (record,) = store.ended()
        with store.locked(), pytest.raises(Busy, match=r"cannot be undone from here: /home of .* is not mounted"):
            undo(store, Target(str(root), "abc"), record)
        assert (store.current(), store.ended()) == (None, [record])
        with tmpfs(root / "home") as home:
            (home / "profile").write_text("good\n")
            os.chmod(home / "profile", 0o644)
            with store.locked():
                assert undo(store, Target(str(root), "abc"), record).outcome == "undone"
            assert (home / "profile").read_text() == "bad\n"


def test_no_store_is_made_below_the_partition_that_has_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dlhealth.cli import run

    for words in (["fix", "--yes"], ["undo", "--yes"], ["history"], ["show", "1"]):
        assert run([*words, "--root", str(root)]) == 2
        assert f"/var of {root} is not mounted; first: mount UUID=4 " in capsys.readouterr().err
    for verb in ("recover", "undo", "history"):
        assert main([verb, str(root)]) == 1
        assert "is not mounted" in capsys.readouterr().err
    assert list((root / "var").iterdir()) == []


# Programs that the processor can't run.


def foreign() -> bytes:
    """The header of a program for another processor than the one that runs this."""
    machine = 0xB7 if os.uname().machine == "x86_64" else 0x3E
    start = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + machine.to_bytes(2, "little")
    return (start + (1).to_bytes(4, "little")).ljust(52, b"\0") + (64).to_bytes(2, "little") + bytes(10)


@pytest.fixture
def other_architecture(root: Path) -> Path:
    (root / "etc/fstab").unlink()
    for name in ("dev", "proc", "run", "sys"):
        (root / name).mkdir(exist_ok=True)
    for path in ("usr/bin/sh", "usr/bin/dpkg", "usr/bin/true"):
        program = root / path
        program.parent.mkdir(exist_ok=True)
        program.write_bytes(foreign())
        program.chmod(0o755)
    (root / "bin").symlink_to("usr/bin")
    with pytest.raises(OSError, match="Exec format error"):
        subprocess.run([root / "bin/sh", "-c", "true"], check=True)
    return root


def test_a_root_of_another_architecture_is_refused_where_a_program_of_it_has_to_run(other_architecture: Path) -> None:
    actions = (AptInstall(("x",)), WriteFile("/etc/one", "new\n"))
    ((action, problem),) = out_of_reach(Target(str(other_architecture), "abc"), actions).items()
    assert action == actions[0]
    assert "do not run here (another architecture" in problem
    assert "Exec format error" in problem
    assert applied(other_architecture, actions[1]).ended()[0].outcome == "applied"


@pytest.mark.parametrize("ended", [False, True])
def test_what_programs_did_is_not_given_up_because_they_do_not_run_here(other_architecture: Path, ended: bool) -> None:
    """From a rescue system of another architecture, or with the disk mounted with noexec: every step became a conflict,
    and the transaction was over."""
    store, root = Store(str(other_architecture)), str(other_architecture)
    actions = [{"kind": "refresh-loader-cache"}]
    with store.locked():
        record = store.begin("abc", {"actions": actions}, [step_of(RefreshLoaderCache()).observe(Target(root, "abc"))])
        from dlhealth.txn.journal import Journal

        journal = Journal(record.folder)
        journal.write("INTENT", n=0)
        if ended:
            journal.write("DONE", n=0, after={})
            journal.write("COMMIT", outcome="applied")
            record = store.end(record, "applied")
        journal.close()
        with pytest.raises(Busy, match=r"cannot be undone from here: the programs of .* do not run here"):
            if ended:
                undo(store, Target(root, "abc"), record)
            else:
                recover(store, Target(root, "abc"))
    assert [r.outcome for r in store.ended()] == ["applied"] * ended
    assert bool(store.current()) is not ended


# What was mounted for a chroot.


@contextmanager
def for_a_chroot(root: Path, *, container: bool = False) -> Iterator[None]:
    """With `container`, this machine's /dev is a tmpfs, as container managers make it."""
    with own_mounts():
        if container and subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev"], check=False).returncode:
            pytest.skip("nothing can be mounted here")
        if container:
            Path("/dev/null").touch()
        mounts = (["-t", "proc", "proc"], ["--rbind", "/sys"], ["--rbind", "/dev"], ["--bind", "/run"])
        for words, name in zip(mounts, ("proc", "sys", "dev", "run"), strict=True):
            (root / name).mkdir(exist_ok=True)
            command = ["mount", *words, str(root / name)]
            if subprocess.run(command, check=False, capture_output=True).returncode:
                pytest.skip("nothing can be mounted here")
        yield


@pytest.mark.parametrize("container", [False, True])
def test_what_was_mounted_for_a_chroot_tells_of_another_machine(root: Path, container: bool) -> None:
    """The kernel of the rescue system was taken for the disk's, whose headers then were missing."""
    with for_a_chroot(root, container=container):
        host = RootHost(str(root))
        assert host.text("/proc/sys/kernel/osrelease") is None
        assert host.text("/proc/self/mounts") is None
        assert not host.exists("/dev/null")
        assert not host.exists("/sys/module/kernel")
        assert (host.listdir("/proc"), host.listdir("/dev"), host.listdir("/run")) == ((), (), ())
        assert host.listdir("/sys/bus/pci/drivers") == ()
        assert not host.exists("/sys/bus/pci/devices/0000:00:00.0/driver")
        assert host.listdir("/sys/bus") == tuple(sorted(os.listdir("/sys/bus")))


def test_a_machine_that_was_copied_with_its_proc_is_read(root: Path) -> None:
    kernel = root / "proc/sys/kernel"
    (kernel / "random").mkdir(parents=True)
    (kernel / "osrelease").write_text("6.1.0-50-amd64\n")
    assert RootHost(str(root)).text("/proc/sys/kernel/osrelease") == "6.1.0-50-amd64\n"
    (kernel / "random/boot_id").write_text("00000000-0000-0000-0000-000000000000\n")
    assert RootHost(str(root)).text("/proc/sys/kernel/osrelease") == "6.1.0-50-amd64\n"


def test_a_transaction_s_programs_are_known_wherever_its_root_is_mounted(root: Path) -> None:
    """A repair that was killed was taken back below another mount point, or from inside, while its dkms was at work."""
    outside = Target(str(root), "abc").of_it
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    with own_mounts():
        if subprocess.run(["mount", "--bind", root, elsewhere], check=False, capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
        assert Target(str(elsewhere), "abc").of_it == outside
    inside = os.fork()
    if inside == 0:
        os.chroot(root)
        os._exit(Target("/", "abc").of_it != outside)
    assert os.waitpid(inside, 0)[1] == 0
    assert Target(str(elsewhere), "abc").of_it != outside
