"""The initramfs of a kernel: what it makes of modules before the root file system is there."""

from dlhealth.host import Host, Unreadable
from dlhealth.lean import NamedTuple
from dlhealth.probes.gpu import Gpus
from dlhealth.probes.kernel import Kernel
from dlhealth.probes.modules import FOLDERS, KernelModules, ModprobeConfig

_OTHERS = ("nouveau", "nova_core", "nova_drm")


class Initramfs(NamedTuple):
    """Of the kernel that is judged. `content` is None where there was no reason to unpack the image, which takes most
    of a second: then nothing that it could explain is seen. `newer_config` are modprobe.d files written since."""

    kernel: str
    path: str
    written: float
    newer_config: tuple[str, ...]
    content: dict[str, str] | None
    problem: str

    def blacklists(self, module: str) -> bool:
        """Whether a modprobe.d file inside keeps the module from being loaded by its alias."""
        wanted = module.replace("-", "_")
        return any(
            words[0] == "blacklist" and words[1].replace("-", "_") == wanted
            for text in (self.content or {}).values()
            for line in text.splitlines()
            if len(words := line.split()) > 1
        )

    def nvidia_version(self) -> str | None:
        """The version of the NVIDIA module inside; None where there is none, empty where it does not say."""
        for name, text in (self.content or {}).items():
            base = name.rpartition("/")[2]
            if (
                base.startswith("nvidia")
                and ".ko" in base
                and not any(p in base for p in ("uvm", "drm", "modeset", "peermem"))
            ):
                return text
        return None

    @classmethod
    def probe(
        cls, host: Host, kernel: Kernel, modules: KernelModules, config: ModprobeConfig, gpus: Gpus | None
    ) -> "Initramfs":
        release = kernel.target
        path = f"/boot/initrd.img-{release}"
        status = host.stat(path) if release else None
        if release is None or status is None:
            return cls("", "", 0.0, (), None, "there is no initramfs in /boot")
        newer = tuple(
            f"{folder}/{name}"
            for folder in FOLDERS
            for name in host.listdir(folder)
            if name.endswith(".conf") and (s := host.stat(f"{folder}/{name}")) and s.mtime > status.mtime
        )
        content, problem = None, ""
        if _suspicious(release, kernel, modules, config, gpus):
            try:
                content = host.initramfs(path)
            except Unreadable as error:
                problem = str(error)
        return cls(release, path, status.mtime, newer, content, problem)


def _suspicious(
    release: str, kernel: Kernel, modules: KernelModules, config: ModprobeConfig, gpus: Gpus | None
) -> bool:
    """Whether the running machine shows something that an old initramfs would explain."""
    if release != kernel.running:
        return False
    bound = {g.driver.lower().replace("-", "_") for g in gpus.gpus} if gpus else set()
    taken = bound & {*_OTHERS, "novacore"}
    if taken and any(config.blacklists(m) for m in _OTHERS):
        return True
    disk = modules.on_disk(release)
    return bool(disk and modules.loaded_version and disk.version != modules.loaded_version)
