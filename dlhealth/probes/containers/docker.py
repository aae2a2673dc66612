"""Docker on this machine, and whether it knows NVIDIA's container toolkit."""

import json

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import may_read
from dlhealth.probes import Unavailable
from dlhealth.probes.login.users import Users
from dlhealth.probes.machine.platform import Platform, PlatformSetting
from dlhealth.records import NamedTuple

DAEMON = "/etc/docker/daemon.json"
_TOOLKIT = ("/usr/bin/nvidia-ctk", "/usr/bin/nvidia-container-runtime", "/usr/bin/nvidia-container-cli")
_HOOKS = ("/usr/bin/nvidia-container-runtime-hook", "/usr/bin/nvidia-container-toolkit")


class Docker(NamedTuple):
    """`engine` is the daemon of a package ("" without one), `snap` the directory of Docker's snap, `desktop` what shows
    that Docker Desktop is used ("" for neither). `toolkit` is a program of NVIDIA's container toolkit, `hook` the one
    that `--gpus` needs ("" without). `runtimes` maps the runtimes of daemon.json to their programs; None if the file
    is no JSON. `absent` are programs of these runtimes that are not there. `cdi` are descriptions of devices."""

    engine: str
    snap: str
    desktop: str
    toolkit: str
    hook: str
    runtimes: dict[str, str] | None
    default: str
    absent: tuple[str, ...]
    cdi: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, platform: Platform, users: Users | None) -> "Docker":
        if platform.setting is PlatformSetting.CONTAINER:
            raise Unavailable("skipped in a container: Docker belongs to the host")
        runtimes, default = _runtimes(host)
        absent = [p for p in (runtimes or {}).values() if p and not _found(host, p)]
        cdi = [p for folder in ("/etc/cdi", "/run/cdi", "/var/run/cdi") for p in host.glob(f"{folder}/*")]
        snaps = ("/snap/docker/current", *host.glob("/var/lib/snapd/snaps/docker_*.snap"))
        return cls(
            engine=_first(host, "/usr/bin/dockerd", "/usr/sbin/dockerd"),
            snap=_first(host, *snaps),
            desktop=_desktop(host, users),
            toolkit=_first(host, *_TOOLKIT),
            hook=_first(host, *_HOOKS),
            runtimes=runtimes,
            default=default,
            absent=tuple(absent),
            cdi=tuple(p for p in cdi if "nvidia" in p),
        )


def _first(host: Host, *paths: str) -> str:
    return next((p for p in paths if host.exists(p)), "")


def _found(host: Host, program: str) -> bool:
    if program.startswith("/"):
        return host.exists(program)
    return any(host.exists(f"{folder}/{program}") for folder in ("/usr/bin", "/usr/local/bin", "/usr/sbin", "/bin"))


def _runtimes(host: Host) -> tuple[dict[str, str] | None, str]:
    try:
        settings = json.loads(host.text(DAEMON) or "{}")
        named = settings.get("runtimes", {})
        return {str(n): str(r.get("path", "")) for n, r in named.items()}, str(settings.get("default-runtime", ""))
    except (ValueError, AttributeError, RecursionError):
        return None, ""


def _desktop(host: Host, users: Users | None) -> str:
    for account in users.people if users else ():
        path = f"{account.home}/.docker/config.json"
        try:
            text = (host.text(path) or "") if may_read(host, account, path) else ""
            if json.loads(text or "{}").get("currentContext") == "desktop-linux":
                return path
        except (Unreadable, ValueError, AttributeError, RecursionError):
            continue
    return ""
