"""Where and how a person installs a newer driver for the programs of this system."""

from dlhealth.probes.machine.platform import Platform, PlatformSetting
from dlhealth.records import NamedTuple


class DriverUpgrade(NamedTuple):
    """`platform` is None if it could not be checked."""

    platform: Platform | None

    @property
    def reboots(self) -> bool:
        """Whether this system itself must reboot afterwards."""
        return self.platform is None or self.platform.own_kernel

    def to(self, needed: str | None, ubuntu_package: str = "") -> str:
        """The step, with the lowest version that is needed, if that is known. `ubuntu_package` has that driver in
        Ubuntu's repository."""
        driver = f"driver {needed} or newer" if needed else "a newer driver"
        setting = self.platform.setting if self.platform else PlatformSetting.MACHINE
        if setting is PlatformSetting.WSL:
            return f"in Windows, install NVIDIA {driver}, and restart WSL (wsl --shutdown)"
        if setting is PlatformSetting.CONTAINER:
            return f"on the host, install {driver}, and reboot it"
        if setting is PlatformSetting.JETSON:
            return f"install a JetPack (L4T) version with {driver}: the driver is part of it"
        if self.platform and not self.platform.managed:
            return f"install {driver} with the tools of {self.platform.name or 'this system'}, and reboot"
        command = f" (Ubuntu: apt-get install {ubuntu_package})" if ubuntu_package and self.platform else ""
        return f"install {driver} from the same repository as the current driver{command}, and reboot"

    @classmethod
    def probe(cls, platform: Platform | None) -> "DriverUpgrade":
        return cls(platform)
