"""The variables that an image gives to every program of a container."""

from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.platform import Platform, PlatformSetting
from dlhealth.records import NamedTuple

_SOURCE = "/proc/1/environ"


class ImageFolder(NamedTuple):
    """One directory of a search path; `real` is it without links, "" if there is no such directory."""

    path: str
    real: str


class ImageEnvironment(NamedTuple):
    """`path` are the directories of PATH of the first process, which an image sets by ENV."""

    path: tuple[ImageFolder, ...]

    @classmethod
    def probe(cls, host: Host, platform: Platform) -> "ImageEnvironment":
        if platform.setting is not PlatformSetting.CONTAINER:
            raise Unavailable("only containers get variables from an image")
        variables = dict(v.partition("=")[::2] for v in (host.text(_SOURCE) or "").split("\0"))
        folders = [f for f in variables.get("PATH", "").split(":") if f.startswith("/")]
        return cls(tuple(ImageFolder(folder, _real(host, folder)) for folder in folders))


def _real(host: Host, folder: str) -> str:
    try:
        return host.realpath(folder) or ""
    except Unreadable:
        return ""
