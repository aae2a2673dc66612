"""NVSwitches, and the fabric manager that sets them up."""

import re

from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.platform import Platform, PlatformSetting
from dlhealth.probes.packaging.packages import Packages
from dlhealth.records import NamedTuple

_DEVICES = "/sys/bus/pci/devices"
_PROGRAM = "/usr/bin/nv-fabricmanager"
_UNIT = "nvidia-fabricmanager.service"


class FabricManager(NamedTuple):
    """`switches` are the PCI addresses of NVSwitches. `program` is the path of the fabric manager ("" without one),
    `package` and `version` are of its package ("" if no package owns it). `enabled` says that it is started at boot;
    `problems` could not be checked."""

    switches: tuple[str, ...]
    program: str
    package: str
    version: str
    enabled: bool
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, platform: Platform, packages: Packages | None) -> "FabricManager":
        if platform.setting is PlatformSetting.CONTAINER:
            raise Unavailable("skipped in a container: the NVSwitches belong to the host")
        if not host.exists(_DEVICES):
            raise Unavailable("no PCI bus is visible: this machine is not running, or it has no /sys")
        problems: list[str] = []
        switches = []
        for address in host.listdir(_DEVICES):
            try:
                if _is_switch(host, f"{_DEVICES}/{address}"):
                    switches.append(address)
            except Unreadable as problem:
                problems.append(str(problem))
        installed = packages.installed("*nvidia-fabricmanager*") if packages and switches else ()
        manager = next((p for p in installed if not p.name.endswith("-dev")), None)
        enabled = any(host.glob(f"/etc/systemd/system/*.wants/{_UNIT}")) if switches else False
        program = _PROGRAM if switches and host.exists(_PROGRAM) else ""
        # The packages of NVIDIA's repository have revisions, "535.183.01-1"; the driver's version has none.
        version = re.match(r"(?:\d+:)?([\d.]*)", manager.version) if manager else None
        name = manager.name if manager else ""
        return cls(tuple(switches), program, name, version[1] if version else "", enabled, tuple(problems))


def _is_switch(host: Host, folder: str) -> bool:
    """NVIDIA's bridges of the class "other" (0680): NVSwitches of A100 and H100 boards."""
    vendor = (host.text(f"{folder}/vendor") or "").strip().lower()
    return vendor == "0x10de" and (host.text(f"{folder}/class") or "").strip().lower().startswith("0x0680")
