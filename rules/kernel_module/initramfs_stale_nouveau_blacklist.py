"""nouveau is blacklisted, but the initramfs does not know it and loads it first.

What you see
    nouveau holds the GPU after every start, although /etc/modprobe.d blacklists it.
Why
    The initramfs carries its own copy of modprobe.d. It was not rebuilt after the blacklist was written (or /boot was
    full), so nouveau takes the GPU before the real configuration is read.
    A machine that is started without that image (by a boot loader that has a copy of its own) is not judged by it.
Repair
    Rebuild the initramfs and restart.
What the repair risks
    A full /boot would leave a truncated image: the space is looked at first, and the old image is kept.
By hand
    update-initramfs -u -k all; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    DriverFit,
    Evidence,
    Finding,
    Gpus,
    Initramfs,
    Kernel,
    KernelModules,
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
)


class InitramfsStaleNouveauBlacklist(Rule):
    id = "initramfs-stale-nouveau-blacklist"
    title = "The initramfs lacks the blacklist of nouveau"
    stage = Stage.INITRAMFS
    severity = Severity.ERROR
    explains = ("nouveau-bound-instead-of-nvidia", "stale-xorg-conf-nvidia")

    def detect(
        self,
        gpus: Gpus | None,
        config: ModprobeConfig,
        image: Initramfs,
        modules: KernelModules,
        kernel: Kernel,
        fit: DriverFit | None,
    ) -> Iterator[Finding | Unknown]:
        lines = (*config.blacklists("nouveau"), *config.disables("nouveau"))
        if not lines or modules.usable(image.kernel) is None:
            return
        running = image.kernel == kernel.running
        # Without nouveau, a GPU that the NVIDIA driver does not support would have no driver at all.
        unserved = fit.unserved() if fit else frozenset()
        bound = [g for g in gpus.gpus if g.driver == "nouveau" and g.address not in unserved] if gpus else []
        if running and (not bound or _told_on_the_command_line(kernel.cmdline)):
            return
        newer = [li for li in lines if li.source.rpartition(":")[0] in image.newer_config]
        if image.content is None:
            # An image that is older than the blacklist can't have it. Otherwise it would have to be unpacked.
            if not running or not newer or not image.path:
                if running or image.problem:
                    yield Unknown(image.problem or f"{image.path} was not unpacked")
                return
            shows = image.problem or "not unpacked"
        elif image.blacklists("nouveau") or not (running or image.holds("nouveau")):
            return
        else:
            shows = "no modprobe.d file inside blacklists nouveau"
        yield self.finding(
            f"kernel:{image.kernel}",
            f"{image.path} does not know that nouveau is blacklisted, so nouveau takes the GPU at each start",
            Evidence((newer or lines)[0].source, f"{(newer or lines)[0].directive} nouveau"),
            Evidence(image.path, shows),
            *[Evidence(f"/sys/bus/pci/devices/{g.address}/driver", "nouveau") for g in bound[:1]],
            *[Evidence(path, "written after the initramfs") for path in image.newer_config[:3]],
            about=[f"gpu:{g.address}" for g in bound],
            kernel=image.kernel,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        kernel = finding.detail["kernel"]
        yield Plan(
            f"Rebuild the initramfs of {kernel} and restart", Risk.LOW, (UpdateInitramfs(kernel), Reboot()), reboot=True
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        debian = Machine.debian12().gpu(driver="nouveau").debian_driver(loaded=False)
        ubuntu = Machine.ubuntu2404().gpu(driver="nouveau").ubuntu_driver(loaded=False)
        yield Scenario("never rebuilt", debian.initramfs("6.1.0-50-amd64", {}), finds="kernel:6.1.0-50-amd64")
        yield Scenario(
            "rebuilt with another blacklist only",
            ubuntu.initramfs("6.8.0-50-generic", {"etc/modprobe.d/x.conf": "blacklist pcspkr\n# blacklist nouveau\n"}),
            finds="kernel:6.8.0-50-generic",
        )
        blacklist = "/etc/modprobe.d/blacklist-nouveau.conf"
        disk = (
            Machine()
            .os_release("ubuntu", "22.04")
            .kernel("6.8.0-50-generic", running=False)
            .ubuntu_driver(loaded=False)
            .file(blacklist, "blacklist nouveau\noptions nouveau modeset=0\n")
        )
        driver = "usr/lib/modules/6.8.0-50-generic/kernel/drivers/gpu/drm/nouveau/nouveau.ko"
        yield Scenario(
            "a disk, whose image is older than the blacklist and holds nouveau",
            disk.initramfs("6.8.0-50-generic", {driver: ""}, mtime=1.7e9),
            finds="kernel:6.8.0-50-generic",
        )
        yield Scenario(
            "an image that can't be unpacked, but is older than the blacklist",
            Machine.ubuntu2404()
            .gpu(driver="nouveau")
            .ubuntu_driver(loaded=False)
            .file("/boot/initrd.img-6.8.0-50-generic", b"\x02\x21\x4c\x18" + bytes(100), mtime=1.7e9),
            finds="kernel:6.8.0-50-generic",
            steps=("update-initramfs", "reboot"),
        )
        yield Scenario(
            "an old image on a running machine, where nvidia holds the GPU",
            Machine.ubuntu2404_gpu().initramfs("6.8.0-50-generic", {}, mtime=1.7e9),
        )
        yield Scenario(
            "Debian's files inside are links",
            Machine.debian12().gpu(driver="nouveau").debian_driver(loaded=False).initramfs(
                "6.1.0-50-amd64",
                {
                    "etc/modprobe.d/nvidia-blacklists-nouveau.conf@": "../nvidia/current/nvidia-blacklists-nouveau.conf",
                    "etc/nvidia/current/nvidia-blacklists-nouveau.conf": "blacklist nouveau\n",
                },
            ),
            alone=False,
        )  # fmt: skip
        yield Scenario(
            "started with another image",
            Machine.debian12()
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .initramfs("6.1.0-50-amd64", {})
            .file("/proc/cmdline", "initrd=\\abc\\6.1.0-50-amd64\\initrd.img-6.1.0-50-amd64 root=/dev/sda2 ro\n"),
            unknown=True,
        )
        yield Scenario(
            "the initramfs knows it",
            Machine.debian12()
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .initramfs("6.1.0-50-amd64", {"etc/modprobe.d/n.conf": "blacklist nouveau\n"}),
            alone=False,
        )
        yield Scenario(
            "a GPU that the driver does not support, and nouveau does",
            Machine.debian12()
            .gpu("1286", driver="nouveau")
            .debian_driver(loaded=False)
            .initramfs("6.1.0-50-amd64", {}),
        )
        yield Scenario("nvidia holds the GPU", Machine.debian12_gpu().initramfs("6.1.0-50-amd64", {}))
        yield Scenario(
            "an image that can't be unpacked",
            Machine.debian12()
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .file("/boot/initrd.img-6.1.0-50-amd64", b"LZ4?" * 100),
            unknown=True,
        )


def _told_on_the_command_line(cmdline: str) -> bool:
    """Whether the kernel's command line names nouveau to modprobe, which counts in the initramfs as well."""
    words = (word.partition("=") for word in cmdline.split())
    return any("blacklist" in name and "nouveau" in value.split(",") for name, _, value in words)
