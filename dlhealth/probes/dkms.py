"""What DKMS knows of NVIDIA's modules: versions, for which kernels they are built, and why a build failed."""

import re

from dlhealth.data import load
from dlhealth.host import Host, Unreadable
from dlhealth.lean import NamedTuple, regex
from dlhealth.probes.compat import branch_of, version_key

TREE = "/var/lib/dkms"
_MODULE = regex(r"^nvidia(-current|-tesla(-\d+)?|-legacy-\d+xx|-srv)?(-open)?$")
_LOG_LIMIT = 32 << 20

# In the order in which they are looked for: the first that is found in the log is the cause of all that follows it.
_CAUSES = (
    ("disk-full", regex(r"No space left on device|Disk quota exceeded")),
    (
        "headers",
        regex(r"\*\*\* (?:/lib/modules/\S+/build: No such file or directory|No rule to make target 'modules')"),
    ),
    ("headers", regex(r"Unable to find the kernel source tree|kernel headers for kernel \S+ cannot be found")),
    (
        "compiler",
        regex(
            r"Failed CC (?:sanity|version) check|unrecognized command[- ]line option"
            r"|(?:gcc\S*|cc): (?:[Cc]ommand )?not found|plugin .* is incompatible"
        ),
    ),
    ("gpl-symbol", regex(r"GPL-incompatible module \S+ uses GPL-only symbol")),
    # A note in the real logs: the bare word "error" stands in every line of compiler flags.
    ("kernel-too-new", regex(r"(?:^|\s)(?:fatal )?error: (?!error writing)|#error ")),
)


class ModuleBuild(NamedTuple):
    """One kernel of one version. `state` is built or failed; of a failed one, `cause` is headers, compiler,
    disk-full, gpl-symbol, kernel-too-new or unknown, `error` the log's first telling line and `log` its "path:LINE"."""

    kernel: str
    state: str
    cause: str = ""
    error: str = ""
    log: str = ""


class DkmsModule(NamedTuple):
    """One version of a module. `source` is empty when the source that it is built from is gone."""

    name: str
    version: str
    source: str
    builds: tuple[ModuleBuild, ...]

    def build(self, kernel: str | None) -> ModuleBuild | None:
        return next((b for b in self.builds if b.kernel == kernel), None)


class Dkms(NamedTuple):
    """The NVIDIA modules that DKMS keeps."""

    modules: tuple[DkmsModule, ...]

    @classmethod
    def probe(cls, host: Host) -> "Dkms":
        return cls(
            tuple(
                _module(host, name, version)
                for name in host.listdir(TREE)
                if _MODULE.match(name)
                for version in host.listdir(f"{TREE}/{name}")
                if version[:1].isdigit()
            )
        )


def _module(host: Host, name: str, version: str) -> DkmsModule:
    folder = f"{TREE}/{name}/{version}"
    source = f"/usr/src/{name}-{version}" if host.exists(f"{folder}/source") else ""
    builds = []
    for kernel in host.listdir(folder):
        if kernel in ("source", "build"):
            continue
        if any(host.listdir(f"{folder}/{kernel}/{arch}/module") for arch in host.listdir(f"{folder}/{kernel}")):
            builds.append(ModuleBuild(kernel, "built"))
    # DKMS leaves the tree of a build that failed as "build"; its log names the kernel.
    failed = _failed_build(host, f"{folder}/build/make.log")
    if failed and failed.kernel not in {b.kernel for b in builds}:
        builds.append(failed)
    return DkmsModule(name, version, source, tuple(builds))


def _failed_build(host: Host, path: str) -> ModuleBuild | None:
    try:
        text = host.text(path, _LOG_LIMIT)
    except Unreadable as problem:
        return ModuleBuild("", "failed", "unknown", problem.reason, path)
    return None if text is None else read_log(text, path)


def read_log(text: str, path: str) -> ModuleBuild:
    """What a make.log says: for which kernel, and the first line that tells why it failed."""
    kernel = re.search(r"(?:make\.log for \S+ for kernel|for kernel:?) (\S+)|/lib/modules/([^/\s\"]+)/", text[:20_000])
    release = (kernel[1] or kernel[2]) if kernel else ""
    lines = text.splitlines()
    for cause, pattern in _CAUSES:
        for number, line in enumerate(lines, 1):
            # Lines of flags run to thousands of characters and tell nothing.
            if len(line) < 1000 and pattern.search(line):
                return ModuleBuild(release, "failed", cause, line.strip()[:300], f"{path}:{number}")
    return ModuleBuild(release, "failed", "unknown", "the log names no error", path)


def lowest_driver_for_kernel(kernel: str, driver: str) -> str | None:
    """The oldest version of the driver's branch that kernel_needs.json names for kernels up to this one; None where
    it names none, or the driver is that new."""
    rows = [r for r in load("kernel_needs")["rows"] if version_key(r["linux"]) <= version_key(kernel)[:2]]
    named = [r["branch_at_least"][b] for r in rows if (b := str(branch_of(driver))) in r["branch_at_least"]]
    lowest: str | None = max(named, key=version_key, default=None)
    return lowest if lowest and version_key(driver) < version_key(lowest) else None
