"""The machine froze at the login screen with nvidia-drm modeset=1, and starts without it.

What you see
    The boot ends with a black or frozen screen, and Ctrl+Alt+F3 does nothing.

    With nomodeset, or without nvidia-drm.modeset=1, the login screen appears.
Why
    With modeset=1, the driver sets the modes of the screens itself. Some combinations of driver, kernel and desktop
    freeze with it, mostly on laptops with two GPUs and with older driver branches.

    Newer drivers have this setting by default. It is a fault only if the machine freezes with it.
Repair
    Remove the setting, and rebuild the initramfs. Try it again after the next driver upgrade.
What the repair risks
    Without the setting, Wayland sessions may not be offered.
By hand
    grep -rs modeset /etc/modprobe.d /usr/lib/modprobe.d /etc/default/grub
    # If it is a kernel parameter: remove it in /etc/default/grub, then:
    update-grub
    # If it is an option of the module: remove the line, then:
    update-initramfs -u -k all
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Journal,
    Machine,
    Modeset,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Sessions,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
    WriteFile,
)

OVERRIDE = "/etc/modprobe.d/zz-dlhealth-nvidia-drm.conf"
TEXT = "# The machine froze at the login screen with modeset=1.\noptions nvidia-drm modeset=0\n"
SHUTDOWN = r"System is (?:powering down|rebooting|halting)|Powering Off|Rebooting\.|reboot: "


class NvidiaDrmModesetFreeze(Rule):
    id = "nvidia-drm-modeset-freeze"
    title = "The machine froze with nvidia-drm modeset=1"
    stage = Stage.INITRAMFS
    severity = Severity.WARNING
    risk = Risk.MEDIUM

    def detect(self, modeset: Modeset, journal: Journal, sessions: Sessions) -> Iterator[Finding | Unknown]:
        if not modeset.setting or not modeset.without:
            return
        if len(journal.boots) < 2:
            yield Unknown("the log does not contain the previous boot")
            return
        before = journal.boots[-2]
        ended = any(line.boot == before for line in journal.matching(SHUTDOWN))
        if ended or sessions.of_boot(before).sessions:
            return
        last = next(line for line in reversed(journal.lines) if line.boot == before)
        yield self.finding(
            "host",
            f"The previous boot froze before a login, with {modeset.line}; this boot, with {modeset.without}, works",
            Evidence(modeset.setting, modeset.line),
            Evidence("/proc/cmdline", modeset.without),
            Evidence(last.source, f"the last line of that boot: {last.text.strip()[:150]}"),
            setting=modeset.setting,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        setting = finding.detail["setting"]
        if setting.line is None:
            text = "remove nvidia-drm.modeset=1 from GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, run update-grub, and reboot"
            yield Plan("Remove the kernel parameter", Risk.MEDIUM, (ByHand(text),), reboot=True)
            return
        # Packages write their own file again; of two values, the module takes the last.
        steps = (WriteFile(OVERRIDE, TEXT), UpdateInitramfs("all"), Reboot())
        yield Plan("Switch modeset off", Risk.MEDIUM, steps, reboot=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        started = "BOOT_IMAGE=/boot/vmlinuz-6.8.0-50-generic root=/dev/sda1 ro"
        steps = ("write-file", "update-initramfs", "reboot")
        menu = (
            "menuentry 'Ubuntu' {\n  linux /boot/vmlinuz-6.8.0-50-generic root=/dev/sda1 ro nvidia-drm.modeset=1\n}\n"
        )

        def froze(machine: Machine, *said: str, word: str = "nomodeset") -> Machine:
            machine.file("/proc/cmdline", f"{started} {word}\n")
            machine.says("kernel", "Linux version 6.8.0-50-generic (buildd@lcy02)", 100.0)
            machine.says("kernel", "[drm] [nvidia-drm] [GPU ID 0x00000100] Loading driver", 104.0)
            for number, text in enumerate(said):
                machine.says("systemd-logind", text, 200.0 + number)
            return machine.says("kernel", "Linux version 6.8.0-50-generic (buildd@lcy02)", 900.0)

        yield Scenario(
            "started with nomodeset",
            froze(Machine.ubuntu2404_gpu()),
            finds="host",
            ladder=(
                (
                    "medium reboot",
                    f"write-file {OVERRIDE} options nvidia-drm modeset=0",
                    "update-initramfs all",
                    "reboot",
                ),
            ),
            steps=steps,
        )
        yield Scenario(
            "started with another value",
            froze(Machine.ubuntu2404_gpu(), word="nvidia-drm.modeset=0"),
            finds="host",
            steps=steps,
        )
        yield Scenario(
            "switched on by the boot loader",
            froze(Machine.ubuntu2404_gpu().file("/boot/grub/grub.cfg", menu)),
            finds="host",
            ladder=(("medium reboot", "by-hand nvidia-drm.modeset=1 /etc/default/grub update-grub reboot"),),
        )
        yield Scenario("started as usual", froze(Machine.ubuntu2404_gpu(), word="quiet"))
        yield Scenario("shut down by its owner", froze(Machine.ubuntu2404_gpu(), "System is rebooting."))
        yield Scenario("a driver without the setting", froze(Machine.debian12_gpu()))
        yield Scenario(
            "no start before this one",
            Machine.ubuntu2404_gpu()
            .file("/proc/cmdline", f"{started} nomodeset\n")
            .says("kernel", "Linux version 6.8.0-50-generic (buildd@lcy02)", 900.0),
            unknown=True,
        )
