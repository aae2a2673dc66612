"""The driver refused to suspend, because nothing told it to save the video memory.

What you see
    NVRM: GPU 0000:05:00.0: PreserveVideoMemoryAllocations module parameter is set. System Power Management attempted
    without driver procfs suspend interface.

    The machine does not suspend, or wakes up with a black or broken screen.
Why
    With NVreg_PreserveVideoMemoryAllocations=1 the driver saves the video memory before a suspend. The units
    nvidia-suspend, nvidia-hibernate and nvidia-resume tell it when. They are not installed or not enabled.

    A server that never suspends needs neither the option nor the units.
Repair
    Enable the units. If they do not exist, install the driver's package that has them, or remove the option.
What the repair risks
    The file for the video memory needs as much free space as the GPU has memory: point NVreg_TemporaryFilePath to a
    disk, not to /tmp in memory. On some machines the suspend still fails with the option.
By hand
    systemctl enable nvidia-suspend.service nvidia-hibernate.service nvidia-resume.service
    grep -r PreserveVideoMemoryAllocations /etc/modprobe.d /usr/lib/modprobe.d
    # In /etc/modprobe.d, name a disk for the video memory:
    # options nvidia NVreg_TemporaryFilePath=/var/tmp
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    MakeDirectory,
    MakeLink,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    SuspendSetup,
)

UNITS = ("nvidia-suspend.service", "nvidia-hibernate.service", "nvidia-resume.service")

ETC, UNIT_FOLDER = "/etc/systemd/system", "/usr/lib/systemd/system"
SUSPEND, HIBERNATE = "systemd-suspend.service", "systemd-hibernate.service"
SLEEPS = dict(zip(UNITS, ((SUSPEND,), (HIBERNATE,), (SUSPEND, HIBERNATE)), strict=True))
"""What each unit is enabled for, by its [Install] section."""


class ResumeBlackScreenVramNotPreserved(Rule):
    id = "resume-black-screen-vram-not-preserved"
    title = "The driver cannot save the video memory before a suspend"
    stage = Stage.MODULE
    severity = Severity.WARNING

    def detect(self, setup: SuspendSetup) -> Iterator[Finding]:
        lacking = (*setup.missing, *setup.disabled)
        if not setup.refused or setup.preserves is False or not (lacking or setup.unseen):
            return
        if not lacking:
            yield self.finding(
                "host",
                "The driver refused a suspend: it must save the video memory, but nothing told it to "
                f"({UNITS[0]} is probably not enabled)",
                Evidence(setup.refused.source, setup.refused.text.strip()[:200]),
                missing=False,
            )
            return
        what = "installed" if setup.missing else "enabled"
        yield self.finding(
            "host",
            f"The driver refused a suspend: it must save the video memory, but {lacking[0]} is not {what}",
            Evidence(setup.refused.source, setup.refused.text.strip()[:200]),
            *(Evidence(unit, "not installed") for unit in setup.missing),
            *(Evidence(unit, "nothing starts it") for unit in setup.disabled),
            missing=bool(setup.missing),
            disabled=setup.disabled,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if not finding.detail["missing"] and (disabled := finding.detail.get("disabled")):
            links = [(f"{ETC}/{sleep}.requires", unit) for unit in disabled for sleep in SLEEPS[unit]]
            folders = (MakeDirectory(folder) for folder in dict.fromkeys(folder for folder, _ in links))
            made = (MakeLink(f"{folder}/{unit}", f"{UNIT_FOLDER}/{unit}") for folder, unit in links)
            yield Plan("Let systemd tell the driver before a suspend", Risk.MEDIUM, (*folders, *made))
            return
        if finding.detail["missing"]:
            text = (
                "install the driver's package with nvidia-suspend.service (Debian: nvidia-suspend-common; Ubuntu:"
                " nvidia-kernel-common-NNN), or remove NVreg_PreserveVideoMemoryAllocations=1 from /etc/modprobe.d and run"
                " update-initramfs -u"
            )
        else:
            text = f"systemctl enable {' '.join(UNITS)}; the file needs as much space as the GPU has memory"
        yield Plan("Let systemd tell the driver before a suspend", Risk.MEDIUM, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        folder, wants = UNIT_FOLDER, f"{ETC}/systemd-{{}}.service.requires"
        kinds = {"nvidia-suspend": "suspend", "nvidia-hibernate": "hibernate", "nvidia-resume": "suspend"}

        def refused(*, units: bool = True) -> Machine:
            machine = (
                Machine.ubuntu2404_gpu()
                .says(
                    "kernel",
                    "NVRM: GPU 0000:01:00.0: PreserveVideoMemoryAllocations module parameter is set. System Power Management "
                    "attempted without driver procfs suspend interface. Please refer to the 'Configuring Power Management "
                    "Support' section in the driver README.",
                )
                .folder(ETC)
            )
            for unit in kinds if units else ():
                machine.file(f"{folder}/{unit}.service", "[Service]\n")
            return machine

        yield Scenario(
            "the units are not enabled",
            refused(),
            finds="host",
            ladder=(
                (
                    "medium",
                    f"make-directory {ETC}/{SUSPEND}.requires",
                    f"make-directory {ETC}/{HIBERNATE}.requires",
                    *(
                        f"make-link {ETC}/{sleep}.requires/{unit} {folder}/{unit}"
                        for unit, sleeps in SLEEPS.items()
                        for sleep in sleeps
                    ),
                ),
            ),
            steps=("make-directory", "make-link"),
        )
        yield Scenario(
            "the units are not installed",
            refused(units=False),
            finds="host",
            ladder=(("medium", "by-hand nvidia-suspend-common"),),
        )
        enabled = refused()
        for unit, kind in kinds.items():
            enabled.link(f"{wants.format(kind)}/{unit}.service", f"{folder}/{unit}.service")
        yield Scenario("enabled since", enabled)
        yield Scenario(
            "a server that never suspended", Machine.ubuntu2404_gpu().says("kernel", "NVRM: loading NVIDIA UNIX")
        )
        yield Scenario(
            "before the last boot",
            refused().says("kernel", "Linux version 6.8.0-50-generic (buildd@lcy02)", 9000.0),
        )
        yield Scenario("no log", Machine.ubuntu2404_gpu(), unknown=True)
