"""The device nodes of the driver in /dev, and what decides about them."""

import os
import re

from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.modules import ModprobeConfig, ModprobeLine
from dlhealth.records import NamedTuple

MODPROBE = "/usr/bin/nvidia-modprobe"
_NODE = regex(r"nvidia(ctl|-uvm|-uvm-tools|-modeset|\d+)", re.ASCII)
_MAKERS = ("/etc/udev/rules.d/*.rules", "/etc/rc.local", "/etc/init.d/*nvidia*", "/etc/systemd/system/*nvidia*.service")
"""Where people put a mknod or a chmod of their own."""


_CHANGES = regex(r"\b(?:mknod|chmod|chown|chgrp|MODE|GROUP|OWNER)\b")


class Node(NamedTuple):
    """One node; `kind` as of Stat, `major` is its device number's first part."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    major: int


class Maker(NamedTuple):
    """A line of the administrator's that makes or changes nodes."""

    source: Place
    text: str


class DeviceNodes(NamedTuple):
    """`majors` are those that the kernel gave out, by driver; `parameters` of the loaded module (those of device
    files); `options` the lines of modprobe.d that set them. `creates` says that nvidia-modprobe is there and may make
    nodes for users, `modprobe` why not. `makers` are looked for where a node is odd. `groups` are names by number.
    `live`: what is not among the nodes does not exist."""

    nodes: tuple[Node, ...]
    majors: dict[str, int]
    parameters: dict[str, str]
    options: tuple[ModprobeLine, ...]
    creates: bool
    modprobe: str
    makers: tuple[Maker, ...]
    groups: dict[int, str]
    live: bool

    def node(self, name: str) -> Node | None:
        return next((n for n in self.nodes if n.path == f"/dev/{name}"), None)

    def configured(self) -> tuple[int, int, int] | None:
        """Mode, owner and group that the module gives to its nodes (all but nvidia-uvm, which stays open to all), where
        somebody set them."""
        given = dict(self.parameters)
        if not given:
            words = [w for li in self.options for w in li.arguments.split()]
            given = dict(
                w.removeprefix("NVreg_").partition("=")[::2] for w in words if w.startswith("NVreg_DeviceFile")
            )
        if not given or given.get("ModifyDeviceFiles") == "0":
            return None
        mode, uid, gid = (_number(given.get(f"DeviceFile{key}", "")) for key in ("Mode", "UID", "GID"))
        return 0o666 if mode is None else mode & 0o777, uid or 0, gid or 0

    @classmethod
    def probe(cls, host: Host, config: ModprobeConfig | None) -> "DeviceNodes":
        names = host.listdir("/dev")
        nodes = tuple(n for name in names if _NODE.fullmatch(name) and (n := _node(host, f"/dev/{name}")))
        majors = read_majors(host.text("/proc/devices") or "")
        parameters = read_parameters(host.text("/proc/driver/nvidia/params") or "")
        options = _options(config)
        # A copied root mostly has no nodes: that says nothing about the machine.
        if not (nodes or parameters or options or (host.live and "nvidia" in " ".join(majors))):
            raise Unavailable("the driver has no device nodes: it is not loaded, or this machine is not running")
        modprobe = host.stat(MODPROBE)
        setuid = modprobe is not None and modprobe.uid == 0 and modprobe.mode & 0o4000 != 0
        return cls(
            nodes,
            majors,
            parameters,
            options,
            setuid,
            "" if setuid else f"mode {modprobe.mode:04o}, owner {modprobe.uid}" if modprobe else "does not exist",
            _makers(host) if any(_odd(n, majors) for n in nodes) else (),
            _groups(host),
            host.live,
        )


def _node(host: Host, path: str) -> Node | None:
    status = host.stat(path)
    return status and Node(path, status.kind, status.mode, status.uid, status.gid, os.major(status.rdev))


def _number(text: str) -> int | None:
    """A number of a module's parameter: 0660 is octal, as in C."""
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,10}", text, re.ASCII):
        return None
    octal = text.startswith("0") and not text.startswith("0x")
    try:
        return int(text, 8 if octal else 0)
    except ValueError:
        return None


def _odd(node: Node, majors: dict[str, int]) -> bool:
    number = majors.get(node.path.removeprefix("/dev/"))
    return node.mode & 0o006 != 0o006 or (number is not None and number != node.major)


def read_majors(text: str) -> dict[str, int]:
    """The character devices of /proc/devices."""
    found = {}
    for line in text.partition("Block devices:")[0].splitlines():
        words = line.split()
        if len(words) == 2 and words[0].isascii() and words[0].isdigit() and len(words[0]) < 6:
            found[words[1]] = int(words[0])
    return found


def read_parameters(text: str) -> dict[str, str]:
    """What /proc/driver/nvidia/params says of device files: DeviceFileUID, DeviceFileGID, DeviceFileMode (decimal)."""
    pairs = (line.partition(": ") for line in text.splitlines())
    return {
        name: value.strip() for name, colon, value in pairs if colon and name.startswith(("DeviceFile", "ModifyDevice"))
    }


def _options(config: ModprobeConfig | None) -> tuple[ModprobeLine, ...]:
    # Debian's module has another name on the disk: options are for nvidia-current, nvidia-tesla-470, …
    return tuple(
        li
        for li in (config.lines if config else ())
        if li.directive == "options" and li.module.startswith("nvidia") and "NVreg_DeviceFile" in li.arguments
    )


def _makers(host: Host) -> tuple[Maker, ...]:
    found = []
    for pattern in _MAKERS:
        for path in host.glob(pattern):
            try:
                text = host.text(path) or ""
            except Unreadable:
                continue  # this only says more about a fault that is seen elsewhere
            for number, line in enumerate(text.splitlines(), 1):
                if "nvidia" in line and not line.lstrip().startswith("#") and _CHANGES.search(line):
                    found.append(Maker(Place(path, number), line.strip()[:200]))
    return tuple(found)


def _groups(host: Host) -> dict[int, str]:
    try:
        lines = (host.text("/etc/group") or "").splitlines()
    except Unreadable:
        return {}
    fields = [line.split(":") for line in lines]
    return {int(f[2]): f[0] for f in fields if len(f) == 4 and f[2].isascii() and f[2].isdigit() and len(f[2]) < 11}
