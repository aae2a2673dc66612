"""dpkg's records: which packages are there, in which state, and which of NVIDIA's files belong to one."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum

from dlhealth.data import load
from dlhealth.host import Host, Unreadable
from dlhealth.lazy import fits, regex
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.platform import DPKG_STATUS as STATUS
from dlhealth.probes.machine.platform import Family, Platform
from dlhealth.records import NamedTuple

UPDATES = "/var/lib/dpkg/updates"
INFO = "/var/lib/dpkg/info"
STATUS_LIMIT = 64 << 20
"""Bytes. dpkg's own file has 1 to 5 MB; ten times as many packages still fit."""

_LIST_LIMIT = 8 << 20
_LISTS_LIMIT = 400
_GPU = (
    b"nvidia-", b"libnvidia", b"libcuda", b"libcudnn", b"cudnn", b"cuda", b"libnvcuvid", b"libnvoptix", b"libxnvctrl",
    b"libegl-nvidia", b"libegl1-nvidia", b"libgl-nvidia", b"libgl1-nvidia", b"libgles-nvidia", b"libgles1-nvidia",
    b"libgles2-nvidia", b"libglx-nvidia", b"libglx0-nvidia", b"xserver-xorg-video-nvidia", b"firmware-nvidia",
    b"linux-modules-nvidia", b"linux-objects-nvidia", b"linux-signatures-nvidia",
)  # fmt: skip
_RELEVANT = (
    *_GPU,
    b"system76-power", b"supergfxctl", b"envycontrol", b"optimus-manager",
    b"linux-image", b"linux-headers", b"linux-modules", b"linux-generic", b"linux-signed", b"linux-kbuild",
    b"proxmox-kernel", b"proxmox-headers", b"pve-kernel", b"pve-headers",
    b"xserver-xorg", b"libgl", b"libegl1", b"glx-", b"update-glx", b"gcc", b"g++", b"cpp", b"clang", b"python3",
    b"libpython3", b"bumblebee", b"primus", b"dkms", b"initramfs-tools", b"dracut", b"mokutil", b"shim", b"grub",
    b"apt", b"dpkg", b"steam",
)  # fmt: skip
_FLAVOURED = regex(
    r"(?P<base>.*nvidia)-(?P<flavour>tesla(?:-(?P<tesla>\d{3}))?|legacy-(?P<legacy>\d{2,3})xx)(?P<rest>|-[a-z].*|-?\d+)",
    re.ASCII,
)
_BRANCHED = regex(
    r"(?P<base>[a-z0-9-]+?)-(?P<branch>\d{3})(?P<server>-server|)(?:-open|-updates)?(?P<rest>|-.+)", re.ASCII
)
_BULKY = regex(r"nsight|documentation|-doc$|-samples$|visual-tools|sanitizer")
_FIELD = regex(rb"^([A-Za-z-]+):[ \t]*(.*)$", re.MULTILINE)
_NAME = regex(rb"^Package:[ \t]*(\S+)", re.MULTILINE)
_INSTALLED = b"\nStatus: install ok installed\n"


class Unowned(Enum):
    """Why there is no package to name as the owner of a file."""

    NOBODY = "belongs to no package"
    UNKNOWN = "its package is not known"


Owner = str | Unowned
"""A package's name, or why there is none."""


class Package(NamedTuple):
    """One entry of dpkg's status. `want` is install, hold, deinstall, purge or unknown; `flag` is ok or reinstreq;
    `state` is not-installed, config-files, half-installed, unpacked, half-configured, triggers-awaited,
    triggers-pending or installed. `source` is the name of the source package (without its version)."""

    name: str
    architecture: str
    version: str
    want: str
    flag: str
    state: str
    source: str
    depends: str
    provides: str = ""

    @property
    def unpacked(self) -> bool:
        """Whether its files are there, configured or not."""
        return self.state not in ("config-files", "not-installed")

    @property
    def gpu(self) -> bool:
        """Whether it is of the NVIDIA driver, CUDA or cuDNN, by its name."""
        return self.name.encode(errors="surrogateescape").startswith(_GPU)

    @property
    def upstream(self) -> str:
        """The version without epoch and Debian revision: "535.261.03" of "1:535.261.03-1~deb12u1"."""
        version = self.version.partition(":")[2] or self.version
        return version.rpartition("-")[0] or version

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Names of what it depends on; of alternatives, all."""
        return tuple(re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)", self.depends))


class Packages(NamedTuple):
    """The packages that matter for a GPU, those that depend on one of NVIDIA's, and all that are not simply installed.

    `total` counts all. `updates` are the journal files that an interrupted dpkg left (their content is part of the
    answer, as it is for dpkg), None if unknown. `unlisted` are packages with files whose list of files could
    not be read, `lists` whether dpkg's lists of files are there at all. `partial` says that other packages may be
    installed too: somebody posted a part of the list; but every installed package is in it whose name has one of the
    words `complete`.
    """

    packages: Mapping[str, tuple[Package, ...]]
    total: int
    updates: tuple[str, ...] | None
    files: Mapping[str, str]
    unlisted: tuple[str, ...]
    lists: bool
    partial: bool = False
    complete: tuple[str, ...] = ()

    def get(self, name: str) -> Package | None:
        """By name; of several architectures the first (the machine's own). Raises Unavailable where a part of the list
        does not tell."""
        found = self.packages.get(name, ())
        if not found and self._untold(name):
            raise Unavailable(f"the posted part of the package list does not tell whether {name} is installed")
        return next(iter(found), None)

    def dependents(self, names: Collection[str]) -> tuple[str, ...]:
        """Installed packages that would lose something they depend on without these, and those that depend on them."""
        gone = set(names)
        while more := {p.name for p in self.all() if p.unpacked and p.name not in gone and self._loses(p, gone)}:
            gone |= more
        return tuple(sorted(gone - set(names)))

    def _loses(self, package: Package, gone: Collection[str]) -> bool:
        present = {p.name for p in self.all() if p.unpacked} - set(gone)
        clauses = (_names(clause) for clause in package.depends.split(","))
        return any(set(names) & set(gone) and not present.intersection(names) for names in clauses)

    def all(self) -> Iterator[Package]:
        """Each of them, of each architecture."""
        for packages in self.packages.values():
            yield from packages

    def installed(self, pattern: str = "*") -> tuple[Package, ...]:
        """Those with files on the disk (also half configured ones) whose name fits a shell pattern. Raises as `get`
        does where there are none."""
        found = self.shown(pattern)
        if not found and self._untold(pattern):
            raise Unavailable(f"the posted part of the package list has no package {pattern}")
        return found

    def shown(self, pattern: str) -> tuple[Package, ...]:
        """The same; none also where it is not known, for who draws no conclusion from that."""
        return tuple(p for p in self.all() if p.unpacked and fits(p.name, pattern))

    def lacks(self, pattern: str) -> bool:
        """Whether it is known that there is none."""
        return not self._untold(pattern) and not self.shown(pattern)

    def _untold(self, pattern: str) -> bool:
        """Whether the part of the list that was posted does not tell that there is no such package."""
        return self.partial and not any(word in pattern for word in self.complete)

    @property
    def held(self) -> tuple[Package, ...]:
        """Those that the administrator put on hold."""
        return tuple(p for p in self.all() if p.want == "hold")

    @property
    def driver_family(self) -> tuple[str, ...]:
        """Names of all packages of the driver and its companions (nvidia-settings, Debian's glx alternatives, …),
        without CUDA's, cuDNN's and those for containers: the packages that a reinstallation of the driver removes and
        installs."""
        return tuple(
            sorted(
                {
                    p.name
                    for p in self.all()
                    if p.unpacked
                    and (p.gpu or "nvidia" in p.name or p.name.startswith(("glx-", "update-glx")))
                    and not re.match(r"cud(a|nn)|libcudnn|nvidia-cuda|(lib)?nvidia-container|nvidia-docker", p.name)
                }
            )
        )

    def unmet(self) -> tuple[tuple[Package, str], ...]:
        """Packages of NVIDIA whose dependency on packages of NVIDIA nothing installed fulfils, as after a removal by
        force, with the name of the first that would. apt refuses all that does not name every one of them."""
        present = {p.name for p in self.all() if p.unpacked}
        for package in self.all():
            if package.unpacked:
                present.update(_names(package.provides.replace(",", "|")))
        return tuple(
            (
                package,
                names[0].partition("--")[0],
            )  # Debian's "nvidia-kernel-support--v1" comes with "nvidia-kernel-support"
            for package in self.all()
            if package.unpacked and package.gpu
            for names in map(_names, package.depends.split(","))
            if names and all(n.encode(errors="surrogateescape").startswith(_GPU) for n in names)
            if not present.intersection(names)
        )

    def owner(self, *paths: str) -> Owner:
        """The package of the driver, CUDA or cuDNN that the first of these files belongs to which has one; whether /lib
        is /usr/lib or not. The lists of large documentation and tool packages (nsight) are not read."""
        found = next((name for path in paths if (name := self.files.get(_usr(path)))), None)
        # Without the list of a package of libraries, a library that no list names may be one of its.
        missing = not self.lists or any(name.startswith("lib") for name in self.unlisted)
        return found or (Unowned.UNKNOWN if missing else Unowned.NOBODY)

    @classmethod
    def probe(cls, host: Host, platform: Platform) -> "Packages":
        if platform.family not in (Family.DEBIAN, None):
            raise Unavailable(f"{platform.name or 'this system'} is not Debian or Ubuntu")
        try:
            content = host.read(STATUS, STATUS_LIMIT)
        except Unreadable as problem:
            raise Unavailable(f"cannot read dpkg's status: {problem}") from problem
        if content is None:
            raise Unavailable(f"{STATUS} does not exist: this machine does not use Debian packages")
        packages: dict[tuple[str, str], Package] = {}
        total = _collect(content, packages)
        if total == 0 and content.strip():
            raise Unavailable(f"{STATUS} contains no package: it is damaged")
        updates = _updates(host)
        for name in (updates or ())[:1000]:
            try:
                _collect(host.read(f"{UPDATES}/{name}") or b"", packages, every=True)
            except Unreadable:
                continue  # that it is there is the finding; what it would say stays unknown
        by_name: dict[str, tuple[Package, ...]] = {}
        for package in packages.values():
            by_name[package.name] = (*by_name.get(package.name, ()), package)
        _native_first(by_name, host)
        files, unlisted = _file_lists(host, by_name)
        return cls(
            by_name,
            total,
            updates,
            files,
            unlisted,
            bool(files) or _has_lists(host),
            host.is_partial(STATUS),
            host.every_line_with(STATUS),
        )


def _updates(host: Host) -> tuple[str, ...] | None:
    try:
        return tuple(n for n in host.listdir(UPDATES) if re.fullmatch(r"\d{1,8}", n, re.ASCII))
    except Unreadable:
        return None


def _collect(content: bytes, packages: dict[tuple[str, str], Package], *, every: bool = False) -> int:
    """Add the stanzas that matter (or every one) and count all. There are thousands: no stanza is copied in vain."""
    total, start = 0, 0
    content = content.replace(b"\r\n", b"\n") if b"\r\n" in content else content
    while start < len(content):
        end = content.find(b"\n\n", start)
        if end < 0:
            end = len(content)
        dull = content.find(_INSTALLED, start, end) >= 0 and content.startswith(b"Package: ", start)
        # A package of any name may provide one of the driver's (made by equivs, or by an administrator).
        if (
            dull
            and not every
            and not content.startswith(_RELEVANT, start + 9)
            and content.find(b"nvidia", start, end) < 0
        ):
            total += 1
        elif match := _NAME.search(content, start, end):
            total += 1
            package = _package(match[1].decode(errors="surrogateescape"), content[start:end])
            if (
                every
                or package.state != "installed"
                or package.want != "install"
                or match[1].startswith(_RELEVANT)
                or "nvidia" in package.provides + package.depends
            ):
                packages[package.name, package.architecture] = package
        start = end + 2
    return total


def _package(name: str, stanza: bytes) -> Package:
    fields = {
        key.lower(): value.decode(errors="surrogateescape").strip() for key, value in reversed(_FIELD.findall(stanza))
    }
    words = [*fields.get(b"status", "").split(), "", "", ""]
    depends = ", ".join(filter(None, (fields.get(b"pre-depends"), fields.get(b"depends"))))
    source = fields.get(b"source", name).split() or [name]
    return Package(
        name, fields.get(b"architecture", ""), fields.get(b"version", ""), words[0], words[1], words[2], source[0],
        depends, fields.get(b"provides", ""),
    )  # fmt: skip


def debian_order(version: str) -> tuple[int, list[tuple[tuple[int, ...], int]], list[tuple[tuple[int, ...], int]]]:
    """A key that sorts versions as dpkg does (deb-version(7)): epoch, upstream version, revision. A tilde sorts before
    everything, also before the end; letters sort before other characters."""
    epoch, _, rest = version.rpartition(":")
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch) if epoch.isdecimal() else 0, _parts(upstream), _parts(revision)


def _parts(text: str) -> list[tuple[tuple[int, ...], int]]:
    """Pairs of what is no number, and a number."""
    pairs = re.findall(r"(\D*)(\d*)", text, re.ASCII)
    return [((*map(_rank, word), 0), int(number[:18] or 0)) for word, number in pairs]


def _rank(character: str) -> int:
    return -1 if character == "~" else ord(character) if character.isalpha() else ord(character) + 256


def _names(clause: str) -> list[str]:
    """Of the alternatives of one dependency, without architectures and versions."""
    return [word.split()[0].partition(":")[0] for word in clause.split("|") if word.strip()]


def _native_first(by_name: dict[str, tuple[Package, ...]], host: Host) -> None:
    several = [name for name, packages in by_name.items() if len(packages) > 1]
    if several:
        native = _native(host)
        for name in several:
            by_name[name] = tuple(
                sorted(by_name[name], key=lambda p: (not p.unpacked, p.architecture not in (native, "all")))
            )


def _native(host: Host) -> str:
    """The machine's own architecture."""
    try:
        return next(iter((host.text("/var/lib/dpkg/arch") or "").split()), "amd64")
    except Unreadable:
        return "amd64"


def _file_lists(host: Host, by_name: Mapping[str, tuple[Package, ...]]) -> tuple[dict[str, str], tuple[str, ...]]:
    files: dict[str, str] = {}
    unlisted = []
    wanted = [p for ps in by_name.values() for p in ps if p.unpacked and p.gpu]
    for package in [p for p in wanted if not _BULKY.search(p.name)][:_LISTS_LIMIT]:
        try:
            names = (f"{package.name}:{package.architecture}", package.name)
            content = next((c for n in names if (c := host.read(f"{INFO}/{n}.list", _LIST_LIMIT)) is not None), None)
        except Unreadable:
            content = None
        if content is None:
            unlisted.append(package.name)
            continue
        for line in content.decode(errors="surrogateescape").splitlines():
            if "/share/doc/" not in line and "/share/man/" not in line:
                files[_usr(line)] = package.name
    if files:
        for original, diverted, by in _diversions(host):
            owner = files.get(original)
            if owner and owner != by:
                files[diverted] = owner
                del files[original]
    return files, tuple(unlisted)


def owners(host: Host, paths: Sequence[str]) -> dict[str, str]:
    """The packages that have files of these names, by path, as apt takes them. Reads all of dpkg's lists, which are
    megabytes."""
    wanted = {name.encode(errors="surrogateescape"): p for p in paths for name in _with_and_without_usr(p)}
    found: dict[str, str] = {}
    own = _native(host)
    for name in host.listdir(INFO):
        if name.endswith(".list"):
            content = host.read(f"{INFO}/{name}", _LIST_LIMIT) or b""
            if listed := wanted.keys() & content.split(b"\n"):
                plain, _, architecture = name.removesuffix(".list").partition(":")
                package = plain if architecture in ("", own) else f"{plain}:{architecture}"
                found.update({wanted[line]: package for line in listed})
    return found


def _has_lists(host: Host) -> bool:
    try:
        return bool(host.listdir(INFO))
    except Unreadable:
        return False


def owner_of(packages: Packages | None, *paths: str) -> Owner:
    """The owner of the first of these files that has one, also where no packages are known."""
    return packages.owner(*paths) if packages else Unowned.UNKNOWN


def _diversions(host: Host) -> Iterator[tuple[str, str, str]]:
    """(where a package would put a file, where it is put instead, the package for which that is done)"""
    try:
        lines = (host.text("/var/lib/dpkg/diversions") or "").splitlines()
    except Unreadable:
        return
    for i in range(0, len(lines) - 2, 3):
        yield _usr(lines[i]), _usr(lines[i + 1]), lines[i + 2]


def _with_and_without_usr(path: str) -> tuple[str, ...]:
    """Both names of a file that may be in /lib or /usr/lib, /bin or /usr/bin."""
    merged = _usr(path)
    short = merged.removeprefix("/usr")
    return (merged, short) if _usr(short) == merged else (merged,)


def _usr(path: str) -> str:
    return f"/usr{path}" if path.startswith(("/lib", "/bin/", "/sbin/")) else path


class Series(NamedTuple):
    """Which driver a package is of: all that its name says besides the part. Parts of two series don't belong together,
    though their versions may be the same: libnvidia-compute-535-server conflicts with libnvidia-compute-535. Debian's
    Tesla and legacy drivers are series of their own. `open` is of the kernel module alone: None for a part that both
    kernel modules share."""

    scheme: str
    branch: int | None
    open: bool | None

    def belongs_to(self, other: "Series") -> bool:
        """Whether the two are parts of one driver."""
        module = None in (self.open, other.open) or self.open == other.open
        return (self.scheme, self.branch) == (other.scheme, other.branch) and module


class DriverPackage(NamedTuple):
    """A part of the driver. `role` is driver (what pulls in all of it), meta (NVIDIA's cuda-drivers), module (DKMS or
    source), prebuilt (Ubuntu's built modules, whose version is the kernel's), compute (libcuda, NVML), gl, x, utils
    (nvidia-smi), firmware or support. `family` is the naming scheme: debian, debian-open, debian-tesla-470,
    debian-legacy-390xx, ubuntu, ubuntu-server, ubuntu-old (up to 17.10), nvidia-repo (590 and newer)."""

    package: Package
    role: str
    family: str
    branch: int | None
    open: bool

    @property
    def whole(self) -> bool:
        """Whether it pulls in what else the driver needs: a metapackage, not those of Debian for programs or libraries."""
        return self.role in ("driver", "meta") and not re.search(r"-(bin|libs.*|i386)$", self.package.name)

    @property
    def series(self) -> Series:
        """The driver that it is a part of."""
        # The names of Debian's own driver have no branch in them: an update brings another one under the same name.
        branch = None if self.family in ("debian", "debian-open") else self.branch
        scheme = self.family.removesuffix("-open")
        return Series(scheme, branch, self.open if self.role in ("driver", "module") else None)

    @property
    def coupled(self) -> bool:
        """Whether its version must be that of the libraries; several firmware packages may be there side by side."""
        return self.role not in ("prebuilt", "firmware")


class DriverPackages(NamedTuple):
    """The packages of the driver that have files on the disk, without those for 32-bit programs (i386). `version` is the upstream version of most of them
    ("" without a driver), `branch` its first number."""

    members: tuple[DriverPackage, ...]
    version: str
    branch: int | None

    def role(self, *roles: str) -> tuple[DriverPackage, ...]:
        """Those with one of these roles."""
        return tuple(m for m in self.members if m.role in roles)

    def versions(self) -> dict[str, tuple[DriverPackage, ...]]:
        """The members by upstream version, the version of most first."""
        groups: dict[str, tuple[DriverPackage, ...]] = {}
        for member in self.members:
            if member.coupled:
                groups[member.package.upstream] = (*groups.get(member.package.upstream, ()), member)
        return dict(sorted(groups.items(), key=lambda item: -len(item[1])))

    @property
    def complete(self) -> tuple[str, ...]:
        """Names of the packages that, once installed, make the driver complete: what pulls in all of it, and what
        programs on the GPU need besides. Empty without a driver."""
        names = [m.package.name for m in self.members if m.whole and m.package.upstream == self.version]
        first = self._typical()
        if first is None:
            return ()
        is_open = "-open" if any(m.open for m in self.members) else ""
        if first.family.startswith("debian"):
            flavour = _flavour(first.family)
            return (*(names or [f"nvidia-{flavour}driver"]), f"nvidia-{flavour}smi", *self.compute_packages)
        if first.family == "ubuntu-old":
            return f"nvidia-{first.branch}", *self.compute_packages
        if first.family.startswith("ubuntu"):
            suffix = f"{first.branch}{first.family.removeprefix('ubuntu')}"
            return *(names or [f"nvidia-driver-{suffix}{is_open}"]), f"nvidia-utils-{suffix}"
        return tuple(names or ["nvidia-open" if is_open else "cuda-drivers"])

    @property
    def compute_packages(self) -> tuple[str, ...]:
        """Names of the packages with libcuda and NVML, in the naming of the driver that is here."""
        first = self._typical()
        if first is None:
            return ()
        if first.family.startswith("debian"):
            flavour = _flavour(first.family)
            prefix = f"libnvidia-{flavour}" if flavour else "lib"
            return f"{prefix}cuda1", f"libnvidia-{flavour}ml1"
        if first.family == "ubuntu-old":
            return (f"libcuda1-{first.branch}",)
        if first.family.startswith("ubuntu"):
            return (f"libnvidia-compute-{first.branch}{first.family.removeprefix('ubuntu')}",)
        return ("libnvidia-compute",)

    def _typical(self) -> DriverPackage | None:
        """A member whose naming is that of the driver."""
        named = [m for m in self.members if m.role not in ("meta", "prebuilt", "firmware")] or list(self.members)
        return next((m for m in named if m.package.upstream == self.version), next(iter(named), None))

    @classmethod
    def probe(cls, packages: Packages) -> "DriverPackages":
        members = tuple(m for p in packages.all() if p.unpacked and p.architecture != "i386" and (m := classify(p)))
        driver = cls(members, "", None)
        version = next(iter(driver.versions()), "")
        branch = re.match(r"\d+", version, re.ASCII)
        return cls(members, version, int(branch[0]) if branch else None)


def _flavour(family: str) -> str:
    """ "tesla-470-" of "debian-tesla-470"; "" for Debian's current driver, open or not."""
    flavour = family.removeprefix("debian").removeprefix("-").removeprefix("open")
    return f"{flavour}-" if flavour else ""


def classify(package: Package) -> DriverPackage | None:
    """As a part of the driver; None for what is none, has versions of its own (nvidia-settings, …), or is empty and
    only leads from an old branch to a new one."""
    if not package.gpu or _leads_to_another_branch(package):
        return None
    tables = load("package_patterns")
    name = package.name.removesuffix("-i386")
    flavoured = _FLAVOURED.fullmatch(name)
    branched = None if flavoured else _BRANCHED.fullmatch(name)
    if flavoured:
        rest = flavoured["rest"] if flavoured["rest"][1:2].isalpha() else flavoured["rest"].lstrip("-")
        base, table, family = f"{flavoured['base']}{rest}", "debian", f"debian-{flavoured['flavour']}"
        named = flavoured["tesla"] or flavoured["legacy"]
    elif branched:
        base, named = branched["base"], branched["branch"]
        table, family = "branched", f"ubuntu{branched['server'] or ''}"
        family = {"nvidia": "ubuntu-old", "libcuda1": "ubuntu-old", "cuda-drivers": "nvidia-repo"}.get(base, family)
    else:
        base, named, table, family = name, None, "debian", "debian"
        if name not in tables[table]["names"]:
            base, table, family = name.replace("-open", ""), "repository", "nvidia-repo"
    role = tables[table]["names"].get(base) or tables[table]["names"].get(name, "")
    upstream = re.match(r"(\d{2,4})\.\d", package.upstream, re.ASCII)
    if branched and branched["rest"] and role not in ("prebuilt", "firmware"):
        return None
    if not role or (role != "prebuilt" and (upstream is None or (named and named != upstream[1]))):
        return None
    number = named or (upstream[1] if upstream else None)
    is_open = re.search(r"-open(-|$)", name) is not None
    if is_open and family == "debian":
        family = "debian-open"
    return DriverPackage(package, role, family, int(number) if number else None, is_open)


def _leads_to_another_branch(package: Package) -> bool:
    """Whether it is empty: nvidia-driver-570 that depends on nvidia-driver-580 and on nothing else. Its version is that
    of its own branch, and it stays until somebody removes it."""
    clauses = [c for c in package.depends.split(",") if c.strip()]
    names = _names(clauses[0]) if len(clauses) == 1 else []
    old, new = _BRANCHED.fullmatch(package.name), _BRANCHED.fullmatch(names[0]) if len(names) == 1 else None
    return old is not None and new is not None and old["base"] == new["base"] and old["branch"] != new["branch"]
