"""Changes of modules, boot images, alternatives and units: the program that is run, and what its undo leaves."""

import errno
import json
import os
import shutil
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from dlhealth.actions import (
    ByHand,
    DkmsBuild,
    DkmsRemove,
    LoadModules,
    Reboot,
    RefreshLoaderCache,
    ReloadModules,
    SetAlternative,
    UpdateInitramfs,
)
from dlhealth.host.change import NotChangeable, State
from dlhealth.model import Action
from dlhealth.steps import step_of
from dlhealth.steps.base import KEPT, CommandFailed, Target
from dlhealth.txn.execute import apply, recover, undo
from dlhealth.txn.store import Store
from tests.stand_in_root import StandInRoot

pytestmark = pytest.mark.real_programs  # the stand-ins

LIVE = "/"  # only programs are started there, and they are stand-ins
# dkms, whose tree is $IN_ROOT/var/lib/dkms: "install|uninstall|remove M/V -k K", "remove M/V --all", "add M/V".
# A tree without a module it does not know, and refuses to build beside it, as the real one does.
DKMS = """
tree="$IN_ROOT/var/lib/dkms/$2"
case "$1 $3" in
"status -k") [ ! -e "$tree/$4/x86_64/module/nvidia.ko" ] || echo "$2, $4, x86_64: built" ;;
"status ") ;;
"install -k") [ ! -d "$tree/$4" ] || [ -e "$tree/$4/x86_64/module/nvidia.ko" ] || exit 3; mkdir -p "$tree/$4/x86_64/module" "$IN_ROOT/lib/modules/$4/updates/dkms"
    echo built > "$tree/$4/x86_64/module/nvidia.ko"; echo built > "$IN_ROOT/lib/modules/$4/updates/dkms/nvidia.ko" ;;
"remove -k") rm -r "$tree/$4" "$IN_ROOT/lib/modules/$4/updates/dkms/nvidia.ko" || exit 4; rmdir "$tree" 2>/dev/null ;;
"uninstall -k") rm "$IN_ROOT/lib/modules/$4/updates/dkms/nvidia.ko" ;;
"remove --all") rm -r "$tree" ;;
"add ") mkdir -p "$tree" ;;
*) exit 9 ;;
esac
"""


MODULES = "nvidia_uvm 1 0 - Live 0x0 (OE)\nnvidia 2 1 nvidia_uvm, Live 0x0 (OE)\n"


def as_if_live(root: StandInRoot) -> Target:
    """The kernel that runs the tests may have other modules, or none at all."""
    target = root.target
    target.live = True
    return target


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInRoot:
    return StandInRoot(tmp_path, monkeypatch)


class TestDkms:
    """Modules that are built for kernels."""

    def tree(self, root: StandInRoot) -> set[str]:
        return {str(p.relative_to(root.folder)) for p in root.folder.rglob("*") if p.is_file()}

    def test_a_build_is_taken_back_and_its_source_stays_registered(self, root: StandInRoot) -> None:
        root.program("dkms", DKMS)
        action = step_of(DkmsBuild("nvidia", "535.1", "6.1.0-30-amd64"))
        assert action.summary() == "dkms install nvidia/535.1 -k 6.1.0-30-amd64"
        assert action.prepare(root.target) is None
        before = action.observe(root.target)
        assert before == {}
        action.apply(root.target, before)
        assert set(action.observe(root.target)) == {
            "/lib/modules/6.1.0-30-amd64/updates/dkms/nvidia.ko",
            "/var/lib/dkms/nvidia/535.1/6.1.0-30-amd64/x86_64/module/nvidia.ko",
        }
        action.revert(root.target, before)
        assert action.observe(root.target) == before
        assert (root.folder / "var/lib/dkms/nvidia/535.1").is_dir()
        assert [run for run in root.runs if run[1] != "status"] == [
            ["dkms", "install", "nvidia/535.1", "-k", "6.1.0-30-amd64"],
            ["dkms", "remove", "nvidia/535.1", "-k", "6.1.0-30-amd64"],
            ["dkms", "add", "nvidia/535.1"],
        ]

    def test_a_module_that_was_built_and_not_installed_stays_built(self, root: StandInRoot) -> None:
        root.program("dkms", DKMS)
        module = root.file("/var/lib/dkms/nvidia/535.1/6.1/x86_64/module/nvidia.ko", "built\n")
        action = step_of(DkmsBuild("nvidia", "535.1", "6.1"))
        before = action.observe(root.target)
        root.file("/lib/modules/6.1/updates/dkms/nvidia.ko", "built\n")
        root.forget()
        action.revert(root.target, before)
        assert root.runs == [["dkms", "uninstall", "nvidia/535.1", "-k", "6.1"]]
        assert action.observe(root.target) == before
        assert module.exists()

    def test_a_build_that_fails_is_told_with_its_last_words(self, root: StandInRoot) -> None:
        root.program("dkms", "echo 'Error! Bad return status for module build on kernel: 6.12' >&2; exit 10")
        with pytest.raises(
            CommandFailed, match=r"status 10: Error! Bad return status for module build on kernel: 6.12"
        ):
            step_of(DkmsBuild("nvidia", "535.1", "6.12")).apply(root.target, {})

    def test_a_build_that_left_nothing_can_be_taken_back(self, root: StandInRoot) -> None:
        root.program("dkms", DKMS)
        action = step_of(DkmsBuild("nvidia", "535.1", "6.1"))
        action.revert(root.target, {})  # "dkms remove" fails, and that is no harm
        assert action.observe(root.target) == {}

    @pytest.mark.parametrize("debris", ["log/make.log", "module/nvidia-uvm.ko", "dkms.conf"])
    def test_what_a_build_that_was_cut_off_left_is_removed_before_the_next(
        self, root: StandInRoot, debris: str
    ) -> None:
        """As a power cut during apt leaves it: dkms calls it added, and refuses to build."""
        root.program("dkms", DKMS)
        tree = root.folder / "var/lib/dkms/nvidia/535.1"
        root.file(f"/var/lib/dkms/nvidia/535.1/6.1/x86_64/{debris}")
        root.file("/var/lib/dkms/nvidia/535.1/build/nv.c")
        action = step_of(DkmsBuild("nvidia", "535.1", "6.1"))
        before = action.observe(root.target)
        assert before == {}
        action.apply(root.target, before)
        assert (tree / "6.1/x86_64/module/nvidia.ko").exists()
        assert not (tree / f"6.1/x86_64/{debris}").exists()
        action.revert(root.target, before)
        assert action.left(root.target, before) == []
        assert self.tree(root) == set()

    def test_a_build_that_is_cut_off_leaves_nothing_when_it_is_undone(self, root: StandInRoot) -> None:
        root.program("dkms", DKMS)
        root.program("depmod")
        action = step_of(DkmsBuild("nvidia", "535.1", "6.1"))
        other = root.file("/lib/modules/6.1/updates/dkms/other.ko")
        before = action.observe(root.target)
        root.file("/var/lib/dkms/nvidia/535.1/6.1/x86_64/module/nvidia-uvm.ko")
        root.file("/lib/modules/6.1/updates/dkms/nvidia-uvm.ko.xz")
        root.file("/var/lib/dkms/nvidia/535.1/build/nv.c")
        action.revert(root.target, before)
        assert action.left(root.target, before) == []
        assert self.tree(root) == {str(other.relative_to(root.folder))}

    def test_a_removal_takes_modules_along_that_were_installed_in_part(self, root: StandInRoot) -> None:
        root.program("dkms", DKMS)
        root.program("depmod")
        root.file("/var/lib/dkms/nvidia/535.1/6.1/x86_64/module/nvidia.ko")
        root.file("/lib/modules/6.1/updates/dkms/nvidia.ko")
        other = root.file("/lib/modules/6.1/updates/dkms/other.ko")
        action = step_of(DkmsRemove("nvidia", "535.1"))
        before = action.observe(root.target)
        action.apply(root.target, before)
        assert self.tree(root) == {str(other.relative_to(root.folder))}
        assert action.left(root.target, before) == ["/var/lib/dkms/nvidia/535.1/6.1/x86_64/module/nvidia.ko"]
        action.revert(root.target, before)
        assert action.left(root.target, before) == []

    def test_a_removed_version_is_built_again_for_the_kernels_that_had_it(self, root: StandInRoot) -> None:
        root.program("dkms", DKMS)
        for kernel in ("6.1", "6.12"):
            root.file(f"/var/lib/dkms/nvidia/535.1/{kernel}/x86_64/module/nvidia.ko")
        root.file("/var/lib/dkms/nvidia/535.1/6.13/x86_64/log/make.log")  # never got as far as a module
        action = step_of(DkmsRemove("nvidia", "535.1"))
        assert action.summary() == "dkms remove nvidia/535.1 --all"
        assert action.prepare(root.target) is None
        before = action.observe(root.target)
        action.apply(root.target, before)
        assert action.observe(root.target) == {}
        root.forget()
        action.revert(root.target, before)
        assert root.runs == [
            ["dkms", "add", "nvidia/535.1"],
            ["dkms", "install", "nvidia/535.1", "-k", "6.1"],
            ["dkms", "install", "nvidia/535.1", "-k", "6.12"],
        ]
        assert {p for p in before if "/module/" in p} == set(action.observe(root.target))


class TestRunningMachine:
    """What only the running machine can do."""

    @pytest.mark.parametrize("action", [LoadModules(("nvidia",)), ReloadModules(("nvidia",))])
    def test_another_root_is_refused_before_anything_is_done(self, root: StandInRoot, action: Action) -> None:
        with pytest.raises(CommandFailed) as refusal:
            step_of(action).prepare(root.target)
        assert str(refusal.value) == f"this works only on the running machine: {action.summary()}"
        assert step_of(action).prepare(Target(LIVE, "abc")) is None
        assert root.all_runs == []

    def test_modules_are_loaded_together_and_those_that_were_not_loaded_go_last_first(self, root: StandInRoot) -> None:
        root.outside("modprobe")
        action = step_of(LoadModules(("nvidia", "nvidia-uvm", "nvidia-modeset")))
        assert action.summary() == "modprobe -a nvidia nvidia-uvm nvidia-modeset"
        live = Target(LIVE, "abc")
        action.apply(live, {})
        action.revert(live, {"nvidia": True, "nvidia-uvm": False, "nvidia-modeset": False})
        assert root.all_runs == [
            ["modprobe", "-a", "nvidia", "nvidia-uvm", "nvidia-modeset"],
            ["modprobe", "-r", "nvidia-modeset"],
            ["modprobe", "-r", "nvidia-uvm"],
        ]

    def test_a_module_that_is_used_by_now_stays_and_keeps_nothing_else_from_being_taken_back(
        self, root: StandInRoot
    ) -> None:
        root.outside("modprobe", "echo 'modprobe: FATAL: Module nvidia is in use.' >&2; exit 1")
        step_of(LoadModules(("nvidia", "nvidia-uvm"))).revert(
            Target(LIVE, "abc"), {"nvidia": False, "nvidia-uvm": False}
        )
        assert root.all_runs == [["modprobe", "-r", "nvidia-uvm"], ["modprobe", "-r", "nvidia"]]

    def test_modules_of_a_disk_that_does_not_run_are_left_alone(self, root: StandInRoot) -> None:
        root.program("modprobe")
        root.outside("modprobe")
        step_of(LoadModules(("nvidia",))).revert(root.target, {"nvidia": False})
        assert root.all_runs == []

    def test_a_module_with_a_hyphen_is_loaded_under_the_kernels_name_for_it(self, root: StandInRoot) -> None:
        root.file("/proc/modules", MODULES)
        action = step_of(LoadModules(("nvidia", "nvidia-uvm", "nvidia-drm")))
        before = action.observe(as_if_live(root))
        assert before == {"nvidia": True, "nvidia-uvm": True, "nvidia-drm": False}

    def test_a_kernel_that_takes_no_modules_has_none_loaded(self, root: StandInRoot) -> None:
        assert step_of(LoadModules(("nvidia",))).observe(as_if_live(root)) == {"nvidia": False}

    def test_of_a_disk_that_does_not_run_no_module_is_loaded(self, root: StandInRoot) -> None:
        root.file("/proc/modules", MODULES)  # that of the machine which looks at it, mounted for a chroot
        loaded_here = [
            line.split()[0] for line in Target(LIVE, "abc").state("/proc/modules").content.decode().splitlines()
        ]
        action = step_of(LoadModules(("nvidia", *loaded_here)))
        assert action.observe(root.target) == dict.fromkeys(action.action.modules, False)

    def test_a_module_that_does_not_load_is_told(self, root: StandInRoot) -> None:
        root.outside("modprobe", "echo 'modprobe: ERROR: could not insert nvidia: Key was rejected' >&2; exit 1")
        with pytest.raises(
            CommandFailed, match=r"status 1: modprobe: ERROR: could not insert nvidia: Key was rejected"
        ):
            step_of(LoadModules(("nvidia",))).apply(Target(LIVE, "abc"), {})

    def test_the_last_module_is_loaded_again_after_all_went(self, root: StandInRoot) -> None:
        root.outside("modprobe")
        action = step_of(ReloadModules(("nvidia-uvm", "nvidia")))
        assert action.summary() == "modprobe -r nvidia-uvm nvidia && modprobe nvidia"
        live = Target(LIVE, "abc")
        action.apply(live, {})
        assert root.all_runs == [["modprobe", "-r", "nvidia-uvm", "nvidia"], ["modprobe", "nvidia"]]
        root.forget()
        action.revert(live, {"version": "535.1"})
        assert root.all_runs == []

    def test_a_module_in_use_is_not_loaded_over(self, root: StandInRoot) -> None:
        root.outside("modprobe", "echo 'modprobe: FATAL: Module nvidia is in use.' >&2; exit 1")
        with pytest.raises(CommandFailed, match=r"Module nvidia is in use\."):
            step_of(ReloadModules(("nvidia",))).apply(Target(LIVE, "abc"), {})
        assert len(root.all_runs) == 1

    def test_the_version_of_the_loaded_module_is_what_changes(self, root: StandInRoot) -> None:
        action = step_of(ReloadModules(("nvidia-drm",)))
        assert action.observe(root.target) == {"version": ""}
        root.file("/sys/module/nvidia_drm/version", "535.1\n")
        assert action.observe(root.target) == {"version": "535.1"}


class TestInitramfs:
    """Boot images, which are too large to be held in a transaction."""

    @pytest.fixture(autouse=True)
    def images(self, root: StandInRoot) -> None:
        (root.folder / "var/lib/dlhealth").mkdir(parents=True)
        for kernel in ("6.1", "6.12"):
            root.file(f"/boot/initrd.img-{kernel}", f"old {kernel}")
        root.file("/boot/vmlinuz-6.1", "kernel")
        root.program("update-initramfs", 'for i in "$IN_ROOT"/boot/initrd.img-*; do echo new > "$i"; done')

    def contents(self, root: StandInRoot) -> dict[str, str]:
        return {p.name: p.read_text() for p in sorted((root.folder / "boot").iterdir())}

    def test_the_images_of_all_kernels_come_back(self, root: StandInRoot) -> None:
        was = self.contents(root)
        action = step_of(UpdateInitramfs("all"))
        assert action.summary() == "update-initramfs -u -k all"
        assert action.prepare(root.target) is None
        before = action.observe(root.target)
        assert set(before) == {"initrd.img-6.1", "initrd.img-6.12"}
        action.apply(root.target, before)
        assert root.runs == [["update-initramfs", "-u", "-k", "all"]]
        assert action.observe(root.target) != before
        action.revert(root.target, before)
        assert self.contents(root) == was
        assert action.observe(root.target) == before

    def test_only_the_image_of_the_kernel_is_looked_at(self, root: StandInRoot) -> None:
        assert set(step_of(UpdateInitramfs("6.1")).observe(root.target)) == {"initrd.img-6.1"}

    def test_a_half_written_image_comes_back_too(self, root: StandInRoot) -> None:
        root.program("update-initramfs", 'echo n > "$IN_ROOT/boot/initrd.img-6.1"; echo No space left >&2; exit 1')
        was = self.contents(root)
        action = step_of(UpdateInitramfs("6.1"))
        before = action.observe(root.target)
        with pytest.raises(CommandFailed, match=r"^update-initramfs -u -k 6.1: status 1: No space left$"):
            action.apply(root.target, before)
        action.revert(root.target, before)
        assert self.contents(root) == was

    def test_nothing_is_left_of_one_that_a_power_cut_broke_off(self, root: StandInRoot) -> None:
        root.program(
            "update-initramfs",
            'cd "$IN_ROOT/boot"; ln initrd.img-6.1 initrd.img-6.1.dpkg-bak; echo n > initrd.img-6.1.new; kill -9 $$',
        )
        root.file("/boot/initrd.img-6.12.new", "of an earlier one")
        was = self.contents(root)
        action = step_of(UpdateInitramfs("all"))
        before = action.observe(root.target)
        with pytest.raises(CommandFailed):
            action.apply(root.target, before)
        assert len(self.contents(root)) == len(was) + 2
        action.revert(root.target, before)
        assert self.contents(root) == was

    def test_an_image_that_an_earlier_step_made_anew_comes_back_as_that_left_it(self, root: StandInRoot) -> None:
        """As apt's triggers do. The earlier step's own undo makes it anew once more."""
        action = step_of(UpdateInitramfs("6.1"))
        before = action.observe(root.target)
        root.file("/boot/initrd.img-6.1", "of the trigger")
        action.apply(root.target, before)
        action.revert(root.target, before)
        assert self.contents(root)["initrd.img-6.1"] == "of the trigger"

    def test_the_copy_that_the_boot_loader_has_comes_back_too(self, root: StandInRoot) -> None:
        """As /etc/initramfs/post-update.d/systemd-boot makes one, of a kernel that is there."""
        root.file("/etc/initramfs/post-update.d/systemd-boot")
        root.file("/boot/initrd.img-6.1.old-dkms", "old")
        root.file("/efi/copy", "new")
        root.program("run-parts", 'cp "$IN_ROOT${2#--arg=}" "$IN_ROOT/efi/copy"')
        action = step_of(UpdateInitramfs("all"))
        before = action.observe(root.target)
        action.apply(root.target, before)
        root.forget()
        action.revert(root.target, before)
        words = ["--arg=6.1", "--arg=/boot/initrd.img-6.1", "/etc/initramfs/post-update.d"]
        assert root.runs == [["run-parts", *words]]
        assert (root.folder / "efi/copy").read_text() == "old 6.1"

    def test_without_its_copy_it_can_not_be_taken_back(self, root: StandInRoot) -> None:
        action = step_of(UpdateInitramfs("6.1"))
        before = action.observe(root.target)
        action.apply(root.target, before)
        shutil.rmtree(root.folder / KEPT[1:])
        with pytest.raises(NotChangeable, match="its copy is gone"):
            action.revert(root.target, before)

    @pytest.mark.parametrize("end", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
    def test_one_that_ended_before_its_copy_was_made_has_none_to_put_back(
        self, root: StandInRoot, mocker: MockerFixture, end: BaseException
    ) -> None:
        """The step before it had made the image anew, so that it is not what it was when the plan was made."""
        root.file("/var/lib/dkms/nvidia/1/source")
        root.program("dkms", 'echo "of dkms" > "$IN_ROOT/boot/initrd.img-6.1"')
        steps = [DkmsRemove("nvidia", "1"), UpdateInitramfs("6.1")]
        store = Store(str(root.folder))
        mocker.patch.object(Target, "keep", side_effect=end)
        with store.locked(), suppress(KeyboardInterrupt):
            apply(store, root.target, "abc", steps, {}, lambda: None, False, lambda text: None)
        with store.locked():
            recover(store, root.target)
        assert [r.outcome for r in store.ended()] == ["rolled-back"]


def test_the_loaders_cache_comes_back_byte_for_byte(root: StandInRoot) -> None:
    cache = root.file("/etc/ld.so.cache", "old")
    root.program("ldconfig", 'echo new > "$IN_ROOT/etc/ld.so.cache"')
    action = step_of(RefreshLoaderCache())
    assert action.summary() == "ldconfig"
    assert action.prepare(root.target) is None
    before = action.observe(root.target)
    action.apply(root.target, before)
    assert root.runs == [["ldconfig"]]
    assert cache.read_text() == "new\n"
    action.revert(root.target, before)
    assert cache.read_text() == "old"


def test_a_cache_that_was_not_there_goes_again(root: StandInRoot) -> None:
    root.program("ldconfig", 'echo new > "$IN_ROOT/etc/ld.so.cache"')
    action = step_of(RefreshLoaderCache())
    before = action.observe(root.target)
    action.apply(root.target, before)
    action.revert(root.target, before)
    assert not (root.folder / "etc/ld.so.cache").exists()


class TestAlternative:
    """The alternatives system: the choice, and whether it is a person's."""

    @pytest.fixture(autouse=True)
    def glx(self, root: StandInRoot) -> None:
        (root.folder / "etc/alternatives").mkdir(parents=True)
        (root.folder / "etc/alternatives/glx").symlink_to("/usr/lib/mesa-diverted")
        root.program(
            "update-alternatives",
            'status=manual; to=$3; [ "$1" = --set ] || { status=auto; to=/usr/lib/nvidia; }\n'
            'ln -sfn "$to" "$IN_ROOT/etc/alternatives/$2"; echo $status > "$IN_ROOT/var/lib/dpkg/alternatives/$2"',
        )

    @pytest.mark.parametrize(
        ("status", "undo"), [("manual", ["--set", "glx", "/usr/lib/mesa-diverted"]), ("auto", ["--auto", "glx"])]
    )
    def test_an_undo_gives_the_choice_back_to_whom_it_was(
        self, root: StandInRoot, status: str, undo: list[str]
    ) -> None:
        root.file("/var/lib/dpkg/alternatives/glx", f"{status}\n/usr/lib/glx\n")
        action = step_of(SetAlternative("glx", "/usr/lib/nvidia"))
        assert action.summary() == "update-alternatives --set glx /usr/lib/nvidia"
        assert action.prepare(root.target) is None
        before = action.observe(root.target)
        action.apply(root.target, before)
        assert action.left(root.target, before) != []
        action.revert(root.target, before)
        assert action.left(root.target, before) == []
        assert action.observe(root.target) == before
        assert root.runs == [
            ["update-alternatives", "--set", "glx", "/usr/lib/nvidia"],
            ["update-alternatives", *undo],
        ]
        assert action.observe(root.target)["status"] == status

    def test_an_empty_path_leaves_the_choice_to_the_priorities(self, root: StandInRoot) -> None:
        root.file("/var/lib/dpkg/alternatives/glx", "manual\n")
        action = step_of(SetAlternative("glx", ""))
        assert action.summary() == "update-alternatives --auto glx"
        before = action.observe(root.target)
        action.apply(root.target, before)
        assert action.observe(root.target)["status"] == "auto"
        assert os.readlink(root.folder / "etc/alternatives/glx") == "/usr/lib/nvidia"
        action.revert(root.target, before)
        assert action.observe(root.target) == before

    @pytest.mark.parametrize("status", ["manual", "auto"])
    def test_a_record_of_the_first_version_is_undone(self, root: StandInRoot, status: str) -> None:
        """It has only the alternative's own link, of the steps before and after."""
        root.file("/var/lib/dpkg/alternatives/glx", f"{status}\n/usr/lib/glx\nlibGL.so\n/usr/lib/libGL.so\n\n")
        action = SetAlternative("glx", "/usr/lib/nvidia")
        was = os.readlink(root.folder / "etc/alternatives/glx")
        store = Store(str(root.folder))
        with store.locked():
            ended = apply(store, root.target, "abc", [action], {}, lambda: None, False, lambda text: None)
            journal = root.folder / "var/lib/dlhealth/txn/history" / ended.record.folder.path.rpartition("/")[2]
            (journal / "pre/0.json").write_text(json.dumps({"status": status, "value": was}))
            lines = (journal / "journal").read_bytes().splitlines(keepends=True)
            (journal / "journal").write_bytes(b"".join(map(_of_the_first_version, lines)))
            (record,) = store.ended()
            assert undo(store, root.target, record).outcome == "undone"
        assert os.readlink(root.folder / "etc/alternatives/glx") == was
        assert step_of(action).observe(root.target)["status"] == status

    @pytest.mark.parametrize("status", ["manual", "auto"])
    @pytest.mark.parametrize("chosen", ["/usr/lib/nvidia", ""])
    def test_links_that_somebody_made_come_back(self, root: StandInRoot, status: str, chosen: str) -> None:
        """A choice that update-alternatives does not have, or has no more; and a link that goes along with it."""
        record = (
            f"{status}\n/usr/lib/glx\nlibGL.so\n/usr/lib/libGL.so\n\n/usr/lib/nvidia\n100\n/usr/lib/nvidia/libGL.so\n\n"
        )
        root.file("/var/lib/dpkg/alternatives/glx", record)
        links = root.folder / "etc/alternatives"
        (links / "glx").unlink()
        (links / "glx").symlink_to("/opt/my-own-glx")
        (links / "libGL.so").symlink_to("/opt/my-own-glx/libGL.so")
        root.program(
            "update-alternatives",
            'status=manual; to=$3; [ "$1" = --set ] || { status=auto; to=/usr/lib/nvidia; }\n'
            '[ "$to" = /usr/lib/nvidia ] || exit 2\n'
            'ln -sfn "$to" "$IN_ROOT/etc/alternatives/glx"; ln -sfn "$to/libGL.so" "$IN_ROOT/etc/alternatives/libGL.so"\n'
            'sed -i "1s/.*/$status/" "$IN_ROOT/var/lib/dpkg/alternatives/glx"',
        )
        action = step_of(SetAlternative("glx", chosen))
        before = action.observe(root.target)
        action.apply(root.target, before)
        assert os.readlink(links / "libGL.so") == "/usr/lib/nvidia/libGL.so"
        action.revert(root.target, before)
        assert action.left(root.target, before) == []
        assert [os.readlink(links / name) for name in ("glx", "libGL.so")] == [
            "/opt/my-own-glx",
            "/opt/my-own-glx/libGL.so",
        ]
        assert (root.folder / "var/lib/dpkg/alternatives/glx").read_text() == record


def _of_the_first_version(line: bytes) -> bytes:
    event = json.loads(line[9:])
    if event["kind"] == "DONE":
        links = event["after"].pop("links")
        event["after"]["value"] = State.from_json(links["glx"]).content.decode()
    text = json.dumps(event, sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def test_what_a_person_does_is_only_said() -> None:
    assert ByHand("Turn Secure Boot off").summary() == "Turn Secure Boot off"
    assert Reboot().summary() == "systemctl reboot"
