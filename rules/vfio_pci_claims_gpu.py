"""vfio-pci holds the GPU: it is kept for a virtual machine.

What you see
    NVRM: GPU 0000:01:00.0 is already bound to vfio-pci.
    nvidia-smi does not show the GPU.
Why
    Somebody set the machine up to hand the GPU to a virtual machine: its PCI ids stand in modprobe.d, on the kernel's
    command line or in the initramfs. What is left of that keeps the GPU from this system.
Repair
    If no virtual machine needs the GPU any more: take the ids away, rebuild the initramfs, restart.
What the repair risks
    A virtual machine that does use the GPU loses it; so a person decides.
By hand
    Remove ids=10de:... from /etc/modprobe.d or vfio-pci.ids= from the kernel's command line; update-initramfs -u; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DriverPackages,
    Evidence,
    Finding,
    Gpus,
    Kernel,
    Layer,
    Machine,
    ModprobeConfig,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)


class VfioPciClaimsGpu(Rule):
    id = "vfio-pci-claims-gpu"
    title = "vfio-pci holds the GPU"
    layer = Layer.KERNEL_MODULE
    stage = Stage.INITRAMFS
    severity = Severity.WARNING
    risk = Risk.MEDIUM
    explains = ("nvidia-module-not-loaded", "uvm-device-node-missing", "login-loop-glx-broken-driver-mismatch")

    def detect(
        self, gpus: Gpus, kernel: Kernel, config: ModprobeConfig, packages: DriverPackages | None
    ) -> Iterator[Finding]:
        others = [g for g in gpus.gpus if g.driver != "vfio-pci"]
        wanted = bool(packages and packages.version)
        for gpu in gpus.gpus:
            if gpu.driver != "vfio-pci":
                continue
            where = [
                Evidence(o.source, f"{o.directive} {o.module} {o.arguments}")
                for o in config.options("vfio-pci")
                if gpu.device in o.arguments.lower()
            ]
            if f"10de:{gpu.device}" in kernel.cmdline.lower():
                words = [w for w in kernel.cmdline.split() if "vfio" in w]
                where.append(Evidence("/proc/cmdline", " ".join(words)))
            yield self.finding(
                f"gpu:{gpu.address}",
                f"vfio-pci holds the {gpu.name} at {gpu.address}: it is kept for a virtual machine, and CUDA can't use it",
                Evidence(f"/sys/bus/pci/devices/{gpu.address}/driver", "vfio-pci"),
                *where,
                # A hypervisor does this on purpose; with an NVIDIA driver and no other GPU it makes no sense.
                severity=Severity.ERROR if wanted and not others else Severity.WARNING if wanted else Severity.NOTE,
                where=where[0].source if where else "the initramfs or a script",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Give the GPU back to this system, if no virtual machine needs it",
            Risk.MEDIUM,
            (
                ByHand(f"take the GPU's PCI id out of {finding.detail['where']}"),
                ByHand("update-initramfs -u -k all (and update-grub where the command line was changed), then restart"),
            ),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        debian = Machine.debian12().gpu(driver="vfio-pci").debian_driver(loaded=False)
        yield Scenario(
            "ids in modprobe.d",
            debian.file("/etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:1b06,10de:10ef\n"),
            finds=gpu,
        )
        yield Scenario(
            "ids on the command line",
            Machine.ubuntu2404()
            .gpu(driver="vfio-pci")
            .ubuntu_driver(loaded=False)
            .file("/proc/cmdline", "BOOT_IMAGE=/vmlinuz ro vfio-pci.ids=10de:1b06\n"),
            finds=gpu,
        )
        yield Scenario("a hypervisor, without the driver", Machine.debian12().gpu(driver="vfio-pci"), finds=gpu)
        yield Scenario("nvidia holds it", Machine.debian12_gpu())
        yield Scenario("no bus in sight", Machine().os_release("debian", "12"), unknown=True)
