"""Which system this is, where it runs, and what that means for a diagnosis."""

import re
from enum import Enum

from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.probes.machine.system import os_release
from dlhealth.records import NamedTuple

DPKG_STATUS = "/var/lib/dpkg/status"


class Family(str, Enum):
    """Who makes the system's packages."""

    DEBIAN = "debian"
    FEDORA = "fedora"
    SUSE = "suse"
    ARCH = "arch"
    ALPINE = "alpine"
    NIX = "nix"
    OTHER = "other"


class PlatformSetting(str, Enum):
    """What the system runs on. Only a machine of its own has its own kernel and its own driver."""

    MACHINE = "machine"
    CONTAINER = "container"
    WSL = "wsl"
    JETSON = "jetson"


_FAMILIES = {
    "debian": Family.DEBIAN, "ubuntu": Family.DEBIAN, "fedora": Family.FEDORA, "rhel": Family.FEDORA,
    "centos": Family.FEDORA, "suse": Family.SUSE, "opensuse": Family.SUSE, "sles": Family.SUSE, "arch": Family.ARCH,
    "alpine": Family.ALPINE, "nixos": Family.NIX,
}  # fmt: skip
"""By ID and ID_LIKE of os-release(5)."""

_MARKS = (
    ("/.dockerenv", "docker"),
    ("/.singularity.d", "apptainer"),
    ("/run/secrets/kubernetes.io", "kubernetes"),
    ("/var/run/secrets/kubernetes.io", "kubernetes"),
)
"""What a manager of containers leaves in each of them."""
_NAMING = ("/run/host/container-manager", "/run/systemd/container")
"""Files of systemd's container interface that hold the manager's name."""
_CGROUP = regex(r"/(kubepods|docker|lxc|machine\.slice/libpod|libpod|garden)\b")
_OVERLAY = regex(r" / overlay \S*/(containerd|docker|containers/storage|kubelet|crio)/")


class Platform(NamedTuple):
    """`name` is what the system calls itself (None: os-release does not say), `family` None if neither os-release nor
    dpkg's records tell it. `manager` is what runs a container, where that is known. `no_records` says why dpkg's
    records can't be read; None if they can. `tegra` says that the GPU is part of one of NVIDIA's ARM chips, as on a
    Jetson, also in a container there."""

    name: str | None
    family: Family | None
    setting: PlatformSetting
    manager: str | None
    no_records: str | None
    tegra: bool = False

    @property
    def managed(self) -> bool:
        """Whether it is a Debian or Ubuntu whose packages are known: only there are system files changed."""
        return self.family is Family.DEBIAN and self.no_records is None

    @property
    def driver_elsewhere(self) -> str | None:
        """Why neither these packages nor this kernel are the ones of the driver in use; None if they are."""
        return _ELSEWHERE[self.setting]

    @property
    def driver_place(self) -> str | None:
        """Where a person repairs the driver in use; None if that is this system."""
        return _PLACES.get(self.setting)

    @property
    def own_kernel(self) -> bool:
        """Whether the running kernel was installed by this system."""
        return self.setting in (PlatformSetting.MACHINE, PlatformSetting.JETSON)

    @property
    def free_space(self) -> str:
        """Commands with which root frees space without losing anything."""
        journal = "journalctl --vacuum-size=200M"
        return f"apt-get clean; {journal}" if self.managed else journal

    @property
    def unsupported(self) -> str | None:
        """Why packages and system files are neither judged nor changed; None if they are."""
        if self.family is Family.DEBIAN:
            return f"cannot read dpkg's records ({self.no_records})" if self.no_records else None
        if self.family is None:
            return "cannot tell which system this is, and there are no dpkg records"
        return f"{self.name or 'this system'} is not Debian or Ubuntu"

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a reader of the report must know of the platform; nothing for an ordinary Debian or Ubuntu machine."""
        found = []
        if self.unsupported:
            text = f"{self.unsupported}: packages and system files were not checked, and dlhealth repairs only users' start-up files."
            found.append(text[0].upper() + text[1:])
        if self.setting is PlatformSetting.CONTAINER:
            where = f" ({self.manager})" if self.manager else ""
            found.append(f"This is a container{where}: kernel and driver belong to the host. Run dlhealth there, too.")
        elif self.setting is PlatformSetting.WSL:
            found.append("This is WSL2: Windows provides the kernel and the driver, so checks of both were skipped.")
        elif self.setting is PlatformSetting.JETSON:
            found.append("This is a Jetson: its driver is part of L4T (JetPack), so checks of the driver were skipped.")
        return tuple(found)

    @classmethod
    def probe(cls, host: Host) -> "Platform":
        values = os_release(host)
        no_records = _no_records(host)
        manager, tegra = _container(host), is_tegra(host)
        if manager is not None:
            setting = PlatformSetting.CONTAINER
        elif _is_wsl(host):
            setting = PlatformSetting.WSL
        else:
            setting = PlatformSetting.JETSON if tegra else PlatformSetting.MACHINE
        version = values.get("VERSION_ID") or values.get("VERSION_CODENAME", "")
        name = values.get("PRETTY_NAME") or f"{values.get('ID', '')} {version}".strip()
        return cls(name or None, _family(values, no_records), setting, manager or None, no_records, tegra)


_ELSEWHERE: dict[PlatformSetting, str | None] = {
    PlatformSetting.MACHINE: None,
    PlatformSetting.CONTAINER: "skipped in a container: the kernel and the driver belong to the host",
    PlatformSetting.WSL: "skipped in WSL2: Windows provides the kernel and the driver",
    PlatformSetting.JETSON: "skipped on a Jetson: the driver is part of L4T (JetPack)",
}


_PLACES: dict[PlatformSetting, str] = {
    PlatformSetting.CONTAINER: "on the host, which has the kernel and the driver",
    PlatformSetting.WSL: "in Windows, which has the kernel and the driver",
    PlatformSetting.JETSON: "with JetPack (L4T), which the driver is part of",
}


def _family(values: dict[str, str], no_records: str | None) -> Family | None:
    names = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    if not any(names):
        return None if no_records else Family.DEBIAN
    known = (_FAMILIES.get(name.lower().partition("-")[0]) for name in names)
    return next(filter(None, known), Family.OTHER)


def _no_records(host: Host) -> str | None:
    """Why dpkg's status can't be read. Its content is the business of Packages."""
    try:
        status = host.stat(DPKG_STATUS)
    except Unreadable as problem:
        return str(problem)
    if status is None:
        return f"{DPKG_STATUS} does not exist"
    if status.kind != "file":
        return f"{DPKG_STATUS} is not a file"
    return None if status.size else f"{DPKG_STATUS} is empty"


def _container(host: Host) -> str | None:
    """The manager of the container that this is, "" if its name is not known; None if it is none."""
    for path in _NAMING:
        name = host.text(path)  # unreadable, it leaves open what this is
        if name is not None and name.strip() != "wsl":  # systemd takes WSL for one
            return name.strip()
    environment = _text(host, "/run/.containerenv")
    if environment is not None:
        engine = re.search(r'^engine="?([a-z]+)', environment, re.MULTILINE)
        return engine[1] if engine else "podman"
    for path, manager in _MARKS:
        if _exists(host, path):
            return manager
    set_by_manager = re.search(r"(?:\A|\0)container=([a-z-]+)", _text(host, "/proc/1/environ") or "")
    if set_by_manager and set_by_manager[1] != "wsl":
        return set_by_manager[1]
    if group := _CGROUP.search(_text(host, "/proc/1/cgroup") or ""):
        return {"kubepods": "kubernetes"}.get(group[1], group[1].rpartition("/")[2])
    return "" if _OVERLAY.search(_text(host, "/proc/mounts") or "") else None


def _is_wsl(host: Host) -> bool:
    release = _text(host, "/proc/sys/kernel/osrelease") or _text(host, "/proc/version") or ""
    marks = ("/usr/lib/wsl", "/run/WSL", "/proc/sys/fs/binfmt_misc/WSLInterop")
    return "microsoft" in release.lower() or any(_exists(host, path) for path in marks)


def is_tegra(host: Host) -> bool:
    """Whether it is one of NVIDIA's chips with a GPU inside, as on a Jetson."""
    return (
        _exists(host, "/etc/nv_tegra_release")
        or "nvidia,tegra" in (_text(host, "/proc/device-tree/compatible") or "")
        or (_text(host, "/proc/sys/kernel/osrelease") or "").strip().endswith("-tegra")
    )


def _text(host: Host, path: str) -> str | None:
    """None also where it can't be read: then this is no proof of anything."""
    try:
        return host.text(path)
    except Unreadable:
        return None


def _exists(host: Host, path: str) -> bool:
    try:
        return host.exists(path)
    except Unreadable:
        return False
