"""Events on a machine that call for another check. An event is a reason to check, never evidence."""

import re
from enum import Enum

from dlhealth.data.kernel_log import SXID_PATTERN, XID_PATTERN, Xid, full_address, recovered, sayings, sxid, xid
from dlhealth.lazy import regex
from dlhealth.model import Severity
from dlhealth.records import NamedTuple


class Topic(str, Enum):
    """What an event is about; it decides which rules run."""

    START = "start"
    DRIVER = "driver"
    GPU = "gpu"
    PACKAGES = "packages"
    KERNELS = "kernels"
    LOGIN = "login"
    LOGGED_IN = "logged-in"
    LOGIN_SCREEN = "login-screen"
    FILES = "files"
    REPAIR = "repair"
    DAILY = "daily"


LOOK_AT: dict[Topic, tuple[str, ...]] = {
    Topic.START: (),
    Topic.DRIVER: ("hardware", "kernel-module", "driver-libraries", "packaging", "runtime"),
    Topic.GPU: ("hardware", "kernel-module", "runtime"),
    Topic.PACKAGES: (),
    Topic.KERNELS: (),
    Topic.LOGIN: ("login",),
    Topic.LOGGED_IN: ("login",),
    Topic.LOGIN_SCREEN: ("login",),
    Topic.FILES: (),
    Topic.REPAIR: (),
    Topic.DAILY: (),
}
"""Rules and layers as for `--only`; empty means all rules."""


class Event(NamedTuple):
    """Something that happened. With an `id`, it gives an alert at once, before any check."""

    topic: Topic
    id: str = ""
    subject: str = "host"
    text: str = ""
    severity: str = "error"
    layer: str = ""


# The table's patterns match at the start of a line: later in the line, anybody's program name may appear.
_GPU = regex(r"GPU (?:at )?(?:PCI:)?((?:[0-9a-fA-F]{1,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)\b")
_WORTH_READING = (b"NVRM", b"nvidia", b"nouveau", b"module", b"nv_drm")


def of_kernel(record: bytes) -> Event | None:
    """The event in a record of /dev/kmsg ("priority,sequence,time,flags;message"); None for nearly all records."""
    if not any(word in record for word in _WORTH_READING):
        return None
    _, _, rest = record.partition(b";")
    # In a message of several lines, the kernel writes line ends as "\x0a".
    text = " ".join(rest.split(b"\n", 1)[0][:500].decode(errors="replace").replace("\\x0aNVRM:", " ").split())
    if found := XID_PATTERN.search(text):
        if recovered(text):
            return Event(Topic.GPU)
        return _of_gpu(found["gpu"], xid(int(found["number"])), text)
    if found := SXID_PATTERN.search(text):
        return _of_gpu(found["gpu"], sxid(int(found["number"]), fatal=found["fatal"].lower() == "fatal"), text)
    for saying in sayings().values():
        if saying.pattern.search(text):
            topic = Topic(saying.topic)
            gpu = _GPU.search(text) if topic is Topic.GPU else None
            subject = f"gpu:{full_address(gpu[1])}" if gpu else "host"
            return Event(topic, saying.fault, subject, text, layer=saying.layer)
    return None


def _of_gpu(address: str, known: Xid, text: str) -> Event | None:
    """An event of one GPU. One that is only worth a note gives no alert, only a check."""
    if not re.search(r"[0-9a-f]{2}:[0-9a-f]{2}", address, re.ASCII | re.IGNORECASE):
        return None
    if known.severity is Severity.NOTE:
        return Event(Topic.GPU)
    place = full_address(address)
    return Event(
        Topic.GPU, known.fault, f"gpu:{place}", f"{known.told(place)} ({text})", known.severity.value, known.layer
    )


def of_uevent(message: bytes) -> Event | None:
    """The event in a device message of the kernel: an NVIDIA device appears, disappears, or changes its driver."""
    fields = dict(part.split(b"=", 1) for part in message.split(b"\0")[1:] if b"=" in part)
    kind, action = fields.get(b"SUBSYSTEM"), fields.get(b"ACTION")
    if kind == b"pci" and fields.get(b"PCI_ID", b"").startswith(b"10DE:") and action in _ATTACHED_OR_NOT:
        return Event(Topic.GPU)
    if kind == b"module" and fields.get(b"DEVPATH") in _MODULES:
        return Event(Topic.DRIVER)
    return None


_ATTACHED_OR_NOT = (b"add", b"remove", b"bind", b"unbind")
_MODULES = (b"/module/nvidia", b"/module/nouveau", b"/module/nvidia_uvm")
