"""What programs do is cut off half way, in a repair or in its taking back: neither as it was before nor as it was
afterwards, it is no change of somebody else's, and is taken back by the next start."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count as count_from
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from dlhealth.actions import AptInstall, DkmsRemove, LoadModules, UpdateInitramfs
from dlhealth.model import Action
from dlhealth.steps import step_of
from dlhealth.steps.base import Target
from dlhealth.txn.execute import Ended, NotVerified, _left, apply, recover, undo
from dlhealth.txn.store import Busy, Store
from tests.crash.table import Count
from tests.stand_in_root import StandInRoot

pytestmark = pytest.mark.real_programs  # the stand-ins

PACKAGES = {"libc6": "2.36-9 ii ", "nvidia-driver": "535.1-1 ii ", "libcuda1": "535.1-1 ii "}


class PowerCut(BaseException):
    """Nothing in dlhealth expects it."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInRoot:
    made = StandInRoot(tmp_path, monkeypatch)
    made.program("sync")
    made.program("update-initramfs", 'for i in "$IN_ROOT"/boot/initrd.img-*; do echo new > "$i"; done')
    for kernel in ("6.1", "6.12"):
        made.file(f"/boot/initrd.img-{kernel}", f"old {kernel}")
    return made


def images(root: StandInRoot) -> list[str]:
    return [p.read_text() for p in sorted((root.folder / "boot").iterdir())]


def repair(root: StandInRoot, *actions: Action, problem: str = "") -> Ended:
    def verify() -> None:
        if problem:
            raise NotVerified(problem, ())

    store = Store(str(root.folder))
    with store.locked():
        return apply(store, root.target, "abc", actions, {}, verify, False, lambda text: None)


def undone(root: StandInRoot) -> Ended:
    store = Store(str(root.folder))
    with store.locked():
        return undo(store, root.target, store.ended()[-1])


def next_start(root: StandInRoot) -> Ended | None:
    store = Store(str(root.folder))
    with store.locked():
        return recover(store, root.target)


def undo_current(root: StandInRoot) -> Ended | None:
    store = Store(str(root.folder))
    with store.locked():
        current = store.current()
        return undo(store, root.target, current) if current else None


def wait_for(path: Path) -> None:
    limit = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < limit
        time.sleep(0.02)


def next_start_soon(root: StandInRoot) -> Ended | None:
    """Once the program has ended, whose last deed was seen."""
    limit = time.monotonic() + 20
    while True:
        try:
            return next_start(root)
        except Busy:
            assert time.monotonic() < limit
            time.sleep(0.05)


@contextmanager
def power_cut(mocker: MockerFixture, method: str, when: Callable[[int, Sequence[str]], bool]) -> Iterator[None]:
    """Where a method of the machine that is changed is called for the nth time, or with certain words."""
    real, calls = getattr(Target, method), count_from(1)

    def cut(self: Target, *words: str, **options: object) -> object:
        if when(next(calls), words):
            raise PowerCut
        return real(self, *words, **options)

    patched = mocker.patch.object(Target, method, autospec=True, side_effect=cut)
    with pytest.raises(PowerCut):
        yield
    mocker.stop(patched)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("ending", ["rolled-back", "undone"])
def test_images_of_which_some_were_put_back(
    root: StandInRoot, mocker: MockerFixture, count: Count, ending: str, nth: int
) -> None:
    was = images(root)
    cut = power_cut(mocker, "put_back", lambda n, words: n == nth)
    if ending == "rolled-back":
        with cut:
            repair(root, UpdateInitramfs("all"), problem="it did not help")
    else:
        repair(root, UpdateInitramfs("all"))
        with cut:
            undone(root)
    assert images(root) != was
    ended = next_start(root)
    assert (ended and ended.outcome) == ending
    assert images(root) == was
    count("killed while what programs did is taken back", "as before")


def test_packages_in_the_middle_of_an_undo(root: StandInRoot, mocker: MockerFixture, count: Count) -> None:
    root.packages(PACKAGES)
    root.file("/var/cache/apt/archives/nvidia-driver_535.1-1_amd64.deb")
    assert repair(root, AptInstall(("nvidia-driver=550.2-1", "nvtop"))).outcome == "applied"
    changed = root.database["packages"]
    with power_cut(mocker, "command", lambda n, words: "--reinstall" in words and "-s" not in words):
        undone(root)
    root.change(packages={**changed, "nvidia-driver": "535.1-1 iU "})
    ended = next_start(root)
    assert (ended and ended.outcome) == "undone"
    assert root.database["packages"] == PACKAGES
    count("killed while what programs did is taken back", "as before")


def test_a_program_that_outlives_a_killed_dlhealth_is_waited_for(root: StandInRoot, count: Count) -> None:
    """As dkms does that seemed to hang: what it writes after all was put back would stay."""
    root.program(
        "update-initramfs",
        'touch "$IN_ROOT/begun"; while [ -e "$IN_ROOT/begun" ] && [ ! -e "$IN_ROOT/go" ]; do sleep 0.05; done\n'
        'echo new > "$IN_ROOT/boot/initrd.img-6.1"; touch "$IN_ROOT/ended"',
    )
    was = images(root)
    child = os.fork()
    if child == 0:
        try:
            repair(root, UpdateInitramfs("6.1"))
        finally:
            os._exit(0)
    wait_for(root.folder / "begun")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for work in (next_start, undo_current):
        with pytest.raises(Busy, match=r"^\S+ \(process \d+\), started by repair 1-abc, is still running"):
            work(root)
    (root.folder / "go").touch()
    wait_for(root.folder / "ended")
    ended = next_start_soon(root)
    assert (ended and ended.outcome, images(root)) == ("rolled-back", was)
    count("killed while a program was at work, which went on", "as before")


def test_an_image_that_an_earlier_step_took_away_is_none_to_keep(root: StandInRoot) -> None:
    """As the removal of an old kernel does, before the images of the others are made anew."""
    root.file("/var/lib/dkms/nvidia/1/source")
    root.program(
        "dkms",
        'image="$IN_ROOT/boot/initrd.img-6.1"\n'
        'case "$1" in remove) rm -r "$image" "$IN_ROOT/var/lib/dkms/nvidia/1" ;; add) echo "made anew" > "$image" ;; esac',
    )
    assert repair(root, DkmsRemove("nvidia", "1"), UpdateInitramfs("all")).outcome == "applied"
    assert images(root) == ["new\n"]
    assert undone(root).outcome == "undone"
    assert images(root) == ["made anew\n", "old 6.12"]


def test_a_removal_that_failed_half_way(root: StandInRoot) -> None:
    """Of two kernels' modules one was gone."""
    tree = "/var/lib/dkms/nvidia/1"
    for kernel in ("6.1", "6.12"):
        root.file(f"{tree}/{kernel}/x86_64/module/nvidia.ko", "built")
    root.program(
        "dkms",
        f'case "$1" in remove) rm -r "$IN_ROOT{tree}/6.1"; exit 6 ;;\n'
        f'install) mkdir -p "$IN_ROOT{tree}/$4/x86_64/module"\n'
        f'echo built > "$IN_ROOT{tree}/$4/x86_64/module/nvidia.ko" ;; esac',
    )
    assert repair(root, DkmsRemove("nvidia", "1")).outcome == "rolled-back"
    assert ["dkms", "install", "nvidia/1", "-k", "6.1"] in root.runs


def test_what_an_undo_could_not_restore_is_named(root: StandInRoot) -> None:
    """A package that is installed again: its files stay whole, of which one had been missing."""
    root.packages(PACKAGES)
    root.file("/var/lib/dpkg/info/libcuda1.list", "/.\n/usr\n/usr/lib\n/usr/lib/libcuda.so.1\n/usr/lib/libcuda.so\n")
    root.file("/usr/lib/libcuda.so", "as it was")
    action = step_of(AptInstall(("libcuda1",), reinstall=True))
    before = action.observe(root.target)
    assert action.left(root.target, before) == []
    root.file("/usr/lib/libcuda.so.1", "as in the package")
    assert action.left(root.target, before) == ["/usr/lib/libcuda.so.1 stays as in the package"]
    root.change(packages={**PACKAGES, "nvtop": "1 ii ", "libc6": "2.37-1 ii ", "nvidia-driver": "535.1-1 rc "})
    assert action.left(root.target, before)[:3] == [
        "libc6 is 2.37-1, but was 2.36-9",
        "nvidia-driver is not installed, but was 535.1-1",
        "nvtop is installed",
    ]


def test_what_an_undo_could_not_restore_is_counted(root: StandInRoot) -> None:
    """Not all of many files are named, but "everything else is as it was" must be true."""
    root.packages(PACKAGES)
    names = [f"/usr/lib/libcuda.so.{number}" for number in range(8)]
    root.file("/var/lib/dpkg/info/libcuda1.list", "\n".join(["/.", "/usr", "/usr/lib", *names, ""]))
    action = step_of(AptInstall(("libcuda1",), reinstall=True))
    before = action.observe(root.target)
    for name in names:
        root.file(name, "as in the package")
    said = list(_left(root.target, {0: (action, before)}))
    assert [line for line in said if "stays as in the package" in line] == said[:5]
    assert said[5:] == ["not undone: apt-get install --reinstall libcuda1: and 3 more"]


def test_a_driver_that_stays_loaded_is_named(root: StandInRoot) -> None:
    """Something uses it by now."""
    (root.folder / "proc/modules").write_text("")
    root.outside("modprobe", f'[ "$1" != -a ] || echo "nvidia 1 0" > "{root.folder}/proc/modules"; [ "$1" = -a ]')
    target = root.target
    target.live = True

    def verify() -> None:
        raise NotVerified("it did not help", ())

    store = Store(str(root.folder))
    with store.locked():
        ended = apply(store, target, "abc", [LoadModules(("nvidia",))], {}, verify, False, lambda text: None)
    assert ended.outcome == "conflict"
    assert ended.said == (
        "it did not help",
        "not undone: modprobe -a nvidia: nvidia stays loaded until the next reboot",
    )
