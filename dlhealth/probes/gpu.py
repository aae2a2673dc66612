"""The NVIDIA GPUs that the PCI bus shows, and what is known of each model."""

import re
from typing import NamedTuple

from dlhealth.data import lookup_gpu
from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable

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
