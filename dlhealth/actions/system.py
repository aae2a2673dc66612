"""Changes of kernel modules, boot images, alternatives, units; and what only a person can do."""

from typing import NamedTuple


class DkmsBuild(NamedTuple):
    """Build and install a DKMS module for one kernel."""

    module: str
    version: str
    kernel: str

    def summary(self) -> str:
        return f"dkms install {self.module}/{self.version} -k {self.kernel}"


class DkmsRemove(NamedTuple):
    """Remove a DKMS module of one version from all kernels."""

    module: str
    version: str

    def summary(self) -> str:
        return f"dkms remove {self.module}/{self.version} --all"


class LoadModules(NamedTuple):
    """Load kernel modules."""

    modules: tuple[str, ...]

    def summary(self) -> str:
        return f"modprobe -a {' '.join(self.modules)}"


class ReloadModules(NamedTuple):
    """Unload the NVIDIA modules, in this order, and load the first of them again; their users are stopped before."""

    modules: tuple[str, ...]

    def summary(self) -> str:
        return f"modprobe -r {' '.join(self.modules)} && modprobe {self.modules[-1]}"


class UpdateInitramfs(NamedTuple):
    """Rebuild the initramfs of one kernel, or of all with "all"."""

    kernel: str

    def summary(self) -> str:
        return f"update-initramfs -u -k {self.kernel}"


class RefreshLoaderCache(NamedTuple):
    """Rebuild the cache of the dynamic loader."""

    def summary(self) -> str:
        return "ldconfig"


class SetAlternative(NamedTuple):
    """Choose one alternative of the alternatives system; an empty `path` leaves the choice to its priorities."""

    name: str
    path: str

    def summary(self) -> str:
        return f"update-alternatives {f'--set {self.name} {self.path}' if self.path else f'--auto {self.name}'}"


class RestartUnit(NamedTuple):
    """Restart a systemd unit."""

    unit: str

    def summary(self) -> str:
        return f"systemctl restart {self.unit}"


class Reboot(NamedTuple):
    """Restart the machine."""

    def summary(self) -> str:
        return "systemctl reboot"


class ByHand(NamedTuple):
    """What dlhealth does not do: a firmware setting, hardware, or a person's decision."""

    text: str

    def summary(self) -> str:
        return self.text
