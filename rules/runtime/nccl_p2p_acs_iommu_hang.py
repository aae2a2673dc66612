"""The IOMMU refuses direct transfers between GPUs. Programs on several GPUs may hang or compute wrong results.

What you see
    Training on several GPUs hangs at the first step: the GPUs show 100 % use, and nothing is computed

    With NCCL_P2P_DISABLE=1 it works. In the kernel log: AMD-Vi: Event logged [IO_PAGE_FAULT …
Why
    GPUs write directly into each other's memory (peer to peer). An IOMMU that translates addresses does not know these
    transfers and refuses them. ACS on PCIe bridges sends all transfers through the IOMMU; many boards turn it on.

    One GPU alone is not affected. GeForce cards without peer to peer are not affected either: then NCCL copies through
    the main memory.
Repair
    Let the IOMMU pass addresses unchanged (iommu=pt), or turn off IOMMU and ACS in the firmware. Until then, set
    NCCL_P2P_DISABLE=1, which is only slower.
What the repair risks
    Without an IOMMU, no device can be passed to a virtual machine, and devices may access all memory.
By hand
    journalctl -k -b | grep -E 'IO_PAGE_FAULT|DMAR:.*fault'
    cat /sys/bus/pci/devices/0000:01:00.0/iommu_group/type
    export NCCL_P2P_DISABLE=1
    # In /etc/default/grub, then update-grub and a reboot:
    GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    GpuIommu,
    Gpus,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    count,
)


class NcclP2pAcsIommuHang(Rule):
    id = "nccl-p2p-acs-iommu-hang"
    title = "The IOMMU refuses direct transfers between GPUs"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    risk = Risk.MEDIUM

    def detect(self, gpus: Gpus, iommu: GpuIommu) -> Iterator[Finding | Unknown]:
        usable = [g for g in gpus.gpus if not g.passed_through]
        if len(usable) < 2:
            return
        yield from (Unknown(problem) for problem in iommu.problems)
        refused = [r for r in iommu.refused if r.address in {g.address for g in usable}]
        if not refused:
            return
        names = " and ".join(r.address for r in refused)
        yield self.finding(
            "host",
            f"The IOMMU refused transfers of the GPU{'s' * (len(refused) > 1)} {names}: programs on several GPUs may hang",
            *(Evidence(r.line.source, f"{r.line.text.strip()[:160]} ({count(r.times, 'time')})") for r in refused[:4]),
            *(Evidence(path, "translates (DMA)") for path in list(iommu.translated.values())[:2]),
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = (
            "run programs with NCCL_P2P_DISABLE=1 (export it in ~/.profile): NCCL then copies through the main memory"
        )
        yield Plan("Turn off direct transfers", Risk.LOW, (ByHand(text),))
        text = (
            "add iommu=pt to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, run update-grub and reboot; if the messages "
            "remain, turn off ACS and IOMMU in the firmware's setup menu"
        )
        yield Plan("Let the IOMMU pass addresses unchanged", Risk.MEDIUM, (ByHand(text),), reboot=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(*messages: str, gpus: int = 2, kind: str = "DMA-FQ") -> Machine:
            machine = Machine.ubuntu2404_gpu()
            for number in range(1, gpus):
                machine.gpu(address=f"0000:0{number + 1}:00.0")
            for number in range(gpus):
                machine.file(f"/sys/bus/pci/devices/0000:0{number + 1}:00.0/iommu_group/type", f"{kind}\n")
            for number, message in enumerate(messages):
                machine.says("kernel", message, 4000.0 + number)
            return machine

        amd = "nvidia 0000:0{}:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0003 address=0x80000040 flags=0x0020]"
        intel = "DMAR: [DMA Write NO_PASID] Request device [02:00.0] fault addr 0x38ffe0000000 [fault reason 0x05] PTE Write access is not set"
        yield Scenario(
            "two GPUs on an AMD board",
            machine(amd.format(1), amd.format(1), amd.format(2)),
            finds="host",
            ladder=(("low", "by-hand NCCL_P2P_DISABLE=1"), ("medium reboot", "by-hand iommu=pt")),
        )
        yield Scenario("two GPUs on an Intel board", machine(intel, kind="DMA"), finds="host")
        yield Scenario("nothing was refused", machine("usb 1-1: new device"))
        yield Scenario("another device", machine(amd.format(9)))
        yield Scenario("only one GPU", machine(amd.format(1), gpus=1))
        yield Scenario(
            "the type cannot be read",
            machine("usb 1-1: new device").fifo("/sys/bus/pci/devices/0000:02:00.0/iommu_group/type"),
            unknown=True,
        )
