"""What has to be there before the first change: nobody else at work on the packages, and room on the disks. A repair
that stops half way may leave the machine without a driver, which is worse than most of what is repaired."""

import fcntl
import os
from collections.abc import Collection, Iterable
from struct import pack, unpack
from time import monotonic, sleep

from dlhealth.actions import changed_path, needs_programs
from dlhealth.host.change import NotChangeable, get_state
from dlhealth.host.path import Root
from dlhealth.model import Action
from dlhealth.steps.base import MARK, CommandFailed, Target

# What stands above dpkg, as apt does, holds the first for all it does; dpkg holds the second while it works.
_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")

_SPARE = 16 << 20
"""What a disk must have left beside: for dpkg's own files, logs, and what blocks round up."""

# Building driver 535.261 filled at most 480 MiB of /var/lib/dkms (sources, objects, modules with what debugs them) and
# then 73 MiB of /lib/modules, looked at all through a "dkms install" on Debian 12. Half as much again, as drivers
# grow.
_BUILD = {"/var/lib/dkms": 720 << 20, "/lib/modules": 110 << 20}

# Inodes. The driver's sources are 455 files, each of which may get an object and what make notes of it; the largest of
# its packages has 474, linux-headers-6.1.0-50-common 9954, linux-image-6.1.0-50-amd64 4939.
_SPARE_FILES = 200
_BUILD_FILES = 3000
_PACKAGE_FILES = 500
_KERNEL_FILES = 10_000

_IMAGE = "initrd.img-"


def need_dpkg(target: Target) -> None:
    """Raises CommandFailed while another program changes packages: apt would wait for it in silence, dpkg fail half way
    through the plan. What packages set off, as a build by DKMS or a new initramfs, would be done twice at once."""
    for path in _LOCKS:
        holder = _holder(target, path)
        if holder:
            raise CommandFailed(
                f"{holder} is changing packages (it holds {path}): wait until it has ended, then try again"
            )


def out_of_reach(target: Target, actions: Iterable[Action]) -> dict[Action, str]:
    """Why some actions can't be done, or taken back, to a machine that is not the running one: its file systems are not
    all mounted, so that another folder would be changed; or its programs don't run here."""
    if target.live:
        return {}
    found: dict[Action, str] = {}
    needing = []
    for action in actions:
        needs = needs_programs(action)
        if mount := target.mounts.needed if needs else target.mounts.over(changed_path(action)):
            found[action] = mount.told(target.folder)
        elif needs:
            needing.append(action)
    if needing and (problem := _not_running(target)):
        found.update(dict.fromkeys(needing, problem))
    return found


def _not_running(target: Target) -> str:
    """Why the programs of another root can't run here, "" where they can."""
    try:
        target.command("sh", "-c", "true", timeout=30)
    except CommandFailed as error:
        return (
            f"the programs of {target.folder} can't run here (another architecture, mounted with noexec, or a damaged "
            f"system), and the repair needs them ({error})"
        )
    return ""


def wait_for_dpkg(target: Target, seconds: float) -> None:
    """Until no other program changes packages. Raises TimeoutError."""
    deadline = monotonic() + seconds
    while holders := [f"{holder} ({path})" for path in _LOCKS if (holder := _holder(target, path))]:
        if monotonic() >= deadline:
            raise TimeoutError(f"{holders[0]} is still changing packages after {seconds:g} seconds")
        sleep(0.2)


def need_room(target: Target, path: str, size: int, what: str, files: int = 0) -> None:
    """Count on free bytes, and on inodes for so many files, where `path` is, beside what the other steps of the plan
    count on there. Raises CommandFailed where they are not free. The same `what` again is the same room."""
    fd = _open_folder(target, path)
    try:
        disk, status = os.fstat(fd).st_dev, os.fstatvfs(fd)
    finally:
        os.close(fd)
    wanted = target.wanted.setdefault(disk, {})
    name = f"{what} in {path}"
    before = wanted.get(name, (0, 0))
    wanted[name] = max(size, before[0]), max(files, before[1])
    free = status.f_bfree * status.f_frsize  # also what is reserved for root, who does all this
    needed = sum(w[0] for w in wanted.values()) + _SPARE
    needed_files = sum(w[1] for w in wanted.values()) + _SPARE_FILES
    if status.f_files and status.f_ffree < needed_files:  # btrfs, vfat and others have no table of inodes
        raise CommandFailed(
            f"{path} has inodes for {status.f_ffree} more files, and {' and '.join(sorted(wanted))} may take "
            f"{needed_files}: make room there first (df -i; many small files fill it)"
        )
    if free < needed:
        hint = "apt-get autoremove --purge takes old kernels away" if path == "/boot" else "apt-get clean may help"
        raise CommandFailed(
            f"{path} has {free >> 20} MiB free, and {' and '.join(sorted(wanted))} may take {-(-needed >> 20)} MiB: "
            f"make room there first ({hint})"
        )


def need_room_to_build(target: Target) -> None:
    """For a DKMS build of the driver."""
    for path, size in _BUILD.items():
        need_room(target, path, size, "a DKMS build", _BUILD_FILES)


def need_room_to_unpack(target: Target, names: Collection[str], size: int) -> None:
    """For the files of packages. How many these are, apt does not know."""
    kernels = ("linux-headers-", "linux-image-", "linux-modules-")
    files = sum(_KERNEL_FILES if name.startswith(kernels) else _PACKAGE_FILES for name in names)
    need_room(target, "/usr", size, f"unpacking {' '.join(sorted(names))}", files)


def images(target: Target, kernel: str) -> dict[str, int]:
    """Bytes of the initramfs of one kernel, or of each with "all", by name."""
    names = [n for n in target.names("/boot") if n.startswith(_IMAGE) and kernel in ("all", n.removeprefix(_IMAGE))]
    return {name: target.root.stat(f"/boot/{name}", follow=True).st_size for name in names}


def need_room_for_images(target: Target, kernel: str) -> None:
    """For the new initramfs of one kernel, or of each with "all", one after the other: it is written whole beside the
    old one (mkinitramfs -o …new). A quarter more, as it may get modules that the old one had not."""
    largest = max(images(target, kernel).values(), default=0)
    if largest:
        need_room(target, "/boot", largest + largest // 4, "a new initramfs")


def _open_folder(target: Target, path: str) -> int:
    """The folder, or the nearest one above it that is there: it will be made on that disk."""
    while path != "/":
        try:
            return target.root.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            path = os.path.dirname(path)
    return target.root.open(path, os.O_RDONLY | os.O_DIRECTORY)


def program_of(target: Target) -> str:
    """A program that the transaction had started and that is still running, "" where none is: it goes on when dlhealth
    is killed."""
    wanted = os.fsencode(f"{MARK}={target.of_it}")
    pids = sorted(int(name) for name in Target("/", target.mark).names("/proc") if name.isdecimal())
    pid = next((pid for pid in pids if wanted in _content(pid, "environ").split(b"\0")), 0)
    return f"{_name(pid)} (process {pid})" if pid else ""


def _holder(target: Target, path: str) -> str:
    """The program that holds a lock as dpkg and apt do, "" where nobody does. Only asked: taking it, if only for a
    moment, could make another one fail."""
    layout = "hhqqi"  # struct flock, fcntl(2)
    try:
        fd = target.root.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, _, _, _, pid = unpack(layout, answer)
    if kind == fcntl.F_UNLCK:
        return ""
    return f"{_name(pid)} (process {pid})" if pid > 0 else "another program"  # of another container, it has no number


def _name(pid: int) -> str:
    return _content(pid, "comm").decode(errors="replace").strip() or "a program"


def _content(pid: int, name: str) -> bytes:
    try:  # of the machine that dlhealth runs on, whichever root it changes
        return get_state(Root("/"), f"/proc/{pid}/{name}").content
    except (OSError, NotChangeable):
        return b""
