"""The initramfs of a kernel: what it makes of modules before the root file system is there."""

import re
from collections.abc import Iterator

from dlhealth.host import Host, Unreadable
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.driver.modules import KernelModules, ModprobeConfig, ModprobeLine, is_main_module, parse_config
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.records import NamedTuple

_PARTITIONS = ("/boot", "/efi", "/boot/efi")
_OTHERS = ("nouveau", "nova_core", "nova_drm")


class Initramfs(NamedTuple):
    """Of the kernel that is judged. `path` is the image ("" if there is none here), `written` when it was made.
    `content` is None if there was no reason to unpack the image, which takes most of a second: then nothing that it
    could explain is seen; or where it can't be, then `problem` says why. `newer_config` are files of modprobe.d, and
    `newer_module` says whether the NVIDIA module on the disk is, written since. `module_written` is when that was."""

    kernel: str
    path: str
    written: float
    newer_config: tuple[str, ...]
    content: dict[str, str] | None
    problem: str
    module_written: float = 0.0

    @property
    def newer_module(self) -> bool:
        return bool(self.path) and self.module_written > self.written

    def blacklists(self, module: str) -> bool:
        """Whether a modprobe.d file inside keeps the module from being loaded by its alias."""
        lines = (li for name, text in (self.content or {}).items() for li in _lines(name, text))
        config = ModprobeConfig(tuple(lines))
        return bool(config.blacklists(module) or config.disables(module))

    def holds(self, module: str) -> bool:
        """Whether a kernel module is inside."""
        return any(_base(name).partition(".ko")[0].replace("-", "_") == module for name in self.content or {})

    def nvidia_versions(self) -> dict[str, str]:
        """The main NVIDIA modules inside, by their paths, and their versions ("" for one that does not say)."""
        inside = {n: v for n, v in (self.content or {}).items() if is_main_module(_base(n))}
        return {n: v for n, v in inside.items() if f"/{self.kernel}/" in n} or inside

    @classmethod
    def probe(
        cls, host: Host, kernel: Kernel, modules: KernelModules, config: ModprobeConfig, gpus: Gpus | None
    ) -> "Initramfs":
        release = kernel.target
        if release is None:
            return cls("", "", 0.0, (), None, "no kernel to check")
        cmdline = kernel.cmdline if release == kernel.running else ""
        if release == kernel.next_boot and kernel.next_initramfs and " initrd=" not in f" {cmdline}":
            path, problem = kernel.next_initramfs, ""
        else:
            path, problem = _image(host, release, cmdline)
        status = host.stat(path) if path else None
        if status is None:
            return cls(release, "", 0.0, (), None, problem or "/boot has no initramfs")
        newer = tuple(p for p in config.files if (s := host.stat(p)) and s.mtime > status.mtime)
        found = cls(release, path, status.mtime, newer, None, "", _module_written(host, modules, release))
        if not (_shows(release, kernel, modules, config, gpus) or _may_show(found, kernel, modules, config)):
            return found
        try:
            return found._replace(content=host.initramfs(path))
        except Unreadable as error:
            return found._replace(problem=str(error))


def _lines(name: str, text: str) -> Iterator[ModprobeLine]:
    if name.endswith(".conf"):
        yield from parse_config(text, name)


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _image(host: Host, release: str, cmdline: str) -> tuple[str, str]:
    """The image of a kernel; and else, which one it was started with that is not here."""
    # A boot loader of UEFI passes the image on the command line, by its path on the partition; microcode may come first.
    given = [w.removeprefix("initrd=").replace("\\", "/") for w in cmdline.split() if w.startswith("initrd=")]
    if given:
        path = next((f"{p}{given[-1]}" for p in _PARTITIONS if host.exists(f"{p}{given[-1]}")), "")
        return path, "" if path else f"the kernel was started with {given[-1]}, which does not exist"
    for path in (f"/boot/initrd.img-{release}", f"/boot/initramfs-{release}.img"):
        if host.exists(path):
            return path, ""
    for partition in _PARTITIONS:
        for path in host.glob(f"{partition}/*/{release}/initrd*"):
            return path, ""
    return "", ""


def _module_written(host: Host, modules: KernelModules, release: str) -> float:
    """When the module came to the disk: a package keeps the time when it was made, but depmod runs after it."""
    disk = modules.on_disk(release)
    if disk is None:
        return 0.0
    stamps = (host.stat(p) for p in (disk.path, f"/lib/modules/{release}/modules.dep"))
    return max((s.mtime for s in stamps if s), default=0.0)


def _shows(release: str, kernel: Kernel, modules: KernelModules, config: ModprobeConfig, gpus: Gpus | None) -> bool:
    """Whether the running machine shows something that an old initramfs would explain."""
    if release != kernel.running:
        return False
    bound = {re.sub(r"[^a-z]", "", g.driver.lower()) for g in gpus.gpus} if gpus else set(modules.loaded or ())
    taken = [m for m in _OTHERS if m.replace("_", "") in bound or m in bound]
    if taken and any(config.blacklists(m) or config.disables(m) for m in _OTHERS):
        return True
    disk = modules.on_disk(release)
    return bool(disk and disk.version and modules.loaded_version and disk.version != modules.loaded_version)


def _may_show(image: Initramfs, kernel: Kernel, modules: KernelModules, config: ModprobeConfig) -> bool:
    """Whether a kernel that is not running will find something old in its image: what is newer than it."""
    if image.kernel == kernel.running or modules.on_disk(image.kernel) is None:
        return False
    lines = (*config.blacklists("nouveau"), *config.disables("nouveau"))
    return image.newer_module or any(li.source.path in image.newer_config for li in lines)
