"""The kernels of the machine: which one runs, which one comes next, and what is installed of each."""

import re

from dlhealth.host import Host, Unreadable
from dlhealth.lean import NamedTuple
from dlhealth.model import Severity
from dlhealth.probes import Options
from dlhealth.probes.boot import next_boot


class InstalledKernel(NamedTuple):
    """`headers` is the real path of the tree to build modules with, empty when it is missing or broken."""

    release: str
    has_image: bool
    has_modules: bool
    headers: str
    compiler: str = ""


class Kernel(NamedTuple):
    """`target` is the kernel to judge: the next one where that was asked for or nothing runs, else the running one."""

    running: str | None
    installed: tuple[InstalledKernel, ...]
    next_boot: str | None
    next_boot_source: str
    target: str | None
    running_compiler: str
    cmdline: str

    def compiler_of(self, release: str) -> str:
        """The compiler that built a kernel, as its configuration says; empty where that is not known."""
        return next((k.compiler for k in self.installed if k.release == release), "")

    def to_judge(self) -> tuple[tuple[str, Severity], ...]:
        """Kernels that must have a driver, and how bad it is if not: the target; and, as a warning, the next one."""
        judged = {self.target: Severity.ERROR} if self.target else {}
        if self.next_boot:
            judged.setdefault(self.next_boot, Severity.WARNING)
        return tuple(judged.items())

    @classmethod
    def probe(cls, host: Host, options: Options) -> "Kernel":
        container = in_container(host)
        # In a container the kernel is the host's, and so are its modules.
        running = None if container else _running(host)
        releases = sorted(
            {
                *host.listdir("/lib/modules"),
                *(n.removeprefix("vmlinuz-") for n in host.listdir("/boot") if n.startswith("vmlinuz-")),
            }
        )
        installed = tuple(_installed(host, r) for r in releases)
        following, source = next_boot(host)
        target = following if options.next_boot or running is None else running
        version = host.text("/proc/version") or ""
        cmdline = (host.text("/proc/cmdline") or "").strip()
        return cls(running, installed, following, source, target, version, cmdline)


def in_container(host: Host) -> bool:
    """Whether this is a container: its kernel and its devices are those of another machine."""
    # Left by systemd-nspawn and other managers (systemd's Container Interface), by Podman and by Docker.
    return any(
        host.exists(p)
        for p in ("/run/host/container-manager", "/run/systemd/container", "/run/.containerenv", "/.dockerenv")
    )


def _running(host: Host) -> str | None:
    release = (host.text("/proc/sys/kernel/osrelease") or "").strip()
    if not release:
        found = re.match(r"Linux version (\S+)", host.text("/proc/version") or "")
        release = found[1] if found else ""
    return release or None


def _installed(host: Host, release: str) -> InstalledKernel:
    build = f"/lib/modules/{release}/build"
    headers = (host.realpath(build) or "") if host.exists(f"{build}/Makefile") else ""
    return InstalledKernel(
        release,
        host.exists(f"/boot/vmlinuz-{release}"),
        host.exists(f"/lib/modules/{release}"),
        headers,
        _compiler(host, release),
    )


def _compiler(host: Host, release: str) -> str:
    """CONFIG_CC_VERSION_TEXT stands in the first lines of a kernel's configuration."""
    try:
        head = host.head(f"/boot/config-{release}", 2000) or b""
    except Unreadable:
        return ""
    found = re.search(rb'^CONFIG_CC_VERSION_TEXT="([^"]*)"', head, re.MULTILINE)
    return found[1].decode(errors="replace") if found else ""
