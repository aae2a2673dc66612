"""Before the first change: nobody else is at work on the packages."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dlhealth.actions import (
    AptInstall,
    AptPurgeReinstall,
    AptRemove,
    AptUnhold,
    DkmsBuild,
    DkmsRemove,
    DpkgConfigure,
    RefreshModuleIndex,
    UpdateInitramfs,
)
from dlhealth.model import Action
from dlhealth.steps import packages, step_of
from dlhealth.steps.base import CommandFailed
from tests.stand_in_root import DRIVER, StandInRoot

pytestmark = pytest.mark.real_programs  # the stand-ins

OF_PACKAGES: list[Action] = [
    AptInstall(("libcuda1",)),
    AptRemove(("libcuda1",)),
    AptRemove(("libcuda1",), purge=True),
    AptPurgeReinstall(("libcuda1",)),
    AptUnhold(("libcuda1",)),
    DpkgConfigure(),
    # What packages do as well when they are configured.
    DkmsBuild("nvidia", "535.1", "6.1.0-1"),
    DkmsRemove("nvidia", "535.1"),
    RefreshModuleIndex("6.1.0-1"),
    UpdateInitramfs("all"),
]
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class TestLock:
    """dpkg's lock, and apt's."""

    @pytest.mark.parametrize("name", ["lock", "lock-frontend"])
    @pytest.mark.parametrize("action", OF_PACKAGES, ids=lambda a: a.summary())
    def test_nothing_is_begun_while_another_program_changes_packages(
        self, root: StandInRoot, name: str, action: Action
    ) -> None:
        lock = root.file(f"/var/lib/dpkg/{name}")
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout
            assert other.stdout.readline() == b"held\n"
            comm = Path(f"/proc/{other.pid}/comm").read_text().strip()
            with pytest.raises(CommandFailed) as refusal:
                step_of(action).prepare(root.target)
            assert str(refusal.value) == (
                f"{comm} (process {other.pid}) is changing packages (it holds /var/lib/dpkg/{name}): wait until it "
                f"ends, then try again"
            )
            assert root.runs == []
            assert other.stdin
            other.stdin.close()
            other.wait()
        step_of(action).prepare(root.target)

    def test_an_undo_waits_for_what_a_killed_repair_had_started(self, root: StandInRoot) -> None:
        """What it reads before that ends is not how it ends."""
        root.packages(DRIVER)
        action = step_of(AptInstall(("nvtop",)))
        before = action.observe(root.target)
        lock = root.file("/var/lib/dpkg/lock")
        script = HOLD.replace(
            "sys.stdin.read()", "import time; time.sleep(1); open(sys.argv[2], 'w').write(sys.argv[3])"
        )
        after = json.dumps({**root.database, "packages": {**DRIVER, "nvtop": "9-1 ii "}})
        command = [sys.executable, "-c", script, lock, root.folder / "packages.json", after]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
            assert other.stdout
            assert other.stdout.readline() == b"held\n"
            action.revert(root.target, before)
        assert root.database["packages"] == DRIVER

    def test_what_waits_too_long_for_others_is_told_and_tried_again(
        self, root: StandInRoot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not as a conflict, after which nobody would try."""
        monkeypatch.setattr(packages, "_WAIT_BACK", 0.3)
        root.packages(DRIVER)
        action = step_of(AptInstall(("nvtop",)))
        before = action.observe(root.target)
        lock = root.file("/var/lib/dpkg/lock")
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(TimeoutError, match=r"is still changing packages after 0\.3 seconds$"):
                action.revert(root.target, before)

    def test_a_lock_that_is_only_there_is_free_and_is_not_taken(self, root: StandInRoot) -> None:
        lock = root.file("/var/lib/dpkg/lock")
        step_of(AptUnhold(("libcuda1",))).prepare(root.target)
        script = f"import fcntl; fcntl.lockf(open({str(lock)!r}, 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

    def test_a_holder_that_can_not_be_seen_holds_it_too(
        self, root: StandInRoot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of another container: the kernel gives no number."""
        root.file("/var/lib/dpkg/lock")
        real = fcntl.fcntl

        def answer(fd: int, command: int, argument: bytes) -> bytes:
            from struct import pack

            return pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0) if command == fcntl.F_GETLK else real(fd, command, argument)

        monkeypatch.setattr(fcntl, "fcntl", answer)
        with pytest.raises(CommandFailed, match=r"^another program is changing packages"):
            step_of(AptUnhold(("libcuda1",))).prepare(root.target)
