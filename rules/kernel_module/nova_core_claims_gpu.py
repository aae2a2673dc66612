"""nova_core, the successor of nouveau, holds the GPU.

What you see
    NVRM: GPU 0000:01:00.0 is already bound to NovaCore.
    NVRM: No NVIDIA devices probed.
Why
    Some kernels from 7.0 on are built with nova_core, which takes Turing and newer GPUs. A blacklist that names nouveau
    alone does not stop it. Packaged drivers were taught to blacklist it; a .run file was not.
    Without an NVIDIA driver it is right where it is.
Repair
    Blacklist nova_core and nova_drm beside nouveau, rebuild the initramfs, restart. Only where the NVIDIA module for
    the kernel that comes up then is there.
What the repair risks
    If the NVIDIA module can't load after all, the screen has no accelerated display until the blacklist is undone.
By hand
    printf 'blacklist nova_core\\nblacklist nova_drm\\nblacklist nouveau\\n' > /etc/modprobe.d/dlhealth-nova.conf
    update-initramfs -u -k all; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Kernel,
    Machine,
    ModprobeConfig,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
    Usurpers,
    WriteFile,
)

PATH = "/etc/modprobe.d/dlhealth-nova.conf"
MODULES = ("nova_core", "nova_drm", "nouveau")
# The driver calls itself NovaCore; its module is nova_core.
NAMES = ("novacore", "nova_core", "nova-core", "nova")


class NovaCoreClaimsGpu(Rule):
    id = "nova-core-claims-gpu"
    title = "nova_core holds the GPU instead of the NVIDIA driver"
    stage = Stage.INITRAMFS
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("nvidia-module-not-loaded",)

    def detect(self, usurpers: Usurpers, kernel: Kernel, config: ModprobeConfig | None) -> Iterator[Finding | Unknown]:
        yield from usurpers.doubts
        missing = [m for m in MODULES if not (config and config.blacklists(m))]
        for gpu in usurpers.held_by(*NAMES):
            yield self.finding(
                f"gpu:{gpu.address}",
                f"{gpu.driver} holds the {gpu.name} at {gpu.address}, so the installed NVIDIA driver can't use it",
                Evidence(f"/sys/bus/pci/devices/{gpu.address}/driver", gpu.driver),
                Evidence("/etc/modprobe.d", f"not blacklisted: {', '.join(missing) or 'none'}"),
                usurpers.module,
                about=[f"kernel:{kernel.running}"] if kernel.running else (),
                lacking=usurpers.lacking,
                missing=missing,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if lacking := finding.detail["lacking"]:
            yield Plan(
                "First get the NVIDIA module built",
                Risk.MEDIUM,
                (ByHand(f"build or install the NVIDIA module for {lacking}, then run dlhealth doctor again"),),
            )
            return
        text = "".join(f"blacklist {m}\n" for m in finding.detail["missing"])
        yield Plan(
            "Blacklist nova_core, rebuild the initramfs and restart",
            Risk.MEDIUM,
            (*((WriteFile(PATH, text),) if text else ()), UpdateInitramfs("all"), Reboot()),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "on Ubuntu, by its driver name",
            Machine.ubuntu2404().gpu("2684", driver="NovaCore").ubuntu_driver(loaded=False),
            finds=gpu,
            steps=("write-file", "update-initramfs", "reboot"),
            alone=False,  # Ubuntu's file blacklists nouveau, which is not in this initramfs
        )
        yield Scenario(
            "by its module name",
            Machine.debian12().gpu("2684", driver="nova_core").debian_driver(loaded=False),
            finds=gpu,
            alone=False,  # the same
        )
        yield Scenario(
            "no module for this kernel is worth a step of its own",
            Machine.debian12()
            .gpu("2684", driver="NovaCore")
            .nvidia_module("6.1.0-49-amd64", "535.183.01", name="nvidia.ko", place="kernel/drivers/video"),
            finds=gpu,
            alone=False,  # nothing but a module is installed
        )
        yield Scenario("no NVIDIA driver wanted", Machine.debian12().gpu("2684", driver="NovaCore"))
        yield Scenario("nvidia holds it", Machine.debian12_gpu())
        yield Scenario("no bus in sight", Machine().os_release("debian", "12"), unknown=True)
