"""NVIDIA's kernel modules: loaded, and on the disk for each kernel; and what modprobe is told about modules."""

from dlhealth.host import Host, Unreadable
from dlhealth.lean import NamedTuple, regex
from dlhealth.probes.kernel import Kernel, in_container

_NAME = regex(
    r"^nvidia(?:-current(?:-open)?|-tesla(?:-\d+)?|-legacy-\d+xx|-srv)?(-uvm|-drm|-modeset|-peermem)?\.ko(?:\.xz|\.zst|\.gz)?$"
)
FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/lib/modprobe.d")
_VERSION = regex(r"Kernel Module\s+(?:for \S+\s+)?([0-9][0-9.]+)")


class ModuleFile(NamedTuple):
    kernel: str
    name: str
    path: str
    version: str
    license: str
    vermagic: str
    signature: str
    signer: str
    open: bool


class KernelModules(NamedTuple):
    loaded: tuple[str, ...] | None
    loaded_version: str | None
    loaded_open: bool | None
    files: tuple[ModuleFile, ...]

    def on_disk(self, kernel: str | None) -> ModuleFile | None:
        """What modprobe would load for that kernel."""
        return next((f for f in self.files if f.kernel == kernel and f.name == "nvidia"), None)

    @classmethod
    def probe(cls, host: Host, kernel: Kernel) -> "KernelModules":
        # In a container the loaded modules are those of the host, which this machine's files have no part in.
        container = in_container(host)
        listed = None if container else host.text("/proc/modules")
        version = "" if container else host.text("/proc/driver/nvidia/version") or ""
        match = _VERSION.search(version)
        loaded = None if listed is None else tuple(line.split()[0] for line in listed.splitlines() if line.split())
        loaded_version = match[1] if match else None
        if loaded_version is None and not container:
            loaded_version = (host.text("/sys/module/nvidia/version") or "").strip() or None
        files = tuple(f for k in kernel.installed for f in _files(host, k.release))
        return cls(loaded, loaded_version, "Open Kernel Module" in version if match else None, files)


class ModprobeLine(NamedTuple):
    source: str
    directive: str
    module: str
    arguments: str


class ModprobeConfig(NamedTuple):
    lines: tuple[ModprobeLine, ...]

    def blacklists(self, module: str) -> tuple[ModprobeLine, ...]:
        return tuple(
            li
            for li in self.lines
            if li.directive == "blacklist" and li.module.replace("-", "_") == module.replace("-", "_")
        )

    def options(self, module: str) -> tuple[ModprobeLine, ...]:
        return tuple(
            li
            for li in self.lines
            if li.directive == "options" and li.module.replace("-", "_") == module.replace("-", "_")
        )

    @classmethod
    def probe(cls, host: Host) -> "ModprobeConfig":
        lines = []
        for folder in FOLDERS:
            for name in host.listdir(folder):
                if name.endswith(".conf"):
                    for number, text in enumerate((host.text(f"{folder}/{name}") or "").splitlines(), 1):
                        words = text.split(None, 2)
                        if len(words) > 1 and not words[0].startswith("#"):
                            lines.append(
                                ModprobeLine(
                                    f"{folder}/{name}:{number}", words[0], words[1], words[2] if len(words) > 2 else ""
                                )
                            )
        return cls(tuple(lines))


def _files(host: Host, release: str) -> list[ModuleFile]:
    found = []
    base = f"/lib/modules/{release}"
    # Ubuntu's prebuilt modules (linux-modules-nvidia-*) lie in a folder of their branch.
    prebuilt = [f"kernel/{n}" for n in host.listdir(f"{base}/kernel") if n.startswith("nvidia-")]
    # depmod's search order, depmod.d(5): updates before what came with the kernel.
    for place in ("updates/dkms", "updates", "extra", *prebuilt, "kernel/drivers/video"):
        for name in host.listdir(f"{base}/{place}"):
            match = _NAME.match(name)
            if match:
                path = f"{base}/{place}/{name}"
                try:
                    elf = host.elf(path)
                except Unreadable:
                    elf = None
                if elf:
                    found.append(
                        ModuleFile(
                            release,
                            f"nvidia{match[1] or ''}",
                            path,
                            elf.info("version"),
                            elf.info("license"),
                            elf.info("vermagic"),
                            elf.signature,
                            "",
                            "GPL" in elf.info("license"),
                        )
                    )
    return found
