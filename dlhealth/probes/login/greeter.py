"""What decides whether a login screen comes up after a start: systemd's target, its link to a display manager, and what
Debian keeps beside it."""

import posixpath
import re

from dlhealth.data.login_screen import ALIAS, ETC, MANAGERS, NAMED
from dlhealth.host import Host
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.boot import next_boot
from dlhealth.records import NamedTuple

FOLDERS = (ETC, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
"""Where units lie, the first counts (systemd.unit(5))."""

_START = regex(r"^\s*ExecStart\s*=\s*[-@:+!]*(\S+)", re.MULTILINE)
# Ubuntu's lightdm and Debian's sddm end at once where the file names another one.
_CHECK = regex(rf"""^\s*ExecStartPre\s*=.*{NAMED}.*=\s*\\?"([^"\\]+)\\?"\s*\]""", re.MULTILINE)
_TEXT = regex(
    r"(?:^| )(?:[1-4sS]|-[sb]|single|text|rescue|emergency|systemd\.unit=(?!graphical\.target(?: |$))\S+)(?: |$)"
)
_NAMES = {"gdm3": ("gdm3", "gdm"), "gdm": ("gdm", "gdm3")}
"""Debian's gdm3 has its unit under both names."""


def chosen_managers(host: Host) -> tuple[str, str]:
    """The display managers that systemd's link and Debian's file name, "" for none."""
    unit, program = host.readlink(ALIAS) or "", (host.text(NAMED) or "").strip()
    return posixpath.basename(unit).removesuffix(".service"), posixpath.basename(program)


class DisplayManager(NamedTuple):
    """A display manager that is installed: its unit's name without ".service" and its file; `mask` is the link that
    keeps it from being started. `program` is what it starts, `there` whether that exists. `demands` is what Debian's
    file must name for it to start."""

    name: str
    path: str
    mask: str
    program: str
    there: bool
    demands: str


class LoginScreen(NamedTuple):
    """`target` is what default.target leads to. `alias` is the name of the unit that display-manager.service stands
    for, "" if it is masked, None if there is no such unit. `named` is the program in Debian's file. `otherwise` is what
    starts a display manager, or a session, without that unit, `text` the word of the kernel's command line that asks
    for no login screen; `desktops` says whether there is anything to log in to."""

    target: str
    alias: str | None
    named: str
    managers: tuple[DisplayManager, ...]
    otherwise: str
    text: str
    desktops: bool

    def manager(self, name: str) -> DisplayManager | None:
        """The installed one with this name."""
        names = _NAMES.get(name, (name,))
        return next((m for n in names for m in self.managers if m.name == n), None)

    @property
    def wanted(self) -> DisplayManager | None:
        """The installed one that Debian's file names."""
        found = self.manager(posixpath.basename(self.named))
        return found if found and found.there else None

    @classmethod
    def probe(cls, host: Host) -> "LoginScreen":
        default = next((p for f in FOLDERS if host.lstat(p := f"{f}/default.target")), None)
        target = default and host.realpath(default)
        if not target:
            raise Unavailable("default.target does not exist: systemd does not start this machine")
        alias = _alias(host)
        names = dict.fromkeys((*MANAGERS, *([alias] if alias else [])))
        managers = tuple(m for name in names if (m := _manager(host, name)))
        arguments = next_boot(host).arguments
        text = _TEXT.search(arguments)
        return cls(
            posixpath.basename(target),
            alias,
            (host.text(NAMED) or "").strip(),
            managers,
            _otherwise(host),
            text[0].strip() if text else "",
            any(host.glob("/usr/share/xsessions/*.desktop")) or any(host.glob("/usr/share/wayland-sessions/*.desktop")),
        )


class DesktopSessions(NamedTuple):
    """The names of the sessions that a login screen offers, without ".desktop": of X and of Wayland."""

    x: tuple[str, ...]
    wayland: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host) -> "DesktopSessions":
        def names(kind: str) -> tuple[str, ...]:
            folders = (f"/usr/share/{kind}", f"/usr/local/share/{kind}")
            paths = (p for folder in folders for p in host.glob(f"{folder}/*.desktop"))
            return tuple(posixpath.basename(p).removesuffix(".desktop") for p in paths)

        return cls(names("xsessions"), names("wayland-sessions"))


def _alias(host: Host) -> str | None:
    path = next((p for f in FOLDERS if host.lstat(p := f"{f}/display-manager.service")), None)
    if path is None:
        return None
    if _masks(host, path):
        return ""
    link = host.readlink(path)
    return posixpath.basename(link).removesuffix(".service") if link else "display-manager"


def _masks(host: Host, path: str) -> bool:
    """A link to /dev/null, or an empty file."""
    if host.readlink(path) is not None:
        return host.readlink(path) == "/dev/null"
    status = host.stat(path)
    return status is not None and status.size == 0


def _manager(host: Host, name: str) -> DisplayManager | None:
    files = [p for f in FOLDERS if host.lstat(p := f"{f}/{name}.service")]
    masks = [p for p in files if _masks(host, p)]
    path = next((p for p in files if p not in masks and host.exists(p)), None)
    if path is None:
        return None
    unit = host.text(path) or ""
    start, check = _START.search(unit), _CHECK.search(unit)
    program = start[1] if start else ""
    return DisplayManager(
        name,
        path,
        masks[0] if masks and files.index(masks[0]) < files.index(path) else "",
        program,
        not program.startswith("/") or host.exists(program),
        check[1] if check else "",
    )


def _otherwise(host: Host) -> str:
    """The first file that starts a display manager under its own name, or a session on a text console."""
    for folder in FOLDERS:
        for wants in ("graphical.target.wants", "graphical.target.requires", "multi-user.target.wants"):
            for name in host.listdir(f"{folder}/{wants}"):
                if name.removesuffix(".service") in MANAGERS:
                    return f"{folder}/{wants}/{name}"
    for name in MANAGERS:
        native = any(host.lstat(f"{folder}/{name}.service") for folder in FOLDERS)
        # Of a package that was removed, the links to its script in /etc/init.d are left.
        there = any(host.exists(f"{folder}/{name}") for folder in ("/usr/sbin", "/usr/bin"))
        for path in () if native or not there else host.glob(f"/etc/rc[2-5].d/S[0-9][0-9]{name}"):
            return path
    for path in host.glob(f"{ETC}/getty@tty1.service.d/*.conf"):
        if "--autologin" in (host.text(path) or ""):
            return path
    return ""
