"""The login screen is there, but the screen shows a text console or stays black: LightDM is on another terminal.

What you see
    After booting, the screen shows a text console or stays black. Ctrl+Alt+F7 shows the login screen.

    The driver and lightdm.service work.
Why
    LightDM starts its X server on terminal 7 and switches to it. If nvidia-drm does not set the mode of the screen itself
    (modeset=N), the switch can come too early, and the screen stays on terminal 1.
Repair
    Let LightDM use terminal 1, which is already on the screen. The driver is not at fault: do not reinstall it.
What the repair risks
    Low. On some machines the login screen then appears later.
By hand
    # Until then: Ctrl+Alt+F7
    cat /sys/class/tty/tty0/active
    grep -E 'on VT|Activating' /var/log/lightdm/lightdm.log
    mkdir -p /etc/lightdm/lightdm.conf.d
    printf '[LightDM]\\nminimum-vt=1\\n' > /etc/lightdm/lightdm.conf.d/50-minimum-vt.conf
    # Or let the driver set the mode: write this line into a file in /etc/modprobe.d,
    # run update-initramfs -u, and reboot.
    # options nvidia-drm modeset=1
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Journal,
    LightdmScreen,
    LoginScreen,
    Machine,
    MakeDirectory,
    Plan,
    Risk,
    Rule,
    Scenario,
    Sessions,
    Severity,
    Stage,
    Unknown,
    WriteFile,
)

FOLDER = "/etc/lightdm/lightdm.conf.d"
FILE = f"{FOLDER}/50-minimum-vt.conf"
TEXT = "# The screen stays on terminal 1 if LightDM switches to another one too early.\n[LightDM]\nminimum-vt=1\n"


class LightdmVtRaceNvidiaKms(Rule):
    id = "lightdm-vt-race-nvidia-kms"
    title = "The login screen is on a terminal that the screen does not show"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(
        self, login: LoginScreen, screen: LightdmScreen, sessions: Sessions, journal: Journal
    ) -> Iterator[Finding | Unknown]:
        hidden = screen.terminal is not None and screen.active == "tty1" and screen.terminal != 1
        if login.alias != "lightdm" or not hidden or screen.minimum or screen.modeset:
            return
        if not journal.boots or sessions.of_boot(journal.boots[-1]).sessions:
            return  # somebody found the login screen, and may have switched to this terminal
        if screen.modeset is None:
            yield Unknown(
                "cannot tell whether nvidia-drm sets modes: only root can read it, or nvidia-drm is not loaded"
            )
            return
        yield self.finding(
            "host",
            f"The login screen is on terminal {screen.terminal}, but the screen shows terminal 1",
            Evidence("/var/log/lightdm/lightdm.log", f"X server of the greeter on VT {screen.terminal}"),
            Evidence("/sys/class/tty/tty0/active", screen.active),
            Evidence("/sys/module/nvidia_drm/parameters/modeset", "N"),
            Evidence("/etc/lightdm", "no minimum-vt"),
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Let LightDM use the terminal that is on the screen",
            Risk.LOW,
            (MakeDirectory(FOLDER), WriteFile(FILE, TEXT)),
        )
        text = "if you switched to this terminal yourself, nothing is wrong: Ctrl+Alt+F7 shows the login screen again"
        yield Plan("Switch to the login screen", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def booted(terminal: int = 7, active: str = "tty1", modeset: str = "N\n") -> Machine:
            log = (
                f"[+0.01s] DEBUG: Starting Light Display Manager 1.32.0, UID=0 PID=680\n[+0.30s] DEBUG: Using VT {terminal}\n"
                f"[+0.30s] DEBUG: Seat seat0: Starting local X display on VT {terminal}\n"
                f"[+1.10s] DEBUG: Activating VT {terminal}\n[+1.90s] DEBUG: Greeter connected version=1.32.0 api=1\n"
            )
            machine = (
                Machine.ubuntu2404_gpu()
                .file("/usr/lib/systemd/system/graphical.target")
                .link("/etc/systemd/system/default.target", "/usr/lib/systemd/system/graphical.target")
                .file("/usr/lib/systemd/system/lightdm.service", "[Service]\nExecStart=/usr/sbin/lightdm\n")
                .link("/etc/systemd/system/display-manager.service", "/usr/lib/systemd/system/lightdm.service")
                .file("/usr/sbin/lightdm", "", 0o755)
                .file("/etc/X11/default-display-manager", "/usr/sbin/lightdm\n")
                .file("/etc/lightdm/lightdm.conf", "[LightDM]\n#minimum-vt=7\n\n[Seat:*]\n#user-session=default\n")
                .file("/var/log/lightdm/lightdm.log", log)
                .file("/sys/class/tty/tty0/active", f"{active}\n")
                .says("kernel", "nvidia: loading out-of-tree module taints kernel.", 4.0)
            )
            return machine.file("/sys/module/nvidia_drm/parameters/modeset", modeset) if modeset else machine

        ladder = (
            ("low", f"make-directory {FOLDER}", f"write-file {FILE} [LightDM] / minimum-vt=1"),
            ("low", "by-hand terminal Ctrl+Alt+F7"),
        )
        yield Scenario(
            "the greeter is on terminal 7",
            booted(),
            finds="host",
            ladder=ladder,
            steps=("make-directory", "write-file"),
        )
        yield Scenario(
            "its own directory exists, and the greeter is on terminal 8",
            booted(8).file(f"{FOLDER}/10-seat.conf", "[Seat:*]\nminimum-vt=1\n"),
            finds="host",
        )
        yield Scenario("the screen shows the greeter", booted(active="tty7"))
        yield Scenario("LightDM uses terminal 1", booted(1))
        yield Scenario("the driver sets the mode", booted(modeset="Y\n"))
        yield Scenario("repaired before", booted().file(FILE, TEXT))
        yield Scenario("somebody logged in, and switched", booted().login(begin=60.0))
        yield Scenario("another display manager", booted().link(
            "/etc/systemd/system/display-manager.service", "/usr/lib/systemd/system/gdm.service"))  # fmt: skip
        yield Scenario("the parameter cannot be read", booted(modeset=""), unknown=True)
