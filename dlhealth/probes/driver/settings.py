"""Settings of the driver and of logins that take effect only later, or not at all."""

import re

from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes.driver.modules import ModprobeConfig, ModprobeLine
from dlhealth.records import NamedTuple

_OPTION = regex(r"\bNVreg_RestrictProfilingToAdminUsers=(\d)\b")
PARAMETERS = "/proc/driver/nvidia/params"


class Profiling(NamedTuple):
    """Who may read the GPU's performance counters. `configured` is the line of modprobe.d that opens them to all (None:
    there is none, or a later one closes them); `admin_only` is what the loaded module does (None: not known)."""

    configured: ModprobeLine | None
    admin_only: bool | None

    @classmethod
    def probe(cls, host: Host, config: ModprobeConfig) -> "Profiling":
        lines = [
            li for li in config.lines if li.directive == "options" and re.match(r"nvidia(?:[-_]current)?$", li.module)
        ]
        set_ = [(li, value[1]) for li in lines if (value := _OPTION.search(li.arguments))]
        configured = set_[-1][0] if set_ and set_[-1][1] == "0" else None
        if configured is None:
            return cls(None, None)
        match = re.search(r"^RmProfilingAdminOnly: (\d+)", host.text(PARAMETERS) or "", re.MULTILINE)
        return cls(configured, match[1] != "0" if match else None)


_UNIT = "nvidia-persistenced.service"
_UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_ORDINARY_SOURCES = {"files", "compat", "systemd"}


class Persistenced(NamedTuple):
    """The unit of nvidia-persistenced. `unit` is its file ("" without one, and for one that its owner masked), `program`
    what it starts, and `installed` whether that exists. `user` is the account that the program changes to ("" for
    none); `account` says whether it exists (None: not known). `enabled` is the link that starts the unit at boot."""

    unit: str
    program: str
    installed: bool
    user: str
    account: bool | None
    enabled: str

    @classmethod
    def probe(cls, host: Host) -> "Persistenced":
        unit = next((p for folder in _UNIT_FOLDERS if host.lstat(p := f"{folder}/{_UNIT}")), "")
        text = (host.text(unit) or "") if unit and host.readlink(unit) != "/dev/null" else ""
        command = re.search(r"^ExecStart=[-@:+!]*(/\S+)(.*)$", text, re.MULTILINE)
        if command is None:
            return cls("", "", False, "", None, "")
        user = re.search(r"(?:^|\s)(?:--user|-u)[ =](\S+)", command[2])
        enabled = next(iter(host.glob(f"/etc/systemd/system/*.wants/{_UNIT}")), "")
        name = user[1] if user else ""
        return cls(unit, command[1], host.exists(command[1]), name, _has_account(host, name) if name else None, enabled)


def _has_account(host: Host, name: str) -> bool | None:
    """None if accounts may also come from a network."""
    accounts = host.text("/etc/passwd")
    if accounts is None:
        return None
    if any(line.startswith(f"{name}:") for line in accounts.splitlines()):
        return True
    sources = re.search(r"^passwd:(.*)$", host.text("/etc/nsswitch.conf") or "", re.MULTILINE)
    return False if not sources or set(sources[1].split()) <= _ORDINARY_SOURCES else None


_LIMITS = ("/etc/security/limits.conf", "/etc/security/limits.d/*.conf")
_LIMIT = regex(r"^\s*([^#\s]\S*)\s+(soft|hard|-)\s+(nofile|memlock)\s+(-?\d+|unlimited|infinity)\s*(?:#.*)?$")


class Limit(NamedTuple):
    """A line of limits.conf(5): `value` is None for no limit."""

    place: Place
    text: str
    domain: str
    kind: str
    item: str
    value: int | None


class UserLimits(NamedTuple):
    """The last line of each domain, kind and item, which counts. `rdma` are the machine's devices for transfers between
    machines' memories; `problems` could not be read."""

    limits: tuple[Limit, ...]
    rdma: tuple[str, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host) -> "UserLimits":
        found: dict[tuple[str, str, str], Limit] = {}
        problems: list[str] = []
        for path in (p for pattern in _LIMITS for p in host.glob(pattern)):
            try:
                lines = (host.text(path) or "").splitlines()
            except Unreadable as problem:
                problems.append(str(problem))
                continue
            for number, line in enumerate(lines, 1):
                if match := _LIMIT.match(line):
                    value = int(match[4]) if match[4].isdigit() else None
                    found[match[1], match[2], match[3]] = Limit(
                        Place(path, number), line, match[1], match[2], match[3], value
                    )
        return cls(tuple(found.values()), host.listdir("/sys/class/infiniband"), tuple(problems))
