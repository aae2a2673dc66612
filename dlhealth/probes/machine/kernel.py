"""The kernels of the machine: which one runs, which one comes next, and what is installed of each."""

import re

from dlhealth.host import Host, Unreadable
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.machine.boot import NO_KERNEL, next_boot, version_order
from dlhealth.probes.machine.platform import Platform
from dlhealth.records import NamedTuple

NO_HEADERS = "does not exist"
"""What `InstalledKernel.lacking` says of a directory that is not there at all."""


class InstalledKernel(NamedTuple):
    """`headers` is the real path of the tree to build modules with, empty when it is missing or broken; `lacking` then
    says what is wrong with it. `compiler` is what built the kernel, as its configuration says ("" if not known);
    `realtime` whether it is one with PREEMPT_RT."""

    release: str
    has_image: bool
    has_modules: bool
    headers: str
    compiler: str = ""
    lacking: str = ""
    realtime: bool = False


class Kernel(NamedTuple):
    """`target` is the kernel to judge: the next one where that was asked for or nothing runs, else the running one.
    `next_boot_source` says what tells the next one, or why nothing does; `next_initramfs` is its image where the boot
    loader has a copy of its own. `unseen` says why `installed` may not be all of them ("" if it is). `running_compiler`
    is /proc/version, `booted` when the running kernel started (seconds since the epoch)."""

    running: str | None
    installed: tuple[InstalledKernel, ...]
    next_boot: str | None
    next_boot_source: str
    target: str | None
    running_compiler: str
    cmdline: str
    booted: float | None = None
    next_initramfs: str = ""
    unseen: str = ""

    def compiler_of(self, release: str) -> str:
        """The compiler that built a kernel, as its configuration or (of the running one) the kernel itself says; empty
        where that is not known."""
        configured = next((k.compiler for k in self.installed if k.release == release), "")
        if configured or release != self.running:
            return configured
        # "Linux version 6.1.0 (builder@host) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld ...", or "(gcc version 5.4.0 ..."
        found = re.search(r"\(((?:[\w-]+-)?(?:gcc|clang)\b[^,#]*)", self.running_compiler)
        return found[1].strip() if found else ""

    @property
    def starting(self) -> tuple[str, ...]:
        """The kernels that must have a driver: the target, and then the next one where it is another. Raises Unavailable
        where the machine runs and nothing names its kernel."""
        if self.target is None and self.unseen:
            raise Unavailable(self.unseen)
        return tuple(dict.fromkeys(filter(None, (self.target, self.next_boot))))

    @classmethod
    def probe(cls, host: Host, options: Options, platform: Platform) -> "Kernel":
        running = _running(host) if platform.own_kernel else None
        try:
            releases = _releases(host)
            installed = tuple(_installed(host, r) for r in releases)
            following, source, _, image = next_boot(host)
            unseen = ""
        except Unreadable as problem:
            if running is None and not host.ran:
                raise
            unseen = source = str(problem)
            releases, installed, following, image = [], _running_kernel(host, running), None, ""
        if source == NO_KERNEL and running is None and platform.own_kernel:
            # A disk whose /boot is another partition, which is not here.
            whole = [r for r in releases if host.exists(f"/lib/modules/{r}/modules.dep")]
            following = max(whole or releases, key=version_order, default=None)
            source = "/lib/modules: the newest kernel" if following else source
        target = following if options.next_boot or running is None else running
        version, cmdline, stat = (running_text(host, f"/proc/{n}") or "" for n in ("version", "cmdline", "stat"))
        stamp = re.search(r"^btime (\d{1,12})$", stat, re.MULTILINE)
        booted = float(stamp[1]) if stamp and running else None
        return cls(running, installed, following, source, target, version, cmdline.strip(), booted, image, unseen)


def running_text(host: Host, path: str) -> str | None:
    """What the running kernel tells in a file; None if it does not run, or where that is not shown."""
    try:
        return host.text(path)
    except Unreadable:
        return None


def _releases(host: Host) -> list[str]:
    return sorted(
        {
            *(n for n in host.listdir("/lib/modules") if n[:1].isdigit()),
            *(n.removeprefix("vmlinuz-") for n in host.listdir("/boot") if n.startswith("vmlinuz-")),
        }
    )


def _running(host: Host) -> str | None:
    # What nobody posted is not known; on a machine of its own such a file can be read, or is a fault.
    told = running_text if host.ran else Host.text
    release = (told(host, "/proc/sys/kernel/osrelease") or "").strip()
    if not release:
        found = re.match(r"Linux version (\S+)", told(host, "/proc/version") or "")
        release = found[1] if found else ""
    return release or None


def _running_kernel(host: Host, release: str | None) -> tuple[InstalledKernel, ...]:
    """The running kernel, where only its headers are known."""
    if not release:
        return ()
    try:
        host.exists(f"/lib/modules/{release}/build")
    except Unreadable:
        return ()
    headers, lacking = _headers(host, release)
    return (InstalledKernel(release, True, True, headers, lacking=lacking),)


def _installed(host: Host, release: str) -> InstalledKernel:
    headers, lacking = _headers(host, release)
    compiler, realtime = _configuration(host, release)
    return InstalledKernel(
        release,
        host.exists(f"/boot/vmlinuz-{release}"),
        host.exists(f"/lib/modules/{release}"),
        headers,
        compiler,
        lacking,
        realtime,
    )


def _headers(host: Host, release: str) -> tuple[str, str]:
    """The tree to build modules with, and else what is wrong with it."""
    build = f"/lib/modules/{release}/build"
    try:
        real = host.realpath(build)
        if real is None:
            target = host.readlink(build)
            return "", f"a link to {target}, which does not exist" if target else NO_HEADERS
        makefile = host.head(f"{build}/Makefile", 4096)
        if makefile is None:
            return "", f"{real} has no Makefile" if real != build else "has no Makefile"
        # Debian's tree has one line, that includes the Makefile of the headers that flavours have in common.
        common = re.search(rb"^include (/usr/src/\S+)", makefile, re.MULTILINE)
        if common and not host.exists(common[1].decode(errors="surrogateescape")):
            return "", f"its Makefile includes {common[1].decode(errors='replace')}, which does not exist"
        # Debian's tools to build with are in a package of their own.
        scripts = host.readlink(f"{build}/scripts")
        if scripts and not host.exists(f"{build}/scripts"):
            return "", f"its scripts are a link to {scripts}, which does not exist"
        return real, ""
    except Unreadable:
        return build, ""  # something is there: not a fault that could be proved


def _configuration(host: Host, release: str) -> tuple[str, bool]:
    """The compiler, from the first lines of a kernel's configuration; and whether it is a realtime kernel, which only
    one with such a name is looked at for."""
    path = f"/boot/config-{release}"
    try:
        head = host.head(path, 2000) or b""
        realtime = "rt" in release and b"\nCONFIG_PREEMPT_RT=y\n" in (host.read(path) or b"")
    except Unreadable:
        return "", False
    found = re.search(rb'^CONFIG_CC_VERSION_TEXT="([^"]*)"', head, re.MULTILINE)
    return (found[1].decode(errors="replace") if found else ""), realtime
