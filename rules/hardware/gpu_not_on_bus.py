"""The NVIDIA driver is installed, and there is no NVIDIA GPU on the PCI bus.

What you see
    lspci shows no device of NVIDIA's; nvidia-smi: No devices were found, or it couldn't communicate with the driver.
Why
    The card, its cable or riser is loose, or has no power; it, or the laptop's second GPU, is switched off in the
    firmware or by a rule of udev that a removed tool left; an external GPU is not plugged in; a virtual machine
    was given none. No driver package has anything to do with it.
    A GPU that fell off the bus while the machine ran says so in the kernel log (Xid 79).
Repair
    By hand: let the GPU be seen again. Where somebody switched it off, or the machine never had one, nothing is wrong.
What the repair risks
    Nothing on the disk.
By hand
    lspci -nn -d 10de:; prime-select on-demand; echo 1 > /sys/bus/pci/rescan
"""

from collections.abc import Iterator

from dlhealth.api import (
    AbsentGpu,
    ByHand,
    Evidence,
    Finding,
    GpuSwitch,
    Kernel,
    KernelModules,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)


class GpuNotOnBus(Rule):
    id = "gpu-not-on-bus"
    title = "No NVIDIA GPU is on the PCI bus"
    stage = Stage.REBOOT
    severity = Severity.WARNING
    explains = ("stale-xorg-conf-nvidia",)

    def detect(self, absent: AbsentGpu, kernel: Kernel, modules: KernelModules, switch: GpuSwitch) -> Iterator[Finding]:
        disk = modules.on_disk(kernel.running)
        if disk is None or not absent.missing or switch.chosen:
            return
        off = switch.left_over[0] if switch.left_over else None
        how = f": {off.source} switches it off at each start" if off else ""
        if absent.seen and not off:
            how = f", although there was one at {absent.address}"
        yield self.finding(
            "host",
            f"NVIDIA driver {disk.version or disk.path} is installed, but no NVIDIA GPU is on the PCI bus{how}",
            Evidence("/sys/bus/pci/devices", "no display controller of vendor 10de"),
            Evidence(disk.path, disk.version),
            *(Evidence(b.source, b.text) for b in switch.left_over[:2]),
            *([absent.seen] if absent.seen else []),
            severity=Severity.WARNING if absent.seen and not off else Severity.NOTE,
            off=off.source if off else "",
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if off := finding.detail["off"]:
            text = f"its tool is gone: move the file of {off} away, then restart"
            yield Plan("Switch the GPU on again, if it is wanted", Risk.MEDIUM, (ByHand(text),), reboot=True)
            return
        steps = (
            "power the machine off, reseat the card, its riser and its power cables (or the cable of an external one), and start it",
            "look in the firmware's setup whether the slot or the second GPU is switched off; give a virtual machine its GPU",
        )
        yield Plan("Bring the GPU back to the bus", Risk.LOW, tuple(ByHand(s) for s in steps), reboot=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        bus = "/sys/bus/pci/devices/0000:00:02.0/vendor"
        ubuntu = Machine.ubuntu2404().ubuntu_driver(loaded=False).file(bus, "0x8086\n")
        yield Scenario(
            "a card that was there",
            Machine.debian12()
            .debian_driver(loaded=False)
            .file(bus, "0x8086\n")
            .says("kernel", "pci 0000:01:00.0: [10de:1b06] type 00 class 0x030000", -5000.0),
            finds="host",
        )
        yield Scenario("never seen", ubuntu, finds="host")
        yield Scenario(
            "a card that the driver had",
            Machine.debian12()
            .debian_driver(loaded=False)
            .file(bus, "0x8086\n")
            .says("kernel", "nvidia 0000:01:00.0: enabling device (0000 -> 0003)", -5000.0),
            finds="host",
        )
        removes = (
            'ACTION=="add", SUBSYSTEM=="pci", ATTR{vendor}=="0x10de", ATTR{class}=="0x03[0-9]*", ATTR{remove}="1"\n'
        )
        left = ubuntu.file(
            "/lib/udev/rules.d/50-pm-nvidia.rules", f"# Remove NVIDIA VGA/3D controller devices\n{removes}"
        )
        yield Scenario("prime-select is gone, its rule stayed", left, finds="host")
        yield Scenario(
            "switched off by prime-select",
            Machine.ubuntu2404()
            .ubuntu_driver(loaded=False)
            .file(bus, "0x8086\n")
            .file("/usr/bin/prime-select")
            .file("/lib/udev/rules.d/50-pm-nvidia.rules", removes),
        )
        yield Scenario("a GPU is there", Machine.debian12_gpu())
        yield Scenario("no driver", Machine.debian12().file(bus, "0x8086\n"))
        yield Scenario(
            "a module of another kernel only",
            Machine.debian12()
            .file(bus, "0x8086\n")
            .kernel("6.1.0-9-amd64", running=False)
            .debian_driver(kernels=("6.1.0-9-amd64",), loaded=False),
            alone=False,
        )
        yield Scenario("no bus in sight", Machine().os_release("debian", "12"), unknown=True)
