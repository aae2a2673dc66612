"""nouveau is blacklisted, but the initramfs does not have the blacklist and loads nouveau first.

What you see
    nouveau drives the GPU after every boot, although a file in /etc/modprobe.d blacklists it.
Why
    The initramfs has its own copy of modprobe.d. It was not rebuilt after the blacklist was written (for example
    because /boot was full). So nouveau takes the GPU before the real configuration is read.

    If the machine was booted with another image (some boot loaders keep their own copy), dlhealth cannot check this.
Repair
    Rebuild the initramfs and reboot.
What the repair risks
    On a full /boot the new image could be truncated. dlhealth checks the free space first and keeps the old image.
By hand
    update-initramfs -u -k all
    systemctl reboot
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
    title = "The initramfs does not blacklist nouveau"
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
        # A GPU that the NVIDIA driver does not support needs nouveau.
        unserved = fit.unserved() if fit else frozenset()
        bound = [g for g in gpus.gpus if g.driver == "nouveau" and g.address not in unserved] if gpus else []
        if running and (not bound or _told_on_the_command_line(kernel.cmdline)):
            return
        newer = [li for li in lines if li.source.path in image.newer_config]
        if image.content is None:
            # An image older than the blacklist cannot contain it. Any other image would have to be unpacked.
            if not running or not newer or not image.path:
                if running or image.problem:
                    yield Unknown(image.problem or f"{image.path} was not unpacked")
                return
            shows = image.problem.removeprefix(f"{image.path}: ") or "not unpacked"
        elif image.blacklists("nouveau") or not (running or image.holds("nouveau")):
            return
        else:
            shows = "no modprobe.d file in it blacklists nouveau"
        yield self.finding(
            f"kernel:{image.kernel}",
            f"{image.path} does not blacklist nouveau, so nouveau takes the GPU at each boot, although it is blacklisted on the disk",
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
            f"Rebuild the initramfs of {kernel} and reboot", Risk.LOW, (UpdateInitramfs(kernel), Reboot()), reboot=True
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        debian = Machine.debian12().gpu(driver="nouveau").debian_driver(loaded=False)
        ubuntu = Machine.ubuntu2404().gpu(driver="nouveau").ubuntu_driver(loaded=False)
        yield Scenario(
            "not rebuilt",
            debian.initramfs("6.1.0-50-amd64", {}),
            finds="kernel:6.1.0-50-amd64",
            ladder=(("low reboot", "update-initramfs 6.1.0-50-amd64", "reboot"),),
        )
        yield Scenario(
            "rebuilt, but only with other blacklists",
            ubuntu.initramfs("6.8.0-50-generic", {"etc/modprobe.d/x.conf": "blacklist pcspkr\n# blacklist nouveau\n"}),
            finds="kernel:6.8.0-50-generic",
            ladder=(("low reboot", "update-initramfs 6.8.0-50-generic", "reboot"),),
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
            "a mounted disk, whose image is older than the blacklist and contains nouveau",
            disk.initramfs("6.8.0-50-generic", {driver: ""}, mtime=1.7e9),
            finds="kernel:6.8.0-50-generic",
        )
        yield Scenario(
            "an unreadable image, but older than the blacklist",
            Machine.ubuntu2404()
            .gpu(driver="nouveau")
            .ubuntu_driver(loaded=False)
            .file("/boot/initrd.img-6.8.0-50-generic", b"\x02\x21\x4c\x18" + bytes(100), mtime=1.7e9),
            finds="kernel:6.8.0-50-generic",
            steps=("update-initramfs", "reboot"),
        )
        yield Scenario(
            "an old image on a running machine whose GPU uses nvidia",
            Machine.ubuntu2404_gpu().initramfs("6.8.0-50-generic", {}, mtime=1.7e9),
        )
        yield Scenario(
            "Debian's files in the image are links",
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
            "booted with another image",
            Machine.debian12()
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .initramfs("6.1.0-50-amd64", {})
            .file("/proc/cmdline", "initrd=\\abc\\6.1.0-50-amd64\\initrd.img-6.1.0-50-amd64 root=/dev/sda2 ro\n"),
            unknown=True,
        )
        yield Scenario(
            "the initramfs has the blacklist",
            Machine.debian12()
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .initramfs("6.1.0-50-amd64", {"etc/modprobe.d/n.conf": "blacklist nouveau\n"}),
            alone=False,
        )
        yield Scenario(
            "a GPU that only nouveau supports",
            Machine.debian12()
            .gpu("1286", driver="nouveau")
            .debian_driver(loaded=False)
            .initramfs("6.1.0-50-amd64", {}),
        )
        yield Scenario("the GPU uses nvidia", Machine.debian12_gpu().initramfs("6.1.0-50-amd64", {}))
        yield Scenario(
            "an image that cannot be unpacked",
            Machine.debian12()
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .file("/boot/initrd.img-6.1.0-50-amd64", b"LZ4?" * 100),
            unknown=True,
        )


def _told_on_the_command_line(cmdline: str) -> bool:
    """Whether the kernel command line blacklists nouveau, which also applies in the initramfs."""
    words = (word.partition("=") for word in cmdline.split())
    return any("blacklist" in name and "nouveau" in value.split(",") for name, _, value in words)
