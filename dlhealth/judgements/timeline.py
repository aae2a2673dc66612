"""What happened on a machine, in order: package changes, module builds, boots, driver errors, sessions that ended."""

import re
from collections.abc import Callable, Iterable, Iterator

from dlhealth.host import Host, Unreadable
from dlhealth.lazy import regex
from dlhealth.model import Event, EventKind
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.dkms import TREE, Dkms
from dlhealth.probes.login.sessions import SHORT, Session, Sessions
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.machine.localtime import LocalTime
from dlhealth.probes.packaging.apt import Transaction, logs, parse_history

_PACKAGES = regex(
    r"nvidia|cuda|cudnn|nccl|tensorrt|^linux-(?:image|headers|modules)-|^(?:dkms|libc6|xserver-xorg-core|shim-signed)$"
    r"|^(?:lightdm|gdm3|sddm|lxdm)$|^gcc-\d+$"
)
"""Packages that can decide whether a GPU or a login works."""
_DPKG = regex(
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (install|upgrade|remove|purge) ([a-z0-9][a-z0-9+.-]*):\S+ (\S+) (\S+)", re.ASCII
)
_TOGETHER = 300
"""Seconds between two lines of dpkg's log that belong to the same run."""
_ERRORS = (
    r"NVRM: (?:Xid|API mismatch|No NVIDIA|GPU .*fallen off|.*(?:RmInitAdapter failed|rm_init_adapter failed))"
    r"|nvidia[\w-]*: (?:version magic|disagrees about|Unknown symbol|[Ll]oading of)|[Ll]oading of (?:unsigned )?module"
    r"|Out of memory: Killed process"
)
_SHAPE = regex(r"0x[0-9a-f]+|\d+(?:[.:]\d+)*")
_KERNEL = regex(r"Linux version (\S+)")
_LOCAL = regex(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)


def _seconds(clock: LocalTime, local: str) -> float | None:
    """Seconds since the epoch of a local time in a log; None if it is not one."""
    parts = _LOCAL.fullmatch(" ".join(local.split()))
    return clock.seconds(*map(int, parts.groups())) if parts else None


def apt_runs(host: Host) -> Iterator[Event]:
    """The runs of apt, by its history."""
    clock, found = LocalTime(host), False
    for path, text in logs(host, "history.log"):
        found = True
        for run in parse_history(path, text, _PACKAGES):
            stamp = _seconds(clock, run.start)
            if stamp is not None:
                yield _apt_run(run, stamp)
    if not found:
        raise Unavailable("/var/log/apt/history.log does not exist, or cannot be read")


def _apt_run(run: Transaction, stamp: float) -> Event:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for change in run.changes:
        groups.setdefault((change.action, change.old, change.new), []).append(change.name)
    details = tuple(_change(*key, names) for key, names in groups.items())
    failed = f" failed: {run.error}" if run.error else ""
    return Event(stamp, EventKind.PACKAGES, f"{run.command or 'apt'}{failed}", details, str(run.source))


def _change(action: str, old: str, new: str, names: list[str]) -> str:
    versions = f"{old} → {new}" if old and new and old != new else new or old
    return f"{action} {', '.join(names)} ({versions})" if versions else f"{action} {', '.join(names)}"


def dpkg_runs(host: Host) -> Iterator[Event]:
    """The runs of dpkg, by its log."""
    clock = LocalTime(host)
    runs: list[list[tuple[float, str, str, str, str]]] = []
    texts = [host.text(path) for path in ("/var/log/dpkg.log.1", "/var/log/dpkg.log")]
    if texts == [None, None]:
        raise Unavailable("/var/log/dpkg.log does not exist")
    for match in _DPKG.finditer("\n".join(filter(None, texts))):
        stamp = _seconds(clock, match[1])
        if stamp is None or not _PACKAGES.search(match[3]):
            continue
        if not runs or stamp - runs[-1][-1][0] > _TOGETHER:
            runs.append([])
        runs[-1].append((stamp, match[2], match[3], match[4], match[5]))
    for run in runs:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for _, action, name, *versions in run:
            old, new = (v if v != "<none>" else "" for v in versions)
            groups.setdefault((action, old, new), []).append(name)
        details = tuple(_change(*key, names) for key, names in groups.items())
        yield Event(run[0][0], EventKind.PACKAGES, "dpkg", details, "/var/log/dpkg.log")


def packages(host: Host) -> Iterator[Event]:
    """The runs of apt, and those of dpkg that apt did not start."""
    problems = []
    apt: list[Event] = []
    try:
        apt = list(apt_runs(host))
    except Unavailable as problem:
        problems.append(str(problem))
    yield from apt
    try:
        for run in dpkg_runs(host):
            # apt notes its start, and dpkg each package after it.
            if not any(-60 <= run.time - other.time <= 3600 for other in apt):
                yield run
    except (Unavailable, Unreadable) as problem:
        problems.append(str(problem))
    if problems and not apt:
        raise Unavailable("; ".join(problems))


def builds(host: Host, dkms: Dkms) -> Iterator[Event]:
    """What DKMS built, and what failed, by the time of its files."""
    for module in dkms.modules:
        for build in module.builds:
            folder = f"{TREE}/{module.name}/{module.version}"
            paths = (f"{folder}/build/make.log", *host.glob(f"{folder}/{build.kernel or '*'}/*/log/make.log"))
            written = [s.mtime for p in paths if (s := host.stat(p))]
            if not written:
                continue
            name = f"{module.name} {module.version} for kernel {build.kernel or 'unknown'}"
            text = f"DKMS failed to build {name}: {build.error}" if build.fault else f"DKMS built {name}"
            yield Event(max(written), EventKind.BUILD, text, (), build.log or folder)


def kernels(host: Host, kernel: Kernel) -> Iterator[Event]:
    """When modules and initramfs of each kernel were written last."""
    for installed in kernel.installed:
        for path, what in (
            (f"/lib/modules/{installed.release}/modules.dep", "modules indexed"),
            (f"/boot/initrd.img-{installed.release}", "initramfs written"),
        ):
            if status := host.stat(path):
                yield Event(status.mtime, EventKind.KERNEL, f"{what} for kernel {installed.release}", (), path)


def boots(journal: Journal) -> Iterator[Event]:
    """The boots in the log."""
    first: dict[str, Line] = {}
    release: dict[str, str] = {}
    for line in journal.lines:
        first.setdefault(line.boot, line)
        if line.identifier == "kernel" and line.boot not in release and (match := _KERNEL.search(line.text)):
            release[line.boot] = match[1]
    for boot in journal.boots:
        text = f"boot of kernel {release[boot]}" if boot in release else "boot"
        yield Event(first[boot].time, EventKind.BOOT, text, (), first[boot].source)
    if journal.problem:
        raise Unavailable(journal.problem)


def errors(journal: Journal) -> Iterator[Event]:
    """The first line of each error of the driver in each boot, and how often it came."""
    seen: dict[tuple[str, str], list[Line]] = {}
    for line in journal.kernel(_ERRORS):
        seen.setdefault((line.boot, _SHAPE.sub("#", line.text)[:40]), []).append(line)
    for lines in seen.values():
        times = f" ({len(lines)} times in this boot)" if len(lines) > 1 else ""
        yield Event(lines[0].time, EventKind.ERROR, f"{lines[0].text.strip()[:300]}{times}", (), lines[0].source)


def sessions(sessions: Sessions) -> Iterator[Event]:
    """Graphical sessions: many in a row that ended at once are one event."""
    runs: list[list[Session]] = []
    for session in sessions.sessions:
        before = runs[-1][-1] if runs else None
        short = session.lasted() < SHORT
        if short and before and before.lasted() < SHORT and (before.user, before.boot) == (session.user, session.boot):
            runs[-1].append(session)
        else:
            runs.append([session])
    for run in runs:
        first, longest = run[0], max(s.lasted() for s in run)
        if first.ended is None:
            text = f"{first.user} logs in graphically"
        elif longest < SHORT:
            times = f"{len(run)} graphical sessions" if len(run) > 1 else "graphical session"
            text = f"{first.user}'s {times} ended within {max(1, round(longest))} s"
        else:
            text = f"{first.user}'s graphical session lasted {_duration(longest)}"
        kind = EventKind.ERROR if longest < SHORT else EventKind.SESSION
        yield Event(first.started, kind, text, (), first.source)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min"
        if minutes
        else f"{seconds:.0f} s"
    )


SOURCES: dict[str, Callable[..., Iterable[Event]]] = {
    "packages": packages,
    "DKMS builds": builds,
    "kernels": kernels,
    "boots": boots,
    "driver errors": errors,
    "sessions": sessions,
}
"""Where events come from. The annotations of each function name the facts that it needs."""
