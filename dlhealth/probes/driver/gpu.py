"""The NVIDIA GPUs that the PCI bus shows, and what is known of each model."""

import re

from dlhealth.data import load, lookup_gpu, lookup_gpus_named
from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.platform import Platform, PlatformSetting
from dlhealth.records import NamedTuple

_DEVICES = "/sys/bus/pci/devices"
_DRIVERS = "/sys/bus/pci/drivers"
_PROC = "/proc/bus/pci/devices"
_HELD = "/proc/driver/nvidia/gpus"
_OFF_THE_BUS = {
    PlatformSetting.WSL: "skipped in WSL2: the GPU belongs to Windows and is not on the PCI bus",
    PlatformSetting.JETSON: "skipped on a Jetson: the GPU is part of the chip and not on the PCI bus",
}
_STUBS = ("pci-stub", "pciback", "xen-pciback")


class Gpu(NamedTuple):
    """One GPU. `device` is its PCI id without the vendor ("1b06"), `driver` what holds it ("" for nothing).

    The rest is data/gpus.tsv's: `first_branch` and `last_branch` bound the driver branches that may support it (None:
    no bound is known), `listed` is the lowest branch that names it; `needs_open` and `supports_open` say which flavour
    of kernel module it takes. `architecture`, `capability` and `name` are empty where they are not known.
    """

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
    listed: int | None = None

    @property
    def known(self) -> bool:
        """Whether the table has its PCI id."""
        return bool(self.architecture) or self.last_branch is not None

    @property
    def needed(self) -> int | None:
        """A branch that is known to support it, as far as one is known. The newest list names what those between had."""
        newest_list = max(row["branch"] for row in load("driver_branches")["packages"])
        return self.listed if self.listed and self.listed < newest_list else self.first_branch

    @property
    def passed_through(self) -> bool:
        """Whether it is kept for a virtual machine."""
        return self.driver.replace("_", "-").endswith("vfio-pci") or self.driver in _STUBS


class Gpus(NamedTuple):
    """NVIDIA's display and 3D controllers. `problems` are devices that could not be checked; `container` says that
    the bus is that of another system, whose driver is not here."""

    gpus: tuple[Gpu, ...]
    problems: tuple[str, ...] = ()
    container: bool = False

    @classmethod
    def probe(cls, host: Host, platform: Platform) -> "Gpus":
        container = platform.setting is PlatformSetting.CONTAINER
        try:
            addresses = host.listdir(_DEVICES)
        except Unreadable:
            if held := _held(host):
                return cls(held, (), container)
            raise
        if addresses or host.exists("/sys/bus/pci"):
            problems: list[str] = []
            found = [_from_sysfs(host, address, problems) for address in addresses]
            gpus = tuple(g for g in found if g)
            if not gpus and platform.setting in _OFF_THE_BUS:
                raise Unavailable(_OFF_THE_BUS[platform.setting])
            return cls(gpus, tuple(problems), container)
        if platform.setting in _OFF_THE_BUS:
            raise Unavailable(_OFF_THE_BUS[platform.setting])
        listed = host.text(_PROC)
        if listed is None:
            raise Unavailable("no PCI bus is visible: this machine is not running, or it has no /sys")
        return cls(tuple(g for line in listed.splitlines() if (g := from_proc(line))), (), container)


def _held(host: Host) -> tuple[Gpu, ...]:
    """The GPUs that the driver says it holds, where no bus is seen: it names the model."""
    try:
        addresses = host.listdir(_HELD)
    except Unreadable:
        return ()
    texts = ((address, host.text(f"{_HELD}/{address}/information") or "") for address in addresses)
    models = ((address, re.search(r"^Model:\s+(\S.*?)\s*$", text, re.MULTILINE)) for address, text in texts)
    return tuple(_named(address, model[1]) for address, model in models if model)


def _named(address: str, model: str) -> Gpu:
    """A GPU by the name that the driver gives it. Several PCI ids may have that name: what they share is known."""
    rows = lookup_gpus_named(model)
    gpus = {make_gpu(address, row, "nvidia")._replace(device="") for row in rows}
    if len(gpus) == 1:
        return gpus.pop()._replace(device=rows[0] if len(rows) == 1 else "")
    alike = {(g.architecture, g.capability) for g in gpus}
    architecture, capability = alike.pop() if len(alike) == 1 else ("", "")
    return Gpu(address, "", model, architecture, capability, "nvidia", True, None, None, False, None)


def _from_sysfs(host: Host, address: str, problems: list[str]) -> Gpu | None:
    folder = f"{_DEVICES}/{address}"
    try:
        vendor, device = _hex(host, f"{folder}/vendor"), _hex(host, f"{folder}/device")
        kind = _hex(host, f"{folder}/class")
        events: dict[str, str] = {}
        if not (vendor and device and kind) or vendor == "10de":
            events = dict(line.partition("=")[::2] for line in (host.text(f"{folder}/uevent") or "").splitlines())
    except Unreadable as problem:
        problems.append(str(problem))
        return None
    named = events.get("PCI_ID", "").lower().partition(":")
    vendor, device = vendor or named[0], device or named[2]
    kind = kind or events.get("PCI_CLASS", "").lower().zfill(6)
    # Class 03: display controllers; 0302 computes and has no output.
    if vendor != "10de" or not kind.startswith("03"):
        return None
    driver, is_display = _driver(host, address, events), not kind.startswith("0302")
    if not device:  # of a posted list without numbers
        model = (host.text(f"{folder}/label") or "").strip()
        return _named(address, model)._replace(driver=driver, is_display=is_display)
    return make_gpu(address, device, driver, is_display=is_display)


def _driver(host: Host, address: str, events: dict[str, str]) -> str:
    """What holds a device; a copy of /sys may lack any of the three places that tell it."""
    link = host.readlink(f"{_DEVICES}/{address}/driver")
    if link:
        return link.rstrip("/").rpartition("/")[2]
    if events.get("DRIVER"):
        return events["DRIVER"]
    return next((d for d in host.listdir(_DRIVERS) if host.lstat(f"{_DRIVERS}/{d}/{address}")), "")


def _hex(host: Host, path: str) -> str:
    found = re.fullmatch(r"0x([0-9a-f]+)", (host.text(path) or "").strip().lower(), re.ASCII)
    return found[1] if found else ""


def from_proc(line: str) -> Gpu | None:
    """One line of /proc/bus/pci/devices: bus and function, vendor and device, 15 numbers, the name of the driver. It has
    no class; so only a device that the table knows, or that a driver for GPUs holds, is taken for a GPU."""
    fields = line.split("\t")
    place = re.fullmatch(r"([0-9a-f]{2})([0-9a-f]{2})", fields[0], re.ASCII)
    known = re.fullmatch(r"10de([0-9a-f]{4})", fields[1], re.ASCII) if len(fields) > 1 else None
    if not place or not known:
        return None
    driver = fields[17].strip() if len(fields) > 17 else ""
    slot = int(place[2], 16)
    gpu = make_gpu(f"0000:{place[1]}:{slot >> 3:02x}.{slot & 7}", known[1], driver)
    return gpu if gpu.known or driver in ("nvidia", "nouveau") else None


def make_gpu(address: str, device: str, driver: str = "", *, is_display: bool = True) -> Gpu:
    """A GPU with what the table knows of its PCI id."""
    row = lookup_gpu(device) if re.fullmatch(r"[0-9a-f]{4}", device, re.ASCII) else None
    if row is None:
        name = f"NVIDIA GPU with PCI id 10de:{device}"
        return Gpu(address, device, name, "", "", driver, is_display, None, None, False, None)
    architecture, capability, first, listed, last, flavour, name = row
    return Gpu(
        address,
        device,
        name,
        architecture,
        capability,
        driver,
        is_display,
        int(first) if first else None,
        None if last == "-" else int(last),
        flavour == "only",
        None if flavour == "?" else flavour != "no",
        int(listed) if listed else None,
    )
