"""No login screen will appear at the next boot: nothing starts the display manager.

What you see
    After booting: a black screen, the boot messages, or the login prompt of a text console.

    "Failed to start display-manager.service: Unit display-manager.service not found.", or "Unit lightdm.service is
    masked."
Why
    systemd's graphical.target starts display-manager.service, which is only a link to the chosen display manager.
    On Debian and Ubuntu the packages create it from /etc/X11/default-display-manager when they are configured.

    The link disappears when a second display manager is disabled or removed. It is broken when the chosen one is
    removed, for example while purging the driver. And somebody may have masked the display manager to get out of a
    login loop.

    Ubuntu's lightdm and Debian's sddm also stop at once if the file and the link name different display managers.

    Nothing is reported for a server: a machine with another default target, one that boots to a text console on
    purpose, or one that has no display manager and never used one.
Repair
    Point the link to the display manager that Debian's file names, or remove the mask. If nobody has logged in on a
    screen since the last boot, this may have been done on purpose: it is a note, and not repaired automatically.
What the repair risks
    None. If you want no login screen, run: systemctl set-default multi-user.target
By hand
    u=/etc/systemd/system/display-manager.service
    ln -sfn /lib/systemd/system/lightdm.service $u
    # or
    dpkg-reconfigure lightdm
    # then
    systemctl daemon-reload; systemctl start display-manager
"""

import posixpath
from collections.abc import Iterator
from enum import Enum

from dlhealth.api import (
    ByHand,
    DisplayManager,
    Evidence,
    Finding,
    Journal,
    LoginScreen,
    Machine,
    MakeLink,
    Plan,
    Risk,
    Rule,
    Scenario,
    Sessions,
    Severity,
    Stage,
    WriteFile,
)

ALIAS = "/etc/systemd/system/display-manager.service"
NAMED = "/etc/X11/default-display-manager"


class Intent(Enum):
    """Whether this was done on purpose: a mask always is, a missing link may be."""

    CHOSEN = "chosen"
    UNSURE = "unsure"
    FAULT = "fault"


_SEVERITY = {Intent.CHOSEN: Severity.NOTE, Intent.UNSURE: Severity.NOTE, Intent.FAULT: Severity.ERROR}


class DisplayManagerNotStarted(Rule):
    id = "display-manager-not-started"
    title = "No login screen will appear at the next boot: nothing starts the display manager"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    risk = Risk.MEDIUM

    def detect(self, screen: LoginScreen, sessions: Sessions | None, journal: Journal | None) -> Iterator[Finding]:
        if screen.target != "graphical.target" or screen.text or screen.otherwise:
            return
        used = bool(sessions and journal and journal.boots and sessions.of_boot(journal.boots[-1]).sessions)
        fault = _fault(screen, used)
        if fault is None:
            return
        what, evidence, intent = fault
        yield self.finding(
            "host",
            f"No login screen will appear at the next boot: {what}",
            Evidence("default.target", screen.target),
            evidence,
            Evidence(NAMED, screen.named or "does not exist"),
            # It may have been done on purpose, without changing the target.
            severity=_SEVERITY[intent] if not used or intent is Intent.CHOSEN else Severity.ERROR,
            chosen=intent is Intent.CHOSEN,
            meant=intent is not Intent.FAULT,
        )

    def remedies(self, finding: Finding, screen: LoginScreen) -> Iterator[Plan]:
        manager = screen.wanted or (screen.managers[0] if len(screen.managers) == 1 else None)
        risk = Risk.MEDIUM if finding.detail["meant"] else Risk.LOW
        if manager is None:
            name = screen.alias or posixpath.basename(screen.named) or "lightdm"
            yield Plan(
                "Install a display manager", Risk.MEDIUM, (ByHand(f"apt-get install {name}; dpkg-reconfigure {name}"),)
            )
        elif not manager.there:
            yield Plan(
                f"Reinstall {manager.name}",
                Risk.MEDIUM,
                (
                    ByHand(
                        f"Find the package with: dpkg -S {manager.path}; then run: apt-get install --reinstall PACKAGE"
                    ),
                ),
            )
        elif finding.detail["chosen"]:
            unit = manager.name if manager.mask else "display-manager"
            text = f"sudo systemctl unmask {unit}.service; sudo dpkg-reconfigure {manager.name}"
            yield Plan("Unmask the display manager, if you want a login screen", Risk.LOW, (ByHand(text),))
        elif _linked(screen, manager):
            yield Plan(f"Start {manager.name} at boot", risk, _linked(screen, manager))
        else:
            yield Plan(
                f"Set {manager.name} as the default display manager", risk, (WriteFile(NAMED, f"{manager.program}\n"),)
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "the link is missing",
            _desktop().remove(ALIAS),
            finds="host",
            ladder=(
                (
                    "medium",
                    "make-link /etc/systemd/system/display-manager.service /usr/lib/systemd/system/lightdm.service",
                ),
            ),
        )
        yield Scenario(
            "the link is missing on a machine with users",
            _desktop().remove(ALIAS).login(),
            finds="host",
            steps=("make-link",),
            ladder=(
                (
                    "medium",
                    "make-link /etc/systemd/system/display-manager.service /usr/lib/systemd/system/lightdm.service",
                ),
            ),
        )
        yield Scenario(
            "masked",
            _desktop().remove(ALIAS).link(ALIAS, "/dev/null"),
            finds="host",
            ladder=(("low", "by-hand sudo systemctl unmask display-manager.service dpkg-reconfigure lightdm"),),
        )
        yield Scenario(
            "its unit is masked",
            _desktop().link("/etc/systemd/system/lightdm.service", "/dev/null"),
            finds="host",
            ladder=(("low", "by-hand sudo systemctl unmask lightdm.service dpkg-reconfigure lightdm"),),
        )
        yield Scenario(
            "the link points to a removed display manager",
            _desktop().remove(ALIAS).link(ALIAS, "/lib/systemd/system/gdm3.service"),
            finds="host",
            ladder=(
                (
                    "low",
                    "make-link /etc/systemd/system/display-manager.service /usr/lib/systemd/system/lightdm.service",
                ),
            ),
        )
        yield Scenario(
            "the display manager was removed from a machine with users",
            _removed().login(),
            finds="host",
            ladder=(("medium", "by-hand apt-get install lightdm dpkg-reconfigure"),),
        )
        yield Scenario(
            "its program is missing",
            _desktop().remove("/usr/sbin/lightdm"),
            finds="host",
            ladder=(("medium", "by-hand -S /usr/lib/systemd/system/lightdm.service --reinstall"),),
        )
        yield Scenario(
            "it stops because the file names another one",
            _desktop(check=True).file(NAMED, "/usr/sbin/gdm3\n"),
            finds="host",
            steps=("write-file",),
            ladder=(("low", "write-file /etc/X11/default-display-manager /usr/sbin/lightdm"),),
        )
        yield Scenario("checked for the next boot", _desktop().remove(ALIAS), finds="host", next_boot=True)
        yield Scenario("as installed", _desktop())
        yield Scenario("as installed, on Ubuntu", _desktop(check=True))
        yield Scenario(
            "a server with an unused display manager",
            _desktop()
            .remove(ALIAS)
            .link("/etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target"),
        )
        yield Scenario("a server", _systemd())
        yield Scenario(
            "a server whose display manager was purged", _systemd().link(ALIAS, "/lib/systemd/system/gdm3.service")
        )
        yield Scenario("started under its own name", _desktop().remove(ALIAS).link(
            "/etc/systemd/system/multi-user.target.wants/lightdm.service", "/lib/systemd/system/lightdm.service"
        ))  # fmt: skip
        yield Scenario(
            "started by its own script",
            _desktop().remove(ALIAS).link("/etc/rc5.d/S01xdm", "../init.d/xdm").file("/usr/bin/xdm"),
        )
        yield Scenario(
            "a script left by a removed display manager",
            _desktop().link("/etc/rc5.d/S01xdm", "../init.d/xdm").link(ALIAS, "/lib/systemd/system/xdm.service"),
            finds="host",
        )
        yield Scenario("a session on the text console", _desktop().remove(ALIAS).file(
            "/etc/systemd/system/getty@tty1.service.d/autologin.conf", "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin alice - $TERM\n"
        ))  # fmt: skip
        yield Scenario("the only display manager was removed, and nobody logs in", _removed())
        yield Scenario("no default was ever chosen", _desktop().remove(ALIAS).remove(NAMED))
        yield Scenario("the boot loader asks for a text console", _desktop().remove(ALIAS).file(
            "/boot/grub/grub.cfg", "menuentry 'Debian' {\n\tlinux /vmlinuz-6.1.0-50-amd64 root=/dev/sda1 ro quiet 3\n}\n"
        ))  # fmt: skip
        yield Scenario("a disk without systemd", Machine.debian12(), unknown=True)


def _fault(screen: LoginScreen, used: bool) -> "tuple[str, Evidence, Intent] | None":
    """Why no login screen appears, the evidence, and whether it was done on purpose."""
    if not screen.managers:
        # A server, or no login screen is wanted; Debian keeps the link when the last display manager is removed.
        if not used or not screen.desktops:
            return None
        return (
            "no display manager is installed any more",
            Evidence(ALIAS, "no display manager is installed"),
            Intent.FAULT,
        )
    manager = screen.manager(screen.alias or "")
    if screen.alias and manager is None:
        shows = Evidence(ALIAS, f"link to {screen.alias}.service")
        return f"display-manager.service points to {screen.alias}, which is not installed", shows, Intent.FAULT
    if manager and manager.mask:
        return f"{manager.name}.service is masked", Evidence(manager.mask, "link to /dev/null"), Intent.CHOSEN
    if manager and not manager.there:
        return f"{manager.program} does not exist", Evidence(manager.path, f"starts {manager.program}"), Intent.FAULT
    if manager and manager.demands not in ("", screen.named, posixpath.basename(screen.named)):
        shows = Evidence(manager.path, f"stops at once unless {NAMED} names {manager.demands}")
        return f"{NAMED} names {screen.named or 'nothing'}, so {manager.name} stops at once", shows, Intent.FAULT
    if manager is None and screen.wanted:
        masked = screen.alias == ""
        shows = Evidence(ALIAS, "link to /dev/null" if masked else "does not exist")
        return (
            f"display-manager.service {'is masked' if masked else 'does not exist, so nothing starts ' + screen.wanted.name}",
            shows,
            Intent.CHOSEN if masked else Intent.UNSURE,
        )
    return None


def _linked(screen: LoginScreen, manager: DisplayManager) -> tuple[MakeLink, ...]:
    right = screen.alias and screen.manager(screen.alias) == manager
    return () if right else (MakeLink(ALIAS, manager.path),)


def _systemd() -> Machine:
    return (
        Machine.debian12()
        .link("/usr/lib/systemd/system/default.target", "graphical.target")
        .file("/usr/lib/systemd/system/graphical.target", "[Unit]\nWants=display-manager.service\n")
        .file("/usr/lib/systemd/system/multi-user.target", "[Unit]\n")
    )


def _desktop(check: bool = False) -> Machine:
    asks = f'ExecStartPre=/bin/sh -c \'[ "$(basename $(cat {NAMED} 2>/dev/null))" = "lightdm" ]\'\n' if check else ""
    return (
        _systemd()
        .file("/usr/lib/systemd/system/lightdm.service", f"[Service]\n{asks}ExecStart=/usr/sbin/lightdm\n")
        .file("/usr/sbin/lightdm", "", 0o755)
        .file("/usr/share/xsessions/xfce.desktop", "[Desktop Entry]\nExec=startxfce4\n")
        .file(NAMED, "/usr/sbin/lightdm\n")
        .link(ALIAS, "/lib/systemd/system/lightdm.service")
    )


def _removed() -> Machine:
    return _desktop().remove("/usr/lib/systemd/system/lightdm.service").remove("/usr/sbin/lightdm")
