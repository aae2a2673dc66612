"""What happens on a machine that makes another look worth while. An event is a reason to look, never evidence."""

import re
from enum import Enum

from dlhealth.data.xids import XIDS
from dlhealth.lean import NamedTuple, regex


class Topic(str, Enum):
    """What an event is about, which decides what is looked at."""

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
}
"""Rules and layers as `--only` takes them; all rules where it is empty."""


class Event(NamedTuple):
    """Something happened. Where `id` is given, it is worth an alert at once, before anything was looked at."""

    topic: Topic
    id: str = ""
    subject: str = "host"
    text: str = ""
    severity: str = "error"
    layer: str = ""


# Texts of NVIDIA's kernel module, of the module loader (kernel/module/) and of nouveau. They stand at the start of a
# line: further on, a line may hold what a program of anybody is called. A rule is named where the line leaves no doubt.
_PCI = r"((?:[0-9a-fA-F]{1,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)"
_XID = regex(rf"^NVRM: Xid \(PCI:{_PCI}\): (\d+)")
_GPU = regex(rf"GPU (?:at )?(?:PCI:)?{_PCI}\b")
_KERNEL: tuple[tuple[re.Pattern[str], Topic, str], ...] = (
    (regex(r"^NVRM: API mismatch"), Topic.DRIVER, "driver-library-version-mismatch-after-upgrade"),
    (regex(r"^NVRM: .*RmInitAdapter failed"), Topic.GPU, "gpu-driver-hung"),
    (regex(r"^NVRM: .*fallen off the bus"), Topic.GPU, "xid-79-fallen-off-bus"),
    (regex(r"^NVRM: .*(?:in this system is not supported|No NVIDIA|None of the NVIDIA)"), Topic.DRIVER, "nvidia-module-not-loaded"),
    (regex(r"^nvidia[\w-]*: (?:version magic|disagrees about version|Unknown symbol)"), Topic.DRIVER, "nvidia-module-not-loaded"),
    (regex(r"^nvidia[\w-]*: loading of .*module.* is rejected"), Topic.DRIVER, "secure-boot-unsigned-module"),
    (regex(r"^Loading of .*module.* is rejected|^Lockdown: .*: unsigned module loading"), Topic.DRIVER, ""),
    (regex(r"^nvidia-modeset: ERROR|^\[drm:nv_drm"), Topic.DRIVER, ""),
    (regex(r"^nouveau [0-9a-f:.]+: (?:NVIDIA |(?:bus|fifo|gr): )"), Topic.DRIVER, ""),
    (regex(r"^nvidia: (?:loading|module verification)|^NVRM: loading"), Topic.DRIVER, ""),
)  # fmt: skip
_LAYER = {
    "driver-library-version-mismatch-after-upgrade": "driver-libraries",
    "gpu-driver-hung": "runtime",
    "nvidia-module-not-loaded": "kernel-module",
    "secure-boot-unsigned-module": "kernel-module",
    "xid-79-fallen-off-bus": "hardware",
}
_WORTH_READING = (b"NVRM", b"nvidia", b"nouveau", b"module", b"nv_drm")


def of_kernel(record: bytes) -> Event | None:
    """What a record of /dev/kmsg ("priority,sequence,time,flags;message") tells, None for nearly all."""
    if not any(word in record for word in _WORTH_READING):
        return None
    _, _, rest = record.partition(b";")
    # Where one message has several lines, the kernel writes their ends as "\x0a".
    text = " ".join(rest.split(b"\n", 1)[0][:500].decode(errors="replace").replace("\\x0aNVRM:", " ").split())
    if xid := _XID.search(text):
        id, severity, layer = XIDS.get(xid[2], (f"xid-{xid[2]}", "error", "hardware"))
        return Event(Topic.GPU, id, f"gpu:{address(xid[1])}", text, severity, layer)
    for pattern, topic, id in _KERNEL:
        if pattern.search(text):
            gpu = _GPU.search(text) if topic is Topic.GPU else None
            return Event(topic, id, f"gpu:{address(gpu[1])}" if gpu else "host", text, layer=_LAYER.get(id, ""))
    return None


def address(text: str) -> str:
    """A PCI address in full: NVIDIA's messages leave out the function, and sometimes shorten the domain."""
    domain, _, rest = (text if text.count(":") == 2 else f"0:{text}").lower().partition(":")
    return f"{int(domain, 16):04x}:{rest if '.' in rest else rest + '.0'}"


def of_uevent(message: bytes) -> Event | None:
    """What a message of the kernel's device events tells: an NVIDIA device that comes, goes, or gets another driver."""
    fields = dict(part.split(b"=", 1) for part in message.split(b"\0")[1:] if b"=" in part)
    kind, action = fields.get(b"SUBSYSTEM"), fields.get(b"ACTION")
    if kind == b"pci" and fields.get(b"PCI_ID", b"").startswith(b"10DE:") and action in _ATTACHED_OR_NOT:
        return Event(Topic.GPU)
    if kind == b"module" and fields.get(b"DEVPATH") in _MODULES:
        return Event(Topic.DRIVER)
    return None


_ATTACHED_OR_NOT = (b"add", b"remove", b"bind", b"unbind")
_MODULES = (b"/module/nvidia", b"/module/nouveau", b"/module/nvidia_uvm")
