"""nouveau holds the GPU, so the NVIDIA driver that is installed can't have it.

What you see
    NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.
    ERROR: Unable to load the kernel module 'nvidia.ko' (.run installer)
Why
    The kernel brings its own driver, nouveau, which takes the GPU at the start unless it is told not to. No file in
    modprobe.d tells it: a partial installation, or a .run installer that was not allowed to.
Repair
    Blacklist nouveau, rebuild the initramfs, and restart. Only where the NVIDIA module for that kernel is there.
What the repair risks
    If the NVIDIA module can't load after all, the screen has no accelerated display until the blacklist is undone.
By hand
    printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' > /etc/modprobe.d/blacklist-nouveau.conf
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
    ModprobeConfig,
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

PATH = "/etc/modprobe.d/blacklist-nouveau.conf"
TEXT = "blacklist nouveau\noptions nouveau modeset=0\n"


class NouveauBoundInsteadOfNvidia(Rule):
    id = "nouveau-bound-instead-of-nvidia"
    title = "nouveau holds the GPU instead of the NVIDIA driver"
    layer = Layer.KERNEL_MODULE
    stage = Stage.INITRAMFS
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("login-loop-glx-broken-driver-mismatch", "nvidia-module-not-loaded", "uvm-device-node-missing")

    def detect(
        self,
        gpus: Gpus,
        kernel: Kernel,
        modules: KernelModules,
        config: ModprobeConfig,
        packages: DriverPackages | None,
    ) -> Iterator[Finding]:
        if not modules.files and not (packages and packages.version):
            return  # nobody wants the NVIDIA driver: nouveau is right
        lines = config.blacklists("nouveau")
        disk = modules.on_disk(kernel.running)
        for gpu in gpus.gpus:
            if gpu.driver != "nouveau":
                continue
            yield self.finding(
                f"gpu:{gpu.address}",
                f"nouveau holds the {gpu.name} at {gpu.address}, so the installed NVIDIA driver can't use it",
                Evidence(f"/sys/bus/pci/devices/{gpu.address}/driver", "nouveau"),
                Evidence(
                    "/etc/modprobe.d",
                    f"{lines[0].source}: blacklist nouveau" if lines else "nothing blacklists nouveau",
                ),
                Evidence(
                    f"/lib/modules/{kernel.running}",
                    f"{disk.path} {disk.version}" if disk else "no NVIDIA module for this kernel",
                ),
                module="yes" if disk else "",
                blacklisted="yes" if lines else "",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if not finding.detail["module"]:
            yield Plan(
                "First get the NVIDIA module built for this kernel: without it, nouveau is all that draws the screen",
                Risk.MEDIUM,
                (ByHand("build or install the NVIDIA module for this kernel, then run dlhealth doctor again"),),
            )
            return
        write = () if finding.detail["blacklisted"] else (WriteFile(PATH, TEXT),)
        yield Plan(
            "Blacklist nouveau, rebuild the initramfs and restart",
            Risk.MEDIUM,
            (*write, UpdateInitramfs("all"), Reboot()),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        runfile = (
            Machine.debian12()
            .gpu(driver="nouveau")
            .nvidia_module("6.1.0-50-amd64", "535.183.01", name="nvidia.ko", place="kernel/drivers/video")
        )
        # A module alone is no driver: its libraries are missing too.
        yield Scenario("a module without a blacklist", runfile, finds=gpu, alone=False)
        ubuntu = Machine.ubuntu2404().gpu(driver="nouveau").ubuntu_driver(loaded=False)
        yield Scenario(
            "packages whose blacklist was removed",
            ubuntu.remove("/usr/lib/modprobe.d/nvidia-graphics-drivers.conf"),
            finds=gpu,
        )
        yield Scenario(
            "no module for this kernel is the cause",
            Machine.debian12().gpu(driver="nouveau").debian_driver(kernels=(), loaded=False),
            finds=gpu,
            causes=("dkms-module-missing-for-running-kernel",),
        )
        yield Scenario("no NVIDIA driver wanted", Machine.debian12().gpu(driver="nouveau"))
        yield Scenario("nvidia holds it", Machine.debian12_gpu())
        yield Scenario(
            "nouveau is loaded but holds nothing",
            Machine.debian12_gpu().append("/proc/modules", "nouveau 2400256 0 - Live 0x0\n"),
        )
        yield Scenario("no bus in sight", Machine().os_release("debian", "12"), unknown=True)
