"""The machine that is changed: programs inside its root, its directories and large files, its users; files and their
steps."""

import errno
import os
import pwd
import struct
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from dlhealth import actions
from dlhealth.actions import (
    OF_A_PERSON,
    OF_ONE_PATH,
    AptInstall,
    ByHand,
    ChangeMode,
    ChangeOwner,
    CopyFile,
    EditFile,
    MakeDirectory,
    MakeLink,
    MoveAside,
    PipInstall,
    Reboot,
    WriteFile,
    action_from_json,
    action_to_json,
)
from dlhealth.host.change import NotChangeable, State
from dlhealth.model import Action
from dlhealth.steps import STEPS, step_of
from dlhealth.steps.base import KEPT, CommandFailed, PathAction, PathStep, Target, module_tree
from tests.stand_in_root import StandInRoot

pytestmark = pytest.mark.real_programs  # the stand-ins


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInRoot:
    return StandInRoot(tmp_path, monkeypatch)


OTHER_FILE_SYSTEM = OSError(errno.EXDEV, "Invalid cross-device link")
DISK_FAILED = OSError(errno.EIO, "Input/output error")


class TestCommand:
    """Programs run inside the root, and what they say is kept."""

    def test_a_program_of_another_root_is_confined_to_it(self, root: StandInRoot) -> None:
        root.program("ldconfig", 'echo "in $IN_ROOT"')
        assert root.target.command("ldconfig", "-v", timeout=20).stdout == f"in {root.folder}\n"
        confined, own = root.all_runs
        assert {"--unshare-pid", "--unshare-net", "--cap-drop"} <= set(confined)
        assert (confined[-2:], own) == (["ldconfig", "-v"], ["ldconfig", "-v"])

    @pytest.mark.parametrize(
        ("link", "at"),
        [
            ("/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
            ("../run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
            ("/etc/resolvconf/run/resolv.conf", "/run/resolvconf/resolv.conf"),
            ("", "/etc/resolv.conf"),
        ],
    )
    def test_names_are_found_by_this_machine_s_servers(self, root: StandInRoot, link: str, at: str) -> None:
        """The disk's own are told by a service that does not run, or are another network's."""
        root.program("getent")
        root.file("etc/resolvconf/interface-order")
        (root.folder / "etc/resolvconf/run").symlink_to("/run/resolvconf")
        if link:
            (root.folder / "etc/resolv.conf").symlink_to(link)
        else:
            root.file("etc/resolv.conf", "nameserver 127.0.0.1\n")
        root.target.command("getent", timeout=20, network=True)
        (confined,) = (run for run in root.all_runs if run[0] == "bwrap")
        assert "--unshare-net" not in confined
        assert confined[confined.index("/etc/resolv.conf") + 1] == at

    @pytest.mark.parametrize("target", ["/run/../../outside", "../run/../../../outside", "/etc/other", "other"])
    def test_nothing_is_mounted_outside_of_run_for_that(self, root: StandInRoot, target: str) -> None:
        root.program("getent")
        (root.folder / "etc/resolv.conf").symlink_to(target)
        root.target.command("getent", timeout=20, network=True)
        (confined,) = (run for run in root.all_runs if run[0] == "bwrap")
        assert "/etc/resolv.conf" not in confined

    @pytest.mark.parametrize("name", ["dev", "etc", "proc", "run", "sys"])
    def test_nothing_runs_in_a_root_with_a_link_in_the_place_of_its_folders(self, root: StandInRoot, name: str) -> None:
        root.program("ldconfig")
        (root.folder / name).rmdir()
        (root.folder / name).symlink_to("/tmp")
        with pytest.raises(CommandFailed, match=rf"ldconfig: /{name} of .* is not a directory"):
            root.target.command("ldconfig", timeout=20)
        assert root.all_runs == []

    def test_nothing_runs_where_nothing_confines_it(self, root: StandInRoot) -> None:
        root.program("ldconfig")
        (root.programs / "bwrap").unlink()
        with pytest.raises(CommandFailed, match=r"neither bwrap \(package bubblewrap\) nor unshare"):
            root.target.command("ldconfig", timeout=20)

    def test_a_program_of_the_live_machine_runs_as_it_is(self, root: StandInRoot) -> None:
        root.outside("ldconfig", 'echo "$DEBIAN_FRONTEND $NEEDRESTART_SUSPEND"')
        assert Target("/", "abc").command("ldconfig", timeout=20).stdout == "noninteractive 1\n"
        assert root.all_runs == [["ldconfig"]]

    def test_the_refusal_ends_with_what_the_program_said_last(self, root: StandInRoot) -> None:
        root.program("dkms", "for n in 1 2 3 4 5; do echo error $n >&2; done; exit 7")
        with pytest.raises(CommandFailed) as refusal:
            root.target.command("dkms", "install", "a/1", timeout=20)
        assert str(refusal.value) == "dkms install a/1: status 7: error 2 / error 3 / error 4 / error 5"

    def test_the_refusal_names_the_program_also_before_many_words(self, root: StandInRoot) -> None:
        root.program("apt-get", "exit 100")
        with pytest.raises(CommandFailed, match=r"^apt-get \.\.\. 3 4 5 6 7: status 100"):
            root.target.command("apt-get", *map(str, range(8)), timeout=10)

    def test_the_refusal_names_standard_output_where_nothing_went_to_standard_error(self, root: StandInRoot) -> None:
        root.program("dkms", "echo no such module; exit 3")
        with pytest.raises(CommandFailed, match=r"^dkms: status 3: no such module$"):
            root.target.command("dkms", timeout=20)

    def test_a_failure_that_may_be_is_only_told(self, root: StandInRoot) -> None:
        root.program("dkms", "exit 3")
        assert root.target.command("dkms", timeout=20, check=False).status == 3

    def test_a_program_that_is_not_there_is_named(self, root: StandInRoot) -> None:
        with pytest.raises(CommandFailed, match=r"^modprobe nvidia: modprobe is not installed: $"):
            Target("/", "abc").command("modprobe", "nvidia", timeout=20)

    def test_a_program_that_hangs_is_named_with_its_limit(self, root: StandInRoot) -> None:
        root.program("dkms", "exec sleep 30")
        with pytest.raises(CommandFailed, match=r"^dkms: bwrap did not answer within 0\.3 seconds: $"):
            root.target.command("dkms", timeout=0.3)


class TestFolders:
    """What is looked up and kept in the root."""

    def test_names_are_sorted_and_none_where_there_is_no_folder(self, root: StandInRoot) -> None:
        for name in ("b", "a"):
            root.file(f"/boot/{name}")
        assert root.target.names("/boot") == ["a", "b"]
        assert root.target.names("/nothing") == []
        assert root.target.names("/boot/a") == []

    def test_a_new_folder_is_root_s_own_and_one_that_is_there_stays(self, root: StandInRoot) -> None:
        (root.folder / "old").mkdir(mode=0o755)
        for path in ("/old", "/new"):
            root.target.make_folder(path)
        assert [(root.folder / n).stat().st_mode & 0o777 for n in ("old", "new")] == [0o755, 0o700]

    def test_a_folder_below_none_is_refused(self, root: StandInRoot) -> None:
        with pytest.raises(NotChangeable, match=r"the directory of /no/new is gone"):
            root.target.make_folder("/no/new")

    def test_identity_tells_another_file_of_the_same_name_and_nothing_from_a_file(self, root: StandInRoot) -> None:
        made = root.file("/one", "x")
        before = root.target.identity("/one")
        assert before["size"] == 1
        made.unlink()
        assert root.target.identity("/one") == root.target.identity("/one/below") == {}
        root.file("/one", "xy")
        assert root.target.identity("/one") not in (before, {})

    def test_identity_does_not_follow_a_link(self, root: StandInRoot) -> None:
        (root.folder / "link").symlink_to("nowhere")
        assert root.target.identity("/link")["size"] == len("nowhere")

    def test_module_tree_names_what_lies_below_the_folders_that_are_there(self, root: StandInRoot) -> None:
        root.file("/lib/modules/6.1/updates/dkms/nvidia.ko", "abc")
        root.file("/lib/modules/6.1/kernel/ext4.ko")
        found = module_tree(root.target, ["/lib/modules/6.1/updates", "/var/lib/dkms/nvidia"])
        assert {path: size for path, (size, _) in found.items()} == {"/lib/modules/6.1/updates/dkms/nvidia.ko": 3}

    def test_the_digest_tells_contents_apart(self, root: StandInRoot) -> None:
        root.file("/a", "1" * (2 << 20))
        root.file("/b", "1" * (2 << 20))
        root.file("/c", "1" * (2 << 20) + "2")
        a, b, c = (root.target.large_digest(f"/{name}") for name in "abc")
        assert a == b != c


class TestKept:
    """Large files that are copied or moved for an undo."""

    @pytest.fixture(autouse=True)
    def store(self, root: StandInRoot) -> None:
        (root.folder / "var/lib/dlhealth").mkdir(parents=True)

    def kept(self, root: StandInRoot) -> list[str]:
        return root.target.names(KEPT)

    def test_what_was_kept_comes_back_with_owner_mode_and_time(self, root: StandInRoot) -> None:
        image = root.file("/boot/initrd.img-6.1", "old")
        image.chmod(0o640)
        os.chown(image, 7, 8)
        os.utime(image, ns=(10**18, 10**18))
        root.target.keep("/boot/initrd.img-6.1")
        image.unlink()
        root.file("/boot/initrd.img-6.1", "new")
        root.target.put_back("/boot/initrd.img-6.1")
        status = image.stat()
        assert image.read_text() == "old"
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777, status.st_mtime_ns) == (7, 8, 0o640, 10**18)

    def test_a_long_name_in_letters_of_several_bytes_is_kept_too(self, root: StandInRoot) -> None:
        file = root.file(f"/home/alice/{'名' * 80}", "mine")
        root.target.set_aside(f"/home/alice/{file.name}")
        assert not file.exists()
        root.target.bring_back(f"/home/alice/{file.name}")
        assert file.read_text() == "mine"

    def test_the_first_copy_stays(self, root: StandInRoot) -> None:
        root.file("/image", "old")
        root.target.keep("/image")
        root.file("/image", "half written")
        root.target.keep("/image")
        root.target.put_back("/image")
        assert (root.folder / "image").read_text() == "old"

    def test_nothing_is_put_back_where_nothing_was_kept(self, root: StandInRoot) -> None:
        root.file("/image", "mine")
        root.target.put_back("/image")
        root.target.bring_back("/image")
        assert (root.folder / "image").read_text() == "mine"

    def test_a_copy_that_was_cut_off_is_begun_anew(self, root: StandInRoot) -> None:
        root.file("/image", "whole")
        root.target.keep("/image")
        (name,) = self.kept(root)
        (root.folder / "var/lib/dlhealth/kept" / name).unlink()
        root.file(f"{KEPT}/.{name}.abc", "wh")
        root.target.keep("/image")
        assert self.kept(root) == [name]
        assert (root.folder / "var/lib/dlhealth/kept" / name).read_text() == "whole"

    def test_a_folder_is_not_copied_to_another_file_system(self, root: StandInRoot, mocker: MockerFixture) -> None:
        root.file("/usr/local/cuda/version.txt", "8.0")
        mocker.patch("dlhealth.steps.base.move", side_effect=OTHER_FILE_SYSTEM)
        with pytest.raises(OSError, match=r"cross-device"):
            root.target.set_aside("/usr/local/cuda")
        assert (root.folder / "usr/local/cuda/version.txt").read_text() == "8.0"
        assert self.kept(root) == []

    def test_a_disk_that_fails_is_told(self, root: StandInRoot, mocker: MockerFixture) -> None:
        root.file("/one", "1")
        root.target.set_aside("/one")
        mocker.patch("dlhealth.steps.base.move", side_effect=DISK_FAILED)
        with pytest.raises(OSError, match=r"Input/output"):
            root.target.bring_back("/one")
        assert len(self.kept(root)) == 1

    def test_the_copy_goes_where_the_original_never_went(
        self, root: StandInRoot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root.file("/one", "1")
        root.target.keep("/one")  # and then the power went
        root.target.bring_back("/one")
        assert (root.folder / "one").read_text() == "1"
        assert self.kept(root) == []


class TestShared:
    """A file that two directories have."""

    @pytest.fixture
    def one(self, root: StandInRoot) -> Path:
        (root.folder / "pool").mkdir()
        return root.file("/cache/one.deb", "deb")

    def test_it_is_the_same_file_and_twice_is_once(self, root: StandInRoot, one: Path) -> None:
        for _ in range(2):
            root.target.share("/cache/one.deb", "/pool")
        root.target.settle("/pool/one.deb")
        assert (root.folder / "pool/one.deb").samefile(one)

    def test_on_another_file_system_it_is_a_copy(self, root: StandInRoot, one: Path, mocker: MockerFixture) -> None:
        mocker.patch("os.link", side_effect=OTHER_FILE_SYSTEM)
        one.chmod(0o640)
        root.target.share("/cache/one.deb", "/pool")
        copy = root.folder / "pool/one.deb"
        assert not copy.samefile(one)
        assert (copy.read_text(), copy.stat().st_mode & 0o777) == ("deb", 0o640)
        assert root.target.names("/pool") == ["one.deb"]

    def test_a_disk_that_fails_is_told(self, root: StandInRoot, one: Path, mocker: MockerFixture) -> None:
        mocker.patch("os.link", side_effect=DISK_FAILED)
        with pytest.raises(OSError, match="Input/output error"):
            root.target.share("/cache/one.deb", "/pool")
        assert root.target.names("/pool") == []


class TestIds:
    """Users and groups are those of the machine that is changed."""

    def test_names_are_looked_up_in_the_root(self, root: StandInRoot) -> None:
        root.file("/etc/passwd", "broken\nroot:x:0:0::/:\nalice:x:1234:1:\n")
        root.file("/etc/group", "video:x:x:\nvideo:x:44:alice\n")
        assert root.target.ids("alice", "video") == (1234, 44)

    def test_numbers_are_taken_as_they_are(self, root: StandInRoot) -> None:
        assert root.target.ids("7", "8") == (7, 8)

    def test_unknown_names_are_refused(self, root: StandInRoot) -> None:
        root.file("/etc/passwd", "root:x:0:0::/:\n")
        with pytest.raises(CommandFailed, match=r"^alice is not in /etc/passwd$"):
            root.target.ids("alice", "root")

    def test_on_the_live_machine_a_directory_service_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def known(name: str) -> pwd.struct_passwd:
            if name != "nobody-in-files":
                raise KeyError(name)
            return pwd.struct_passwd(("nobody-in-files", "x", 70001, 1, "", "/", ""))

        monkeypatch.setattr(pwd, "getpwnam", known)
        target = Target("/", "abc")
        assert target.ids("nobody-in-files", "0") == (70001, 0)
        with pytest.raises(CommandFailed, match=r"^nobody-at-all is not in /etc/passwd$"):
            target.ids("nobody-at-all", "0")


class TestFiles:
    """The state that a path becomes."""

    def test_what_was_changed_since_the_plan_is_not_overwritten(self, root: StandInRoot) -> None:
        file = root.file("/etc/one", "a\nb\n")
        step = step_of(EditFile("/etc/one", ((2, "b", "c"),)))
        before = step.observe(root.target)
        file.write_text("other\nb\n")
        with pytest.raises(NotChangeable, match=r"^/etc/one was changed meanwhile$"):
            step.apply(root.target, before)
        assert file.read_text() == "other\nb\n"

    def test_lines_are_replaced_and_taken_out_and_come_back(self, root: StandInRoot) -> None:
        file = root.file("/etc/one", "a\r\nb\nc\n")
        step = step_of(EditFile("/etc/one", ((1, "a", "A"), (3, "c", None))))
        assert step.summary() == "/etc/one: line 1 becomes: A; remove line 3 (c)"
        assert step.prepare(root.target) is None
        before = step.observe(root.target)
        step.apply(root.target, before)
        assert file.read_bytes() == b"A\nb\n"
        assert step.observe(root.target) == step.after(root.target, before)
        step.revert(root.target, before)
        assert file.read_bytes() == b"a\r\nb\nc\n"

    @pytest.mark.parametrize("number", [0, 4])
    def test_a_line_that_is_not_there_is_refused(self, root: StandInRoot, number: int) -> None:
        root.file("/etc/one", "a\nb\n")
        with pytest.raises(NotChangeable, match=f"^line {number} of /etc/one has changed$"):
            step_of(EditFile("/etc/one", ((number, "a", "c"),))).becomes(root.target, root.target.state("/etc/one"))

    @pytest.mark.parametrize(
        ("action", "kind", "refusal"),
        [
            (WriteFile("/x", "a"), "link", "/x is a link, not a file"),
            (WriteFile("/x", "a"), "dir", "/x is a directory, not a file"),
            (MakeLink("/x", "/y"), "dir", "/x is a directory"),
            (MakeDirectory("/x"), "link", "/x is a link, not a directory"),
            (ChangeMode("/x", 0o600), "link", "/x is a link"),
            (ChangeMode("/x", 0o600), "absent", "/x is gone"),
            (ChangeOwner("/x", "0", "0"), "absent", "/x is gone"),
        ],
    )
    def test_what_is_no_longer_as_planned_is_refused(
        self, root: StandInRoot, action: Action, kind: str, refusal: str
    ) -> None:
        with pytest.raises(NotChangeable, match=f"^{refusal}$"):
            step_of(action).becomes(root.target, State(kind))  # type: ignore[attr-defined]

    def test_a_directory_is_removed_again_only_while_it_is_empty(self, root: StandInRoot) -> None:
        step = step_of(MakeDirectory("/etc/new"))
        before = step.observe(root.target)
        step.apply(root.target, before)
        assert (root.folder / "etc/new").stat().st_mode & 0o777 == 0o755
        theirs = root.file("/etc/new/theirs", "x")
        with pytest.raises(NotChangeable, match=r"^/etc/new is no longer empty$"):
            step.revert(root.target, before)
        theirs.unlink()
        step.revert(root.target, before)
        assert not (root.folder / "etc/new").exists()

    def test_a_directory_that_exists_stays_as_it_is(self, root: StandInRoot) -> None:
        (root.folder / "etc/mine").mkdir(mode=0o700, parents=True)
        step = step_of(MakeDirectory("/etc/mine"))
        before = step.observe(root.target)
        step.apply(root.target, before)
        step.revert(root.target, before)
        assert step.left(root.target, before) == []
        assert (root.folder / "etc/mine").stat().st_mode & 0o777 == 0o700

    def test_a_file_that_is_replaced_keeps_owner_and_mode(self, root: StandInRoot) -> None:
        file = root.file("/etc/one", "a")
        file.chmod(0o600)
        os.chown(file, 7, 8)
        step = step_of(WriteFile("/etc/one", "b\nc\n", 0o644))
        assert step.summary() == "write /etc/one: b / c"
        step.apply(root.target, step.observe(root.target))
        status = file.stat()
        assert (file.read_text(), status.st_uid, status.st_gid, status.st_mode & 0o777) == ("b\nc\n", 7, 8, 0o600)

    @pytest.mark.parametrize("named", [0x02, 0x08], ids=["a user's", "a group's"])
    @pytest.mark.parametrize("mode", [0o755, 0o1777, 0o4700])
    def test_a_mode_is_changed_together_with_the_acl_that_says_it_too(
        self, root: StandInRoot, named: int, mode: int
    ) -> None:
        nobody = 0xFFFFFFFF
        entries = ((0x01, 7, nobody), (named, 4, 60), (0x04, 5, nobody), (0x10, 0, nobody), (0x20, 0, nobody))
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))
        path = root.folder / "srv"
        path.mkdir(mode=0o700)
        for name in ("system.posix_acl_access", "system.posix_acl_default"):
            os.setxattr(path, name, acl)
        step = step_of(ChangeMode("/srv", mode))
        before = step.observe(root.target)
        step.apply(root.target, before)
        assert path.stat().st_mode & 0o7777 == mode
        assert step.observe(root.target) == step.after(root.target, before)
        path.chmod(mode)  # as chmod(1) would have left it
        assert step.observe(root.target) == step.after(root.target, before)
        step.revert(root.target, before)
        assert step.observe(root.target) == before

    def test_a_file_system_without_attributes_is_one_to_change_files_on(
        self, root: StandInRoot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = root.file("/etc/one", "a")

        def fails(file: object) -> list[str]:
            raise OSError(errno.ENOTSUP, "Operation not supported")

        monkeypatch.setattr(os, "listxattr", fails)
        step = step_of(WriteFile("/etc/one", "b"))
        step.apply(root.target, step.observe(root.target))
        assert file.read_text() == "b"

    @pytest.mark.parametrize("leads_to", ["dotfiles/bashrc", "dotfiles", "/etc/shadow", "nowhere"])
    def test_a_link_changes_hands_and_what_it_leads_to_does_not(self, root: StandInRoot, leads_to: str) -> None:
        home = root.file("/home/alice/dotfiles/bashrc").parents[1]
        secret = root.file("/etc/shadow")
        os.chown(home, 1000, 1000)
        others = (secret, home / "dotfiles", home / "dotfiles/bashrc")
        link = home / ".bashrc"
        link.symlink_to(leads_to)
        step = step_of(ChangeOwner("/home/alice/.bashrc", "1000", "1000"))
        untouched = [p.lstat() for p in others]
        before = step.observe(root.target)

        step.apply(root.target, before)
        assert (os.readlink(link), link.lstat().st_uid, link.lstat().st_gid) == (leads_to, 1000, 1000)
        assert step.observe(root.target) == step.after(root.target, before)
        step.revert(root.target, before)
        assert (os.readlink(link), link.lstat().st_uid, link.lstat().st_gid) == (leads_to, 0, 0)
        assert step.observe(root.target) == before
        assert sorted(p.name for p in home.iterdir()) == [".bashrc", "dotfiles"]
        assert [p.lstat() for p in others] == untouched

    @pytest.mark.parametrize(
        "action", [ChangeOwner("/home/alice/.local/share", "1", "1"), ChangeMode("/home/alice/.local/share", 0o777)]
    )
    def test_nothing_changes_behind_a_link_in_a_home(self, root: StandInRoot, action: PathAction) -> None:
        """Also where the link is root's: who owns the directory may have moved it there."""
        home = root.file("/home/alice/.bashrc").parent
        share = root.file("/srv/share/file").parent
        os.chown(home, 1000, 1000)
        (home / ".local").symlink_to("/srv")
        untouched = share.lstat()
        with pytest.raises(NotChangeable, match=r"^/home/alice/\.local is a link that a user may have made$"):
            step_of(action).observe(root.target)
        with pytest.raises(NotChangeable, match=r"^/home/alice/\.local is a link that a user may have made$"):
            step_of(action).revert(root.target, State("dir", b"", 0o777, 1, 1).to_json())
        assert share.lstat() == untouched

    def test_what_changed_is_not_moved_aside(self, root: StandInRoot) -> None:
        file = root.file("/etc/one", "a")
        action = step_of(MoveAside("/etc/one"))
        before = action.observe(root.target)
        file.write_text("longer")
        with pytest.raises(NotChangeable, match=r"^/etc/one was changed meanwhile$"):
            action.apply(root.target, before)
        assert file.read_text() == "longer"

    def test_what_is_already_gone_needs_no_moving(self, root: StandInRoot) -> None:
        action = step_of(MoveAside("/etc/one"))
        action.apply(root.target, action.observe(root.target))
        assert root.target.names(KEPT) == []
        assert action.observe(root.target) == action.after(root.target, {})

    @pytest.mark.parametrize("broken", [False, True], ids=["nothing there", "a broken link there"])
    def test_a_copy_can_be_read_by_everybody_and_goes_again(self, root: StandInRoot, broken: bool) -> None:
        root.file("/opt/cudnn.h", "#pragma once\n").chmod(0o600)
        place = root.folder / "etc/cudnn.h"
        place.parent.mkdir(exist_ok=True)
        if broken:
            place.symlink_to("gone.h")
        step = step_of(CopyFile("/opt/cudnn.h", "/etc/cudnn.h"))
        assert step.summary() == "cp /opt/cudnn.h /etc/cudnn.h"
        before = step.observe(root.target)
        step.apply(root.target, before)
        assert (place.read_text(), place.is_symlink()) == ("#pragma once\n", False)
        assert place.stat().st_mode & 0o7777 == 0o644
        assert step.observe(root.target) == step.after(root.target, before)
        step.revert(root.target, before)
        assert step.observe(root.target) == before
        assert place.is_symlink() is broken

    def test_a_copy_takes_the_place_of_no_file(self, root: StandInRoot) -> None:
        root.file("/opt/a", "new")
        mine = root.file("/etc/a", "mine")
        step = step_of(CopyFile("/opt/a", "/etc/a"))
        with pytest.raises(NotChangeable, match=r"^/etc/a already exists$"):
            step.after(root.target, step.observe(root.target))
        assert mine.read_text() == "mine"
        gone = step_of(CopyFile("/opt/gone", "/etc/b"))
        with pytest.raises(NotChangeable, match=r"^/opt/gone is no longer a file$"):
            gone.after(root.target, gone.observe(root.target))

    @pytest.mark.parametrize(
        ("action", "by_hand"),
        [
            (MoveAside("/a"), "move /a aside (kept in /var/lib/dlhealth)"),
            (MakeLink("/a", "/b"), "ln -sfn /b /a"),
            (MakeDirectory("/a"), "mkdir /a"),
            (ChangeOwner("/a", "u", "g"), "chown -h u:g /a"),
            (ChangeMode("/tmp", 0o1777), "chmod 1777 /tmp"),
        ],
    )
    def test_the_summary_is_the_command_that_does_the_same(self, action: Action, by_hand: str) -> None:
        assert action.summary() == by_hand


class TestRecords:
    """Actions as a transaction keeps them."""

    @pytest.mark.parametrize(
        "action",
        [
            EditFile("/a", ((1, "x", None), (2, "y", "z"))),
            AptInstall(("a", "b=1"), reinstall=True, may_remove=("c",)),
            PipInstall("/v/bin/python", ("torch",)),
            MoveAside("/a"),
        ],
    )
    def test_an_action_is_the_same_after_it_was_kept(self, action: Action) -> None:
        import json

        assert action_from_json(json.loads(json.dumps(action_to_json(action)))) == action

    def test_a_kind_of_another_version_is_no_action(self) -> None:
        with pytest.raises(KeyError):
            action_from_json({"kind": "format-disk"})

    @pytest.mark.parametrize("action", [ByHand("x"), Reboot(), PipInstall("python", ("torch",))])
    def test_what_only_a_person_does_has_no_step(self, action: Action) -> None:
        with pytest.raises(KeyError):
            step_of(action)

    def test_every_action_has_a_step_or_is_a_persons(self) -> None:
        kinds = {
            value for value in vars(actions.kinds).values() if isinstance(value, type) and hasattr(value, "summary")
        }
        assert kinds == {getattr(actions, name) for name in actions.__all__}
        assert set(STEPS).isdisjoint(OF_A_PERSON)
        assert kinds == {*STEPS, *OF_A_PERSON, Reboot}

    def test_what_dlhealth_does_itself_changes_one_path(self) -> None:
        assert {kind for kind, step in STEPS.items() if issubclass(step, PathStep)} == set(OF_ONE_PATH)
