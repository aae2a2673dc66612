"""The driver libraries that Flatpak keeps for its programs."""

from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.login.users import Users
from dlhealth.probes.packaging.packages import INFO, DriverPackages
from dlhealth.records import NamedTuple

SYSTEM = "/var/lib/flatpak"
_RUNTIME = regex(r"org\.freedesktop\.Platform\.(GL(?:32)?)\.nvidia-(\d+(?:-\d+)+)")


class FlatpakDriver(NamedTuple):
    """`folder` has the programs ("" if Flatpak has none). `runtimes` are the kinds "GL" (64 bit) and "GL32" of driver
    libraries, each with its versions, "550.120". `changed` is when Flatpak last changed anything, `driver_since` when the
    driver's packages were installed (seconds since the epoch; None: not known)."""

    folder: str
    runtimes: dict[str, tuple[str, ...]]
    changed: float | None
    driver_since: float | None

    @classmethod
    def probe(cls, host: Host, users: Users | None, packages: DriverPackages | None) -> "FlatpakDriver":
        people = users.people if users else ()
        folders = (SYSTEM, *(f"{account.home}/.local/share/flatpak" for account in people))
        found: dict[str, set[str]] = {}
        programs = []
        try:
            for folder in folders:
                if host.listdir(f"{folder}/app"):
                    programs.append(folder)
                for match in filter(None, map(_RUNTIME.fullmatch, host.listdir(f"{folder}/runtime"))):
                    found.setdefault(match[1], set()).add(match[2].replace("-", "."))
            changes = [s.mtime for f in folders if (s := host.stat(f"{f}/.changed"))]
            members = packages.members if packages and (programs or found) else ()
            lists = (f"{INFO}/{n}.list" for p, *_ in members for n in (p.name, f"{p.name}:{p.architecture}"))
            installed = [s.mtime for path in lists if (s := host.stat(path))]
        except Unreadable as problem:
            raise Unavailable(str(problem)) from problem
        return cls(
            programs[0] if programs else "",
            {kind: tuple(sorted(versions)) for kind, versions in found.items()},
            max(changes, default=None),
            max(installed, default=None),
        )
