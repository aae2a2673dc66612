"""Whether somebody switched the NVIDIA GPU off, and by what: a tool for laptops with two GPUs, or a file of their own."""

import re
from collections.abc import Iterator

from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes.driver.modules import ModprobeConfig
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.packaging.packages import Packages
from dlhealth.records import NamedTuple

PRIME_DISCRETE = "/etc/prime-discrete"
_HEAD = 5
"""Lines in which a generated file names its maker."""
_REMOVES = regex(r"0x10de.*\{remove\}=\"1\"|\{remove\}=\"1\".*0x10de")
_UDEV = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")
# The kernel's command line: its own, modprobe's, and dracut's and systemd's way to say it to the initramfs as well.
_WORD = regex(r"(?:module_blacklist|modprobe\.blacklist|rd\.driver\.blacklist)=(?:\S*,)?nvidia(?:,|\Z)")


class Tool(NamedTuple):
    """A program that switches a GPU off and on. `marks` is how its files name it, `programs` and `packages` show that it
    is installed, `turns_on` is its command. Where `on_demand`, the GPU works whenever a program asks for it that way."""

    name: str
    marks: str
    programs: tuple[str, ...]
    packages: tuple[str, ...]
    turns_on: str
    on_demand: bool = False


TOOLS = (
    Tool("system76-power", r"system76-power", ("/usr/bin/system76-power",), ("system76-power",),
         "sudo system76-power graphics hybrid, then reboot"),
    Tool("supergfxctl", r"supergfx", ("/usr/bin/supergfxd", "/usr/bin/supergfxctl"), ("supergfxctl",),
         "supergfxctl --mode Hybrid, then log out or reboot"),
    Tool("EnvyControl", r"envycontrol", ("/usr/bin/envycontrol", "/usr/local/bin/envycontrol"),
         ("envycontrol", "python3-envycontrol"), "sudo envycontrol -s hybrid, then reboot"),
    Tool("optimus-manager", r"optimus-manager", ("/usr/bin/optimus-manager",), ("optimus-manager",),
         "optimus-manager --switch hybrid"),
    Tool("Bumblebee", r"bumblebee|bbswitch", ("/usr/sbin/bumblebeed",), ("bumblebee",), "optirun PROGRAM", True),
    Tool("nvidia-xrun", r"nvidia-xrun", ("/usr/bin/nvidia-xrun",), ("nvidia-xrun",), "nvidia-xrun PROGRAM", True),
    Tool("prime-select", r"prime-select|nvidia-prime|gpu-manager|ubuntu-drivers-common", ("/usr/bin/prime-select",),
         ("nvidia-prime",), "sudo prime-select nvidia (or on-demand), then reboot"),
)  # fmt: skip

_OWN_FILES = {
    "blacklist-nvidia.conf": "prime-select",
    "50-pm-nvidia.rules": "prime-select",
    "80-pm-nvidia.rules": "prime-select",
}
"""Names that a tool gives to files which, in older versions, do not say who wrote them."""


class Blocker(NamedTuple):
    """What keeps the nvidia module from loading, or the GPU from the bus: `tool` wrote
    it (None: an administrator). `installed` says whether that tool is still here, None if unknown."""

    source: Place
    text: str
    tool: Tool | None
    installed: bool | None

    @property
    def left_over(self) -> bool:
        """Whether the tool that wrote it is known to be gone."""
        return self.tool is not None and self.installed is False


class GpuSwitch(NamedTuple):
    """What switches the GPU off; nothing on a machine whose GPU is meant to work. `problems` could not be checked."""

    blockers: tuple[Blocker, ...]
    problems: tuple[str, ...]

    @property
    def chosen(self) -> tuple[Blocker, ...]:
        """Those that somebody wants, as far as is known: of an installed tool, or an administrator's."""
        return tuple(b for b in self.blockers if not b.left_over)

    @property
    def left_over(self) -> tuple[Blocker, ...]:
        """Those of a tool that is gone."""
        return tuple(b for b in self.blockers if b.left_over)

    @classmethod
    def probe(cls, host: Host, config: ModprobeConfig, packages: Packages | None, kernel: Kernel | None) -> "GpuSwitch":
        problems: list[str] = list(config.problems)
        found = [
            _blocker(host, source, text, packages)
            for source, text in (*_module_lines(config), *_udev_lines(host, problems))
        ]
        found += _by_state(host, packages, problems)
        word = next((w for w in kernel.cmdline.split() if _WORD.match(w)), None) if kernel else None
        if word:
            found.append(Blocker(Place("/proc/cmdline"), word, None, None))
        return cls(tuple(found), tuple(dict.fromkeys(problems)))


def _module_lines(config: ModprobeConfig) -> Iterator[tuple[Place, str]]:
    """One line of each file that keeps the module away."""
    seen = set()
    for line in (*config.blacklists("nvidia"), *config.disables("nvidia")):
        path = line.source.path
        if path not in seen:
            seen.add(path)
            yield line.source, f"{line.directive} {line.module} {line.arguments}".strip()


def _udev_lines(host: Host, problems: list[str]) -> Iterator[tuple[Place, str]]:
    """One line of each rule that takes GPUs off the bus."""
    seen = set()
    for path in (path for folder in _UDEV for path in host.glob(f"{folder}/*nvidia*.rules")):
        try:
            text, real = host.text(path) or "", host.realpath(path)
        except Unreadable as problem:
            problems.append(str(problem))
            continue
        lines = enumerate(text.splitlines(), 1)
        # 0x03: display controllers. NVIDIA's own rules remove the sound and USB controllers of a card.
        line = next(
            ((n, t) for n, t in lines if not t.lstrip().startswith("#") and "0x03" in t and _REMOVES.search(t)), None
        )
        if line and real not in seen:
            seen.add(real)
            yield Place(path, line[0]), line[1].strip()[:200]


def _by_state(host: Host, packages: Packages | None, problems: list[str]) -> Iterator[Blocker]:
    """What a tool keeps of its mode."""
    try:
        discrete = (host.text(PRIME_DISCRETE) or "").strip()
        mode = re.search(r'"mode"\s*:\s*"(Integrated|Vfio)"', host.text("/etc/supergfxd.conf") or "")
    except Unreadable as problem:
        problems.append(str(problem))
        return
    tools = {tool.name: _installed(host, tool, packages) for tool in TOOLS}
    if discrete == "off":
        name = "system76-power" if tools["system76-power"] else "prime-select"
        if tools[name]:
            yield Blocker(Place(PRIME_DISCRETE), "off", next(t for t in TOOLS if t.name == name), True)
    if mode and tools["supergfxctl"]:
        yield Blocker(Place("/etc/supergfxd.conf"), mode[0], next(t for t in TOOLS if t.name == "supergfxctl"), True)


def _blocker(host: Host, source: Place, text: str, packages: Packages | None) -> Blocker:
    tool = _maker(host, source.path)
    return Blocker(source, text, tool, _installed(host, tool, packages) if tool else None)


def _maker(host: Host, path: str) -> Tool | None:
    """The tool that a file names in its first lines or bears in its name."""
    name = path.rpartition("/")[2]
    head = "\n".join((host.text(path) or "").splitlines()[:_HEAD])
    comments = "\n".join(line for line in head.splitlines() if line.lstrip().startswith("#"))
    for text in (comments, name):
        for tool in TOOLS:
            if re.search(tool.marks, text, re.IGNORECASE):
                return tool
    return next((t for t in TOOLS if t.name == _OWN_FILES.get(name)), None)


def _installed(host: Host, tool: Tool, packages: Packages | None) -> bool | None:
    try:
        if any(host.exists(path) for path in tool.programs):
            return True
        if not host.exists("/usr/bin"):
            return None
    except Unreadable:
        return None
    if packages is None:
        return None
    return any((p := packages.get(name)) is not None and p.unpacked for name in tool.packages)
