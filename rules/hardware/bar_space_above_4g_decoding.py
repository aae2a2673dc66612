"""The firmware gave the GPU no address space for its memory window (BAR).

What you see
    pci 0000:01:00.0: BAR 1 [mem size 0x10000000 64bit pref]: can't assign; no space

    NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:
    NVRM: BAR1 is 0M @ 0x0 (PCI:0000:14:00.0)

    nvidia-smi: No devices were found
Why
    A GPU needs windows of 256 MB to several GB in the machine's address space. Firmware that places them below 4 GB
    runs out of space, mostly with several GPUs, with a GPU that has much memory, or in a virtual machine.

    A window of only 256 MB (no Resizable BAR) is not a fault, and neither is a missing I/O window (BAR 5) or ROM.
Repair
    Switch Above 4G Decoding on in the firmware's setup menu, and the compatibility mode (CSM) off. Update the firmware
    if it has no such setting. A virtual machine needs a larger 64-bit window.
What the repair risks
    A system that was installed in the compatibility mode may not boot without it.
By hand
    journalctl -k -b | grep BAR
    lspci -vvs ADDRESS | grep Region
    # If the firmware has no setting, try the kernel parameter pci=realloc.
"""

from collections.abc import Iterator

from dlhealth.api import (
    BarSpace,
    ByHand,
    Evidence,
    Finding,
    Gpus,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)


class BarSpaceAbove4gDecoding(Rule):
    id = "bar-space-above-4g-decoding"
    title = "The firmware gave the GPU no address space"
    stage = Stage.REBOOT
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("gpu-not-driven", "nvidia-module-not-loaded", "rminitadapter-failed")

    def detect(self, space: BarSpace, gpus: Gpus | None) -> Iterator[Finding]:
        drivers = {g.address: g.driver for g in gpus.gpus} if gpus else {}
        for gpu in space.gpus:
            driver = drivers.get(gpu.address, "")
            if not gpu.driver_refused and driver == "nvidia":
                continue  # the driver drives it all the same
            yield self.finding(
                f"gpu:{gpu.address}",
                f"The GPU at {gpu.address} got no address space for BAR {gpu.bar}, so the driver cannot use it",
                *gpu.evidence,
                *([Evidence(f"/sys/bus/pci/devices/{gpu.address}/driver", driver or "none")] if gpus else []),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Give the GPU address space above 4 GB",
            Risk.MEDIUM,
            (
                ByHand(
                    "in the firmware's setup menu, switch Above 4G Decoding (and Resizable BAR) on and CSM off; update the"
                    " firmware if it has no such setting; for a virtual machine, enlarge its 64-bit PCI window"
                ),
                ByHand("if that is not possible: boot with the kernel parameter pci=realloc"),
            ),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu, resource = "gpu:0000:01:00.0", "/sys/bus/pci/devices/0000:01:00.0/resource"
        assigned = "0x00000000f6000000 0x00000000f6ffffff 0x0000000000040200\n"
        unset = assigned + "0x0000000000000000 0x000000000fffffff 0x000000002014220c\n"

        def down() -> Machine:
            return Machine.ubuntu2404().gpu(driver="").ubuntu_driver(loaded=False)

        ladder = (("medium reboot", "by-hand Above 4G CSM", "by-hand pci=realloc"),)
        yield Scenario(
            "the driver refuses it",
            down().says(
                "kernel",
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:#012NVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)",
            ),
            finds=gpu,
            ladder=ladder,
        )
        yield Scenario(
            "the kernel found no space, and sysfs shows none",
            down()
            .file(resource, unset)
            .says("kernel", "pci 0000:01:00.0: BAR 1 [mem size 0x10000000 64bit pref]: can't assign; no space", 1.0),
            finds=gpu,
            ladder=ladder,
        )
        yield Scenario(
            "the older form of the kernel's message",
            down().says("kernel", "pci 0000:01:00.0: BAR 1: no space for [mem size 0x10000000 64bit pref]", 1.0),
            finds=gpu,
            ladder=ladder,
        )
        yield Scenario(
            "a later try succeeded",
            Machine.ubuntu2404_gpu()
            .says("kernel", "pci 0000:01:00.0: BAR 1 [mem size 0x10000000 64bit pref]: failed to assign", 1.0)
            .says("kernel", "pci 0000:01:00.0: BAR 1 [mem 0x4000000000-0x400fffffff 64bit pref]: assigned", 1.1),
        )
        yield Scenario(
            "only the I/O window, and windows of virtual functions",
            down()
            .says("kernel", "pci 0000:01:00.0: BAR 5 [io  size 0x0080]: can't assign; no space", 1.0)
            .says("kernel", "pci 0000:01:00.0: VF BAR 0 [mem size 0x00040000 64bit pref]: can't assign; no space", 1.1)
            .says("kernel", "pci 0000:01:00.0: BAR 6: no space for [mem size 0x00080000 pref]", 1.2),
        )
        yield Scenario(
            "another device has no space",
            down().says(
                "kernel", "pci 0000:02:00.0: BAR 1 [mem size 0x10000000 64bit pref]: can't assign; no space", 1.0
            ),
        )
        yield Scenario(
            "the driver drives the GPU",
            Machine.ubuntu2404_gpu().says(
                "kernel", "pci 0000:01:00.0: BAR 3: failed to assign [mem size 0x02000000]", 1.0
            ),
        )
        yield Scenario("no log", down(), unknown=True)
