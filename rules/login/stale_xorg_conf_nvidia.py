"""The X server's configuration names a driver, or a GPU, that is no longer there.

What you see
    No graphical login: a text screen, or a blinking cursor. The X server's log ends with "no screens found".
Why
    nvidia-xconfig, a .run installer or a person wrote /etc/X11/xorg.conf with Driver "nvidia". The driver was purged,
    or the GPU taken out, and the file stayed: X then tries that driver and nothing else. Without any such file X
    configures itself. While the driver's packages are installed and only its module is missing, the file is right, and
    the missing module is the fault. Names like xorg.conf.11302017 are ignored by X, and so are sections that no screen
    uses.
Repair
    Move a generated file aside. Of a file that a person wrote, only its Driver line may be wrong: that is for the person
    to say.
What the repair risks
    The layout of several monitors, Coolbits and headless screens are configured there. The file is kept.
By hand
    mv /etc/X11/xorg.conf /etc/X11/xorg.conf.bak; systemctl restart display-manager
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DisplaySetup,
    DriverLibraries,
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

# They drive no PCI display of a maker, or belong to the X server itself and to its fallbacks.
_GENERIC = ("modesetting", "fbdev", "vesa", "dummy", "void")
_VENDOR = "10de"
_X_DRIVER_PACKAGES = ("xserver-xorg-video-nvidia*", "nvidia-[1-3][0-9][0-9]")  # the second: Ubuntu up to 16.04


class StaleXorgConfNvidia(Rule):
    id = "stale-xorg-conf-nvidia"
    title = "The X server is told to use a driver or a GPU that is not there"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    explains = ("login-loop-glx-broken-driver-mismatch",)

    def detect(
        self, display: DisplaySetup, packages: Packages | None, libraries: DriverLibraries | None
    ) -> Iterator[Finding | Unknown]:
        for problem in display.problems:
            yield Unknown(problem)
        for section in display.active_devices():
            driver = section.entry("driver")
            if driver is None:
                continue
            name = driver.values[0].lower()
            missing = _missing(name, display, packages, libraries)
            if missing:
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
        aside = f"Move {path} aside: X configures itself"
        if tool:
            yield Plan(f"{aside} ({tool} wrote the file)", Risk.LOW, (MoveAside(path),))
            return
        yield Plan(
            f"Take what is no longer true out of {path}",
            Risk.LOW,
            (
                ByHand(
                    f'Look whether {path} has settings to keep; change or remove its Device section with Driver "{finding.detail["name"]}"'
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
            "generated, and the driver purged",
            plain().file(conf, GENERATED),
            finds=f"file:{conf}",
            steps=("move-aside",),
            ladder=(
                (
                    "low",
                    "move-aside /etc/X11/xorg.conf",
                ),
            ),
        )
        yield Scenario(
            "a drop-in of a person",
            plain().file(part, 'section "device"\n  identifier "gpu" # mine\n  driver "NVIDIA"\nendsection\n'),
            finds=f"file:{part}",
        )
        yield Scenario(
            "the card is gone, the driver still installed",
            Machine.debian12()
            .gpu("5917", "0000:00:02.0", "i915")
            .file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n")
            .debian_driver(loaded=False)
            .file(conf, GENERATED),
            finds=f"file:{conf}",
            alone=False,  # a driver without a GPU is another matter
        )
        yield Scenario(
            "fglrx after its end",
            plain().file(conf, 'Section "Device"\n Identifier "a"\n Driver "fglrx"\nEndSection\n'),
            finds=f"file:{conf}",
            ladder=(
                (
                    "low",
                    "by-hand /etc/X11/xorg.conf",
                ),
                (
                    "medium",
                    "move-aside /etc/X11/xorg.conf",
                ),
            ),
        )
        yield Scenario("the driver is there", Machine.debian12_gpu().file(conf, GENERATED))
        yield Scenario("Ubuntu's place of the driver", Machine.ubuntu2404_gpu().file(conf, GENERATED))
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
        yield Scenario("no configuration at all", Machine.debian12())
        yield Scenario("a configuration that is no file", plain().fifo(conf), unknown=True)


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


def _missing(name: str, display: DisplaySetup, packages: Packages | None, libraries: DriverLibraries | None) -> str:
    """What the named driver lacks; "" for nothing, or where it can't be said."""
    if name in _GENERIC:
        return ""
    if name == "nvidia" and display.devices and not any(d.vendor == _VENDOR for d in display.devices):
        return "no NVIDIA GPU is on the PCI bus"
    if name in display.drivers:
        return ""
    if name != "nvidia":
        return f"there is no {name}_drv.so" if display.drivers else ""
    if packages and any(packages.installed(pattern) for pattern in _X_DRIVER_PACKAGES):
        return ""  # its file is missing for another reason, which others look for
    # Where no driver of X is seen at all, only some files of the machine may be here.
    if not display.drivers and libraries and libraries.libraries:
        return ""
    return "there is no nvidia_drv.so"


def _absence(name: str, missing: str) -> tuple[str, str]:
    return (
        ("/sys/bus/pci/devices", missing) if "PCI" in missing else (f"{name}_drv.so", "not in any folder of X drivers")
    )
