"""apt: where packages come from, what was done when, what failed, and which programs change packages now."""

import os
import re
import zlib
from collections.abc import Iterator
from functools import cache

from dlhealth.data import load
from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.system import os_release
from dlhealth.probes.packaging.packages import DriverPackages
from dlhealth.records import NamedTuple

_LOG_LIMIT = 4 << 20
_LISTS_LIMIT = 24 << 20
_TOOLS = regex(r"apt|dpkg|unattended|packagek|aptd|synaptic|update-manager|snapd")
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")


class Source(NamedTuple):
    """One repository: where it is written, its address, and whose it is ("" if unknown). `signed_by` is
    the keyring or the key that must have signed it ("" for any trusted key), `components` are empty for a repository
    without a pool, `text` is the line of a sources.list ("" for a stanza)."""

    source: Place
    uri: str
    suites: tuple[str, ...]
    origin: str
    signed_by: str = ""
    components: tuple[str, ...] = ()
    text: str = ""


class Pin(NamedTuple):
    """One pin of apt's preferences."""

    source: Place
    packages: str
    pin: str
    priority: int


class AptSources(NamedTuple):
    """Every enabled repository of packages, in apt's order, and every pin. `code` are those of source code. `problems` are
    files that could not be read."""

    sources: tuple[Source, ...]
    pins: tuple[Pin, ...]
    problems: tuple[str, ...]
    code: tuple[Source, ...] = ()

    def of(self, origin: str) -> Source | None:
        """The first repository of an origin."""
        return next((s for s in self.sources if s.origin == origin), None)

    @classmethod
    def probe(cls, host: Host) -> "AptSources":
        sources: list[Source] = []
        pins: list[Pin] = []
        problems: list[str] = []
        code: list[Source] = []
        for path in ("/etc/apt/sources.list", *host.glob("/etc/apt/sources.list.d/*")):
            parse = _PARSERS.get(path.rpartition(".")[2])
            try:
                text = (parse and host.text(path)) or ""
                sources += parse(path, text) if parse else ()
                code += parse(path, text, "deb-src") if parse and "deb-src" in text else ()
            except Unreadable as problem:
                problems.append(str(problem))
        for path in ("/etc/apt/preferences", *host.glob("/etc/apt/preferences.d/*")):
            try:
                pins += parse_pins(path, host.text(path) or "")
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(tuple(sources), tuple(pins), tuple(problems), tuple(code))


def parse_list(path: str, text: str, kind: str = "deb") -> Iterator[Source]:
    """The lines of a sources.list, of packages or of source code ("deb-src")."""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(rf"\s*{kind}\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)([^#]*)", line)
        if match:
            options, uri, suite, components = match.groups()
            signed = re.search(r"(?:^|\s)signed-by=(\S+)", options or "", re.IGNORECASE)
            by = signed[1] if signed else ""
            yield Source(Place(path, number), uri, (suite,), origin_of_uri(uri), by, tuple(components.split()), line)


def parse_deb822(path: str, text: str, kind: str = "deb") -> Iterator[Source]:
    """The stanzas of a .sources file, of packages or of source code ("deb-src")."""
    for number, fields in _stanzas(text):
        if (
            fields.get("enabled", "yes").lower() in ("no", "false", "0")
            or kind not in fields.get("types", "deb").split()
        ):
            continue
        suites, components = (tuple(fields.get(name, "").split()) for name in ("suites", "components"))
        signed_by = " ".join(fields.get("signed-by", "").split())
        for uri in fields.get("uris", "").split():
            yield Source(Place(path, number), uri, suites, origin_of_uri(uri), signed_by, components)


_PARSERS = {"list": parse_list, "sources": parse_deb822}


def parse_pins(path: str, text: str) -> Iterator[Pin]:
    """The stanzas of a preferences file."""
    for number, fields in _stanzas(text):
        priority = fields.get("pin-priority", "").strip()
        if "pin" in fields and re.fullmatch(r"-?\d{1,9}", priority, re.ASCII):
            yield Pin(Place(path, number), fields.get("package", ""), fields["pin"], int(priority))


def _stanzas(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line where it begins, fields by lower-case name)"""
    fields: dict[str, str] = {}
    start, last = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield start, fields
            fields, last = {}, ""
        elif line[0] in " \t" and last:
            fields[last] += " " + line.strip()
        elif ":" in line:
            if not fields:
                start = number
            key, _, value = line.partition(":")
            last = key.strip().lower()
            fields[last] = value.strip()


@cache
def _origins() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((regex(r["regex"]), r["origin"]) for r in load("package_patterns")["sources"])


@cache
def _suffixes() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((regex(r["regex"]), r["origin"]) for r in load("package_patterns")["suffixes"])


def origin_of_uri(uri: str) -> str:
    """Whose repository an address is; "" if unknown."""
    return next((origin for pattern, origin in _origins() if pattern.search(uri)), "")


def origin_of_version(version: str) -> str:
    """Who probably built a package, from the end of its version; two names joined by " or " where it does not tell."""
    return next((origin for pattern, origin in _suffixes() if pattern.search(version)), "")


class PackageOrigins(NamedTuple):
    """Where the driver's packages come from: by package name the possible origins (one, when it is proved by apt's
    lists or by the form of the version; none, when nothing is known) and where that is seen."""

    origins: dict[str, tuple[tuple[str, ...], str]]

    @classmethod
    def probe(cls, host: Host, driver: DriverPackages, sources: AptSources | None) -> "PackageOrigins":
        configured = {s.origin for s in sources.sources} if sources else set()
        versions = {m.package.version for m in driver.members if m.coupled and m.role != "meta"}
        # apt's lists are large: they are read only when the versions of one driver do not all come from one build.
        proved = _from_lists(host, driver) if len(versions) > 1 else {}
        origins: dict[str, tuple[tuple[str, ...], str]] = {}
        for member in driver.members:
            package = member.package
            if package.name in proved:
                origins[package.name] = proved[package.name]
                continue
            possible = tuple(filter(None, origin_of_version(package.version).split(" or ")))
            if len(possible) > 1 and configured and "NVIDIA's repository" not in configured:
                possible = tuple(o for o in possible if o != "NVIDIA's repository")
            origins[package.name] = possible, f"version {package.version}"
        return cls(origins)


def _from_lists(host: Host, driver: DriverPackages) -> dict[str, tuple[tuple[str, ...], str]]:
    """By package, the only origin whose list has exactly this version."""
    found: dict[str, dict[str, str]] = {}
    budget = _LISTS_LIMIT
    wanted = {m.package.name: m.package.version for m in driver.members}
    for path in host.glob("/var/lib/apt/lists/*_Packages"):
        origin = origin_of_uri(path.rpartition("/")[2].replace("_", "/"))
        status = host.stat(path)
        if not origin or status is None or status.size > budget:
            continue
        budget -= status.size
        try:
            content = host.read(path, _LISTS_LIMIT) or b""
        except Unreadable:
            continue
        for name, version in wanted.items():
            if has_version(content, name, version):
                found.setdefault(name, {})[origin] = path
    return {n: (tuple(o), next(iter(o.values()))) for n, o in found.items() if len(o) == 1}


def has_version(content: bytes, name: str, version: str) -> bool:
    """Whether a Packages file offers this version of a package."""
    stanza_start = re.compile(rb"^Package: " + re.escape(name.encode(errors="surrogateescape")) + rb"$", re.MULTILINE)
    wanted = b"\nVersion: " + version.encode(errors="surrogateescape") + b"\n"
    for match in stanza_start.finditer(content):
        end = content.find(b"\n\n", match.start())
        if wanted in content[match.start() : end if end >= 0 else len(content)] + b"\n":
            return True
    return False


class Change(NamedTuple):
    """What one run of apt did with one package: install, upgrade, downgrade, remove, purge, reinstall."""

    action: str
    name: str
    architecture: str
    old: str
    new: str


class Transaction(NamedTuple):
    """One run of apt, as its history has it; only changes of NVIDIA's packages. `error` is dpkg's, "" if it went
    well."""

    source: Place
    start: str
    command: str
    changes: tuple[Change, ...]
    error: str


class AptHistory(NamedTuple):
    """Runs of apt that touched NVIDIA's packages, the newest first."""

    transactions: tuple[Transaction, ...]

    def last(self, name: str, version: str) -> Transaction | None:
        """The last run that brought a package in this version; None if it came without apt."""
        for transaction in self.transactions:
            if any(
                (c.name, c.new) == (name, version) and c.action not in ("remove", "purge") for c in transaction.changes
            ):
                return transaction
        return None

    @classmethod
    def probe(cls, host: Host) -> "AptHistory":
        transactions: list[Transaction] = []
        for path, text in logs(host, "history.log"):
            transactions += reversed(list(parse_history(path, text)))
        return cls(tuple(transactions))


def logs(host: Host, name: str, rotated: int = 6) -> Iterator[tuple[str, str]]:
    """A log of apt and its rotated forms, the newest first; without those that can't be read."""
    for number in range(rotated + 1):
        for path in (f"/var/log/apt/{name}{f'.{number}' if number else ''}{end}" for end in ("", ".gz")):
            try:
                content = host.read(path, _LOG_LIMIT)
                if content is not None and path.endswith(".gz"):
                    content = zlib.decompressobj(wbits=31).decompress(content, _LOG_LIMIT)
            except (Unreadable, zlib.error):
                continue
            if content:
                yield path, content.decode(errors="replace")


_OURS = regex(r"nvidia|cuda|cudnn")


def parse_history(path: str, text: str, wanted: "re.Pattern[str]" = _OURS) -> Iterator[Transaction]:
    """The runs in a history.log, the oldest first, with their changes of the packages whose names match."""
    for number, fields in _stanzas(text):
        if "start-date" not in fields:
            continue
        changes = tuple(
            change
            for action in ("install", "upgrade", "downgrade", "reinstall", "remove", "purge")
            for change in _changes(action, fields.get(action, ""), wanted)
        )
        if changes:
            command = fields.get("commandline", "")
            yield Transaction(
                Place(path, number), " ".join(fields["start-date"].split()), command, changes, fields.get("error", "")
            )


def _changes(action: str, text: str, wanted: "re.Pattern[str]") -> Iterator[Change]:
    for match in re.finditer(r"([a-z0-9][a-z0-9+.-]*):(\w+) \(([^)]*)\)", text):
        if wanted.search(match[1]):
            versions = [v.strip() for v in match[3].split(",") if v.strip() != "automatic"]
            old = versions[0] if action not in ("install",) and versions else ""
            yield Change(action, match[1], match[2], old, versions[-1] if versions else "")


class Failure(NamedTuple):
    """A line of apt's terminal log that says why something failed."""

    source: Place
    text: str
    kind: str


_FAILURES = (
    ("no-space", ("No space left on device",)),
    ("python", ("ModuleNotFoundError", "ImportError: ", "No module named",
                *(f"/usr/bin/python3: {why}" for why in ("No such", "bad", "can't")))),
    ("overwrite", ("trying to overwrite ",)),
    # What apt says before it runs dpkg is in its terminal log only where somebody posted both.
    ("signed-by", ("Conflicting values set for option Signed-By",)),
    ("no-key", ("NO_PUBKEY ",)),
    ("clock", ("is not valid yet",)),
    ("dkms", ("Error! ", "Bad return status for module build", "Building module failed", "Building module: failed",
              *(f"bad exit status: {status}" for status in range(1, 10)))),
    ("dpkg", ("dpkg: error processing package ", "dpkg: error processing archive ",
              "subprocess returned error exit status")),
)  # fmt: skip


class AptFailures(NamedTuple):
    """What failed in the last run of apt that the terminal log has (the runs before are history), in its order."""

    failures: tuple[Failure, ...]

    def of(self, kind: str) -> Failure | None:
        """The first of a kind: no-space, python, overwrite, signed-by, no-key, clock, dkms, dpkg."""
        return next(self.all_of(kind), None)

    def all_of(self, kind: str) -> "Iterator[Failure]":
        """All of a kind."""
        return (f for f in self.failures if f.kind == kind)

    @classmethod
    def probe(cls, host: Host) -> "AptFailures":
        path = "/var/log/apt/term.log"
        text = host.text(path, 32 << 20)
        if text is None:
            raise Unavailable(f"{path} does not exist")
        return cls(tuple(last_failures(path, text)))


def last_failures(path: str, text: str) -> list[Failure]:
    """The failures in the last run of a terminal log."""
    start = max(text.rfind("\nLog started:"), 0)
    run = text[start:].lstrip("\n")
    # Nearly all runs have none, and thousands of lines.
    there = [(kind, sign) for kind, signs in _FAILURES for sign in signs if sign in run]
    if not there:
        return []
    first = text.count("\n", 0, start) + (2 if start else 1)
    failures: list[Failure] = []
    for number, line in enumerate(run.splitlines(), first):
        kind = next((kind for kind, sign in there if sign in line), None)
        if kind and len(failures) < 200:
            failures.append(Failure(Place(path, number), line.strip()[:300], kind))
    return failures


class LockHolder(NamedTuple):
    """A process that holds one of apt's locks; `command` is "" if its name cannot be read."""

    path: str
    pid: int
    command: str


class PackageLocks(NamedTuple):
    """Who holds a lock of dpkg or apt. A lock file without a holder is no lock."""

    holders: tuple[LockHolder, ...]

    @property
    def busy(self) -> str:
        """The text "apt (process 1595) holds …: packages are being changed" or "": rules about packages wait for
        that."""
        if not self.holders:
            return ""
        holder = self.holders[0]
        return f"{holder.command or 'A program'} (process {holder.pid}) holds {holder.path}: packages are being changed"

    @classmethod
    def probe(cls, host: Host) -> "PackageLocks":
        text = host.text("/proc/locks")
        if text is None:
            raise Unavailable("this machine is not running: nothing holds a lock")
        holders = []
        for path in LOCKS:
            status = host.stat(path)
            for pid, device, inode in parse_locks(text) if status else ():
                command = _command(host, pid) if status and inode == status.inode else ""
                # Some file systems (btrfs, overlay) tell the kernel and stat() different device numbers.
                if (
                    status
                    and inode == status.inode
                    and (device == (os.major(status.device), os.minor(status.device)) or _TOOLS.match(command))
                ):
                    holders.append(LockHolder(path, pid, command))
        return cls(tuple(holders))


def parse_locks(text: str) -> list[tuple[int, tuple[int, int], int]]:
    """(process, device number, inode) of each held lock in /proc/locks. Lines that wait for a lock hold none."""
    held = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[1] in ("POSIX", "FLOCK", "OFDLCK"):
            try:
                major, minor, inode = fields[5].split(":")
                held.append((int(fields[4]), (int(major, 16), int(minor, 16)), int(inode)))
            except ValueError:
                continue
    return held


def _command(host: Host, pid: int) -> str:
    try:
        return (host.text(f"/proc/{pid}/comm") or "").strip() if pid > 0 else ""
    except Unreadable:
        return ""


class ReleaseUpgrade(NamedTuple):
    """The release that runs: `distribution` and `version` as os-release has them ("ubuntu", "24.04"). `disabled` are the
    entries of apt's sources that an upgrade to it switched off."""

    distribution: str
    version: str
    disabled: tuple[tuple[Place, str], ...]

    @classmethod
    def probe(cls, host: Host) -> "ReleaseUpgrade":
        values = os_release(host)
        distribution, version = values.get("ID", ""), values.get("VERSION_ID", "")
        if not distribution or not version:
            raise Unavailable("/etc/os-release does not name the release")
        found = []
        for path in ("/etc/apt/sources.list", *host.glob("/etc/apt/sources.list.d/*")):
            try:
                lines = (host.text(path) or "").splitlines()
            except Unreadable:
                continue  # this only says more about a fault that is seen elsewhere
            found += [
                (Place(path, n), li.strip()[:200]) for n, li in enumerate(lines, 1) if "disabled on upgrade to" in li
            ]
        return cls(distribution, version, tuple(found))
