"""nova_core, the successor of nouveau, holds the GPU.

What you see
    NVRM: GPU 0000:01:00.0 is already bound to NovaCore.
    NVRM: No NVIDIA devices probed.
Why
    Some kernels from 7.0 on are built with nova_core, which takes Turing and newer GPUs. A blacklist that names nouveau
    alone does not stop it.
Repair
    Blacklist nova_core and nova_drm beside nouveau, rebuild the initramfs, restart. Only where the NVIDIA module for
    that kernel is there.
What the repair risks
    If the NVIDIA module can't load after all, the screen has no accelerated display until the blacklist is undone.
By hand
    printf 'blacklist nova_core\\nblacklist nova_drm\\n' > /etc/modprobe.d/blacklist-nova.conf
    update-initramfs -u -k all; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DriverPackages,
    Evidence,
    Finding,
    Gpus,
    Kernel,
    KernelModules,
    Layer,
    Machine,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    UpdateInitramfs,
    WriteFile,
)

PATH = "/etc/modprobe.d/blacklist-nova.conf"
TEXT = "blacklist nova_core\nblacklist nova_drm\n"
NAMES = ("novacore", "nova_core", "nova-core")


class NovaCoreClaimsGpu(Rule):
    id = "nova-core-claims-gpu"
    title = "nova_core holds the GPU instead of the NVIDIA driver"
    layer = Layer.KERNEL_MODULE
    stage = Stage.INITRAMFS
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("login-loop-glx-broken-driver-mismatch", "nvidia-module-not-loaded", "uvm-device-node-missing")

    def detect(
        self, gpus: Gpus, kernel: Kernel, modules: KernelModules, packages: DriverPackages | None
    ) -> Iterator[Finding]:
        if not modules.files and not (packages and packages.version):
            return
        disk = modules.on_disk(kernel.running)
        for gpu in gpus.gpus:
            if gpu.driver.lower() in NAMES:
                yield self.finding(
                    f"gpu:{gpu.address}",
                    f"{gpu.driver} holds the {gpu.name} at {gpu.address}, so the installed NVIDIA driver can't use it",
                    Evidence(f"/sys/bus/pci/devices/{gpu.address}/driver", gpu.driver),
                    Evidence(
                        f"/lib/modules/{kernel.running}",
                        f"{disk.path} {disk.version}" if disk else "no NVIDIA module for this kernel",
                    ),
                    module="yes" if disk else "",
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if not finding.detail["module"]:
            yield Plan(
                "First get the NVIDIA module built for this kernel",
                Risk.MEDIUM,
                (ByHand("build or install the NVIDIA module for this kernel, then run dlhealth doctor again"),),
            )
            return
        yield Plan(
            "Blacklist nova_core, rebuild the initramfs and restart",
            Risk.MEDIUM,
            (WriteFile(PATH, TEXT), UpdateInitramfs("all"), Reboot()),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "on Ubuntu, by its driver name",
            Machine.ubuntu2404().gpu("2684", driver="NovaCore").ubuntu_driver(loaded=False),
            finds=gpu,
        )
        yield Scenario(
            "by its module name",
            Machine.debian12().gpu("2684", driver="nova_core").debian_driver(loaded=False),
            finds=gpu,
        )
        yield Scenario("no NVIDIA driver wanted", Machine.debian12().gpu("2684", driver="NovaCore"))
        yield Scenario("nvidia holds it", Machine.debian12_gpu())
        yield Scenario("no bus in sight", Machine().os_release("debian", "12"), unknown=True)
