"""nouveau is blacklisted, but the initramfs does not know it and loads it first.

What you see
    nouveau holds the GPU after every start, although /etc/modprobe.d blacklists it.
Why
    The initramfs carries its own copy of modprobe.d. It was not rebuilt after the blacklist was written (or /boot was
    full), so nouveau takes the GPU before the real configuration is read.
Repair
    Rebuild the initramfs and restart.
What the repair risks
    A full /boot would leave a truncated image: the space is looked at first, and the old image is kept.
By hand
    update-initramfs -u -k all; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    Evidence,
    Finding,
    Gpus,
    Initramfs,
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
    Unknown,
    UpdateInitramfs,
)


class InitramfsStaleNouveauBlacklist(Rule):
    id = "initramfs-stale-nouveau-blacklist"
    title = "The initramfs lacks the blacklist of nouveau"
    layer = Layer.KERNEL_MODULE
    stage = Stage.INITRAMFS
    severity = Severity.ERROR
    explains = ("login-loop-glx-broken-driver-mismatch", "nouveau-bound-instead-of-nvidia", "nvidia-module-not-loaded")

    def detect(
        self, gpus: Gpus, config: ModprobeConfig, image: Initramfs, modules: KernelModules
    ) -> Iterator[Finding | Unknown]:
        lines = config.blacklists("nouveau")
        bound = [g for g in gpus.gpus if g.driver == "nouveau"]
        if not bound or not lines or modules.on_disk(image.kernel) is None:
            return
        if image.content is None:
            yield Unknown(image.problem or f"{image.path} was not unpacked")
            return
        if image.blacklists("nouveau"):
            return
        yield self.finding(
            f"kernel:{image.kernel}",
            f"{image.path} does not know that nouveau is blacklisted, so nouveau takes the GPU at each start",
            Evidence(lines[0].source, "blacklist nouveau"),
            Evidence(image.path, "no modprobe.d file inside blacklists nouveau"),
            Evidence(f"/sys/bus/pci/devices/{bound[0].address}/driver", "nouveau"),
            *[Evidence(path, "written after the initramfs") for path in image.newer_config[:3]],
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
        yield Scenario(
            "the initramfs knows it",
            Machine.debian12()
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .initramfs("6.1.0-50-amd64", {"etc/modprobe.d/n.conf": "blacklist nouveau\n"}),
            alone=False,
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
