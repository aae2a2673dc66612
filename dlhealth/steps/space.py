"""The space that a disk must have before the first change. A repair that stops halfway may leave the machine without a
driver, which is worse than most problems that it repairs."""

import os
from collections.abc import Collection

from dlhealth.steps.base import CommandFailed, Target

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
