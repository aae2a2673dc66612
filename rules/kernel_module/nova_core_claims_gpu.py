"""nova_core, the successor of nouveau, holds the GPU.

What you see
    NVRM: GPU 0000:01:00.0 is already bound to NovaCore.

    NVRM: No NVIDIA devices probed.
Why
    Some kernels from 7.0 on include nova_core, which takes Turing and newer GPUs. A blacklist of nouveau alone does
    not stop it. Packaged drivers blacklist nova_core too; older .run files do not.

    dlhealth does not report nova_core if no NVIDIA driver is installed.
Repair
    Blacklist nova_core, nova_drm and nouveau, rebuild the initramfs, and reboot. dlhealth does this only if the
    kernel that boots next has an NVIDIA module.
What the repair risks
    If the NVIDIA module still fails to load, the screen has no acceleration until you undo the blacklist.
By hand
    f=/etc/modprobe.d/dlhealth-nova.conf
    printf 'blacklist %s\\n' nova_core nova_drm nouveau > $f
    update-initramfs -u -k all
    systemctl reboot
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
# The driver's name is NovaCore, its module's name nova_core.
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
                f"{gpu.driver} holds the {gpu.name} at {gpu.address}, so the installed NVIDIA driver cannot use it",
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
                "First build the NVIDIA module",
                Risk.MEDIUM,
                (ByHand(f"build or install the NVIDIA module for {lacking}, then run dlhealth doctor again"),),
            )
            return
        text = "".join(f"blacklist {m}\n" for m in finding.detail["missing"])
        yield Plan(
            "Blacklist nova_core, rebuild the initramfs and reboot",
            Risk.MEDIUM,
            (*((WriteFile(PATH, text),) if text else ()), UpdateInitramfs("all"), Reboot()),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "on Ubuntu, under its driver name",
            Machine.ubuntu2404().gpu("2684", driver="NovaCore").ubuntu_driver(loaded=False),
            finds=gpu,
            steps=("write-file", "update-initramfs", "reboot"),
            alone=False,
            ladder=(
                (
                    "medium reboot",
                    "write-file /etc/modprobe.d/dlhealth-nova.conf blacklist nova_core / blacklist nova_drm",
                    "update-initramfs all",
                    "reboot",
                ),
            ),  # Ubuntu's file blacklists nouveau, but this initramfs does not
        )
        yield Scenario(
            "under its module name",
            Machine.debian12().gpu("2684", driver="nova_core").debian_driver(loaded=False),
            finds=gpu,
            alone=False,  # this initramfs does not blacklist nouveau
        )
        yield Scenario(
            "without a module for this kernel, building it comes first",
            Machine.debian12()
            .gpu("2684", driver="NovaCore")
            .nvidia_module("6.1.0-49-amd64", "535.183.01", name="nvidia.ko", place="kernel/drivers/video"),
            finds=gpu,
            alone=False,
            ladder=(("medium", "by-hand 6.1.0-50-amd64"),),  # only a module is installed
        )
        yield Scenario("no NVIDIA driver installed", Machine.debian12().gpu("2684", driver="NovaCore"))
        yield Scenario("the GPU uses nvidia", Machine.debian12_gpu())
        yield Scenario("no PCI bus to read", Machine().os_release("debian", "12"), unknown=True)
