"""The NVIDIA GPUs that the PCI bus shows, and what is known of each model."""

import re
from typing import NamedTuple

from dlhealth.data import lookup_gpu
from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.probes.compat import branch_of
from dlhealth.probes.kernel import Kernel
from dlhealth.probes.modules import KernelModules
from dlhealth.probes.packages import DriverPackages

_DEVICES = "/sys/bus/pci/devices"


class Gpu(NamedTuple):
    """`first_branch` and `last_branch` bound the driver branches that support it, None where no bound is known;
    `needs_open` and `supports_open` say which flavour of kernel module it takes."""

    address: str
    device: str
    name: str
    architecture: str
    capability: str
    driver: str
    is_display: bool
    first_branch: int | None
    last_branch: int | None
    needs_open: bool
    supports_open: bool | None


class Gpus(NamedTuple):
    """NVIDIA's display and 3D controllers."""

    gpus: tuple[Gpu, ...]

    @classmethod
    def probe(cls, host: Host) -> "Gpus":
        addresses = host.listdir(_DEVICES)
        if not addresses and not host.exists("/sys/bus/pci"):
            raise Unavailable("there is no PCI bus to look at: this machine does not run, or has no /sys here")
        return cls(tuple(gpu for a in addresses if (gpu := _gpu(host, a))))


def _gpu(host: Host, address: str) -> Gpu | None:
    folder = f"{_DEVICES}/{address}"
    events = dict(line.partition("=")[::2] for line in (_text(host, f"{folder}/uevent")).splitlines())
    vendor, _, device = events.get("PCI_ID", "").lower().partition(":")
    vendor = _hex(_text(host, f"{folder}/vendor")) or vendor
    device = _hex(_text(host, f"{folder}/device")) or device
    kind = _hex(_text(host, f"{folder}/class")) or events.get("PCI_CLASS", "").lower().zfill(6)
    if vendor != "10de" or not kind.startswith("03"):
        return None
    link = host.readlink(f"{folder}/driver")
    driver = link.rpartition("/")[2] if link else events.get("DRIVER", "")
    known = lookup_gpu(device)
    if known is None:
        return Gpu(
            address, device, f"NVIDIA device {device}", "", "", driver, kind.startswith("0300"), None, None, False, None
        )
    architecture, capability, first, last, flavour, name = known
    return Gpu(
        address,
        device,
        name,
        architecture,
        capability,
        driver,
        kind.startswith("0300"),
        int(first) if first else None,
        None if last == "-" else int(last),
        flavour == "only",
        None if flavour == "?" else flavour != "no",
    )


def _text(host: Host, path: str) -> str:
    try:
        return (host.text(path) or "").strip()
    except Unreadable:
        return ""


def _hex(text: str) -> str:
    found = re.fullmatch(r"0x([0-9a-f]+)", text.lower())
    return found[1] if found else ""


class DriverInPlace(NamedTuple):
    """The driver that the kernel to judge has or will have: `version` and `open` (None: not known) of its kernel
    module, `source` where that was seen; `debian` says which distribution's package names fit."""

    version: str
    branch: int
    open: bool | None
    source: str
    loaded: bool
    debian: bool

    @classmethod
    def probe(
        cls, host: Host, kernel: Kernel, modules: KernelModules, packages: DriverPackages | None
    ) -> "DriverInPlace":
        debian = re.search(r"^ID=.?ubuntu", host.text("/etc/os-release") or "", re.MULTILINE) is None
        disk = modules.on_disk(kernel.target)
        if modules.loaded_version and kernel.target == kernel.running:
            is_open = modules.loaded_open if modules.loaded_open is not None or disk is None else disk.open
            found = modules.loaded_version, is_open, "/proc/driver/nvidia/version"
        elif disk and disk.version:
            found = disk.version, disk.open, disk.path
        elif packages and packages.version:
            found = packages.version, any(m.open for m in packages.members), "/var/lib/dpkg/status"
        else:
            raise Unavailable("there is no NVIDIA driver here")
        version, is_open, source = found
        branch = branch_of(version)
        if branch is None:
            raise Unavailable(f"{source}: {version} is no driver version that is known")
        return cls(version, branch, is_open, source, bool(modules.loaded_version), debian)

    def package(self, branch: int, *, open_flavour: bool = False) -> str:
        """The name of the package that installs a branch."""
        if not self.debian:
            return f"nvidia-driver-{branch}{'-open' if open_flavour else ''}"
        if branch <= 390:
            return f"nvidia-legacy-{branch}xx-driver"
        return f"nvidia-tesla-{branch}-driver" if branch == 470 else "nvidia-driver"
