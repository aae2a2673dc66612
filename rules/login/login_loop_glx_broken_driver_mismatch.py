"""The desktop crashes because NVIDIA's OpenGL does not work.

What you see
    The login screen accepts every user's password and comes back, or shows "Oh no! Something has gone wrong".

    The logs have 'extension "GLX" missing', "Failed to initialize the GLX module" or "Unrecoverable failure in
    required component org.gnome.Shell.desktop".
Why
    The login screen can be drawn without OpenGL, but a desktop cannot. NVIDIA's libraries do not match the loaded
    kernel module, or the GLX module of the X server is missing or from another vendor.

    Nearly always the cause is another problem that is reported too: an upgraded driver without a reboot, a module
    that was not built, or mixed packages.

    If only one of several users is affected, the cause is in that user's home, not the driver. GLX is also missing
    in ssh, VNC and xrdp sessions, which is normal.
Repair
    Repair the driver. If no other problem is found, reinstall the packages with its OpenGL libraries and reboot.
What the repair risks
    The same versions are reinstalled. The running graphical session must be ended.
By hand
    cat /proc/driver/nvidia/version
    dpkg -l 'libnvidia-gl*' 'nvidia-driver*'
    journalctl -b | grep -i -e glx -e nvidia
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    AptPurgeReinstall,
    ByHand,
    DisplaySetup,
    DriverLibraries,
    Evidence,
    Finding,
    GlConfiguration,
    KernelModules,
    Machine,
    Packages,
    Plan,
    Reboot,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    SessionLogs,
    Sessions,
    SetAlternative,
    Severity,
    Stage,
    Unknown,
)

_SERVER = (
    r"NVIDIA.*Failed to initialize the GLX module"
    r"|Failed to load module \"(?:glx|glxserver_nvidia|libglx)\""
    r"|NVIDIA.*Failed to load the NVIDIA kernel module"
    r"|NVIDIA.*Failed to initialize the NVIDIA kernel module"
)
# Display :0 or :1: displays of ssh, VNC and xrdp have other numbers.
_SESSION = (
    r"extension \"GLX\" missing on display \":[01](?:\.\d)?\""
    r"|Unrecoverable failure in required component (?:org\.gnome\.Shell|gnome-shell|compiz)"
    r"|Driver/library version mismatch"
    r"|Unable to initialize (?:Clutter|COGL)|Unable to find suitable fbconfig"
    r"|Failed to (?:initialize|create|setup).{0,40}(?:EGL|GLX)"
    r"|not supported by EGL"
)
_LIBRARIES = ("libGLX_nvidia.so.0", "libEGL_nvidia.so.0", "libnvidia-glcore.so")


class LoginLoopGlxBrokenDriverMismatch(Rule):
    id = "login-loop-glx-broken-driver-mismatch"
    title = "The desktop crashes because NVIDIA's OpenGL does not work"
    stage = Stage.REBOOT
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("login-loop-unexplained",)

    def detect(
        self,
        logs: SessionLogs,
        sessions: Sessions | None,
        display: DisplaySetup | None,
        libraries: DriverLibraries | None,
        modules: KernelModules | None,
        gl: GlConfiguration | None,
    ) -> Iterator[Finding | Unknown]:
        server = logs.matching(_SERVER)
        session = tuple(c for c in logs.matching(_SESSION) if c not in server)
        shown = [*server[:1], *session[:1]]
        nvidia = (
            any("NVIDIA" in c.text for c in shown)
            or bool(libraries and libraries.libraries)
            or any(d.vendor == "10de" for d in (display and display.devices) or ())
        )
        if not shown or not nvidia:
            for problem in logs.problems:
                yield Unknown(problem)
            return
        users = sessions.users() if sessions else ()
        looping = [user for user in users if sessions and sessions.loop(user)]
        got_in = [user for user in users if sessions and sessions.got_in(user)]
        if got_in or (users and len(looping) < len(users) and not _does_not_fit(modules, libraries)):
            return
        if not users and not (server and session) and not _does_not_fit(modules, libraries):
            yield Unknown(f"{shown[0].source} has {shown[0].text!r}, but no log shows how long sessions lasted")
            return
        who = f"the sessions of {' and '.join(users)}" if users else "graphical sessions"
        yield self.finding(
            "host",
            f"OpenGL does not work, and {who} end at once: {shown[0].text}",
            *(Evidence(c.source, c.text) for c in shown),
            *([Evidence(gl.chosen.path, f"-> {gl.chosen.target}")] if gl else []),
            other=_other_libraries(gl, modules) if gl else "",
            alternative=gl.name if gl else "",
        )

    def remedies(
        self, finding: Finding, libraries: DriverLibraries | None, packages: Packages | None
    ) -> Iterator[Plan]:
        if other := finding.detail["other"]:
            yield Plan(
                f"Choose the GL libraries of the GPU that draws the screen ({other}): no NVIDIA module is loaded",
                Risk.MEDIUM,
                (SetAlternative(finding.detail["alternative"], other), RefreshLoaderCache()),
            )
        owned = {x.package for x in (libraries.libraries if libraries else ()) if x.name in _LIBRARIES and x.package}
        if owned:
            yield Plan(
                "Reinstall the driver's OpenGL libraries and reboot",
                Risk.MEDIUM,
                (AptInstall(tuple(sorted(owned)), reinstall=True), Reboot()),
                reboot=True,
                network=True,
            )
        yield Plan(
            "Find the part of the driver that does not match",
            Risk.MEDIUM,
            (
                ByHand(
                    "Compare the loaded module (cat /proc/driver/nvidia/version) with the packages (dpkg -l '*nvidia*'), remove "
                    "leftovers of a .run installer, and install one complete driver branch"
                ),
            ),
        )
        if owned and packages:
            yield Plan(
                "Purge the driver and reinstall the same version",
                Risk.HIGH,
                (AptPurgeReinstall(packages.driver_family), Reboot()),
                reboot=True,
                network=True,
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        errors = "/home/alice/.xsession-errors"
        missing = 'Xlib:  extension "GLX" missing on display ":0".\n' * 2
        whale = "Unrecoverable failure in required component org.gnome.Shell.desktop"
        debian, ubuntu = Machine.debian12_gpu, Machine.ubuntu2404_gpu
        yield Scenario(
            "GLX missing in a loop of Unity or Xfce",
            ubuntu().login_loop().file(errors, missing, 0o600, 1000),
            finds="host",
            steps=("apt-install", "reboot"),
            ladder=(
                ("medium reboot network", "apt-install libnvidia-gl-550 reinstall", "reboot"),
                ("medium", "by-hand /proc/driver/nvidia/version -l"),
                (
                    "high reboot network",
                    "apt-purge-reinstall libnvidia-cfg1-550..xserver-xorg-video-nvidia-550(18)",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "GNOME Shell fails for every user",
            debian().user("bob", 1001).login_loop(manager="gdm").login_loop("bob", manager="gdm").says("gnome-session-binary", whale, 1101.0),
            finds="host",
            ladder=(('medium reboot network', 'apt-install libegl-nvidia0 libglx-nvidia0 reinstall', 'reboot'), ('medium', 'by-hand /proc/driver/nvidia/version -l'), ('high reboot network', 'apt-purge-reinstall firmware-nvidia-gsp..xserver-xorg-video-nvidia(33)', 'reboot')),
        )  # fmt: skip
        yield Scenario(
            "the X server's GLX module and the session's message, without a log of logins",
            ubuntu().file("/var/log/Xorg.0.log", XORG).file(errors, missing, 0o600, 1000),
            finds="host",
        )
        yield Scenario(
            "a loop, and only the X server reports an error",
            debian().file("/var/log/Xorg.0.log", XORG).login_loop(),
            finds="host",
        )
        yield Scenario(
            "the X server reports an error after an upgrade of the libraries",
            ubuntu().loaded_driver("550.90.07").file("/var/log/Xorg.0.log", XORG),
            finds="host",
            causes=("driver-library-version-mismatch-after-upgrade",),
        )
        record = "/var/lib/dpkg/alternatives/x86_64-linux-gnu_gl_conf"
        places = ("/usr/lib/nvidia-375/ld.so.conf", "/usr/lib/x86_64-linux-gnu/mesa/ld.so.conf")
        yield Scenario(
            "the loader finds NVIDIA's libGL, but another GPU draws the screen",
            Machine.ubuntu1604_runfile()
            .file("/proc/modules", "i915 1 0 - Live 0x0\n")
            .login_loop()
            .file(errors, missing, 0o600, 1000)
            .link("/etc/alternatives/x86_64-linux-gnu_gl_conf", places[0])
            .file(places[0], "/usr/lib/nvidia-375\n")
            .file(places[1], "/usr/lib/x86_64-linux-gnu/mesa\n")
            .file(
                record, f"manual\n/etc/ld.so.conf.d/x86_64-linux-gnu_GL.conf\n\n{places[0]}\n8604\n{places[1]}\n500\n\n"
            ),
            finds="host",
            alone=False,
            ladder=(
                (
                    "medium",
                    "set-alternative x86_64-linux-gnu_gl_conf /usr/lib/x86_64-linux-gnu/mesa/ld.so.conf",
                    "refresh-loader-cache",
                ),
                (
                    "medium",
                    "by-hand /proc/driver/nvidia/version -l",
                ),
            ),
        )
        yield Scenario("a healthy desktop", debian().login(manager="gdm").file("/var/log/Xorg.0.log", HEALTHY))
        yield Scenario(
            "only one of two users is in a loop",
            debian().user("bob", 1001).login_loop().login("bob", begin=2000.0).file(errors, missing, 0o600, 1000),
        )
        yield Scenario(
            "GLX is missing in VNC",
            debian().login_loop().file(errors, missing.replace(":0", ":10.0"), 0o600, 1000),
        )
        yield Scenario(
            "a loop without NVIDIA", Machine.debian12().login_loop().says("gnome-session-binary", whale, 1101.0)
        )
        yield Scenario(
            "only the X server reports an error, and no log shows sessions",
            debian().file("/var/log/Xorg.0.log", XORG),
            unknown=True,
        )
        yield Scenario("a log is not a file", debian().fifo("/var/log/Xorg.0.log"), unknown=True)


XORG = """\
[    12.207] (II) LoadModule: "glx"
[    12.208] (II) Loading /usr/lib/xorg/modules/extensions/libglx.so
[    12.212] (II) Module glx: vendor="X.Org Foundation"
[    12.301] (EE) NVIDIA(0): Failed to initialize the GLX module; please check in your X
[    12.301] (EE) NVIDIA(0):     log file that the GLX module has been loaded in your X
[    12.301] (EE) NVIDIA(0):     server, and that the module is the NVIDIA GLX module.  If
[    12.301] (EE) NVIDIA(0):     you continue to encounter problems, Please try
[    12.301] (EE) NVIDIA(0):     reinstalling the NVIDIA driver.
"""

HEALTHY = """\
[    12.207] (II) LoadModule: "glx"
[    12.212] (II) Module glx: vendor="X.Org Foundation"
[    12.230] (EE) Failed to load module "fbdev" (module does not exist, 0)
[    12.231] (EE) Failed to load module "vesa" (module does not exist, 0)
[    12.301] (II) NVIDIA GLX Module  535.261.03
"""


def _other_libraries(gl: GlConfiguration, modules: KernelModules | None) -> str:
    """What the alternative should choose, where it chooses NVIDIA's libraries and no NVIDIA module is loaded."""
    idle = modules is not None and modules.loaded is not None and "nvidia" not in modules.loaded
    if not idle or "nvidia" not in gl.chosen.target:
        return ""
    return next((path for path in gl.others if "nvidia" not in path), "")


def _does_not_fit(modules: KernelModules | None, libraries: DriverLibraries | None) -> bool:
    """Whether it is known that the running driver does not match the libraries, or that no driver runs."""
    if modules is None or libraries is None or modules.loaded is None or libraries.version is None:
        return False
    return modules.loaded_version != libraries.version
