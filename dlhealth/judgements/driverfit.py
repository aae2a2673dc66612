"""Which driver is used now and after the next boot, and which GPUs it does not support."""

import re
from collections.abc import Iterator
from enum import Enum

from dlhealth.data import load
from dlhealth.data.compat import branch_of
from dlhealth.data.kernel_log import sayings
from dlhealth.host import Host
from dlhealth.lazy import regex
from dlhealth.model import Evidence, Severity
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.driver.driverlog import messages
from dlhealth.probes.driver.gpu import Gpu, Gpus, make_gpu
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.driver.nvml import Nvml
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.machine.platform import Platform
from dlhealth.probes.machine.system import os_release
from dlhealth.probes.packaging.packages import DriverPackages
from dlhealth.records import NamedTuple


class MisfitKind(str, Enum):
    """Why a driver does not support a GPU. All values except "dropped" are names of rows in data/kernel_log.py."""

    LEGACY = "legacy"
    """The driver is newer than the last branch for the GPU, 470 or older."""
    DROPPED = "dropped"
    """The same, and that branch is 580."""
    TOO_OLD = "too-old"
    """The driver is older than the GPU."""
    NO_GSP = "no-gsp"
    """The open kernel module, on a GPU that only the closed one supports."""
    NOT_READY = "not-ready"
    """The open kernel module of a branch in which it supports only data center GPUs."""
    NEEDS_OPEN = "needs-open"
    """The closed kernel module, on a GPU that only the open one supports."""


_REFUSALS = (
    MisfitKind.NO_GSP,
    MisfitKind.NOT_READY,
    MisfitKind.NEEDS_OPEN,
    MisfitKind.TOO_OLD,
    MisfitKind.LEGACY,
)
"""The names in the table of the messages by which the driver refuses a GPU."""
_AFTER_580 = 580
"""The branch in the name of a rule."""


_STARTED = regex(r"NVRM: loading NVIDIA UNIX (?P<open>Open Kernel Module for )?.*?(?P<version>\d{2,3}\.\d[\d.]*)  ")
"""What every module says when it starts."""
_NO_VERSION = "(version not known)"
_FLAVOURS = {MisfitKind.NO_GSP: True, MisfitKind.NOT_READY: True, MisfitKind.NEEDS_OPEN: False}
"""Whether the module that refuses a GPU so is the open one."""


class Refusal(NamedTuple):
    """A refusal of a GPU by the driver in the kernel log. `branch` is the one that supports it, `version` that of the
    driver; empty or None if the message does not say it."""

    kind: MisfitKind
    address: str
    device: str
    name: str
    branch: int | None
    version: str
    text: str
    source: str


def read_refusals(lines: list[Line]) -> Iterator[Refusal]:
    """Each refusal once; further lines of the same message are not a second one."""
    seen: list[Refusal] = []
    for said in messages(lines):
        for kind in _REFUSALS:
            match = sayings()[kind.value].pattern.search(said.text)
            if match is None or any(match[0].removeprefix("NVRM: ") in r.text for r in seen if r.kind == kind):
                continue
            groups = match.groupdict()
            branch = groups.get("branch")
            refusal = Refusal(
                kind,
                (groups.get("address") or "").lower(),
                (groups.get("device") or "").lower(),
                groups.get("name") or "",
                int(branch) if branch else None,
                (groups.get("version") or "").rstrip("."),
                match[0].strip(),
                said.line.source,
            )
            seen.append(refusal)
            yield refusal


class DriverInPlace(NamedTuple):
    """One driver. `open` is the kind of its kernel module (None: unknown), `source` where the version was found;
    `loaded` means that the running kernel has loaded it."""

    version: str
    branch: int
    open: bool | None
    source: str
    loaded: bool

    @property
    def flavour(self) -> str:
        return {None: "", True: ", open kernel module", False: ", closed kernel module"}[self.open]


class Drivers(NamedTuple):
    """`now` is the loaded driver, `later` that of the next boot. `system` is like "debian 12"; `packages` are the names
    of the driver's packages, none if it was installed another way; `repository` means that they are NVIDIA's own."""

    now: DriverInPlace | None
    later: DriverInPlace | None
    system: str
    packages: tuple[str, ...]
    repository: bool

    @property
    def judged(self) -> tuple[DriverInPlace, ...]:
        """The loaded driver first, then the next one if it differs."""
        both = [d for d in (self.now, self.later) if d]
        same = len(both) == 2 and both[0].version == both[1].version and both[1].open in (both[0].open, None)
        return tuple(both[:1] if same else both)

    @property
    def beside(self) -> tuple[str, ...]:
        """The packages that must be removed explicitly for another branch: Debian's drivers are installed beside each
        other (-common serves several); elsewhere one replaces the other."""
        names = self.packages if self.system.startswith("debian") else ()
        return tuple(name for name in names if not name.endswith("-common"))

    def offer(self, lowest: int, highest: int | None, *, open_flavour: bool, near: int) -> tuple[int, str, str] | None:
        """The distribution's package that installs a driver of these branches: branch, name, newest kernel in its
        changelog. The branch `near`, otherwise the newest. None if none is known, or if the driver did not come from
        the distribution: two sources do not mix."""
        if not self.packages or self.repository:
            return None
        # Ubuntu builds both kinds from one source.
        flavours = re.compile(rf"nvidia-driver-{near}(?:-server)?(?:-open)?", re.ASCII)
        there = next((name for name in self.packages if flavours.fullmatch(name)), "")
        if (
            there
            and there.endswith("-open") != open_flavour
            and lowest <= near
            and (highest is None or near <= highest)
        ):
            return near, f"{there}-open" if open_flavour else there.removesuffix("-open"), ""
        key = "open" if open_flavour else "closed"
        server = any("-server" in name for name in self.packages)
        rows = [
            row
            for row in load("driver_branches")["packages"]
            if row["system"] == self.system
            and row[key]
            and lowest <= row["branch"]
            and (highest is None or row["branch"] <= highest)
            # The same name means another version, which the distribution does not have.
            and row[key] not in self.packages
        ]
        rows.sort(key=lambda row: (row["branch"] == near, row["branch"], ("-server" in row[key]) == server))
        if not rows:
            return None
        return rows[-1]["branch"], rows[-1][key], rows[-1]["kernel"] or ""

    @classmethod
    def probe(
        cls,
        host: Host,
        options: Options,
        kernel: Kernel,
        modules: KernelModules,
        packages: DriverPackages | None,
        platform: Platform,
        journal: Journal | None,
    ) -> "Drivers":
        if platform.driver_elsewhere:
            raise Unavailable(platform.driver_elsewhere)
        now = None
        if modules.loaded_version and (kernel.running or kernel.unseen) and not options.next_boot:
            now = _loaded(modules, kernel)
        later = _installed(modules, kernel, packages)
        if now is None and later is None and journal and kernel.unseen:
            later = _told(journal)
        if now is None and later is None:
            raise Unavailable("no NVIDIA driver is installed")
        members = packages.members if packages else ()
        repository = any(m.family == "nvidia-repo" for m in members)
        return cls(now, later, system_of(host), tuple(m.package.name for m in members), repository)


def _loaded(modules: KernelModules, kernel: Kernel) -> DriverInPlace | None:
    version = modules.loaded_version or ""
    is_open, disk = modules.loaded_open, modules.seen(kernel.running)
    if is_open is None and disk and disk.version == version:
        is_open = disk.open
    branch = branch_of(version)
    return DriverInPlace(version, branch, is_open, "/proc/driver/nvidia/version", True) if branch else None


def _installed(modules: KernelModules, kernel: Kernel, packages: DriverPackages | None) -> DriverInPlace | None:
    releases = (kernel.next_boot, kernel.target)
    disk = next((f for r in releases if r and (f := modules.seen(r)) and f.version), None)
    if disk and (branch := branch_of(disk.version)):
        return DriverInPlace(disk.version, branch, disk.open, disk.path, False)
    if packages and packages.version and (branch := branch_of(packages.version)):
        # Debian's two kinds may be installed side by side: then an alternative decides.
        flavours = {m.open for m in packages.role("module", "prebuilt")}
        is_open = flavours.pop() if len(flavours) == 1 else None
        return DriverInPlace(packages.version, branch, is_open, "/var/lib/dpkg/status", False)
    return None


def _told(journal: Journal) -> DriverInPlace | None:
    """The driver that wrote to the kernel log last, for a machine whose disk is not visible."""
    lines = list(journal.kernel("NVRM", last_boot=True))
    for line in reversed(lines):
        if started := _STARTED.search(line.text):
            branch = branch_of(started["version"])
            return (
                DriverInPlace(started["version"], branch, bool(started["open"]), line.source, False) if branch else None
            )
    refusals = list(read_refusals(lines))
    refusal = next((r for r in refusals if branch_of(r.version)), next(iter(refusals), None))
    if refusal is None:
        return None
    is_open = _FLAVOURS.get(refusal.kind)
    return DriverInPlace(
        refusal.version or _NO_VERSION, branch_of(refusal.version) or 0, is_open, refusal.source, False
    )


def system_of(host: Host) -> str:
    """The id and version "ubuntu 24.04", also for a distribution based on it."""
    values = os_release(host)
    names = load("driver_branches")["codenames"]
    base = names.get(values.get("UBUNTU_CODENAME") or values.get("VERSION_CODENAME", ""))
    return base or f"{values.get('ID', '')} {values.get('VERSION_ID', '')}".strip()


class Misfit(NamedTuple):
    """A driver that does not support a GPU.

    `branch` is the last (legacy, dropped) or the first (too-old) that supports it. `later` means that only the next
    boot uses this driver, `cured` that the next boot uses one that fits; `others` are GPUs that this driver does
    support.
    """

    kind: MisfitKind
    gpu: Gpu
    driver: DriverInPlace
    branch: int | None
    said: Refusal | None
    later: bool
    cured: bool
    others: tuple[Gpu, ...]

    @property
    def subject(self) -> str:
        return f"gpu:{self.gpu.address}" if self.gpu.address else "host"

    @property
    def severity(self) -> Severity:
        """An error if no GPU works. An old card that draws the screen beside one that computes is only worth
        knowing."""
        if self.others and self.kind == MisfitKind.LEGACY:
            return Severity.NOTE
        return Severity.WARNING if self.later or self.others else Severity.ERROR

    @property
    def who(self) -> str:
        """The name of the GPU in a sentence."""
        about = f" ({self.gpu.architecture})" if self.gpu.architecture else ""
        return f"the {self.gpu.name}{about}" + (f" at {self.gpu.address}" if self.gpu.address else "")

    @property
    def when(self) -> str:
        return "After the next reboot: " if self.later else ""

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        found = [Evidence(self.driver.source, f"{self.driver.version}{self.driver.flavour}")]
        if self.gpu.device and self.gpu.address:
            found.append(Evidence(f"PCI device {self.gpu.address}", f"10de:{self.gpu.device} {self.gpu.name}"))
        if self.said:
            found.append(Evidence(self.said.source, self.said.text))
        found += [Evidence(f"PCI device {g.address}", f"10de:{g.device} {g.name}, supported") for g in self.others]
        return tuple(found)


class Doubt(NamedTuple):
    """A GPU for which it is unknown whether the driver supports it; `flavour` if only its kind of kernel module is in
    doubt."""

    gpu: Gpu
    reason: str
    flavour: bool


class DriverFit(NamedTuple):
    """Every GPU that the driver does not support, at most once each."""

    misfits: tuple[Misfit, ...]
    doubts: tuple[Doubt, ...]

    def of(self, *kinds: MisfitKind) -> Iterator[Misfit]:
        return (m for m in self.misfits if m.kind in kinds)

    def unserved(self) -> frozenset[str]:
        """Addresses of the GPUs that the driver certainly does not drive."""
        return frozenset(m.gpu.address for m in self.misfits if not m.later)

    @classmethod
    def probe(
        cls, host: Host, drivers: Drivers, gpus: Gpus | None, journal: Journal | None, nvml: Nvml | None
    ) -> "DriverFit":
        # Only these lines are from the driver; the newest boot, because an earlier one may have had an older driver.
        lines = list(journal.kernel("NVRM", last_boot=True)) if journal else []
        refusals = tuple(read_refusals(lines))
        if gpus is None:
            candidates = tuple(_named(r) for r in refusals)
            if not candidates:
                raise Unavailable("no PCI bus is visible, and the kernel log names no GPU")
        else:
            candidates = tuple(g for g in gpus.gpus if not g.passed_through)
        # A GPU that NVML lists without an error works, whatever a table says.
        working = {g.pci for g in nvml.gpus if g.code is None} if nvml and nvml.outcome == "ok" else set()
        misfits, doubts = [], []
        for gpu in dict.fromkeys(candidates):
            judged = [_judge(gpu, d, refusals, working, candidates) for d in drivers.judged]
            bad = next((i for i, (kind, *_) in enumerate(judged) if kind), None)
            kind, branch, said, doubt = judged[bad or 0] if judged else (None, None, None, "")
            if bad is not None and kind:
                driver = drivers.judged[bad]
                others = tuple(
                    g
                    for g in candidates
                    if g != gpu and g.known and _fits(_judge(g, driver, refusals, working, candidates))
                )
                cured = bad == 0 and len(judged) > 1 and _fits(judged[1])
                misfits.append(Misfit(kind, gpu, driver, branch, said, bad > 0, cured, others))
            elif doubt:
                flavour = gpu.known and (said is None or said.kind in (MisfitKind.NO_GSP, MisfitKind.NEEDS_OPEN))
                doubts.append(Doubt(gpu, doubt, flavour))
        return cls(tuple(misfits), tuple(doubts))


_Verdict = tuple[MisfitKind | None, int | None, Refusal | None, str]


def _fits(verdict: _Verdict) -> bool:
    kind, _, _, doubt = verdict
    return not kind and not doubt


def _judge(
    gpu: Gpu, driver: DriverInPlace, refusals: tuple[Refusal, ...], working: set[str], gpus: tuple[Gpu, ...]
) -> _Verdict:
    """(kind of misfit, branch, message of the driver, reason of a doubt): neither kind nor doubt if it fits."""
    if driver.loaded and gpu.address in working:
        return None, None, None, ""
    said = next((r for r in refusals if _about(r, gpu, gpus) and r.version in ("", driver.version)), None)
    if not driver.branch:
        return (
            (said.kind, said.branch, said, "") if said else (None, None, None, "the version of the driver is not known")
        )
    if gpu.last_branch is not None and driver.branch > gpu.last_branch:
        return MisfitKind.DROPPED if gpu.last_branch == _AFTER_580 else MisfitKind.LEGACY, gpu.last_branch, said, ""
    if gpu.first_branch is not None and driver.branch < gpu.first_branch:
        return MisfitKind.TOO_OLD, gpu.needed, said, ""
    if driver.open and gpu.supports_open is False:
        return MisfitKind.NO_GSP, gpu.last_branch, said, ""
    if driver.open is False and gpu.needs_open:
        return MisfitKind.NEEDS_OPEN, gpu.first_branch, said, ""
    if said:
        return _as_said(gpu, driver, said)
    if not gpu.known:
        # A driver that does not support a device does not touch it.
        if driver.loaded and gpu.driver == "nvidia":
            return None, None, None, ""
        return None, None, None, f"{gpu.name} is not in the GPU lists of this version of dlhealth"
    if driver.open is None and (gpu.needs_open or gpu.supports_open is False):
        return None, None, None, f"{driver.source} does not say whether the kernel module is the open one"
    return None, None, None, ""


def _as_said(gpu: Gpu, driver: DriverInPlace, said: Refusal) -> _Verdict:
    """How to judge a refusal that the table does not predict."""
    # Neither a virtual machine nor firmware can cause this one, whatever a table says about the model.
    if said.kind == MisfitKind.LEGACY:
        return (
            MisfitKind.DROPPED if said.branch and said.branch >= _AFTER_580 else MisfitKind.LEGACY,
            said.branch,
            said,
            "",
        )
    if said.kind == MisfitKind.TOO_OLD and (not gpu.known or (gpu.listed is not None and driver.branch < gpu.listed)):
        return MisfitKind.TOO_OLD, gpu.needed, said, ""
    if said.kind in (MisfitKind.NO_GSP, MisfitKind.NEEDS_OPEN) and not gpu.known:
        return said.kind, None, said, ""
    if said.kind == MisfitKind.NOT_READY and driver.open is not False:
        return said.kind, None, said, ""
    if said.kind == MisfitKind.NEEDS_OPEN and not driver.open:
        return said.kind, gpu.first_branch, said, ""
    # A virtual machine, a wrong firmware setting or a device that does not wake up gives the same message.
    return (
        None,
        None,
        said,
        f"the kernel log says: {said.text}; but the driver supports this model, so the cause is another one",
    )


_DATA_CENTER = regex(r"Tesla|\b(?:A|H|L|T|V|P|B|GB|GH|K|M)\d{1,3}[A-Z]?\b", re.ASCII)


def _about(said: Refusal, gpu: Gpu, gpus: tuple[Gpu, ...]) -> bool:
    if said.kind == MisfitKind.NOT_READY:
        return not _DATA_CENTER.search(gpu.name)
    if said.address:
        return said.address == gpu.address
    if said.device:
        return said.device == gpu.device
    if said.name and _plain(said.name) == _plain(gpu.name):
        return True
    return len(gpus) == 1 and gpu.driver != "nvidia"


def _plain(name: str) -> str:
    return name.replace("NVIDIA ", "").strip().lower()


def _named(said: Refusal) -> Gpu:
    """The GPU of a line in the log, if there is no bus to read."""
    if said.device:
        return make_gpu(said.address, said.device)
    return Gpu("", "", said.name or "NVIDIA GPU", "", "", "", True, None, None, False, None)
