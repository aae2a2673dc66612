"""Before the first change: every disk that the plan will fill has space."""

import os
import shutil
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from dlhealth.actions import (
    AptInstall,
    AptPurgeReinstall,
    AptRemove,
    DkmsBuild,
    DpkgConfigure,
    EditFile,
    SetAlternative,
    UpdateInitramfs,
)
from dlhealth.model import Action
from dlhealth.steps import step_of
from dlhealth.steps.base import CommandFailed, DiskFull
from dlhealth.txn.execute import apply, recover
from dlhealth.txn.store import Store
from tests.stand_in_root import DRIVER, StandInRoot

pytestmark = pytest.mark.real_programs  # the stand-ins

Free = Callable[..., None]


@pytest.fixture
def free(root: StandInRoot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Free]:
    """Say how many MiB, and inodes, are free in directories; each that is named is a disk of its own."""

    real = os.fstat

    def say(inodes: int = 1 << 20, table: int = 1 << 20, **folders: int) -> None:
        by_path = {str(root.folder / name.replace("_", "/")): mib for name, mib in folders.items()}

        def statvfs(fd: int) -> object:
            path = os.readlink(f"/proc/self/fd/{fd}")
            free_inodes = inodes if path in by_path else 1 << 20
            blocks = by_path.get(path, 1 << 20) * 256
            return SimpleNamespace(f_frsize=4096, f_bfree=blocks, f_bavail=0, f_files=table, f_ffree=free_inodes)

        def fstat(fd: int) -> object:
            path = os.readlink(f"/proc/self/fd/{fd}")
            return SimpleNamespace(st_dev=path) if path in by_path else real(fd)

        patch.setattr(os, "fstatvfs", statvfs)
        patch.setattr(os, "fstat", fstat)

    with monkeypatch.context() as patch:  # undone before pytest removes the directory
        yield say


def image(root: StandInRoot, kernel: str, mib: int) -> None:
    """A sparse one."""
    with root.file(f"/boot/initrd.img-{kernel}").open("r+b") as file:
        file.truncate(mib << 20)


class TestBoot:
    """A new initramfs is written beside the old one."""

    def test_without_room_for_a_second_one_none_is_rebuilt(self, root: StandInRoot, free: Free) -> None:
        image(root, "6.1", 40)
        image(root, "6.12", 80)
        free(boot=100)
        step_of(UpdateInitramfs("6.1")).prepare(root.target)
        with pytest.raises(CommandFailed) as refusal:
            step_of(UpdateInitramfs("all")).prepare(root.target)
        assert str(refusal.value) == (
            "/boot has 100 MiB free, but a new initramfs in /boot may take 116 MiB: free some space there first "
            "(apt-get autoremove --purge removes old kernels)"
        )
        assert root.all_runs == []

    def test_one_after_the_other_takes_the_room_of_the_largest(self, root: StandInRoot, free: Free) -> None:
        image(root, "6.1", 40)
        image(root, "6.12", 40)
        free(boot=70)
        target = root.target
        for action in (UpdateInitramfs("6.1"), UpdateInitramfs("6.12"), UpdateInitramfs("6.12")):
            step_of(action).prepare(target)

    def test_the_copies_for_an_undo_need_room_too(self, root: StandInRoot, free: Free) -> None:
        image(root, "6.1", 40)
        (root.folder / "var/lib/dlhealth/kept").mkdir()
        free(var_lib_dlhealth_kept=50)
        with pytest.raises(CommandFailed, match=r"^/var/lib/dlhealth/kept has 50 MiB free, .* may take 56 MiB"):
            step_of(UpdateInitramfs("all")).prepare(root.target)

    @pytest.mark.parametrize(
        "action", [AptInstall(("libcuda1",)), AptRemove(("nvidia-kernel-dkms",)), AptPurgeReinstall(("libcuda1",))]
    )
    def test_packages_of_the_driver_rebuild_it_too(self, root: StandInRoot, free: Free, action: Action) -> None:
        image(root, "6.1", 40)
        free(boot=40)
        with pytest.raises(CommandFailed, match=r"^/boot has 40 MiB free"):
            step_of(action).prepare(root.target)
        assert root.database["packages"] == DRIVER

    def test_other_packages_do_not(self, root: StandInRoot, free: Free) -> None:
        image(root, "6.1", 40)
        free(boot=0)
        step_of(AptInstall(("nvtop",))).prepare(root.target)


class TestBuild:
    """What DKMS fills."""

    @pytest.mark.parametrize("folder", ["var_lib_dkms", "lib_modules"])
    @pytest.mark.parametrize(
        "action",
        [
            DkmsBuild("nvidia", "535.1", "6.1"),
            AptInstall(("nvidia-kernel-dkms",)),
            AptInstall(("linux-headers-amd64",)),
            AptPurgeReinstall(("nvidia-kernel-dkms",)),
        ],
        ids=lambda a: a.summary() if isinstance(a, tuple) else a,
    )
    def test_without_room_none_is_begun(self, root: StandInRoot, free: Free, action: Action, folder: str) -> None:
        free(**{folder: 100})
        with pytest.raises(CommandFailed, match=rf"^/{folder.replace('_', '/')} has 100 MiB free, but a DKMS build in"):
            step_of(action).prepare(root.target)
        assert not [run for run in root.runs if run[0] == "dkms" or "--download-only" in run]

    def test_an_interrupted_dpkg_builds_what_it_configures(self, root: StandInRoot, free: Free) -> None:
        free(var_lib_dkms=100)
        step_of(DpkgConfigure()).prepare(root.target)
        root.change(packages={**DRIVER, "nvidia-kernel-dkms": "535.1-1 iU "})
        with pytest.raises(CommandFailed, match=r"a DKMS build"):
            step_of(DpkgConfigure()).prepare(root.target)

    def test_a_folder_that_is_not_there_yet_will_be_on_the_disk_of_the_one_above(
        self, root: StandInRoot, free: Free
    ) -> None:
        (root.folder / "var/lib/dkms").rmdir()
        free(var_lib=100)
        with pytest.raises(CommandFailed, match=r"^/var/lib/dkms has 100 MiB free"):
            step_of(DkmsBuild("nvidia", "535.1", "6.1")).prepare(root.target)


class TestUnpack:
    """What is in the packages."""

    def shown(self, root: StandInRoot, *sizes: tuple[str, str, int]) -> None:
        text = "\\n".join(f"Package: {n}\\nVersion: {v}\\nInstalled-Size: {mib << 10}\\n" for n, v, mib in sizes)
        root.program("apt-cache", f"printf '{text}'")

    def test_what_comes_needs_room(self, root: StandInRoot, free: Free) -> None:
        self.shown(root, ("cuda", "9-1", 300), ("nvtop", "9-1", 100))
        action = step_of(AptInstall(("cuda", "nvtop")))
        free(usr=716)
        action.prepare(root.target)
        free(usr=715)
        root.forget()
        with pytest.raises(
            CommandFailed, match=r"^/usr has 715 MiB free, but unpacking cuda nvtop in /usr may take 716 MiB"
        ):
            action.prepare(root.target)
        assert [run[0] for run in root.runs] == ["apt-get", "apt-cache"]  # nothing was fetched

    def test_what_goes_makes_room_but_not_before_the_new_one_is_there(self, root: StandInRoot, free: Free) -> None:
        self.shown(root, ("libcuda1", "9-1", 110), ("libcuda1", "535.1-1", 100))
        free(usr=136)
        step_of(AptInstall(("libcuda1",))).prepare(root.target)
        free(usr=135)
        with pytest.raises(CommandFailed, match=r"unpacking libcuda1"):
            step_of(AptInstall(("libcuda1",))).prepare(root.target)

    def test_what_apt_does_not_tell_is_not_guessed(self, root: StandInRoot, free: Free) -> None:
        free(usr=20)
        step_of(AptInstall(("nvtop",))).prepare(root.target)


def test_what_the_steps_of_a_plan_need_of_one_disk_is_added_up(root: StandInRoot, free: Free) -> None:
    image(root, "6.1", 40)
    for folder in ("lib/modules", "var/lib/dkms"):
        (root.folder / folder).rmdir()
    shutil.rmtree(root.folder / "var/lib/dlhealth")
    free(lib=1000, var_lib=720 + 16)
    target = root.target
    step_of(DkmsBuild("nvidia", "535.1", "6.1")).prepare(target)
    step_of(DkmsBuild("nvidia", "535.1", "6.1")).prepare(target)
    with pytest.raises(CommandFailed) as refusal:
        step_of(UpdateInitramfs("all")).prepare(target)
    assert "a DKMS build in /var/lib/dkms and copies for an undo of" in str(refusal.value)


class TestInodes:
    """A disk can be full of small files."""

    def test_a_build_needs_some(self, root: StandInRoot, free: Free) -> None:
        free(var_lib_dkms=2000, inodes=3200)
        step_of(DkmsBuild("nvidia", "535.1", "6.1")).prepare(root.target)
        free(var_lib_dkms=2000, inodes=3199)
        with pytest.raises(CommandFailed) as refusal:
            step_of(DkmsBuild("nvidia", "535.1", "6.1")).prepare(root.target)
        assert str(refusal.value) == (
            "/var/lib/dkms has inodes for 3199 more files, but a DKMS build in /var/lib/dkms may take 3200: free some "
            "there first (df -i; many small files fill it)"
        )

    def test_the_headers_of_a_kernel_need_many(self, root: StandInRoot, free: Free) -> None:
        free(usr=5000, inodes=700)
        step_of(AptInstall(("nvtop",))).prepare(root.target)
        with pytest.raises(CommandFailed, match=r"^/usr has inodes for 700 more files, but unpacking .* take 10200:"):
            step_of(AptInstall(("linux-headers-6.1",))).prepare(root.target)

    def test_a_file_system_without_a_table_of_them_has_enough(self, root: StandInRoot, free: Free) -> None:
        free(var_lib_dkms=2000, inodes=0, table=0)
        step_of(DkmsBuild("nvidia", "535.1", "6.1")).prepare(root.target)


def test_a_program_that_a_full_disk_ends_is_undone_with_what_came_before(root: StandInRoot) -> None:
    kept = root.file("/etc/one", "bad\n")
    root.program("update-alternatives", "echo 'update-alternatives: error: No space left on device' >&2; exit 2")
    root.file("/var/lib/dpkg/alternatives/glx", "auto\n/usr/lib/glx\n")
    store = Store(str(root.folder))
    actions = (EditFile("/etc/one", ((1, "bad", "good"),)), SetAlternative("glx", "/usr/lib/nvidia"))
    with store.locked():
        ended = apply(store, root.target, "abc", actions, {}, lambda: None, False, lambda text: None)
        assert recover(store, root.target) is None
    assert (ended.outcome, isinstance(ended.problem, DiskFull)) == ("rolled-back", True)
    assert kept.read_text() == "bad\n"
