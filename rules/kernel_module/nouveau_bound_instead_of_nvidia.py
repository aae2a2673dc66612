"""nouveau holds the GPU, so the NVIDIA driver that is installed can't have it.

What you see
    NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.
    ERROR: Unable to load the kernel module 'nvidia.ko' (.run installer)
    lspci -nnk: Kernel driver in use: nouveau
Why
    The kernel brings its own driver, nouveau, which takes the GPU at the start unless it is told not to. No file in
    modprobe.d tells it: a partial installation, or a .run installer that was not allowed to.
    Without an NVIDIA driver, and for a GPU that the installed one does not support, nouveau is right where it is. A
    nouveau module that is loaded but holds no GPU does no harm.
Repair
    Blacklist nouveau, rebuild the initramfs, and restart. Only where the NVIDIA module for the kernel that comes up
    then is there.
What the repair risks
    If the NVIDIA module can't load after all, the screen has no accelerated display until the blacklist is undone.
By hand
    printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' > /etc/modprobe.d/dlhealth-nouveau.conf
    update-initramfs -u -k all; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    GlxAlternative,
    GpuSwitch,
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

PATH = "/etc/modprobe.d/dlhealth-nouveau.conf"
TEXT = "# nouveau takes the GPU before the NVIDIA driver can.\nblacklist nouveau\noptions nouveau modeset=0\n"


class NouveauBoundInsteadOfNvidia(Rule):
    id = "nouveau-bound-instead-of-nvidia"
    title = "nouveau holds the GPU instead of the NVIDIA driver"
    stage = Stage.INITRAMFS
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("nvidia-module-not-loaded",)

    def detect(
        self,
        usurpers: Usurpers,
        kernel: Kernel,
        config: ModprobeConfig | None,
        switch: GpuSwitch | None,
        glx: GlxAlternative | None,
    ) -> Iterator[Finding | Unknown]:
        yield from usurpers.doubts
        if switch and switch.chosen:
            return  # who switched NVIDIA's module off wants nouveau, or no driver at all
        wanted = glx is not None and glx.manual and glx.glx is not None and "mesa" in glx.glx.target
        lines = config.blacklists("nouveau") if config else ()
        for gpu in usurpers.held_by("nouveau"):
            yield self.finding(
                f"gpu:{gpu.address}",
                f"nouveau holds the {gpu.name} at {gpu.address}, so the installed NVIDIA driver can't use it",
                Evidence(f"/sys/bus/pci/devices/{gpu.address}/driver", "nouveau"),
                Evidence(lines[0].source, "blacklist nouveau")
                if lines
                else Evidence("/etc/modprobe.d", "nothing blacklists nouveau"),
                usurpers.module,
                # What only the next kernel lacks is no reason for what is so now.
                about=[f"kernel:{kernel.running}"] if kernel.running else (),
                severity=Severity.NOTE if wanted else Severity.ERROR,
                wanted=wanted,
                lacking=usurpers.lacking,
                blacklisted=bool(lines),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail["wanted"]:
            text = "sudo update-glx --auto glx, then restart"
            yield Plan("Use NVIDIA's driver again, if you want to: Mesa was chosen by hand", Risk.LOW, (ByHand(text),))
            return
        if lacking := finding.detail["lacking"]:
            yield Plan(
                "First get the NVIDIA module built: without it, nouveau is all that draws the screen",
                Risk.MEDIUM,
                (ByHand(f"build or install the NVIDIA module for {lacking}, then run dlhealth doctor again"),),
            )
            return
        write = () if finding.detail["blacklisted"] else (WriteFile(PATH, TEXT),)
        yield Plan(
            "Blacklist nouveau, rebuild the initramfs and restart"
            if write
            else "Rebuild the initramfs with the blacklist that is there, and restart",
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
        yield Scenario(
            "Mesa was chosen by hand",
            Machine.debian12()
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .remove("/etc/modprobe.d/nvidia-blacklists-nouveau.conf")
            .link("/etc/alternatives/glx", "/usr/lib/mesa-diverted")
            .file(
                "/var/lib/dpkg/alternatives/glx",
                "manual\n/usr/lib/glx\n\n/usr/lib/mesa-diverted\n5\n/usr/lib/nvidia\n100\n\n",
            ),
            finds=gpu,
            alone=False,
        )
        # A module alone is no driver: its libraries are missing too.
        yield Scenario(
            "a module without a blacklist",
            runfile,
            finds=gpu,
            steps=("write-file", "update-initramfs", "reboot"),
            alone=False,
        )
        unlisted = "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf"
        yield Scenario(
            "packages whose blacklist was removed",
            Machine.ubuntu2404().gpu(driver="nouveau").ubuntu_driver(loaded=False).remove(unlisted),
            finds=gpu,
        )
        event = "/sys/bus/pci/devices/0000:01:00.0/uevent"
        yield Scenario(
            "a copy of /sys that has no links",
            Machine.ubuntu2404()
            .ubuntu_driver(loaded=False)
            .remove(unlisted)
            .file(event, "DRIVER=nouveau\nPCI_CLASS=30000\nPCI_ID=10DE:1B06\nPCI_SUBSYS_ID=1043:85E4\n"),
            finds=gpu,
        )
        yield Scenario(
            "no module for this kernel is the cause",
            Machine.debian12().gpu(driver="nouveau").debian_driver(kernels=(), loaded=False),
            finds=gpu,
            causes=("dkms-module-missing-for-running-kernel",),
        )
        yield Scenario(
            "an initramfs without the blacklist is the cause",
            Machine.ubuntu2404().gpu(driver="nouveau").ubuntu_driver(loaded=False).initramfs("6.8.0-50-generic", {}),
            finds=gpu,
            steps=("update-initramfs", "reboot"),
            causes=("initramfs-stale-nouveau-blacklist",),
        )
        yield Scenario(
            "the next kernel lacks its headers, which is another fault",
            Machine.debian12()
            .kernel("6.1.0-51-amd64", running=False, headers=False)
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .remove("/etc/modprobe.d/nvidia-blacklists-nouveau.conf"),
            finds=gpu,
            alone=False,
        )
        yield Scenario("no NVIDIA driver wanted", Machine.debian12().gpu(driver="nouveau"))
        yield Scenario(
            "a Kepler that the driver does not support",
            Machine.debian12().gpu("1286", "0000:02:00.0", driver="nouveau").gpu().debian_driver(),
        )
        yield Scenario("nvidia holds it", Machine.debian12_gpu())
        yield Scenario(
            "nouveau is loaded but holds nothing",
            Machine.debian12_gpu().append("/proc/modules", "nouveau 2400256 0 - Live 0x0\n"),
        )
        yield Scenario("no bus in sight", Machine().os_release("debian", "12"), unknown=True)
        yield Scenario(
            "a container, where the bus is the host's",
            Machine.ubuntu2404().gpu(driver="nouveau").ubuntu_driver(kernels=(), loaded=False).file("/.dockerenv"),
            unknown=True,
        )
