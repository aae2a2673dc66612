"""File systems that another machine mounts at boot, but that are not mounted below its root: the mount point is an
empty directory, and the real file system will hide files that are written there. Also file systems of this machine that
were mounted there, as for a chroot.

Standard library only (rescue core).
"""

import os
import posixpath
import shlex
import stat

from dlhealth.host.path import Root
from dlhealth.lazy import regex
from dlhealth.records import NamedTuple

FSTAB = "/etc/fstab"
_GRUB = "/boot/grub/grub.cfg"
_FIRMWARES = ("/boot/efi", "/efi")
"""The files that the firmware starts. For GRUB, whose menu and kernels are in /boot, that is all."""
_LIMIT = 1 << 20
_MOST = 2000
"""Mount points that are looked at; a real fstab has a few hundred at most."""
_TOO_MANY = f"{FSTAB} has more than {_MOST} mount points"
_TOO_LARGE = f"{FSTAB} is larger than {_LIMIT >> 20} MiB"
_OCTAL = regex(r"\\([0-7]{3})")

_NO_DISK = (
    "swap", "ignore", "proc", "sysfs", "tmpfs", "ramfs", "devtmpfs", "devpts", "mqueue", "hugetlbfs", "debugfs",
    "tracefs", "configfs", "securityfs", "efivarfs", "fusectl", "binfmt_misc", "cgroup", "cgroup2", "autofs",
)  # fmt: skip

_WRITTEN = (
    "/boot/efi", "/efi", "/etc", "/lib/modules", "/usr/bin", "/usr/lib", "/usr/sbin", "/usr/share", "/usr/src",
    "/var/cache/apt/archives", "/var/lib/apt", "/var/lib/dkms", "/var/lib/dpkg",
)  # fmt: skip
"""Directories where programs write that install packages, build modules and make images."""


class Mount(NamedTuple):
    """A line of fstab. `places` are device (where it is a folder) and path without the links of that machine, which would
    lead elsewhere on this one. `unsure` says why it is not known whether it is mounted, "" if that is known."""

    device: str
    path: str
    options: tuple[str, ...]
    places: tuple[str, str] = ("", "")
    unsure: str = ""

    @property
    def bound(self) -> bool:
        """Whether it shows another directory of the machine there."""
        return "bind" in self.options or "rbind" in self.options

    def command(self, folder: str) -> str:
        """The command that mounts it below the root in `folder`."""
        start = folder.rstrip("/")
        words = ["-o", volume] if (volume := next((o for o in self.options if o.startswith("subvol")), "")) else []
        given = (self.device, self.path)
        bound, path = (place or _inside(name) for place, name in zip(self.places, given, strict=True))
        device = f"{start}{bound}" if self.bound else self.device
        ended = ["--"] if device.startswith("-") else []
        return shlex.join(["mount", *words, *["--bind"] * self.bound, *ended, device, f"{start}{path}"])

    def told(self, folder: str) -> str:
        """For people: that it is not mounted, and the command that mounts it; or why that is not known."""
        if self.unsure:
            return f"{self.path} of {folder} may not be mounted: {self.unsure}"
        return f"{self.path} of {folder} is not mounted; first: {self.command(folder)}"


class Mounts:
    """`missing` are the file systems below a root, not the running machine's, that are not mounted, or may not be."""

    def __init__(self, root: Root) -> None:
        self.missing: tuple[Mount, ...] = () if root.folder == "/" else tuple(_missing(root))
        self._places = {m.path: m for m in self.missing}
        if self._places:
            self._add_links(root)

    def over(self, path: str) -> Mount | None:
        """The file system that must be mounted to reach the machine's own path."""
        path = posixpath.normpath(path) if self._places else ""
        while path not in ("", "/"):
            if path in self._places:
                return self._places[path]
            path = posixpath.dirname(path)
        return None

    @property
    def needed(self) -> Mount | None:
        """The first missing file system that would make the machine's programs write to the wrong place."""
        return next((m for path in _WRITTEN if (m := self.over(path))), None)

    def _add_links(self, root: Root) -> None:
        """/lib is a link to usr/lib, which leads nowhere while /usr is not mounted."""
        found = {path: self.over(target) for path, target in _top_links(root).items()}
        self._places.update({path: mount for path, mount in found.items() if mount})


SYSTEM_TREES = ("/etc", "/usr", "/var")
"""Every system has something in these directories; without one, it is only part of a system, and the rest may be
elsewhere."""


def lacking(root: Root) -> tuple[str, ...]:
    """The system's directories that are empty below a root, or absent while others exist; and the links at its top that
    lead into them."""
    entries = {path: _entries(root, path) for path in SYSTEM_TREES}
    bare = tuple(path for path, number in entries.items() if not number)
    if not bare or all(number is None for number in entries.values()):
        return ()
    return (*bare, *(link for link, target in _top_links(root).items() if target.startswith(bare)))


def _entries(root: Root, path: str) -> int | None:
    """The number of entries in a directory; None if there is no directory."""
    try:
        fd = root.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    except OSError:
        return 1  # something exists; each question about it says what is wrong
    try:
        return len(os.listdir(fd))
    finally:
        os.close(fd)


def _top_links(root: Root) -> dict[str, str]:
    """The links at the top of a root, and their targets."""
    fd = root.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        links = {e.name: os.readlink(e.name, dir_fd=fd) for e in os.scandir(fd) if e.is_symlink()}
    finally:
        os.close(fd)
    return {f"/{name}": posixpath.join("/", target) for name, target in links.items()}


_TELLS_OF_HERE = {
    "/dev": ("/dev/*",),
    "/run": ("/run/*",),
    "/sys": ("/sys/module/*", "/sys/kernel/*", "/sys/bus/pci/drivers/*", "/sys/bus/pci/devices/*/driver/*"),
}
"""How this machine runs, from the file systems that are mounted for a chroot. Devices are still read: most often the
disk is in its own machine, which was booted from another one."""


def lent(root: Root) -> tuple[str, ...]:
    """The paths below another root that show the running machine: patterns with a slash at the end."""
    patterns = [p for path, shown in _TELLS_OF_HERE.items() if _is_same(root, path) for p in shown]
    return (*patterns, "/proc/*") if _is_procfs(root) else tuple(patterns)


def _is_same(root: Root, path: str) -> bool:
    try:
        return os.path.samestat(root.stat(path, follow=True), os.stat(path))
    except OSError:
        return False


def _is_procfs(root: Root) -> bool:
    """Whether /proc below the root is the kernel's own, not a copy: only there a link has no size. The boot ids are not
    compared: a container may see another one in its own /proc than in a /proc that it mounts."""
    try:
        link = root.stat("/proc/self", follow=False)
    except OSError:
        return False
    return stat.S_ISLNK(link.st_mode) and link.st_size == 0


def parse_fstab(text: str) -> list[Mount]:
    """The file systems that it mounts at boot, the outer before the inner; not those that a person mounts, swap, or the
    kernel's own."""
    mounts = []
    for line in text.splitlines():
        words = [_OCTAL.sub(lambda m: chr(int(m[1], 8)), word) for word in line.split()]
        if len(words) < 3 or words[0].startswith("#") or words[2] in _NO_DISK or not words[1].startswith("/"):
            continue
        options = tuple(words[3].split(",")) if len(words) > 3 else ()
        path = posixpath.normpath(words[1])
        if path.strip("/") and ("noauto" not in options or "x-systemd.automount" in options):
            mounts.append(Mount(words[0], path, options))
    return sorted(mounts, key=lambda m: m.path)


def _missing(root: Root) -> list[Mount]:
    own = _is_mounted(root, "/")
    content = _head(root, FSTAB)
    if len(content) > _LIMIT:
        return [Mount("", path, (), unsure=_TOO_LARGE) for path in _folders(root) if not _is_mounted(root, path)]
    mounts = parse_fstab(content.decode(errors="surrogateescape"))
    if _head(root, _GRUB):
        mounts = [m for m in mounts if m.path not in _FIRMWARES]
    distinct = {m.path: m for m in mounts}.values()  # of two at one mount point, the later covers the other
    ordered = sorted(distinct, key=_is_unwritten)
    unlooked = [m._replace(unsure=_TOO_MANY) for m in ordered[_MOST:]]
    missing = sorted((m for m in ordered[:_MOST] if not _is_there(root, m, own)), key=lambda m: m.path)
    placed = [m._replace(places=(_real(root, m.device) if m.bound else "", _real(root, m.path))) for m in missing]
    return [*placed, *unlooked]


def _is_unwritten(mount: Mount) -> bool:
    """Whether no program that installs packages, builds modules or makes images writes there."""
    return not any(path == mount.path or path.startswith(f"{mount.path}/") for path in _WRITTEN)


def _real(root: Root, path: str) -> str:
    """Where a path leads inside the root; "" where that is not known."""
    try:
        fd = root.open(path, os.O_PATH)
    except (OSError, ValueError):
        return ""
    try:
        top, real = (os.readlink(f"/proc/self/fd/{number}") for number in (root.fd, fd))
    except OSError:
        return ""
    finally:
        os.close(fd)
    return real.removeprefix(top.rstrip("/")) if real.startswith(f"{top.rstrip('/')}/") else ""


def _inside(path: str) -> str:
    """A path as its machine sees it: `..` stops at the root."""
    return posixpath.normpath(posixpath.join("/", path))


def _folders(root: Root) -> list[str]:
    """The directories at the top of a root, without the one that holds fstab."""
    fd = root.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sorted(f"/{e.name}" for e in os.scandir(fd) if e.is_dir(follow_symlinks=False) and e.name != "etc")
    finally:
        os.close(fd)


def _head(root: Root, path: str) -> bytes:
    """The content of a small file, and one byte more of a larger one; empty if it cannot be read."""
    try:
        fd = root.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(fd, _LIMIT + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)


def _is_there(root: Root, mount: Mount, own: bool) -> bool:
    """If its files are on the root's own file system, it is a copy of a machine, unless that is the machine's disk
    itself (`own`): then they were written while nothing was mounted. Without the directory, it is only part of a
    machine."""
    try:
        if _is_mounted(root, mount.path):
            return True
        fd = root.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True
    try:
        return bool(os.listdir(fd)) and (mount.bound or not own)
    finally:
        os.close(fd)


def _is_mounted(root: Root, path: str) -> bool:
    """Whether another file system begins there."""
    fd = root.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        return os.fstat(fd).st_dev != os.stat("..", dir_fd=fd).st_dev
    finally:
        os.close(fd)
