"""The C and C++ compilers of the machine, and which of them nvcc takes; told without starting any of them."""

import posixpath
import re
from collections.abc import Mapping

from dlhealth.data import load
from dlhealth.data.compat import version_key
from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes.cuda.toolkits import CudaToolkits, Toolkit
from dlhealth.probes.packaging.packages import Packages
from dlhealth.records import NamedTuple

_NAME = regex(r"(?:[a-z0-9_]+-linux-[a-z0-9]+-)?(gcc|g\+\+|clang|clang\+\+)-(\d+(?:\.\d+)?)", re.ASCII)
_LIMIT = regex(
    r"^\s*#\s*if\s+__GNUC__\s*>\s*(\d+)(?:\s*\|\|\s*\(\s*__GNUC__\s*==\s*(\d+)\s*&&\s*__GNUC_MINOR__\s*>\s*(\d+)\s*\))?",
    re.MULTILINE | re.ASCII,
)


class Compiler(NamedTuple):
    """One compiler. `name` is gcc, g++, clang or clang++, `path` where it is called, `real` the file behind the links;
    `version` as its name or package has it ("12", "4.9"; "" if neither tells it), `source` what told it."""

    name: str
    path: str
    real: str
    version: str
    source: str


class HostLimit(NamedTuple):
    """The newest gcc that a toolkit's nvcc takes ("11", "4.9"), and where that is written: a line, or the name of our
    table."""

    newest: str
    source: str

    def allows(self, version: str) -> bool:
        """Whether a gcc version is within it; of a limit without a minor version every minor version is."""
        limit = version_key(self.newest)
        return version_key(version)[: len(limit)] <= limit


class Compilers(NamedTuple):
    """`gcc` and `gxx` are the ones that a program gets by these names; None if there is none. `installed` are all
    with a version in their name in /usr/bin. `limits` are those of the toolkits, by path; a toolkit whose header has
    none has none."""

    gcc: Compiler | None
    gxx: Compiler | None
    installed: tuple[Compiler, ...]
    limits: Mapping[str, HostLimit]

    def best(self, limit: HostLimit) -> Compiler | None:
        """The newest installed g++ that a limit allows."""
        fit = [c for c in self.installed if c.name == "g++" and limit.allows(c.version)]
        return max(fit, key=lambda c: version_key(c.version), default=None)

    @classmethod
    def probe(cls, host: Host, toolkits: CudaToolkits, packages: Packages | None) -> "Compilers":
        installed = []
        for name in host.listdir("/usr/bin"):
            match = _NAME.fullmatch(name)
            if match and name.startswith(match[1]):
                path = f"/usr/bin/{name}"
                installed.append(Compiler(match[1], path, host.realpath(path) or "", match[2], path))
        limits = {t.path: limit for t in toolkits.toolkits if (limit := _limit(host, t))}
        gcc, gxx = (_called(host, name, packages) for name in ("gcc", "g++"))
        return cls(gcc, gxx, tuple(c for c in installed if c.real), limits)


def _called(host: Host, name: str, packages: Packages | None) -> Compiler | None:
    """What PATH leads to; /usr/local/bin comes first on Debian."""
    for path in (f"/usr/local/bin/{name}", f"/usr/bin/{name}"):
        real = host.realpath(path)
        if real:
            version, source = _version(host, path)
            if not version and real.startswith("/usr/bin/"):
                version, source = _of_package(name, packages)
            return Compiler(name, path, real, version, source or real)
    version, source = _of_package(name, packages)
    return Compiler(name, f"/usr/bin/{name}", "", version, source) if version else None


def _of_package(name: str, packages: Packages | None) -> tuple[str, str]:
    """The package "gcc" has the version of the compiler that it depends on: "4:12.2.0-3"."""
    package = packages.get(name) if packages else None
    if not package or not package.unpacked:
        return "", ""
    numbers = version_key(package.version)
    # Until 4.9 the minor version was what the major is since 5.
    version = ".".join(str(n) for n in numbers[: 1 if numbers >= (5,) else 2])
    return version, f"package {name} {package.version}"


def _version(host: Host, path: str) -> tuple[str, str]:
    """From the first name in the chain of links that has a version: gcc -> gcc-12 -> x86_64-linux-gnu-gcc-12."""
    step = path
    for _ in range(8):
        target = host.readlink(step)
        if target is None:
            return "", ""
        below = posixpath.normpath(posixpath.join(posixpath.dirname(step), target))
        match = _NAME.fullmatch(posixpath.basename(below))
        if match:
            return match[2], f"{step} -> {target}"
        step = below
    return "", ""


def _limit(host: Host, toolkit: Toolkit) -> HostLimit | None:
    include = "/usr/include" if toolkit.distribution else f"{toolkit.path}/include"
    for path in (f"{include}/crt/host_config.h", f"{include}/host_config.h"):
        try:
            text = host.text(path)
        except Unreadable:
            continue
        if text is not None and "__GNUC__" in text:
            return parse_limit(text, path)
    return table_limit(toolkit.release or toolkit.version)


def parse_limit(text: str, path: str) -> HostLimit | None:
    """The limit that a toolkit's host_config.h has; None if somebody took it out."""
    match = _LIMIT.search(text)
    if match is None:
        return None
    line = text.count("\n", 0, match.start(1)) + 1
    newest = f"{match[2]}.{match[3]}" if match[2] else match[1]
    return HostLimit(newest, Place(path, line))


def table_limit(release: str) -> HostLimit | None:
    """The limit of a CUDA release by our table; None for one that is not in it."""
    have = version_key(release)
    rows = [r for r in load("host_compiler")["rows"] if version_key(r["cuda"])[:2] == have[:2]]
    # Of releases that differ, one that is not known exactly has the newest limit: no false alarm.
    fit = [r for r in rows if len(have) < 3 or version_key(r["cuda"]) <= have] or rows[:1]
    return HostLimit(fit[-1]["gcc"], f"the limit of CUDA {fit[-1]['cuda']}") if fit else None
