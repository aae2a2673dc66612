"""What DKMS has: NVIDIA's modules, for which kernels they are built, and every build that failed."""

import re

from dlhealth.data import load
from dlhealth.data.compat import branch_of, version_key
from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.buildlog import BuildFault, read_log
from dlhealth.probes.packaging.packages import INFO, Package, Packages
from dlhealth.records import NamedTuple

TREE = "/var/lib/dkms"
_MODULE = regex(r"nvidia(?:-(?:current|open|srv|server|tesla|legacy|updates|\d{2,3}xx|\d{3}))*", re.ASCII)
_LOG_LIMIT = 32 << 20


class ModuleBuild(NamedTuple):
    """One kernel of one version. `fault` says why the build failed, None that it succeeded; `error` is the first line
    of the log that tells it, `log` the place of that line, `compiler` the one that built the kernel. `kernel` and
    `compiler` are "" if a log does not name them."""

    kernel: str
    fault: BuildFault | None = None
    error: str = ""
    log: str = ""
    compiler: str = ""


class DkmsModule(NamedTuple):
    """One version of a module. `source` is empty when the source that it is built from is gone; `no_realtime` says that
    it refuses to be built for kernels with PREEMPT_RT."""

    name: str
    version: str
    source: str
    builds: tuple[ModuleBuild, ...]
    no_realtime: bool = False

    def build(self, kernel: str | None) -> ModuleBuild | None:
        """What became of it for a kernel. A log that names no kernel can be that of any kernel without a module."""
        named = next((b for b in self.builds if b.kernel == kernel), None)
        return named or next((b for b in self.builds if not b.kernel), None)

    def failed(self, kernel: str | None) -> ModuleBuild | None:
        """Its build for a kernel, where that failed."""
        build = self.build(kernel)
        return build if build and build.fault else None


class Dkms(NamedTuple):
    """The NVIDIA modules that DKMS keeps; `others` are the modules of other makers whose last build failed. `problems`
    are directories that could not be read; `tree` says whether DKMS's own directory exists."""

    modules: tuple[DkmsModule, ...]
    problems: tuple[str, ...] = ()
    others: tuple[DkmsModule, ...] = ()
    tree: bool = True

    def newest(self) -> DkmsModule | None:
        """The version to build: the newest whose source is there."""
        sound = [m for m in self.modules if m.source]
        return max(sound, key=lambda m: version_key(m.version), default=None)

    @classmethod
    def probe(cls, host: Host) -> "Dkms":
        modules, others, problems = [], [], []
        for name in host.listdir(TREE):
            try:
                for version in (v for v in host.listdir(f"{TREE}/{name}") if v[:1].isdigit()):
                    if _MODULE.fullmatch(name):
                        modules.append(_module(host, name, version))
                    elif host.exists(f"{TREE}/{name}/{version}/build/make.log"):
                        others.append(_module(host, name, version))
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(tuple(modules), tuple(problems), tuple(others), host.stat(TREE) is not None)


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
            builds.append(ModuleBuild(kernel))
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
        return ModuleBuild("", BuildFault.UNKNOWN, problem.reason, path)
    if text is None:
        return None
    log = read_log(text)
    return ModuleBuild(log.kernel, log.fault, log.error, Place(path, log.line or None), log.compiler)


class DkmsOwners(NamedTuple):
    """By (name, version) of a module: the package that brought its source. A module without one was added by hand."""

    packages: dict[tuple[str, str], str]

    @classmethod
    def probe(cls, host: Host, dkms: Dkms) -> "DkmsOwners":
        failed = [m for m in (*dkms.modules, *dkms.others) if any(b.fault for b in m.builds)]
        if failed and not any(host.glob(f"{INFO}/*.list")):
            raise Unavailable(f"{INFO} has no lists of files, so the packages of DKMS modules are not known")
        return cls({(m.name, m.version): owner for m in failed if (owner := _owner(host, m))})


def _owner(host: Host, module: DkmsModule) -> str:
    # Of Ubuntu's two packages it is the one with dkms.conf whose configuration builds the module.
    wanted = f"/usr/src/{module.name}-{module.version}/dkms.conf\n".encode()
    for path in dict.fromkeys((*host.glob(f"{INFO}/*{module.name}*.list"), *host.glob(f"{INFO}/*dkms*.list"))):
        if wanted in (host.read(path) or b""):
            return path.rpartition("/")[2].removesuffix(".list").partition(":")[0]
    return ""


def lowest_driver_for_kernel(kernel: str, driver: str) -> str | None:
    """The oldest version of the driver's branch that kernel_needs.json names for kernels up to this one; None where
    it names none, or the driver is that new."""
    rows = [r for r in load("kernel_needs")["rows"] if version_key(r["linux"]) <= version_key(kernel)[:2]]
    named = [r["branch_at_least"][b] for r in rows if (b := str(branch_of(driver))) in r["branch_at_least"]]
    lowest: str | None = max(named, key=version_key, default=None)
    return lowest if lowest and version_key(driver) < version_key(lowest) else None


def older_than_kernel(driver: str, kernel: str) -> str:
    """Why no version of the driver's branch, or only newer ones, can know this kernel; "" if this one may."""
    branch = branch_of(driver)
    if needed := lowest_driver_for_kernel(kernel, driver):
        return f"this kernel needs {needed} or newer of branch {branch}"
    newest = next((r.get("linux", "") for r in load("driver_branches")["branches"] if r["branch"] == branch), "")
    if newest and version_key(kernel)[:2] > version_key(newest):
        return f"branch {branch} ended when Linux {newest} was the newest kernel"
    return ""


def measured_failure(module: str, package: str, kernel: str) -> str | None:
    """The error with which this very version of a package was seen to fail on such a kernel, or an older one; None
    where nobody saw that."""
    for row in load("kernel_needs")["failures"]:
        same = row["dkms"] == module and row["package"] == package
        if same and version_key(row["linux"]) <= version_key(kernel)[:2]:
            return f"{row['kernel']}: {row['error']}"
    return None


def known_to_fail(module: str, version: str, kernel: str, packages: Packages | None) -> str:
    """The error with which the installed package of a module was seen to fail on such a kernel; "" if nobody saw
    that. A low version alone proves nothing: a distribution's package may carry the change that the kernel needs."""
    package = package_of(packages, version)
    return (package and measured_failure(module, package.version, kernel)) or ""


def package_of(packages: Packages | None, version: str) -> Package | None:
    """The package that brings the source of this version to DKMS."""
    builders = packages.shown("nvidia*dkms*") if packages else ()
    return next((p for p in builders if p.upstream == version), None)
