"""An old NVIDIA module is loaded at each start, although the one on the disk is new.

What you see
    NVRM: API mismatch: the client has the version X, but this kernel module has the version Y
    Driver/library version mismatch, again after a restart.
Why
    The initramfs holds the module of the old driver, or a second nvidia.ko (of a .run installer) lies where modprobe
    finds it first.
Repair
    Rebuild the initramfs, so that it holds the module of the driver that is installed, and restart. A second module
    that belongs to no package is moved aside first.
What the repair risks
    A full /boot would leave a truncated image: the space is looked at first, and the old image is kept.
By hand
    depmod -a; update-initramfs -u -k all; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    DriverLibraries,
    Evidence,
    Finding,
    Initramfs,
    Kernel,
    KernelModules,
    Layer,
    Machine,
    MoveAside,
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


class InitramfsOldNvidiaModule(Rule):
    id = "initramfs-old-nvidia-module"
    title = "An old NVIDIA module is loaded from the initramfs"
    layer = Layer.KERNEL_MODULE
    stage = Stage.INITRAMFS
    severity = Severity.ERROR
    explains = ("driver-library-version-mismatch-after-upgrade", "login-loop-glx-broken-driver-mismatch")

    def detect(
        self, kernel: Kernel, modules: KernelModules, image: Initramfs, libraries: DriverLibraries | None
    ) -> Iterator[Finding | Unknown]:
        loaded, disk = modules.loaded_version, modules.on_disk(kernel.running)
        if not loaded or disk is None or not disk.version or disk.version == loaded:
            return
        if libraries is not None and libraries.version not in (None, disk.version):
            return  # the packages themselves disagree
        inside = image.nvidia_version()
        others = [f for f in modules.files if f.kernel == kernel.running and f.name == "nvidia" and f.version == loaded]
        if image.content is None and image.problem:
            yield Unknown(image.problem)
        if inside == loaded or others:
            where = others[0].path if others else image.path
            yield self.finding(
                f"kernel:{kernel.running}",
                f"The module {loaded} comes from {where} at each start, while {disk.version} is installed",
                Evidence("/proc/driver/nvidia/version", loaded),
                Evidence(disk.path, disk.version),
                Evidence(where, loaded),
                kernel=kernel.running or "",
                duplicate=others[0].path if others else "",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        kernel, duplicate = finding.detail["kernel"], finding.detail["duplicate"]
        aside = (MoveAside(duplicate),) if duplicate else ()
        yield Plan(
            f"{'Move the second module aside, rebuild' if duplicate else 'Rebuild'} the initramfs of {kernel} and restart",
            Risk.MEDIUM if duplicate else Risk.LOW,
            (*aside, UpdateInitramfs(kernel), Reboot()),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        new, kernel = "550.120", "6.8.0-50-generic"
        old = Machine.ubuntu2404().gpu().ubuntu_driver(new, loaded=False).loaded_driver("535.183.01")
        yield Scenario(
            "the initramfs holds the old one", old.initramfs(kernel, {}, nvidia="535.183.01"), finds=f"kernel:{kernel}"
        )
        yield Scenario(
            "a .run installer's module beside it",
            Machine.ubuntu2404()
            .gpu()
            .ubuntu_driver(new, loaded=False)
            .loaded_driver("535.183.01")
            .nvidia_module(kernel, "535.183.01", name="nvidia.ko", place="kernel/drivers/video")
            .initramfs(kernel, {}),
            finds=f"kernel:{kernel}",
            alone=False,  # the second installer is a fault of its own
        )
        yield Scenario(
            "only a restart is missing",
            Machine.ubuntu2404()
            .gpu()
            .ubuntu_driver(new, loaded=False)
            .loaded_driver("535.183.01")
            .initramfs(kernel, {}),
            alone=False,
        )
        yield Scenario("all the same", Machine.ubuntu2404_gpu().initramfs(kernel, {}, nvidia="550.120"))
        yield Scenario(
            "an image that can't be unpacked",
            Machine.ubuntu2404()
            .gpu()
            .ubuntu_driver(new, loaded=False)
            .loaded_driver("535.183.01")
            .file(f"/boot/initrd.img-{kernel}", b"LZ4?" * 100),
            unknown=True,
        )
