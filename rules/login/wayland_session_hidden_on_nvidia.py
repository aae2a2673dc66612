"""Only Wayland sessions are installed, and the driver is too old for them.

What you see
    After the login the screen stays black or freezes, although the module is loaded and nvidia-smi works.
Why
    Driver branches up to 470 do not support GNOME and KDE on Wayland on most GPUs (they lack GBM, which came with
    branch 495). Distributions of 2025 and later have no X session of GNOME any more, so no session is left that
    this driver supports.

    GPUs of the Kepler generation and older have no newer branch.
Repair
    Install a desktop with an X session (Xfce, MATE, Cinnamon, KDE's plasma-session-x11), or use nouveau.
What the repair risks
    Another desktop is a matter of taste, so you decide.
By hand
    ls /usr/share/xsessions /usr/share/wayland-sessions
    apt-get install xfce4
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DesktopSessions,
    Drivers,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)

LAST_WITHOUT_GBM = 470


class WaylandSessionHiddenOnNvidia(Rule):
    id = "wayland-session-hidden-on-nvidia"
    title = "Only Wayland sessions are installed, and the driver is too old for them"
    stage = Stage.APPLICATIONS
    severity = Severity.NOTE

    def detect(self, sessions: DesktopSessions, drivers: Drivers) -> Iterator[Finding]:
        driver = drivers.now or drivers.later
        if driver is None or driver.branch > LAST_WITHOUT_GBM or sessions.x or not sessions.wayland:
            return
        yield self.finding(
            "host",
            f"Only Wayland sessions are installed ({', '.join(sessions.wayland[:3])}), which need driver 495 or newer; "
            f"installed: {driver.version}. The screen may stay black. Use an X session",
            Evidence(driver.source, driver.version),
            Evidence("/usr/share/wayland-sessions", ", ".join(sessions.wayland)),
            Evidence("/usr/share/xsessions", "no X session"),
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = (
            "Install a desktop with an X session, for example apt-get install xfce4, and choose it in the login screen"
        )
        yield Plan("Use a desktop with an X session", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def sessions(machine: Machine, *paths: str) -> Machine:
            for path in paths:
                machine.file(f"/usr/share/{path}.desktop", "[Desktop Entry]\nType=Application\n")
            return machine

        def old() -> Machine:
            return Machine.ubuntu2404().gpu("1287").ubuntu_driver("470.256.02")

        yield Scenario(
            "GNOME on Wayland, branch 470",
            sessions(old(), "wayland-sessions/ubuntu"),
            finds="host",
            ladder=(("low", "by-hand xfce4"),),
        )
        yield Scenario(
            "branch 390",
            sessions(Machine.ubuntu2404().gpu("1287").ubuntu_driver("390.157"), "wayland-sessions/gnome"),
            finds="host",
        )
        yield Scenario(
            "an X session is installed too", sessions(old(), "wayland-sessions/ubuntu", "xsessions/ubuntu-xorg")
        )
        yield Scenario("no desktop", old())
        yield Scenario("branch 550", sessions(Machine.ubuntu2404_gpu(), "wayland-sessions/ubuntu"))
        yield Scenario("no driver", sessions(Machine.ubuntu2404(), "wayland-sessions/ubuntu"), unknown=True)
