"""The NVIDIA driver is installed, but there is no NVIDIA GPU on the PCI bus.

What you see
    lspci shows no NVIDIA device.

    nvidia-smi: No devices were found, or it couldn't communicate with the driver.
Why
    Common reasons: the card, its cable or riser is loose or has no power. The slot or the laptop's second GPU is
    switched off in the firmware, or by a udev rule that a removed tool left. An external GPU is not plugged in. A
    virtual machine has no GPU assigned. The driver packages are not the reason.

    If a GPU fell off the bus while the machine ran, the kernel log says so (Xid 79).
Repair
    Make the GPU visible again, by hand. If somebody switched it off, or if the machine never had one, nothing is
    wrong.
What the repair risks
    Nothing on the disk changes.
By hand
    lspci -nn -d 10de:
    echo 1 > /sys/bus/pci/rescan
    # On a laptop with Ubuntu:
    prime-select on-demand
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
        how = f": {off.source} switches it off at each boot" if off else ""
        if absent.seen and not off:
            how = f"; earlier there was one at {absent.address}"
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
            text = f"the tool that wrote {off} is not installed: move this file out of the way, then reboot"
            yield Plan("If you want to use the GPU, switch it on", Risk.MEDIUM, (ByHand(text),), reboot=True)
            return
        steps = (
            "power the machine off, reseat the card, its riser and its power cables (or the cable of an external GPU), and power it on",
            "check in the firmware's setup menu whether the slot or the second GPU is switched off; if this is a virtual machine, assign a GPU to it",
        )
        yield Plan("Make the GPU visible on the bus again", Risk.LOW, tuple(ByHand(s) for s in steps), reboot=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        bus = "/sys/bus/pci/devices/0000:00:02.0/vendor"

        def ubuntu() -> Machine:
            return Machine.ubuntu2404().ubuntu_driver(loaded=False).file(bus, "0x8086\n")

        yield Scenario(
            "the bus had a card earlier",
            Machine.debian12()
            .debian_driver(loaded=False)
            .file(bus, "0x8086\n")
            .says("kernel", "pci 0000:01:00.0: [10de:1b06] type 00 class 0x030000", -5000.0),
            finds="host",
            ladder=(
                (
                    "low reboot",
                    "by-hand power machine reseat card riser cables",
                    "by-hand check firmware's setup menu whether slot",
                ),
            ),
        )
        yield Scenario("no trace of a GPU", ubuntu(), finds="host")
        yield Scenario(
            "the driver used a card earlier",
            Machine.debian12()
            .debian_driver(loaded=False)
            .file(bus, "0x8086\n")
            .says("kernel", "nvidia 0000:01:00.0: enabling device (0000 -> 0003)", -5000.0),
            finds="host",
        )
        removes = (
            'ACTION=="add", SUBSYSTEM=="pci", ATTR{vendor}=="0x10de", ATTR{class}=="0x03[0-9]*", ATTR{remove}="1"\n'
        )
        left = ubuntu().file(
            "/lib/udev/rules.d/50-pm-nvidia.rules", f"# Remove NVIDIA VGA/3D controller devices\n{removes}"
        )
        yield Scenario(
            "prime-select was uninstalled, its rule stayed",
            left,
            finds="host",
            ladder=(("medium reboot", "by-hand /usr/lib/udev/rules.d/50-pm-nvidia.rules:2"),),
        )
        yield Scenario(
            "switched off by prime-select",
            Machine.ubuntu2404()
            .ubuntu_driver(loaded=False)
            .file(bus, "0x8086\n")
            .file("/usr/bin/prime-select")
            .file("/lib/udev/rules.d/50-pm-nvidia.rules", removes),
        )
        yield Scenario("a GPU on the bus", Machine.debian12_gpu())
        yield Scenario("no driver", Machine.debian12().file(bus, "0x8086\n"))
        yield Scenario(
            "only another kernel has a module",
            Machine.debian12()
            .file(bus, "0x8086\n")
            .kernel("6.1.0-9-amd64", running=False)
            .debian_driver(kernels=("6.1.0-9-amd64",), loaded=False),
            alone=False,
        )
        yield Scenario("no PCI bus to read", Machine().os_release("debian", "12"), unknown=True)
