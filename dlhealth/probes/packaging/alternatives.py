"""Links that choose one of several stacks: Debian's glx alternative, the X server's GLX module, the system's python3."""

import posixpath
import re

from dlhealth.data import load
from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.probes import Unavailable
from dlhealth.probes.packaging.packages import Packages
from dlhealth.records import NamedTuple

_TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu")


class Link(NamedTuple):
    """A link: what it says, and what it finally leads to ("" if that is not there)."""

    path: str
    target: str
    real: str


class GlxAlternative(NamedTuple):
    """Debian's choice between Mesa's and NVIDIA's GL. `glx` is the link /etc/alternatives/glx (None: not there);
    `manual` whether a person chose; `registered` whether the alternatives system knows it; `choices` the directories
    that can be chosen; `libraries` the links of libGL and libEGL (one that is missing has no target); `mesa` where a
    diverted Mesa lies ("" if nowhere); `wanted` the line of the X configuration that asks for NVIDIA's X driver, or "";
    `hybrid` whether another GPU than NVIDIA's is there (None: not known)."""

    glx: Link | None
    nvidia: Link | None
    manual: bool
    registered: bool
    choices: tuple[str, ...]
    libraries: tuple[Link, ...]
    mesa: str
    wanted: str
    hybrid: bool | None

    @classmethod
    def probe(cls, host: Host) -> "GlxAlternative":
        glx = read_link(host, "/etc/alternatives/glx")
        record = host.text("/var/lib/dpkg/alternatives/glx")
        diverted = next((p for t in _TRIPLETS if host.lstat(p := f"/usr/lib/mesa-diverted/{t}/libGL.so.1")), "")
        if glx is None and record is None and not diverted:
            raise Unavailable("there is no glx alternative here (only Debian has one)")
        lines = (record or "").splitlines()
        libraries = [
            link
            for triplet in _TRIPLETS
            for name in ("libGL.so.1", "libEGL.so.1")
            if (link := _library_link(host, triplet, name))
        ]
        return cls(
            glx,
            read_link(host, "/etc/alternatives/nvidia"),
            lines[:1] == ["manual"],
            record is not None,
            alternative_choices(lines),
            tuple(libraries),
            diverted,
            _wanted(host),
            _hybrid(host),
        )


def _library_link(host: Host, triplet: str, name: str) -> Link | None:
    """A link, also one that is missing while Mesa's library was diverted to make room for it."""
    path = f"/usr/lib/{triplet}/{name}"
    if host.lstat(path) is None and host.lstat(f"/usr/lib/mesa-diverted/{triplet}/{name}") is not None:
        return Link(path, "", "")
    return read_link(host, path)


def alternative_choices(lines: list[str]) -> tuple[str, ...]:
    """The paths that can be chosen, from the lines of a file in /var/lib/dpkg/alternatives."""
    try:
        start = lines.index("", 2) + 1
    except ValueError:
        return ()
    slaves = (start - 3) // 2
    choices = []
    while start + 1 < len(lines) and lines[start].startswith("/"):
        choices.append(lines[start])
        start += 2 + slaves
    return tuple(choices)


def read_link(host: Host, path: str) -> Link | None:
    """A link; None if there is none (a file in its place is none either)."""
    target = host.readlink(path)
    return None if target is None else Link(path, target, host.realpath(path) or "")


def _wanted(host: Host) -> str:
    for path in ("/etc/X11/xorg.conf", *host.glob("/etc/X11/xorg.conf.d/*.conf")):
        try:
            lines = (host.text(path) or "").splitlines()
        except Unreadable:
            continue
        for number, line in enumerate(lines, 1):
            if re.match(r'\s*Driver\s+"nvidia"', line, re.IGNORECASE):
                return Place(path, number)
    return ""


def _hybrid(host: Host) -> bool | None:
    vendors = []
    for folder in host.glob("/sys/bus/pci/devices/*"):
        try:
            if (host.text(f"{folder}/class") or "").startswith("0x03"):
                vendors.append((host.text(f"{folder}/vendor") or "").strip())
        except Unreadable:
            return None
    return any(v != "0x10de" for v in vendors) if vendors else None


class GlConfiguration(NamedTuple):
    """Ubuntu's choice until 17.10: the alternative gl_conf adds one directory of GL libraries to the loader's path.
    `chosen` is its link, `others` the files that can be chosen instead."""

    chosen: Link
    others: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the alternative."""
        return posixpath.basename(self.chosen.path)

    @classmethod
    def probe(cls, host: Host) -> "GlConfiguration":
        for triplet in _TRIPLETS:
            if link := read_link(host, f"/etc/alternatives/{triplet}_gl_conf"):
                lines = (host.text(f"/var/lib/dpkg/alternatives/{triplet}_gl_conf") or "").splitlines()
                others = (path for path in alternative_choices(lines) if path != link.target)
                return cls(link, tuple(others))
        raise Unavailable("there is no gl_conf alternative here (only Ubuntu up to 17.10 has one)")


class XorgGlx(NamedTuple):
    """The X server's GLX modules that are links: NVIDIA's old installers replaced libglx.so by one."""

    links: tuple[Link, ...]

    @classmethod
    def probe(cls, host: Host) -> "XorgGlx":
        folders = [
            f
            for f in (
                "/usr/lib/xorg/modules",
                "/usr/lib64/xorg/modules",
                *(f"/usr/lib/{t}/xorg/modules" for t in _TRIPLETS),
            )
            if host.exists(f)
        ]
        if not folders:
            raise Unavailable("no X server is installed")
        paths = (p for f in folders for p in (f"{f}/extensions/libglx.so", f"{f}/extensions/libglxserver_nvidia.so"))
        return cls(tuple(link for p in paths if (link := read_link(host, p))))


class SystemPython(NamedTuple):
    """/usr/bin/python3: the chain of its links (empty where it is not there, though its package is), the version that
    it leads to and the version that the distribution's scripts are made for ("3.11"), with where that is written. A
    version is "" if its name does not tell."""

    chain: tuple[str, ...]
    version: str
    expected: str
    expected_source: str
    expected_there: bool

    @classmethod
    def probe(cls, host: Host, packages: Packages | None) -> "SystemPython":
        chain = ["/usr/bin/python3"]
        if host.lstat(chain[0]) is None:
            package = packages.get("python3-minimal") if packages else None
            if package is None or package.state != "installed":
                raise Unavailable("/usr/bin/python3 is not installed")
            chain = []
        while chain and (target := host.readlink(chain[-1])) is not None and len(chain) < 16:
            chain.append(posixpath.normpath(posixpath.join(posixpath.dirname(chain[-1]), target)))
        match = re.fullmatch(r"python(3\.\d+)", posixpath.basename(chain[-1]), re.ASCII) if chain else None
        expected, source = _expected(host, packages)
        there = bool(expected) and host.exists(f"/usr/bin/python{expected}")
        return cls(tuple(chain), match[1] if match and len(chain) > 1 else "", expected, source, there)


def _expected(host: Host, packages: Packages | None) -> tuple[str, str]:
    for name in ("python3-minimal", "python3", "libpython3-stdlib"):
        package = packages.get(name) if packages else None
        match = re.match(r"3\.\d+", package.version, re.ASCII) if package and package.unpacked else None
        if package and match:
            return match[0], f"package {name} {package.version}"
    text = host.text("/etc/os-release") or ""
    fields = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', text, re.MULTILINE))
    expected = load("package_patterns")["python"].get(fields.get("ID", ""), {}).get(fields.get("VERSION_ID", ""), "")
    return expected, f"/etc/os-release: {fields.get('ID')} {fields.get('VERSION_ID')}"
