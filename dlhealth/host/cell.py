"""Runs programs of another machine's disk on this one, confined, because that disk may be hostile.

They get the disk as their root; process, mount, IPC, host name and (unless they need it) network namespaces of their
own; a /dev without this machine's hardware; a read-only /proc of their own processes; a read-only /sys; and no
capability that lets root leave. bubblewrap does this if it is installed, otherwise util-linux's unshare together with
this file, run as a program. Standard library only (rescue core).
"""

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Collection, Sequence

_CAPABILITIES = {
    "chown": 0, "dac_override": 1, "fowner": 3, "fsetid": 4, "kill": 5, "setgid": 6, "setuid": 7, "setpcap": 8,
    "net_bind_service": 10, "sys_chroot": 18, "audit_write": 29, "setfcap": 31,
}  # fmt: skip
"""The capabilities that the installation of packages needs (linux/capability.h). Not mknod, which would give access to
this machine's disks."""
_LAST_CAPABILITY = 63

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_SYSTEM = ("block", "bus", "class", "dev", "devices", "module")
"""The parts of /sys that mkinitramfs reads to find the drivers of a disk."""
COVERED = ("dev", "proc", "run", "sys")
"""Directories of the disk that are replaced."""
_RESOLVER = "etc/resolv.conf"
_FIRST = '"$@"; exit $?'
"""For bubblewrap: a shell as the first process. When it ends, all programs that are left end too."""


def words(root: str, argv: Sequence[str], network: bool) -> list[str]:
    """The command that runs `argv` inside `root`. Raises OSError if that is not safe or not possible."""
    from dlhealth.host.exec import find_program

    for name in (*COVERED, "etc"):
        if not stat.S_ISDIR(os.lstat(f"{root}/{name}").st_mode):
            raise NotADirectoryError(f"/{name} of {root} is not a directory: its programs cannot be confined")
    names = _name_servers(root) if network else ""
    if find_program("bwrap"):
        return [*_bubblewrap(root, names, network), "--", "sh", "-c", _FIRST, "sh", *argv]
    if find_program("unshare") and sys.executable:
        spaces = ["--mount", "--propagation=private", "--pid", "--fork", "--ipc", "--uts", *["--net"] * (not network)]
        return ["unshare", *spaces, "--", sys.executable, "-I", "-S", __file__, root, names, *argv]
    raise FileNotFoundError("neither bwrap (package bubblewrap) nor unshare (package util-linux) is installed")


def _bubblewrap(root: str, names: str, network: bool) -> list[str]:
    mounts = ["--bind", root, "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--tmpfs", "/sys"]
    for name in _SYSTEM:
        mounts += ["--ro-bind-try", f"/sys/{name}", f"/sys/{name}"]
    mounts += ["--remount-ro", "/sys", "--remount-ro", "/proc"]
    if names:
        mounts += ["--ro-bind", "/etc/resolv.conf", f"/{names}"]
    spaces = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", *["--unshare-net"] * (not network)]
    added = [word for name in _CAPABILITIES for word in ("--cap-add", f"CAP_{name.upper()}")]
    return ["bwrap", "--as-pid-1", *spaces, "--cap-drop", "ALL", *added, *mounts, "--chdir", "/"]


def _name_servers(root: str) -> str:
    """The path in the root, without a leading slash, where its programs find name servers; "" if this machine's file
    cannot be mounted there. The disk's own list may name a service that does not run here."""
    try:
        link = os.readlink(f"{root}/{_RESOLVER}")
        if link == "/etc/resolvconf/run/resolv.conf":
            link = os.path.join(os.readlink(f"{root}/etc/resolvconf/run"), "resolv.conf")
    except OSError:
        try:
            return _RESOLVER if stat.S_ISREG(os.lstat(f"{root}/{_RESOLVER}").st_mode) else ""
        except OSError:
            return ""
    path = os.path.normpath(os.path.join("/etc", link)).lstrip("/")
    return path if path.startswith("run/") else ""


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


_READ_ONLY, _NO_SUID, _NO_DEV, _NO_EXEC, _BIND, _REC = 1, 2, 4, 8, 4096, 16384  # sys/mount.h: MS_*
_REMOUNT = 32
_DETACH = 2  # MNT_DETACH
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
_VERSION_3 = 0x20080522  # linux/capability.h
_DROP_BOUNDING, _NO_NEW_PRIVILEGES = 24, 38  # linux/prctl.h: PR_*


def _mount(source: str, target: str, kind: str = "none", flags: int = 0, options: str = "") -> None:
    _call("mount", source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())


def _furnish(names: str) -> None:
    """Mount over the directories of the root, which is the working directory."""
    quiet = _NO_SUID | _NO_DEV | _NO_EXEC
    _mount("proc", "proc", "proc", quiet | _READ_ONLY)
    _mount("tmpfs", "run", "tmpfs", _NO_SUID | _NO_DEV, "mode=755")
    _mount("tmpfs", "sys", "tmpfs", quiet, "mode=755")
    for name in _SYSTEM:
        if os.path.isdir(f"/sys/{name}"):
            os.mkdir(f"sys/{name}")
            _mount(f"/sys/{name}", f"sys/{name}", flags=_BIND)
            _mount("none", f"sys/{name}", flags=_BIND | _REMOUNT | _READ_ONLY | quiet)
    _mount("none", "sys", flags=_REMOUNT | _READ_ONLY | quiet)
    _mount("tmpfs", "dev", "tmpfs", _NO_SUID | _NO_EXEC, "mode=755")
    for name in _DEVICES:
        os.close(os.open(f"dev/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _mount(f"/dev/{name}", f"dev/{name}", flags=_BIND)
    for name in ("pts", "shm"):
        os.mkdir(f"dev/{name}")
    _mount("devpts", "dev/pts", "devpts", _NO_SUID | _NO_EXEC, "newinstance,ptmxmode=0666,mode=620")
    _mount("tmpfs", "dev/shm", "tmpfs", _NO_SUID | _NO_DEV, "mode=1777")
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ):
        os.symlink(target, f"dev/{name}")
    if names:
        if names != _RESOLVER:
            os.makedirs(os.path.dirname(names), exist_ok=True)
            os.close(os.open(names, os.O_WRONLY | os.O_CREAT, 0o644))
        _mount("/etc/resolv.conf", names, flags=_BIND)
        _mount("none", names, flags=_BIND | _REMOUNT | _READ_ONLY)


def _confine() -> None:
    """Leave everything outside the working directory, and drop the rights to return."""
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"pivot_root(2) has no known number on {os.uname().machine}: install bubblewrap")
    _call("syscall", number, b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")
    kept = set(_CAPABILITIES.values())
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in kept and libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0) != 0:
            error = ctypes.get_errno()
            if error != errno.EINVAL:  # which says that the kernel does not know this number
                raise OSError(error, f"prctl: {os.strerror(error)}")
    _set_capabilities(kept)
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def _set_capabilities(kept: Collection[int]) -> None:
    """Keep these, and let a program that is started inherit no others: in a container, root's may be inheritable, and
    those need no place in the bounding set."""
    mask = sum(1 << capability for capability in kept)
    halves = (struct.pack("III", half, half, 0) for half in (mask & 0xFFFFFFFF, mask >> 32))
    _call("capset", struct.pack("Ii", _VERSION_3, 0), b"".join(halves))


def _run(argv: Sequence[str]) -> None:
    """Become the program. Nothing may be imported from here on: modules would come from the disk."""
    paths = [argv[0]] if "/" in argv[0] else [f"{folder}/{argv[0]}" for folder in os.environ["PATH"].split(":")]
    problem = ""
    for path in paths:
        try:
            os.execve(path, list(argv), os.environ)  # noqa: S606
        except OSError as error:
            problem = problem if isinstance(error, FileNotFoundError) and problem else str(error.strerror)
    os.write(2, f"{argv[0]}: {problem}\n".encode())


def main(root: str, names: str, *argv: str) -> int:
    """Be the first process of the namespace: end with the program's status, and end all programs that are left."""
    _mount(root, root, flags=_BIND | _REC)
    os.chdir(root)
    _furnish(names)
    sys.path.clear()
    _confine()
    child = os.fork()
    if child == 0:
        try:
            _run(argv)
        finally:
            os._exit(127)
    _set_capabilities(())
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
