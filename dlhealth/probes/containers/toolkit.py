"""What containers get of the driver: device descriptions, the toolkit's settings, Docker's running containers; and, from
inside of a container, the devices that it may use."""

import json
import posixpath
import re
from typing import Any

from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.containers.docker import DAEMON, Docker
from dlhealth.probes.machine.platform import Platform, PlatformSetting
from dlhealth.records import NamedTuple

CDI_FOLDERS = ("/run/cdi", "/etc/cdi")
"""The first one wins: /var/run is a link to /run, and what is generated there replaces what lies in /etc."""
_CDI_LIMIT = 1 << 20
_KIND = regex(r"""(?:^|[{,])[-\s]*"?kind"?\s*:\s*["']?([\w./-]+)""", re.MULTILINE)
_HOST_PATH = regex(r"""\bhostPath"?\s*:\s*["']?(/[^"'\s,}]+)""")
_PATH = regex(r"""(?<![\w-])path"?\s*:\s*["']?(/dev/[^"'\s,}]+)""")
_NAME = regex(r"""(?:^|[{,])[-\s]*"?name"?\s*:\s*["']?([\w.:-]+)""", re.MULTILINE)


class CdiSpec(NamedTuple):
    """One description of NVIDIA devices for containers. `names` are the devices ("0", "all"), `nodes` their paths in
    /dev, `files` the files of the host that it names. `missing` are those of them that do not exist although their
    directory does. `mtime` is when the description was written."""

    path: str
    kind: str
    names: frozenset[str]
    nodes: tuple[str, ...]
    files: tuple[str, ...]
    missing: tuple[str, ...]
    mtime: float

    @property
    def folder(self) -> str:
        """Where it lies."""
        return self.path.rpartition("/")[0]


class CdiSpecs(NamedTuple):
    """NVIDIA's, in the order in which they count. `problems` could not be read."""

    specs: tuple[CdiSpec, ...]
    problems: tuple[str, ...]

    def better(self, spec: CdiSpec) -> CdiSpec | None:
        """A complete description that replaces all devices of this one."""
        before = self.specs[: self.specs.index(spec)]
        return next((s for s in before if _replaces(s, spec)), None)

    @classmethod
    def probe(cls, host: Host, platform: Platform) -> "CdiSpecs":
        if platform.setting is PlatformSetting.CONTAINER:
            raise Unavailable("skipped in a container: CDI specifications belong to the host")
        specs: list[CdiSpec] = []
        problems: list[str] = []
        for folder in CDI_FOLDERS:
            try:
                for name in host.listdir(folder):
                    if name.endswith((".yaml", ".json")) and (spec := _cdi_spec(host, f"{folder}/{name}")):
                        specs.append(spec)
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(tuple(specs), tuple(problems))


def _replaces(better: CdiSpec, spec: CdiSpec) -> bool:
    return (
        better.folder != spec.folder and better.kind == spec.kind and not better.missing and better.names >= spec.names
    )


def _cdi_spec(host: Host, path: str) -> CdiSpec | None:
    """None if it describes other devices than NVIDIA's."""
    text, status = host.text(path, _CDI_LIMIT), host.stat(path)
    kind = _KIND.search(text or "")
    if not text or not status or not kind or not kind[1].startswith("nvidia.com/"):
        return None
    named = dict.fromkeys(_HOST_PATH.findall(text))
    files = [p for p in named if not p.startswith(("/dev/", "/run/", "/var/run/", "/tmp/"))]
    nodes = dict.fromkeys([*_PATH.findall(text), *(p for p in named if p.startswith("/dev/"))])
    missing = tuple(p for p in files if not host.exists(p) and host.exists(posixpath.dirname(p)))
    names = frozenset(_NAME.findall(text))
    return CdiSpec(path, kind[1], names, tuple(nodes), tuple(files), missing, status.mtime)


TOOLKIT_CONFIG = "/etc/nvidia-container-runtime/config.toml"
_LDCONFIG = regex(r"""^\s*ldconfig\s*=\s*["']@(/[^"']+)["']""")
_NO_CGROUPS = regex(r"^\s*no-cgroups\s*=\s*true\b")
_CDI_MODE = regex(r"""^\s*mode\s*=\s*["']cdi["']""", re.MULTILINE)


class ToolkitConfig(NamedTuple):
    """The line of NVIDIA's container toolkit that names the host's ldconfig: its number and text, the program, and
    whether that exists. `number` is 0 without such a line. `no_cgroups` is the line that keeps the toolkit from opening
    the GPU's nodes in the control group of a container (None: no such line, or it has no effect)."""

    number: int
    line: str
    ldconfig: str
    exists: bool
    no_cgroups: tuple[int, str] | None

    @classmethod
    def probe(cls, host: Host) -> "ToolkitConfig":
        text = host.text(TOOLKIT_CONFIG) or ""
        lines = list(enumerate(text.splitlines(), 1))
        with_cdi = _CDI_MODE.search(text)
        no_cgroups = None if with_cdi else next(((n, line) for n, line in lines if _NO_CGROUPS.match(line)), None)
        for number, line in lines:
            if match := _LDCONFIG.match(line):
                return cls(number, line, match[1], host.exists(match[1]), no_cgroups)
        return cls(0, "", "", False, no_cgroups)


_TASKS = "/run/containerd/io.containerd.runtime.v2.task/moby"


class DockerContainer(NamedTuple):
    """A running container. `id` is what `docker ps` shows, `source` the file that describes it. `gpus` says that it was
    started with --gpus; `devices` are the nodes that it was given by --device."""

    id: str
    source: str
    gpus: bool
    devices: tuple[str, ...]
    privileged: bool


class DockerContainers(NamedTuple):
    """The running ones. `cgroups` is what manages their control groups, systemd or cgroupfs, and `links` says whether
    /dev/char has links to the driver's device nodes, by which systemd knows the devices."""

    containers: tuple[DockerContainer, ...]
    cgroups: str
    links: bool

    @classmethod
    def probe(cls, host: Host, docker: Docker) -> "DockerContainers":
        if not docker.engine or not docker.toolkit:
            return cls((), "", False)
        settings = _json(host.text(DAEMON) or "{}")
        folder = f"{settings.get('data-root') or '/var/lib/docker'}/containers"
        try:
            found = [_container(host, folder, identity) for identity in host.listdir(_TASKS)]
        except Unreadable as problem:
            raise Unavailable(f"cannot tell which containers Docker runs: {problem}") from problem
        return cls(tuple(c for c in found if c), _cgroups(host, settings), host.lstat("/dev/char/195:255") is not None)


def _cgroups(host: Host, settings: dict[str, Any]) -> str:
    """As Docker chooses: systemd with control groups of version 2, unless it is told otherwise."""
    options = settings.get("exec-opts")
    for option in options if isinstance(options, list) else ():
        name, _, value = str(option).partition("=")
        if name == "native.cgroupdriver":
            return value
    return "systemd" if host.exists("/sys/fs/cgroup/cgroup.controllers") else "cgroupfs"


def _container(host: Host, folder: str, identity: str) -> DockerContainer | None:
    source = f"{folder}/{identity}/hostconfig.json"
    settings = _json(host.text(source) or "")
    if not settings:
        return None
    gpus = any("gpu" in str(request.get("Capabilities")) for request in _objects(settings, "DeviceRequests"))
    devices = [str(device.get("PathOnHost")) for device in _objects(settings, "Devices")]
    return DockerContainer(identity[:12], source, gpus, tuple(devices), settings.get("Privileged") is True)


def _objects(settings: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a list, which may be null."""
    found = settings.get(name)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


_ALLOWED = "/sys/fs/cgroup/devices/devices.list"
_SIZE = regex(r"^\S+ /dev/shm tmpfs (?:\S*,)?size=(\d+)k\b", re.MULTILINE)


class ContainerDevices(NamedTuple):
    """What a container itself sees; `container` is False on a machine of its own, and the rest is then empty. `nodes`
    are the driver's in /dev; `visible` is NVIDIA_VISIBLE_DEVICES of the first process (None: not set), and `unread` why
    that is not known ("" where it is); `driver` says
    whether the host's driver is loaded; `allowed` are the lines of the device control group about the driver's nodes
    (None: not known); `shm` is the size of /dev/shm in bytes (None: not known)."""

    container: bool
    nodes: tuple[str, ...]
    visible: str | None
    unread: str
    driver: bool
    allowed: tuple[str, ...] | None
    shm: int | None

    @property
    def has_gpu(self) -> bool:
        """Whether the nodes that every program needs are there."""
        return "/dev/nvidiactl" in self.nodes and any(re.fullmatch(r"/dev/nvidia\d+", n) for n in self.nodes)

    @classmethod
    def probe(cls, host: Host, platform: Platform) -> "ContainerDevices":
        if platform.setting is not PlatformSetting.CONTAINER:
            return cls(False, (), None, "", False, None, None)
        nodes = tuple(f"/dev/{name}" for name in host.listdir("/dev") if name.startswith("nvidia"))
        variables, unread = {}, ""
        try:
            variables = dict(v.partition("=")[::2] for v in (host.text("/proc/1/environ") or "").split("\0"))
        except Unreadable as problem:
            unread = str(problem)
        allowed = host.text(_ALLOWED)
        size = _SIZE.search(host.text("/proc/mounts") or "")
        return cls(
            True,
            nodes,
            variables.get("NVIDIA_VISIBLE_DEVICES"),
            unread,
            host.exists("/proc/driver/nvidia/version"),
            None if allowed is None else tuple(x for x in allowed.splitlines() if x.startswith(("a ", "c 195:"))),
            int(size[1]) << 10 if size else None,
        )
