"""The machine is to come up with a login screen, and nothing starts the display manager.

What you see
    After the start: a black screen, the boot messages, or the login prompt of a text console.
    Failed to start display-manager.service: Unit display-manager.service not found.
    Unit lightdm.service is masked.
Why
    systemd's graphical.target wants display-manager.service, which is only a link to the display manager that was
    chosen: on Debian and Ubuntu the packages make it from /etc/X11/default-display-manager when they are configured.
    The link goes when a second display manager is disabled or removed, it leads nowhere when the chosen one is removed
    (a purge of the driver can take it along), and somebody may have masked it to get rid of a login loop. Ubuntu's
    lightdm and Debian's sddm also end at once where the file names another one than the link.
    A machine whose default target is another one, that is started with a text console on purpose, or that has no
    display manager and was not used with one, is a server: there is nothing to repair.
Repair
    Make the link lead to the display manager that Debian's file names, or take the mask away. That is not done
    unattended where somebody may have wanted it so.
What the repair risks
    Nothing. Who wants no login screen says so: systemctl set-default multi-user.target
By hand
    ln -sfn /lib/systemd/system/lightdm.service /etc/systemd/system/display-manager.service
    or: dpkg-reconfigure lightdm; then: systemctl daemon-reload; systemctl start display-manager
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
    """Whether somebody wanted it so: a mask is only ever made on purpose, a missing link may be a wish or an accident."""

    CHOSEN = "chosen"
    UNSURE = "unsure"
    FAULT = "fault"


_SEVERITY = {Intent.CHOSEN: Severity.NOTE, Intent.UNSURE: Severity.WARNING, Intent.FAULT: Severity.ERROR}


class DisplayManagerNotStarted(Rule):
    id = "display-manager-not-started"
    title = "The next start brings no login screen: nothing starts the display manager"
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
            f"the next start brings no login screen: {what}",
            Evidence("default.target", screen.target),
            evidence,
            Evidence(NAMED, screen.named or "is not there"),
            # Somebody may have wanted it so, and left the target as it was.
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
                "Choose a display manager", Risk.MEDIUM, (ByHand(f"apt-get install {name}; dpkg-reconfigure {name}"),)
            )
        elif not manager.there:
            yield Plan(
                f"Install {manager.name} again",
                Risk.MEDIUM,
                (ByHand(f"dpkg -S {manager.path}; apt-get install --reinstall the package that it names"),),
            )
        elif finding.detail["chosen"]:
            unit = manager.name if manager.mask else "display-manager"
            text = f"sudo systemctl unmask {unit}.service; sudo dpkg-reconfigure {manager.name}"
            yield Plan("Unmask the display manager, if you want a login screen", Risk.LOW, (ByHand(text),))
        elif _linked(screen, manager):
            yield Plan(f"Have {manager.name} started", risk, _linked(screen, manager))
        else:
            yield Plan(f"Name {manager.name} as the display manager", risk, (WriteFile(NAMED, f"{manager.program}\n"),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "the link is gone",
            _desktop().remove(ALIAS),
            finds="host",
            steps=("make-link",),
            ladder=(
                (
                    "medium",
                    "make-link /etc/systemd/system/display-manager.service /usr/lib/systemd/system/lightdm.service",
                ),
            ),
        )
        yield Scenario("the link is gone, people log in here", _desktop().remove(ALIAS).login(), finds="host")
        yield Scenario(
            "masked",
            _desktop().remove(ALIAS).link(ALIAS, "/dev/null"),
            finds="host",
            ladder=(
                (
                    "low",
                    "by-hand",
                ),
            ),
        )
        yield Scenario(
            "its unit is masked", _desktop().link("/etc/systemd/system/lightdm.service", "/dev/null"), finds="host"
        )
        yield Scenario(
            "the link leads to one that was removed",
            _desktop().remove(ALIAS).link(ALIAS, "/lib/systemd/system/gdm3.service"),
            finds="host",
        )
        yield Scenario(
            "the display manager was removed, and people log in here",
            _removed().login(),
            finds="host",
            ladder=(
                (
                    "medium",
                    "by-hand",
                ),
            ),
        )
        yield Scenario(
            "its program is gone",
            _desktop().remove("/usr/sbin/lightdm"),
            finds="host",
            ladder=(
                (
                    "medium",
                    "by-hand -S /usr/lib/systemd/system/lightdm.service --reinstall",
                ),
            ),
        )
        yield Scenario(
            "it ends because the file names another one",
            _desktop(check=True).file(NAMED, "/usr/sbin/gdm3\n"),
            finds="host",
            steps=("write-file",),
            ladder=(
                (
                    "low",
                    "write-file /etc/X11/default-display-manager /usr/sbin/lightdm",
                ),
            ),
        )
        yield Scenario("before the next start", _desktop().remove(ALIAS), finds="host", next_boot=True)
        yield Scenario("as installed", _desktop())
        yield Scenario("as installed, on Ubuntu", _desktop(check=True))
        yield Scenario(
            "a server with a display manager that is not used",
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
            "started by a script of its own",
            _desktop().remove(ALIAS).link("/etc/rc5.d/S01xdm", "../init.d/xdm").file("/usr/bin/xdm"),
        )
        yield Scenario(
            "a script that the chosen one left when it was removed",
            _desktop().link("/etc/rc5.d/S01xdm", "../init.d/xdm").link(ALIAS, "/lib/systemd/system/xdm.service"),
            finds="host",
        )
        yield Scenario("a session on the text console", _desktop().remove(ALIAS).file(
            "/etc/systemd/system/getty@tty1.service.d/autologin.conf", "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin alice - $TERM\n"
        ))  # fmt: skip
        yield Scenario("the only display manager was removed, and nobody logs in here", _removed())
        yield Scenario("nobody was asked which one", _desktop().remove(ALIAS).remove(NAMED))
        yield Scenario("the boot loader asks for a text console", _desktop().remove(ALIAS).file(
            "/boot/grub/grub.cfg", "menuentry 'Debian' {\n\tlinux /vmlinuz-6.1.0-50-amd64 root=/dev/sda1 ro quiet 3\n}\n"
        ))  # fmt: skip
        yield Scenario("a disk without systemd", Machine.debian12(), unknown=True)


def _fault(screen: LoginScreen, used: bool) -> "tuple[str, Evidence, Intent] | None":
    """What keeps the login screen away, what shows it, and whether somebody wanted it so."""
    if not screen.managers:
        # A server, or somebody who wants none; Debian leaves the link when the last one is removed.
        if not used or not screen.desktops:
            return None
        return "there is no display manager any more", Evidence(ALIAS, "no display manager is installed"), Intent.FAULT
    manager = screen.manager(screen.alias or "")
    if screen.alias and manager is None:
        shows = Evidence(ALIAS, f"leads to {screen.alias}.service")
        return f"display-manager.service leads to {screen.alias}, which is not installed", shows, Intent.FAULT
    if manager and manager.mask:
        return f"{manager.name}.service is masked", Evidence(manager.mask, "leads to /dev/null"), Intent.CHOSEN
    if manager and not manager.there:
        return f"{manager.program} is gone", Evidence(manager.path, f"starts {manager.program}"), Intent.FAULT
    if manager and manager.demands not in ("", screen.named, posixpath.basename(screen.named)):
        shows = Evidence(manager.path, f"ends at once unless {NAMED} names {manager.demands}")
        return f"{NAMED} names {screen.named or 'none'}, and {manager.name} ends because of it", shows, Intent.FAULT
    if manager is None and screen.wanted:
        masked = screen.alias == ""
        shows = Evidence(ALIAS, "leads to /dev/null" if masked else "is not there")
        return (
            f"display-manager.service is {'masked' if masked else 'not there, so nothing starts ' + screen.wanted.name}",
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
