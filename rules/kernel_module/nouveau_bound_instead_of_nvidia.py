"""nouveau holds the GPU, so the installed NVIDIA driver cannot use it.

What you see
    NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.

    ERROR: Unable to load the kernel module 'nvidia.ko' (from the .run installer)

    lspci -nnk shows: Kernel driver in use: nouveau
Why
    The kernel has its own driver for NVIDIA GPUs, nouveau. It takes the GPU at boot unless a file in modprobe.d
    blacklists it. That file is missing after an incomplete installation, or if the .run installer was not allowed to
    write it.

    dlhealth does not report nouveau if no NVIDIA driver is installed, if the installed driver does not support the
    GPU, or if nouveau is loaded but holds no GPU.
Repair
    Blacklist nouveau, rebuild the initramfs, and reboot. dlhealth does this only if the kernel that boots next has an
    NVIDIA module.
What the repair risks
    If the NVIDIA module still fails to load, the screen has no acceleration until you undo the blacklist.
By hand
    f=/etc/modprobe.d/dlhealth-nouveau.conf
    echo 'blacklist nouveau' > $f
    echo 'options nouveau modeset=0' >> $f
    update-initramfs -u -k all
    systemctl reboot
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
    TakenGpus,
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
        usurpers: Usurpers | None,
        kernel: Kernel,
        config: ModprobeConfig | None,
        switch: GpuSwitch | None,
        glx: GlxAlternative | None,
        taken: TakenGpus | None,
    ) -> Iterator[Finding | Unknown]:
        if usurpers is None:
            if taken and taken.line:
                yield self.finding(
                    "host",
                    "Another driver, most likely nouveau, holds the GPU, so the NVIDIA driver cannot use it",
                    Evidence(taken.line.source, taken.line.text.strip()[:200]),
                    wanted=False,
                    lacking="",
                    blacklisted=False,
                )
            else:
                yield Unknown("cannot see which driver holds the GPU")
            return
        yield from usurpers.doubts
        if switch and switch.chosen:
            return  # the NVIDIA module was switched off on purpose
        wanted = glx is not None and glx.manual and glx.glx is not None and "mesa" in glx.glx.target
        lines = config.blacklists("nouveau") if config else ()
        for gpu in usurpers.held_by("nouveau"):
            yield self.finding(
                f"gpu:{gpu.address}",
                f"nouveau holds the {gpu.name} at {gpu.address}, so the installed NVIDIA driver cannot use it",
                Evidence(f"/sys/bus/pci/devices/{gpu.address}/driver", "nouveau"),
                Evidence(lines[0].source, "blacklist nouveau")
                if lines
                else Evidence("/etc/modprobe.d", "no file blacklists nouveau"),
                usurpers.module,
                # A problem of the next kernel does not explain this one.
                about=[f"kernel:{kernel.running}"] if kernel.running else (),
                severity=Severity.NOTE if wanted else Severity.ERROR,
                wanted=wanted,
                lacking=usurpers.lacking,
                blacklisted=bool(lines),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail["wanted"]:
            text = "run update-glx --auto glx as root, then reboot"
            yield Plan(
                "If you want the NVIDIA driver, switch back to it: Mesa was chosen by hand", Risk.LOW, (ByHand(text),)
            )
            return
        if lacking := finding.detail["lacking"]:
            yield Plan(
                "First build the NVIDIA module: without it, only nouveau can draw the screen",
                Risk.MEDIUM,
                (ByHand(f"build or install the NVIDIA module for {lacking}, then run dlhealth doctor again"),),
            )
            return
        write = () if finding.detail["blacklisted"] else (WriteFile(PATH, TEXT),)
        yield Plan(
            "Blacklist nouveau, rebuild the initramfs and reboot"
            if write
            else "Rebuild the initramfs with the existing blacklist, and reboot",
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
            ladder=(("low", "by-hand --auto"),),
        )
        # The libraries of the driver are missing too.
        yield Scenario(
            "a module without a blacklist",
            runfile,
            finds=gpu,
            steps=("write-file", "update-initramfs", "reboot"),
            alone=False,
            ladder=(
                (
                    "medium reboot",
                    "write-file /etc/modprobe.d/dlhealth-nouveau.conf blacklist nouveau / options nouveau modeset=0",
                    "update-initramfs all",
                    "reboot",
                ),
            ),
        )
        unlisted = "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf"
        yield Scenario(
            "packages whose blacklist was removed",
            Machine.ubuntu2404().gpu(driver="nouveau").ubuntu_driver(loaded=False).remove(unlisted),
            finds=gpu,
        )
        event = "/sys/bus/pci/devices/0000:01:00.0/uevent"
        yield Scenario(
            "a copy of /sys without links",
            Machine.ubuntu2404()
            .ubuntu_driver(loaded=False)
            .remove(unlisted)
            .file(event, "DRIVER=nouveau\nPCI_CLASS=30000\nPCI_ID=10DE:1B06\nPCI_SUBSYS_ID=1043:85E4\n"),
            finds=gpu,
        )
        yield Scenario(
            "a missing module for this kernel is the cause",
            Machine.debian12().gpu(driver="nouveau").debian_driver(kernels=(), loaded=False),
            finds=gpu,
            causes=("dkms-module-missing-for-running-kernel",),
            ladder=(("medium", "by-hand 6.1.0-50-amd64"),),
        )
        yield Scenario(
            "an initramfs without the blacklist is the cause",
            Machine.ubuntu2404().gpu(driver="nouveau").ubuntu_driver(loaded=False).initramfs("6.8.0-50-generic", {}),
            finds=gpu,
            steps=("update-initramfs", "reboot"),
            causes=("initramfs-stale-nouveau-blacklist",),
        )
        yield Scenario(
            "the next kernel lacks its headers, which is another problem",
            Machine.debian12()
            .kernel("6.1.0-51-amd64", running=False, headers=False)
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .remove("/etc/modprobe.d/nvidia-blacklists-nouveau.conf"),
            finds=gpu,
            alone=False,
            ladder=(("medium", "by-hand 6.1.0-51-amd64"),),
        )
        yield Scenario("no NVIDIA driver installed", Machine.debian12().gpu(driver="nouveau"))
        yield Scenario(
            "a Kepler that the driver does not support",
            Machine.debian12().gpu("1286", "0000:02:00.0", driver="nouveau").gpu().debian_driver(),
        )
        yield Scenario("the GPU uses nvidia", Machine.debian12_gpu())
        yield Scenario(
            "nouveau is loaded but holds no GPU",
            Machine.debian12_gpu().append("/proc/modules", "nouveau 2400256 0 - Live 0x0\n"),
        )
        yield Scenario("no PCI bus to read", Machine().os_release("debian", "12"), unknown=True)
        yield Scenario(
            "a container, whose PCI bus belongs to the host",
            Machine.ubuntu2404().gpu(driver="nouveau").ubuntu_driver(kernels=(), loaded=False).file("/.dockerenv"),
            unknown=True,
        )
