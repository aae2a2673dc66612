"""The data that flows through dlhealth: from the observations to the planned repair.

Standard library only: this module is part of the rescue core. All records are NamedTuples, here and in the probes: they
are immutable, they print well, and defining one costs a tenth of a dataclass at every start.
"""

import re
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any, Protocol

from dlhealth.records import NamedTuple


class _Ordered(str, Enum):
    """Text in documents and file names; the members are ordered as they are defined."""

    __hash__ = str.__hash__

    def __str__(self) -> str:
        return str(self.value)

    @property
    def rank(self) -> int:
        """The position in that order."""
        return tuple(type(self)).index(self)

    def __lt__(self, other: str) -> bool:
        return self.rank < type(self)(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= type(self)(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > type(self)(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= type(self)(other).rank


class Severity(_Ordered):
    """How bad a finding is: note (worth knowing), warning (something will or may fail), error (something fails)."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Risk(_Ordered):
    """How much a repair can break: low (easily undone), medium (a service or a reboot), high (the driver itself)."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Health(str, Enum):
    """The result of a diagnosis. UNKNOWN: no problem was found, but too little could be checked to call the machine
    healthy."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Outcome(_Ordered):
    """How a repair ended. If several repairs ended, the greatest is reported. The values appear in documents and in the
    names of directories on disk."""

    NOTHING = "nothing-to-do"
    PLANNED = "planned"
    DECLINED = "declined"
    APPLIED = "applied"
    REFUSED = "refused"
    NOT_PROVED = "not-proved"
    AWAITING_REBOOT = "awaiting-reboot"
    UNDONE = "undone"
    ROLLED_BACK = "rolled-back"
    CONFLICT = "conflict"


class Layer(str, Enum):
    """The part of the machine that a rule is about; `--only` takes these names."""

    HARDWARE = "hardware"
    PACKAGING = "packaging"
    KERNEL_MODULE = "kernel-module"
    DRIVER_LIBRARIES = "driver-libraries"
    CUDA = "cuda"
    CUDNN = "cudnn"
    ENVIRONMENT = "environment"
    PYTHON = "python"
    LOGIN = "login"
    CONTAINERS = "containers"
    RUNTIME = "runtime"


OF_THE_BOOT = (Layer.PACKAGING, Layer.KERNEL_MODULE, Layer.DRIVER_LIBRARIES, Layer.LOGIN)
"""The layers whose errors may leave a boot without a driver or a login screen."""


class Stage(int, Enum):
    """When a fault must be repaired relative to others: later repairs depend on earlier ones."""

    DISK = 0
    CLOCK = 1
    PACKAGE_STATE = 2
    SOURCES = 3
    PACKAGE_SET = 4
    MODULE = 5
    INITRAMFS = 6
    REBOOT = 7
    LOADER = 8
    ENVIRONMENT = 9
    APPLICATIONS = 10


class Evidence(NamedTuple):
    """One observation: `source` is the file, command or record, `shows` the value found there."""

    source: str
    shows: str


class Finding(NamedTuple):
    """One fault, as found on one subject.

    `subject` is "host", or kind and name: "user:alice", "gpu:0000:01:00.0", "kernel:6.1.0-50-amd64",
    "file:/etc/environment", "python:/home/alice/venv", "package:libcuda1". `about` names further subjects that the
    finding concerns. A finding explains, and is explained by, only findings that do not contradict it: a broken file in
    alice's home explains nothing about bob's, and "line:/etc/profile:3" nothing about another line. `detail` carries
    values of any type from detect() to remedies(). It is never shown and never leaves the process. `coming` means that
    nothing is broken yet, so it explains no other finding.
    """

    id: str
    subject: str
    severity: Severity
    layer: Layer
    title: str
    evidence: tuple[Evidence, ...]
    about: tuple[str, ...] = ()
    detail: Mapping[str, Any] = {}
    coming: bool = False

    @property
    def fingerprint(self) -> str:
        """Equal for the same fault on the same evidence; without timestamps."""
        import hashlib  # loads OpenSSL, which a diagnosis does not need

        text = "\0".join([self.id, self.subject, *(f"{e.source}\1{e.shows}" for e in sorted(self.evidence))])
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


class OpenProblem(NamedTuple):
    """A finding as the service keeps it between two checks: of evidence and remedy, only what a person is told later.
    `files` are those that its evidence names, `repair` is the risk of its remedy, None without one."""

    id: str
    subject: str
    severity: Severity
    layer: Layer
    title: str
    next_boot: bool
    fingerprint: str
    caused_by: tuple[str, ...]
    files: tuple[str, ...]
    repair: Risk | None

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "OpenProblem":
        """The problem of a JSON object. Raises LookupError, TypeError or ValueError where it is not sound."""
        texts = [kept[name] for name in ("id", "subject", "title", "fingerprint")]
        lists = [kept[name] for name in ("caused_by", "files")]
        if not all(isinstance(text, str) for text in (*texts, *(t for several in lists for t in several))):
            raise TypeError
        if not isinstance(kept["next_boot"], bool):
            raise TypeError
        return cls(
            id=kept["id"],
            subject=kept["subject"],
            severity=Severity(kept["severity"]),
            layer=Layer(kept["layer"]),
            title=kept["title"],
            next_boot=kept["next_boot"],
            fingerprint=kept["fingerprint"],
            caused_by=tuple(kept["caused_by"]),
            files=tuple(kept["files"]),
            repair=None if kept["repair"] is None else Risk(kept["repair"]),
        )


class State(str, Enum):
    """What is known of an area. WELL: seen to be well. PROBLEM: a problem was found. ABSENT: there is nothing of the
    kind. UNKNOWN: it could not be seen to be well."""

    WELL = "well"
    PROBLEM = "problem"
    ABSENT = "absent"
    UNKNOWN = "unknown"


GPU, DRIVER, LIBRARIES = "GPU", "driver", "libraries"
"""The names of the areas without which nothing computes on a GPU."""


class Area(NamedTuple):
    """One part of a machine, and what was seen of it in one line. A problem of one of `layers` concerns it, if it does
    not name another subject of the same kind: "user:alice" is not concerned by a problem of "user:bob"."""

    name: str
    state: State
    text: str
    subject: str = ""
    layers: tuple[Layer, ...] = ()


class Difference(NamedTuple):
    """A version or value that is not what it was: `before` and `now` are "" where there is none."""

    section: str
    name: str
    before: str
    now: str


class Since(NamedTuple):
    """What differs since the known-good record of `time` (in UTC)."""

    time: str
    differences: tuple[Difference, ...]


class EventKind(str, Enum):
    """What an event is about."""

    PACKAGES = "packages"
    KERNEL = "kernel"
    BUILD = "build"
    BOOT = "boot"
    ERROR = "error"
    SESSION = "session"
    REPAIR = "repair"


class Event(NamedTuple):
    """Something that happened: `time` in seconds since the epoch, `details` one line each, `source` a file or program."""

    time: float
    kind: EventKind
    text: str
    details: tuple[str, ...]
    source: str


class Unknown(NamedTuple):
    """What a rule yields if it could not check one of its subjects, or is not sure."""

    reason: str
    subject: str = "host"


class Action(Protocol):
    """One step of a repair, as data."""

    def summary(self) -> str:
        """What it does, in one line: the command, if a command does the same by hand."""


def kind_of(action: Action) -> str:
    """The name of the kind of action, in kebab case: "apt-install", "edit-file"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(action).__name__).lower()


class Plan(NamedTuple):
    """A way to repair one finding. A rule offers them from mild to drastic."""

    summary: str
    risk: Risk
    actions: tuple[Action, ...]
    reboot: bool = False
    network: bool = False


class Skipped(NamedTuple):
    """A rule that could not run, or not for all subjects, and why. `unknown` has those subjects; it is empty if the
    rule could not run at all."""

    id: str
    reason: str
    unknown: tuple[Unknown, ...] = ()


class Failed(NamedTuple):
    """A rule that crashed: a defect of the rule, not of the machine."""

    id: str
    error: str


class Diagnosed(NamedTuple):
    """A finding with its causes, and (only for a root cause) the plan that `dlhealth fix` would run. If it can run
    none, `by_hand` says why, and the plan is for a person."""

    finding: Finding
    caused_by: tuple[str, ...]
    remedy: Plan | None
    by_hand: str = ""


class Diagnosis(NamedTuple):
    """Everything that one run of the doctor found: root causes first, in the order of repair."""

    findings: tuple[Diagnosed, ...]
    run: int
    skipped: tuple[Skipped, ...]
    failed: tuple[Failed, ...]
    machine: Mapping[str, Any]
    unjudged: str | None = None
    """Why "no findings" does not mean "healthy", for reasons that concern the whole machine; None if it does."""
    areas: tuple[Area, ...] = ()
    """What was seen of each area; empty if only some rules were asked for."""
    next_boot: bool = False
    """Whether it is about the next boot; then `areas` are what was verified for it."""
    since: Since | None = None
    """What differs since the machine was known to be good; None without a record, or if nothing is wrong."""

    @property
    def worst(self) -> Severity | None:
        """The severity that decides verdict and exit status; None if nothing was found."""
        return max((d.finding.severity for d in self.findings), default=None)

    @property
    def doubt(self) -> str | None:
        """Why the machine cannot be called healthy although nothing was found; None if it can."""
        if self.unjudged:
            return self.unjudged
        if self.failed:
            return f"{len(self.failed)} {'check' if len(self.failed) == 1 else 'checks'} failed"
        return self.without_driver if self.run else "nothing could be checked"

    @property
    def lacks_driver(self) -> bool:
        """Whether no driver of this system is installed."""
        return any(area.name == DRIVER and area.state is State.ABSENT for area in self.areas)

    @property
    def without_driver(self) -> str | None:
        """Why a GPU without a driver is not called healthy; None if there is a driver, or no GPU was seen."""
        absent = {area.name for area in self.areas if area.state is State.ABSENT}
        if self.lacks_driver:
            # Without a GPU, as on the login node of a cluster, a machine needs no driver.
            seen = self.machine.get("gpus")
            return "no NVIDIA driver is installed, so nothing shows that the GPU works" if seen else None
        # In a container, the driver belongs to the host, but its libraries must be visible.
        return "neither a GPU nor a driver was seen" if absent >= {GPU, LIBRARIES} else None

    @property
    def health(self) -> Health:
        """What decides the exit status."""
        if self.worst in (Severity.ERROR, Severity.WARNING):
            return Health.BROKEN if self.worst is Severity.ERROR else Health.DEGRADED
        return Health.UNKNOWN if self.doubt else Health.HEALTHY

    @property
    def root_causes(self) -> tuple[Finding, ...]:
        """The problems that nothing else explains. A note is only worth knowing."""
        return tuple(d.finding for d in self.findings if not d.caused_by and d.finding.severity is not Severity.NOTE)

    @property
    def told(self) -> "Diagnosis":
        """As another process gets it, which has not loaded the rules: without the details of the findings."""
        return self._replace(findings=tuple(d._replace(finding=d.finding._replace(detail={})) for d in self.findings))


TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
"""In UTC, in every document; later times sort later."""


def timestamp() -> str:
    """The present time."""
    return time.strftime(TIME_FORMAT, time.gmtime())


def count(number: int, thing: str, things: str = "") -> str:
    """The number and the thing: "no checks", "1 check", "2 checks"; `things` is its plural if that is not just an s."""
    return f"{number or 'no'} {thing if number == 1 else things or f'{thing}s'}"
