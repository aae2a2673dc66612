"""The X server is configured for a driver or a GPU that does not exist.

What you see
    No graphical login: a text screen, or a blinking cursor. The X server's log ends with "no screens found".
Why
    nvidia-xconfig, a .run installer or a person wrote /etc/X11/xorg.conf with Driver "nvidia". Then the driver was
    purged or the GPU removed, and the file stayed: X tries that driver and nothing else. Without such a file X
    configures itself.

    If the driver's packages are installed and only its module is missing, the file is correct and the missing
    module is the problem.

    X ignores names like xorg.conf.11302017 and sections that no screen uses.
Repair
    Move a generated file out of the way. In a file that a person wrote, only the Driver line may be wrong, so its
    owner must decide.
What the repair risks
    The file may also configure the layout of several monitors, Coolbits and headless screens. It is kept.
By hand
    cd /etc/X11; mv xorg.conf xorg.conf.bak
    systemctl restart display-manager
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DisplaySetup,
    Evidence,
    Finding,
    Machine,
    MoveAside,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

# Drivers that need no PCI display of a certain vendor, or belong to the X server itself and its fallbacks.
_GENERIC = ("modesetting", "fbdev", "vesa", "dummy", "void")
_VENDOR = "10de"
_X_DRIVER_PACKAGES = ("xserver-xorg-video-nvidia*", "nvidia-[1-3][0-9][0-9]")  # the second: Ubuntu up to 16.04


class StaleXorgConfNvidia(Rule):
    id = "stale-xorg-conf-nvidia"
    title = "The X server is configured for a driver or a GPU that does not exist"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    explains = ("login-loop-glx-broken-driver-mismatch",)

    def detect(self, display: DisplaySetup, packages: Packages | None) -> Iterator[Finding | Unknown]:
        for problem in display.problems:
            yield Unknown(problem)
        for section in display.active_devices():
            driver = section.entry("driver")
            if driver is None:
                continue
            name = driver.values[0].lower()
            missing = _missing(name, display, packages)
            if isinstance(missing, Unknown):
                yield missing
            elif missing:
                yield self.finding(
                    f"file:{section.path}",
                    f'{section.path} tells X to use the driver "{name}", but {missing}',
                    Evidence(f"{section.path}:{driver.line}", driver.text.strip()),
                    Evidence(*_absence(name, missing)),
                    path=section.path,
                    tool=display.tool(section.path),
                    name=name,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        path, tool = finding.detail["path"], finding.detail["tool"]
        aside = f"Move {path} out of the way (X configures itself)"
        if tool:
            yield Plan(f"{aside}; {tool} wrote the file", Risk.LOW, (MoveAside(path),))
            return
        yield Plan(
            f"Correct the Device section of {path}",
            Risk.LOW,
            (
                ByHand(
                    f'Check whether {path} contains settings to keep, then change or remove its Device section with Driver "{finding.detail["name"]}"'
                ),
            ),
        )
        yield Plan(aside, Risk.MEDIUM, (MoveAside(path),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        conf, part = "/etc/X11/xorg.conf", "/etc/X11/xorg.conf.d/20-nvidia.conf"
        drivers = "/usr/lib/xorg/modules/drivers"

        def plain() -> Machine:
            return Machine.debian12().library(f"{drivers}/modesetting_drv.so")

        yield Scenario(
            "a generated file, and the driver was purged",
            plain().file(conf, GENERATED),
            finds=f"file:{conf}",
            steps=("move-aside",),
            ladder=(("low", "move-aside /etc/X11/xorg.conf"),),
        )
        yield Scenario(
            "a drop-in written by a person",
            plain().file(part, 'section "device"\n  identifier "gpu" # mine\n  driver "NVIDIA"\nendsection\n'),
            finds=f"file:{part}",
            ladder=(
                ("low", "by-hand /etc/X11/xorg.conf.d/20-nvidia.conf"),
                ("medium", "move-aside /etc/X11/xorg.conf.d/20-nvidia.conf"),
            ),
        )
        yield Scenario(
            "the GPU was removed, the driver is still installed",
            Machine.debian12()
            .gpu("5917", "0000:00:02.0", "i915")
            .file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n")
            .debian_driver(loaded=False)
            .file(conf, GENERATED),
            finds=f"file:{conf}",
            alone=False,  # a driver without a GPU is another problem
        )
        yield Scenario(
            "fglrx, which no longer exists",
            plain().file(conf, 'Section "Device"\n Identifier "a"\n Driver "fglrx"\nEndSection\n'),
            finds=f"file:{conf}",
            ladder=(("low", "by-hand /etc/X11/xorg.conf"), ("medium", "move-aside /etc/X11/xorg.conf")),
        )
        yield Scenario("the driver is installed", Machine.debian12_gpu().file(conf, GENERATED))
        yield Scenario("the driver in Ubuntu's directory", Machine.ubuntu2404_gpu().file(conf, GENERATED))
        yield Scenario(
            "only the module is missing",
            Machine.debian12_gpu().remove("/usr/lib/modules/6.1.0-50-amd64/updates/dkms/nvidia-current.ko").file(conf, GENERATED),
        )  # fmt: skip
        yield Scenario("a backup name", plain().file(f"{conf}.11302017", GENERATED).file(f"{part}.bak", GENERATED))
        yield Scenario(
            "a section that no screen uses",
            plain().file(conf, GENERATED.replace('Device         "Device0"', 'Device "own"') + OWN),
        )
        yield Scenario("in a comment", plain().file(conf, "\n".join(f"#{line}" for line in GENERATED.split("\n"))))
        yield Scenario("no configuration file", Machine.debian12())
        yield Scenario("the configuration is not a file", plain().fifo(conf), unknown=True)
        yield Scenario("no X server is here", Machine.debian12().file(conf, GENERATED), unknown=True)
        yield Scenario(
            "only the X server's own drivers can be read",
            Machine()
            .file("/etc/fstab", "UUID=1 / ext4 defaults 0 1\nUUID=2 /usr ext4 defaults 0 2\n")
            .file(conf, f'Section "Files"\n    ModulePath "/opt/xorg"\nEndSection\n{GENERATED}')
            .library("/opt/xorg/modesetting_drv.so"),
            unknown=True,
        )


GENERATED = """\
# nvidia-xconfig: X configuration file generated by nvidia-xconfig
# nvidia-xconfig:  version 470.256.02

Section "ServerLayout"
    Identifier     "Layout0"
    Screen      0  "Screen0"
    InputDevice    "Keyboard0" "CoreKeyboard"
EndSection

Section "Device"
    Identifier     "Device0"
    Driver         "nvidia"
    VendorName     "NVIDIA Corporation"
EndSection

Section "Screen"
    Identifier     "Screen0"
    Device         "Device0"
    DefaultDepth    24
    SubSection     "Display"
        Depth       24
    EndSubSection
EndSection
"""

OWN = """
Section "Device"
    Identifier "own"
    Driver "modesetting"
EndSection
"""


def _missing(name: str, display: DisplaySetup, packages: Packages | None) -> str | Unknown:
    """What the named driver lacks; "" for nothing."""
    if name in _GENERIC:
        return ""
    if name == "nvidia" and display.devices and not any(d.vendor == _VENDOR for d in display.devices):
        return "no NVIDIA GPU is on the PCI bus"
    if name in display.drivers:
        return ""
    if name == "nvidia" and packages and any(packages.installed(pattern) for pattern in _X_DRIVER_PACKAGES):
        return ""  # its file is missing for another reason, which others look for
    if display.unread:
        return Unknown(display.unread[0])
    if not display.drivers:
        return Unknown("no X driver was found, not even the X server's own: this may be only a part of a system")
    return f"{name}_drv.so is not installed"


def _absence(name: str, missing: str) -> tuple[str, str]:
    return ("/sys/bus/pci/devices", missing) if "PCI" in missing else (f"{name}_drv.so", "in no directory of X drivers")
