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
    cannot be understood, and `broken` is the number of the line where it is no JSON (0 if it is). `absent` are programs of these runtimes that are not there. `cdi` are descriptions of devices. `rootless`
    shows that somebody runs Docker without root ("" if nothing does)."""

    engine: str
    snap: str
    desktop: str
    toolkit: str
    hook: str
    runtimes: dict[str, str] | None
    default: str
    absent: tuple[str, ...]
    cdi: tuple[str, ...]
    rootless: str
    broken: int

    @classmethod
    def probe(cls, host: Host, platform: Platform, users: Users | None) -> "Docker":
        if platform.setting is PlatformSetting.CONTAINER:
            raise Unavailable("skipped in a container: Docker belongs to the host")
        runtimes, default, broken = _runtimes(host)
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
            rootless=_rootless(host, users),
            broken=broken,
        )


def _first(host: Host, *paths: str) -> str:
    return next((p for p in paths if host.exists(p)), "")


def _found(host: Host, program: str) -> bool:
    if program.startswith("/"):
        return host.exists(program)
    return any(host.exists(f"{folder}/{program}") for folder in ("/usr/bin", "/usr/local/bin", "/usr/sbin", "/bin"))


def _runtimes(host: Host) -> tuple[dict[str, str] | None, str, int]:
    try:
        settings = json.loads((host.text(DAEMON) or "").strip() or "{}")
        named = settings.get("runtimes", {})
        runtimes = {str(n): str(r.get("path", "")) for n, r in named.items()}
        return runtimes, str(settings.get("default-runtime", "")), 0
    except json.JSONDecodeError as error:
        return None, "", error.lineno
    except (ValueError, AttributeError, RecursionError):
        return None, "", 0


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


def _rootless(host: Host, users: Users | None) -> str:
    for account in users.people if users else ():
        path = f"{account.home}/.config/systemd/user/docker.service"
        try:
            if host.exists(path):
                return path
        except Unreadable:
            continue
    return ""
