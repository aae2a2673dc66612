"""What DKMS knows of NVIDIA's modules: versions, for which kernels they are built, and why a build failed."""

import re

from dlhealth.data import load
from dlhealth.host import Host, Unreadable
from dlhealth.lean import NamedTuple, regex
from dlhealth.probes.compat import branch_of, version_key

TREE = "/var/lib/dkms"
_MODULE = regex(r"nvidia(?:-(?:current|open|srv|server|tesla|legacy|updates|\d{2,3}xx|\d{3}))*", re.ASCII)
_LOG_LIMIT = 32 << 20
_LINE_LIMIT = 1000
"""Characters. Lines of compiler flags are longer, and tell nothing."""

# In the order in which they are looked for: the first that is found in the log is the cause of all that follows it.
_CAUSES = (
    ("disk-full", regex(r"No space left on device|Disk quota exceeded")),
    (
        "memory",
        regex(
            r"Killed signal terminated program|virtual memory exhausted|out of memory allocating|Cannot allocate memory"
        ),
    ),
    (
        "headers",
        regex(
            r"\*\*\* (?:/lib/modules/\S+/build: No such file or directory"
            r"|No rule to make target '(?:modules|scripts/[^']*|/usr/src/linux-headers-[^']*)')"
            r"|Unable to find the kernel source tree|kernel headers for kernel \S+ cannot be found"
            # Kernels before 5.19 show, in every log, the commands that would print this.
            r"|^[\s*]*(?:ERROR: Kernel configuration is invalid|include/generated/autoconf\.h .{,40} are missing)"
            r"|scripts/(?:basic/fixdep|mod/modpost): (?:not found|No such file|cannot execute)"
        ),
    ),
    (
        "compiler",
        regex(
            r"Failed CC (?:sanity|version) check|unrecognized (?:command[- ]line option|argument in option)"
            r"|(?:^|[\s/:-])(?:gcc|clang|cc)(?:-\d+)?: (?:[Cc]ommand not found|not found|No such file or directory)"
            r"|incompatible gcc/plugin versions|fail(?:ed)? to initialize plugin"
        ),
    ),
    ("gpl-symbol", regex(r"GPL-incompatible module \S+ uses GPL-only symbol")),
    # Only what a compiler or modpost says of a place: the bare word "error" is in every line of compiler flags.
    (
        "kernel-too-new",
        regex(r"^\S+:\d+(?::\d+)?: (?:fatal )?error: |^\s*#\s*error |modpost: \"\w+\" \[\S+\] undefined!"),
    ),
)


class ModuleBuild(NamedTuple):
    """One kernel of one version. `state` is built or failed; of a failed one, `cause` is disk-full, memory, headers,
    compiler, gpl-symbol, kernel-too-new or unknown, `error` the log's first telling line and `log` its "path:LINE".
    `kernel` is empty where a log does not name it."""

    kernel: str
    state: str
    cause: str = ""
    error: str = ""
    log: str = ""


class DkmsModule(NamedTuple):
    """One version of a module. `source` is empty when the source that it is built from is gone; `no_realtime` says that
    it refuses to be built for kernels with PREEMPT_RT."""

    name: str
    version: str
    source: str
    builds: tuple[ModuleBuild, ...]
    no_realtime: bool = False

    def build(self, kernel: str | None) -> ModuleBuild | None:
        """What became of it for a kernel. A log that names no kernel can be that of any which has no module."""
        named = next((b for b in self.builds if b.kernel == kernel), None)
        return named or next((b for b in self.builds if not b.kernel), None)


class Dkms(NamedTuple):
    """The NVIDIA modules that DKMS keeps. `problems` are folders that could not be looked at."""

    modules: tuple[DkmsModule, ...]
    problems: tuple[str, ...] = ()

    def newest(self) -> DkmsModule | None:
        """The version to build: the newest whose source is there."""
        sound = [m for m in self.modules if m.source]
        return max(sound, key=lambda m: version_key(m.version), default=None)

    @classmethod
    def probe(cls, host: Host) -> "Dkms":
        modules, problems = [], []
        for name in host.listdir(TREE):
            if not _MODULE.fullmatch(name):
                continue
            try:
                versions = [v for v in host.listdir(f"{TREE}/{name}") if v[:1].isdigit()]
                modules += [_module(host, name, version) for version in versions]
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(tuple(modules), tuple(problems))


def _module(host: Host, name: str, version: str) -> DkmsModule:
    folder = f"{TREE}/{name}/{version}"
    source = f"/usr/src/{name}-{version}" if host.exists(f"{folder}/source") else ""
    try:
        refuses = "!CONFIG_PREEMPT_RT" in (host.text(f"{folder}/source/dkms.conf") or "")
    except Unreadable:
        refuses = False
    builds = []
    for kernel in host.listdir(folder):
        if kernel in ("source", "build"):
            continue
        places = [f"{folder}/{kernel}/{arch}" for arch in host.listdir(f"{folder}/{kernel}")]
        if any(host.listdir(f"{place}/module") for place in places):
            builds.append(ModuleBuild(kernel, "built"))
        else:
            logs = (_failed_build(host, f"{place}/log/make.log") for place in places)
            builds += [b._replace(kernel=kernel) for b in logs if b][:1]
    # DKMS leaves the tree of a build that failed as "build"; its log names the kernel.
    failed = _failed_build(host, f"{folder}/build/make.log")
    if failed and failed.kernel not in {b.kernel for b in builds}:
        builds.append(failed)
    return DkmsModule(name, version, source, tuple(builds), refuses)


def _failed_build(host: Host, path: str) -> ModuleBuild | None:
    try:
        text = host.text(path, _LOG_LIMIT)
    except Unreadable as problem:
        return ModuleBuild("", "failed", "unknown", problem.reason, path)
    return None if text is None else read_log(text, path)


_KERNEL = (
    regex(r"make\.log for \S+ for kernel:? (\S+)"),
    regex(r"/lib/modules/([^/\s\"']+)/(?:build|source)"),
    regex(r"KERNEL_UNAME=\"?([^\s\"]+)"),
    regex(r"/linux-headers-([^/\s\"']+(?<!-common))(?=[/\s\"'])"),
)


def read_log(text: str, path: str) -> ModuleBuild:
    """What a make.log says: for which kernel, and the first line that tells why it failed."""
    named = (pattern.search(text[:20_000]) for pattern in _KERNEL)
    release = next((m[1] for m in named if m), "")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if len(line) < _LINE_LIMIT]
    for cause, pattern in _CAUSES:
        for number, line in lines:
            if pattern.search(line):
                return ModuleBuild(release, "failed", cause, line.strip()[:300], f"{path}:{number}")
    return ModuleBuild(release, "failed", "unknown", "the log names no error", path)


def lowest_driver_for_kernel(kernel: str, driver: str) -> str | None:
    """The oldest version of the driver's branch that kernel_needs.json names for kernels up to this one; None where
    it names none, or the driver is that new."""
    rows = [r for r in load("kernel_needs")["rows"] if version_key(r["linux"]) <= version_key(kernel)[:2]]
    named = [r["branch_at_least"][b] for r in rows if (b := str(branch_of(driver))) in r["branch_at_least"]]
    lowest: str | None = max(named, key=version_key, default=None)
    return lowest if lowest and version_key(driver) < version_key(lowest) else None


def measured_failure(module: str, package: str, kernel: str) -> str | None:
    """The error with which this very version of a package was seen to fail on such a kernel, or an older one; None
    where nobody saw that."""
    for row in load("kernel_needs")["failures"]:
        same = row["dkms"] == module and row["package"] == package
        if same and version_key(row["linux"]) <= version_key(kernel)[:2]:
            return f"{row['kernel']}: {row['error']}"
    return None
