"""Space on the file systems that a driver, a kernel or a login needs, and what lies in /boot."""

import re

from dlhealth.host import NOT_MOUNTED, Host, Space, Unreadable
from dlhealth.records import NamedTuple

PATHS = ("/", "/boot", "/usr", "/home", "/root", "/tmp", "/var", "/var/tmp", "/var/lib/dpkg", "/run")


class FileSystem(NamedTuple):
    """What holds `path`. `device` is the same number for paths on the same file system."""

    path: str
    device: int
    space: Space


class Storage(NamedTuple):
    """By path, those that are there. Home directories of single users may lie elsewhere: ask the host. `live` says that
    these are the machine's own mounts; of a directory that was copied or composed, only differences of device tell
    something. `problems` could not be checked."""

    systems: dict[str, FileSystem]
    live: bool
    problems: tuple[str, ...]

    def separate(self, path: str) -> bool:
        """Whether the path is a file system of its own, apart from /."""
        mine, root = self.systems.get(path), self.systems.get("/")
        return mine is not None and root is not None and mine.device != root.device

    @classmethod
    def probe(cls, host: Host) -> "Storage":
        systems, problems = {}, []
        for path in PATHS:
            try:
                status, space = host.stat(path), host.space(path)
            except Unreadable as problem:
                problems.append(str(problem))
                continue
            if status and space and status.kind == "dir":
                systems[path] = FileSystem(path, status.device, space)
        return cls(systems, host.live, tuple(problems))


def _fstab(host: Host) -> list[tuple[int, str]]:
    """Its lines with their numbers, but comments and empty ones."""
    lines = (host.text("/etc/fstab") or "").splitlines()
    return [(number, line) for number, line in enumerate(lines, 1) if re.match(r"\s*[^#\s]", line)]


_LOOKED_INTO = ("/boot/", "/efi/", "/etc/", "/home/", "/lib/", "/opt/", "/root/", "/usr/", "/var/")


class UnmountedPart(NamedTuple):
    """A file system of a machine that lies in a directory, which is not mounted there, by its line of fstab; `command`
    mounts it."""

    path: str
    source: str
    line: str
    command: str


class UnmountedParts(NamedTuple):
    """Those that a diagnosis looks into; of the running machine, none."""

    parts: tuple[UnmountedPart, ...]

    @classmethod
    def probe(cls, host: Host) -> "UnmountedParts":
        parts: list[UnmountedPart] = []
        if host.live:
            return cls(())
        for number, line in _fstab(host):
            words = line.split()
            if len(words) < 3 or not f"{words[1]}/".startswith(_LOOKED_INTO):
                continue
            try:
                host.exists(words[1])
            except Unreadable as problem:
                if problem.path == words[1].rstrip("/") and problem.reason.startswith(NOT_MOUNTED):
                    command = problem.reason.removeprefix(NOT_MOUNTED)
                    parts.append(UnmountedPart(problem.path, f"/etc/fstab:{number}", line.strip(), command))
        return cls(tuple(parts))


class BootFolder(NamedTuple):
    """Kernels in /boot by release: the size of each one's initramfs in bytes (None: it has none). `mount` is the line
    of fstab that makes /boot a file system of its own, "" without one; `fstab` whether there is a
    fstab with anything in it."""

    initrds: dict[str, int | None]
    mount: str
    fstab: bool

    @property
    def largest(self) -> int:
        """Bytes that the largest initramfs needs: a new one is written beside the old one."""
        return max((size for size in self.initrds.values() if size), default=0)

    @property
    def broken(self) -> tuple[str, ...]:
        """Kernels without a usable initramfs, where others have one."""
        return tuple(r for r, size in self.initrds.items() if not size) if self.largest else ()

    @classmethod
    def probe(cls, host: Host) -> "BootFolder":
        initrds: dict[str, int | None] = {}
        for name in host.listdir("/boot"):
            if name.startswith(("vmlinuz-", "vmlinux-")) and not name.endswith((".old", ".dpkg-new", ".dpkg-tmp")):
                release = name.partition("-")[2]
                status = host.stat(f"/boot/initrd.img-{release}")
                initrds[release] = status.size if status else None
        mounts = _fstab(host)
        boot = next((f"/etc/fstab:{n}" for n, line in mounts if line.split()[1:2] == ["/boot"]), "")
        return cls(initrds, boot, bool(mounts))
