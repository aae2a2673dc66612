"""Traces of NVIDIA's own installer (the .run file)."""

import re
from collections.abc import Iterator

from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.probes.driver.libraries import DriverLibraries
from dlhealth.probes.packaging.packages import Packages, Unowned, owner_of, owners
from dlhealth.records import NamedTuple

_PROGRAMS = ("/usr/bin/nvidia-uninstall", "/usr/bin/nvidia-installer")
_LOG = "/var/log/nvidia-installer.log"
_MANIFEST = "/var/lib/nvidia/log"
_BLACKLISTS = (
    "/etc/modprobe.d/nvidia-installer-disable-nouveau.conf",
    "/usr/lib/modprobe.d/nvidia-installer-disable-nouveau.conf",
    "/lib/modprobe.d/nvidia-installer-disable-nouveau.conf",
    "/run/modprobe.d/nvidia-installer-disable-nouveau.conf",
)


# An entry of the installer's list: a number, and a path. 0 is a link that it made, 1 a file; what it replaced has others,
# and further lines tell targets, checksums, modes (backup.c of NVIDIA's nvidia-installer).
_INSTALLED = regex(r"^[01]: (/[^\n]+)$", re.MULTILINE)
_LIST_LIMIT = 32 << 20


class DkmsTree(NamedTuple):
    """A version of the driver in /var/lib/dkms. `source` is where its source should lie, `sound` whether it does."""

    path: str
    module: str
    version: str
    source: str
    sound: bool


class Runfile(NamedTuple):
    """`programs` are the installer's, which are there exactly while its driver is installed; `log` and `manifest` its
    records ("" if absent); `version` the last driver version that the log names ("" if none); `blacklists` its
    files that keep nouveau away; `trees` the driver's directories in DKMS. `problems` could not be checked."""

    programs: tuple[str, ...]
    log: str
    manifest: str
    version: str
    blacklists: tuple[str, ...]
    trees: tuple[DkmsTree, ...]
    problems: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether the installer's driver is there, as far as the installer knows."""
        return bool(self.programs or self.manifest)

    @classmethod
    def probe(cls, host: Host, packages: Packages | None) -> "Runfile":
        problems: list[str] = []
        programs = tuple(
            p for p in _PROGRAMS if host.lstat(p) is not None and not isinstance(owner_of(packages, p), str)
        )
        blacklists = dict.fromkeys(real for p in _BLACKLISTS if (real := host.realpath(p)))
        version = _version_of(host, problems)
        return cls(
            programs,
            _LOG if host.lstat(_LOG) else "",
            _MANIFEST if host.lstat(_MANIFEST) else "",
            version,
            tuple(blacklists),
            tuple(_trees(host, problems)),
            tuple(problems),
        )


class InstalledFile(NamedTuple):
    """What the installer's list has, and is there still; `owner` is the package that has a file of this name, too."""

    path: str
    owner: str


class InstalledFiles(NamedTuple):
    """All that the installer's list has and that is there still. Where there is no list: what lies beside the driver's
    libraries and has its version in its name, with the links to it. A fact of its own: to find the owners takes all
    lists of dpkg, and only a repair needs them."""

    files: tuple[InstalledFile, ...]

    @classmethod
    def probe(cls, host: Host, runfile: Runfile, libraries: DriverLibraries | None) -> "InstalledFiles":
        text = host.text(_MANIFEST, _LIST_LIMIT)
        if text is None and libraries and runfile.version:
            return cls(tuple(InstalledFile(path, "") for path in _of_version(host, libraries, runfile.version)))
        listed = dict.fromkeys(_INSTALLED.findall(text or ""))
        there = [p for p in listed if (status := host.lstat(p)) is not None and status.kind in ("file", "link")]
        found = owners(host, there) if there else {}
        return cls(tuple(InstalledFile(path, found.get(path, "")) for path in there))


def _of_version(host: Host, libraries: DriverLibraries, version: str) -> Iterator[str]:
    """Files beside the driver's libraries that are of a version and of no package, and links to them."""
    foreign = (x for x in libraries.libraries if x.real_path and x.owner is Unowned.NOBODY)
    folders = dict.fromkeys(x.real_path.rpartition("/")[0] for x in foreign)
    ending = f".so.{version}"
    for folder in folders:
        files = {f"{folder}/{name}" for name in host.listdir(folder) if name.endswith(ending)}
        files |= {
            path for name in host.listdir(folder) if (path := f"{folder}/{name}") and host.realpath(path) in files
        }
        yield from sorted(files - owners(host, sorted(files)).keys())


def _version_of(host: Host, problems: list[str]) -> str:
    for path in (_LOG, _MANIFEST):
        try:
            text = host.text(path, _LIST_LIMIT)
        except Unreadable as problem:
            problems.append(str(problem))
            continue
        found = installed_version(text) if text else ""
        if found:
            return found
    return ""


def installed_version(log: str) -> str:
    """The driver version that an installer's log (or its manifest, which begins with it) names; "" for none."""
    match = re.search(
        r"(?:^installer version:|driver version:?|Linux-\w+ \(version|Linux-\w+ \()\s*(\d{2,4}\.\d+(?:\.\d+)?)|\A(\d{2,4}\.\d+(?:\.\d+)?)$",
        log,
        re.MULTILINE | re.ASCII,
    )
    return (match[1] or match[2]) if match else ""


def _trees(host: Host, problems: list[str]) -> Iterator[DkmsTree]:
    for folder in host.glob("/var/lib/dkms/nvidia*"):
        module = folder.rpartition("/")[2]
        try:
            versions = [v for v in host.listdir(folder) if re.fullmatch(r"\d{2,4}\.\d+[\w.+~-]*", v, re.ASCII)]
            for version in versions[:100]:
                tree = f"{folder}/{version}"
                status = host.lstat(tree)
                if status is None or status.kind != "dir":
                    continue
                source = host.readlink(f"{tree}/source") or f"/usr/src/{module}-{version}"
                sound = host.exists(f"{tree}/source/dkms.conf") or host.exists(f"/usr/src/{module}-{version}/dkms.conf")
                yield DkmsTree(tree, module, version, source, sound)
        except Unreadable as problem:
            problems.append(str(problem))
