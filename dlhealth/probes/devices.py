"""The device nodes of the driver in /dev, and what decides about them."""

import os
import re
from typing import NamedTuple

from dlhealth.host import Host
from dlhealth.probes import Unavailable

MODPROBE = "/usr/bin/nvidia-modprobe"
_NODE = re.compile(r"nvidia(ctl|-uvm|-uvm-tools|-modeset|\d+)")


class Node(NamedTuple):
    """One node; `major` is its device number's first part."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    major: int


class DeviceNodes(NamedTuple):
    """`majors` are those that the kernel gave out, by driver; `parameters` of the loaded module (those of device
    files); `creates` says that nvidia-modprobe is there and may make nodes for users."""

    nodes: tuple[Node, ...]
    majors: dict[str, int]
    parameters: dict[str, str]
    creates: bool

    def node(self, name: str) -> Node | None:
        return next((n for n in self.nodes if n.path == f"/dev/{name}"), None)

    @classmethod
    def probe(cls, host: Host) -> "DeviceNodes":
        names = host.listdir("/dev")
        if not names:
            raise Unavailable("/dev is empty here: this machine does not run")
        nodes = [_node(host, f"/dev/{n}") for n in names if _NODE.fullmatch(n)]
        modprobe = host.stat(MODPROBE)
        return cls(
            tuple(n for n in nodes if n),
            _majors(host.text("/proc/devices") or ""),
            _parameters(host.text("/proc/driver/nvidia/params") or ""),
            bool(modprobe and modprobe.uid == 0 and modprobe.mode & 0o4000),
        )


def _node(host: Host, path: str) -> Node | None:
    status = host.lstat(path)
    return status and Node(path, status.kind, status.mode, status.uid, status.gid, os.major(status.rdev))


def _majors(text: str) -> dict[str, int]:
    """The character devices of /proc/devices."""
    found = {}
    for line in text.partition("Block devices:")[0].splitlines():
        words = line.split()
        if len(words) == 2 and words[0].isdigit():
            found[words[1]] = int(words[0])
    return found


def _parameters(text: str) -> dict[str, str]:
    pairs = (line.partition(": ") for line in text.splitlines())
    return {name: value for name, colon, value in pairs if colon and name.startswith(("DeviceFile", "ModifyDevice"))}
