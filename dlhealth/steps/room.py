"""What must hold before the first change: no other program changes packages, and the disks have enough space. A repair
that stops halfway may leave the machine without a driver, which is worse than most problems that it repairs."""

import fcntl
import os
from collections.abc import Collection, Iterable
from struct import pack, unpack
from time import monotonic, sleep

from dlhealth.actions import changed_path, needs_programs
from dlhealth.host.cell import COVERED
from dlhealth.host.change import NotChangeable, get_state
from dlhealth.host.path import Root
from dlhealth.model import Action
from dlhealth.steps.base import MARK, CommandFailed, Target

# Programs above dpkg, such as apt, hold the first lock during their whole run; dpkg holds the second while it works.
_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")

_SPARE = 16 << 20
"""The space that a disk must have left afterwards: for dpkg's own files, logs, and rounding up to blocks."""

# A build of driver 535.261 filled at most 480 MiB of /var/lib/dkms (sources, objects, modules with debug data) and then
# 73 MiB of /lib/modules, measured during a "dkms install" on Debian 12. Half as much again, because drivers grow.
_BUILD = {"/var/lib/dkms": 720 << 20, "/lib/modules": 110 << 20}

# Inodes. The driver's sources are 455 files; a build adds an object and notes of make for each. Of its packages the
# largest has 474 files, linux-headers-6.1.0-50-common 9954, linux-image-6.1.0-50-amd64 4939.
_SPARE_FILES = 200
_BUILD_FILES = 3000
_PACKAGE_FILES = 500
_KERNEL_FILES = 10_000

_IMAGE = "initrd.img-"


def need_dpkg(target: Target) -> None:
    """Raises CommandFailed while another program changes packages: apt would wait for it in silence, and dpkg would
    fail halfway through the plan. Work that packages start (a DKMS build, a new initramfs) would be done twice at
    once."""
    for path in _LOCKS:
        holder = _holder(target, path)
        if holder:
            raise CommandFailed(f"{holder} is changing packages (it holds {path}): wait until it ends, then try again")


def out_of_reach(target: Target, actions: Iterable[Action]) -> dict[Action, str]:
    """Why some actions cannot be done or undone on a machine that is not the running one: a file system is not mounted,
    so another directory would be changed; or its programs do not run here."""
    if target.live:
        return {}
    found: dict[Action, str] = {}
    needing = []
    for action in actions:
        needs = needs_programs(action)
        if mount := target.mounts.needed if needs else target.mounts.over(changed_path(action)):
            found[action] = mount.told(target.folder)
        elif place := _in_the_way(target, action):
            found[action] = f"{place} belongs to the running machine, and must not be changed; first: umount {place}"
        elif needs:
            needing.append(action)
    if needing and (problem := _not_running(target)):
        found.update(dict.fromkeys(needing, problem))
    return found


def _in_the_way(target: Target, action: Action) -> str:
    """Where the running machine is mounted below the root so that an action would change it: at its path, or anywhere
    where programs see it."""
    top = os.path.realpath(target.folder)
    below = {place: place.removeprefix(top) for place in target.root.borrowed.values()}
    if needs_programs(action):
        return next((place for place, path in below.items() if path.split("/")[1] not in COVERED), "")
    changed = f"{changed_path(action)}/"
    return next((place for place, path in below.items() if changed.startswith(f"{path}/")), "")


def _not_running(target: Target) -> str:
    """Why the programs of another root do not run here; "" if they do."""
    try:
        target.command("sh", "-c", "true", timeout=30)
    except CommandFailed as error:
        return (
            f"the programs of {target.folder} do not run here (another architecture, mounted with noexec, or a damaged "
            f"system), but the repair needs them ({error})"
        )
    return ""


def wait_for_dpkg(target: Target, seconds: float) -> None:
    """Wait until no other program changes packages. Raises TimeoutError."""
    deadline = monotonic() + seconds
    while holders := [f"{holder} ({path})" for path in _LOCKS if (holder := _holder(target, path))]:
        if monotonic() >= deadline:
            raise TimeoutError(f"{holders[0]} is still changing packages after {seconds:g} seconds")
        sleep(0.2)


def need_room(target: Target, path: str, size: int, what: str, files: int = 0) -> None:
    """Reserve bytes and inodes on the file system of `path`, in addition to what the other steps of the plan reserve
    there. Raises CommandFailed if they are not free. The same `what` twice is the same space."""
    fd = _open_folder(target, path)
    try:
        disk, status = os.fstat(fd).st_dev, os.fstatvfs(fd)
    finally:
        os.close(fd)
    wanted = target.wanted.setdefault(disk, {})
    name = f"{what} in {path}"
    before = wanted.get(name, (0, 0))
    wanted[name] = max(size, before[0]), max(files, before[1])
    free = status.f_bfree * status.f_frsize  # includes the blocks reserved for root, who runs the steps
    needed = sum(w[0] for w in wanted.values()) + _SPARE
    needed_files = sum(w[1] for w in wanted.values()) + _SPARE_FILES
    if status.f_files and status.f_ffree < needed_files:  # btrfs, vfat and others have no table of inodes
        raise CommandFailed(
            f"{path} has inodes for {status.f_ffree} more files, but {' and '.join(sorted(wanted))} may take "
            f"{needed_files}: free some there first (df -i; many small files fill it)"
        )
    if free < needed:
        hint = "apt-get autoremove --purge removes old kernels" if path == "/boot" else "apt-get clean may help"
        raise CommandFailed(
            f"{path} has {free >> 20} MiB free, but {' and '.join(sorted(wanted))} may take {-(-needed >> 20)} MiB: "
            f"free some space there first ({hint})"
        )


def need_room_to_build(target: Target) -> None:
    """For a DKMS build of the driver."""
    for path, size in _BUILD.items():
        need_room(target, path, size, "a DKMS build", _BUILD_FILES)


def need_room_to_unpack(target: Target, names: Collection[str], size: int) -> None:
    """For the files of packages. apt does not know how many there are."""
    kernels = ("linux-headers-", "linux-image-", "linux-modules-")
    files = sum(_KERNEL_FILES if name.startswith(kernels) else _PACKAGE_FILES for name in names)
    need_room(target, "/usr", size, f"unpacking {' '.join(sorted(names))}", files)


def images(target: Target, kernel: str) -> dict[str, int]:
    """The bytes of the initramfs of one kernel, or of each with "all", by name."""
    names = [n for n in target.names("/boot") if n.startswith(_IMAGE) and kernel in ("all", n.removeprefix(_IMAGE))]
    return {name: target.root.stat(f"/boot/{name}", follow=True).st_size for name in names}


def need_room_for_images(target: Target, kernel: str) -> None:
    """For the new initramfs of one kernel, or of each with "all", one after the other: it is written completely beside
    the old one (mkinitramfs -o …new). A quarter more, because it may contain more modules."""
    largest = max(images(target, kernel).values(), default=0)
    if largest:
        need_room(target, "/boot", largest + largest // 4, "a new initramfs")


def _open_folder(target: Target, path: str) -> int:
    """The directory, or the nearest existing one above it: the new one will be on the same disk."""
    while path != "/":
        try:
            return target.root.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            path = os.path.dirname(path)
    return target.root.open(path, os.O_RDONLY | os.O_DIRECTORY)


def program_of(target: Target) -> str:
    """A program that the transaction started and that still runs, "" if none: it survives if dlhealth is killed."""
    wanted = os.fsencode(f"{MARK}={target.of_it}")
    pids = sorted(int(name) for name in Target("/", target.mark).names("/proc") if name.isdecimal())
    pid = next((pid for pid in pids if wanted in _content(pid, "environ").split(b"\0")), 0)
    return f"{_name(pid)} (process {pid})" if pid else ""


def _holder(target: Target, path: str) -> str:
    """The program that holds a lock in the way of dpkg and apt, "" if none. It only asks for the holder: taking the
    lock, even for a moment, could make another program fail."""
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
    # a process of another container has no number here
    return f"{_name(pid)} (process {pid})" if pid > 0 else "another program"


def _name(pid: int) -> str:
    return _content(pid, "comm").decode(errors="replace").strip() or "a program"


def _content(pid: int, name: str) -> bytes:
    try:  # of the machine that dlhealth runs on, whichever root it changes
        return get_state(Root("/"), f"/proc/{pid}/{name}").content
    except (OSError, NotChangeable):
        return b""
