"""An old NVIDIA module is loaded at each boot, although a newer one is installed.

What you see
    NVRM: API mismatch: the client has the version X, but this kernel module has the version Y

    "Driver/library version mismatch" returns after every reboot.
Why
    The initramfs still contains the module of the old driver, or modprobe finds a second nvidia.ko first (for example
    from a .run installer).

    Right after an upgrade the old module is still loaded. That is a different problem: a reboot solves it.
Repair
    Rebuild the initramfs so that it contains the installed module, then reboot. A second module that belongs to no
    package is moved out of the way first.
What the repair risks
    On a full /boot the new image could be truncated. dlhealth checks the free space first and keeps the old image.
By hand
    depmod -a
    update-initramfs -u -k all
    systemctl reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    Action,
    ByHand,
    Dkms,
    DkmsRemove,
    DriverLibraries,
    Evidence,
    Finding,
    Initramfs,
    Kernel,
    KernelModules,
    Machine,
    ModuleFile,
    MoveAside,
    Packages,
    Plan,
    Reboot,
    RefreshModuleIndex,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    Unowned,
    UpdateInitramfs,
    kernels_to_judge,
    owner_of,
)

LOADED = "/proc/driver/nvidia/version"
MARGIN = 60.0
"""Seconds, because the clock may be set during the boot."""


class InitramfsOldNvidiaModule(Rule):
    id = "initramfs-old-nvidia-module"
    title = "An old NVIDIA module is loaded at each boot"
    stage = Stage.INITRAMFS
    severity = Severity.ERROR
    explains = ("driver-library-version-mismatch-after-upgrade",)

    def detect(
        self, kernel: Kernel, modules: KernelModules, image: Initramfs, libraries: DriverLibraries | None
    ) -> Iterator[Finding | Unknown]:
        wanted = libraries.version if libraries else None
        for release, severity in kernels_to_judge(kernel):
            files = [f for f in modules.files if f.kernel == release and f.version]
            loaded = modules.loaded_version if release == kernel.running else None
            # A module installed after the boot could not be loaded at the boot: only a reboot is pending.
            pending = loaded and kernel.booted and image.module_written and image.module_written > kernel.booted
            if not pending and (pair := _second(files, loaded, wanted)):
                first, right = pair
                if libraries is None or (wanted is None and libraries.problems):
                    why = "the version of the driver's libraries could not be checked"
                    yield Unknown(f"cannot tell whether {first.path} or {right.path} is the right module: {why}")
                    continue
                yield self._found(
                    release, severity, f"{first.path} ({first.version})", right, loaded, (), duplicate=first.path,
                    old=first.version,
                )  # fmt: skip
            elif release == image.kernel and files and wanted in (None, files[0].version):
                yield from self._in_image(release, severity, files[0], loaded, image, kernel.booted)

    def _in_image(
        self,
        release: str,
        severity: Severity,
        disk: ModuleFile,
        loaded: str | None,
        image: Initramfs,
        booted: float | None,
    ) -> Iterator[Finding | Unknown]:
        if loaded == disk.version:
            return
        inside = {path: version for path, version in image.nvidia_versions().items() if version != disk.version}
        old = next(((p, v) for p, v in inside.items() if v and (loaded is None or v == loaded)), None)
        if old:
            held = (Evidence(image.path, f"holds {old[0]}, version {old[1]}"),)
            yield self._found(release, severity, image.path, disk, loaded, held, duplicate="", old=old[1])
        elif image.content is None and image.problem:
            if loaded and booted and image.path and booted > image.module_written + MARGIN:
                # The module on the disk is older than the boot but was not loaded: the image's module came first.
                shows = (
                    Evidence("/proc/stat", "the machine booted after the module on the disk was written"),
                    Evidence(image.path, image.problem.removeprefix(f"{image.path}: ")),
                )
                yield self._found(release, severity, image.path, disk, loaded, shows, duplicate="", old=loaded)
            elif loaded:
                yield Unknown(image.problem)

    def _found(
        self,
        release: str,
        severity: Severity,
        where: str,
        right: ModuleFile,
        loaded: str | None,
        shows: tuple[Evidence, ...],
        *,
        duplicate: str,
        old: str,
    ) -> Finding:
        return self.finding(
            f"kernel:{release}",
            f"Kernel {release} loads the old NVIDIA module {old} from {where} at each boot; installed: {right.version}",
            *([Evidence(LOADED, loaded)] if loaded else []),
            Evidence(right.path, right.version),
            *([Evidence(duplicate, old)] if duplicate else []),
            *shows,
            severity=severity,
            kernel=release,
            duplicate=duplicate,
            old=old,
        )

    def remedies(
        self, finding: Finding, dkms: Dkms | None, packages: Packages | None, modules: KernelModules
    ) -> Iterator[Plan]:
        kernel, duplicate, old = (finding.detail[k] for k in ("kernel", "duplicate", "old"))
        rebuild: tuple[Action, ...] = (UpdateInitramfs(kernel), Reboot())
        if not duplicate:
            yield Plan(f"Rebuild the initramfs of {kernel} and reboot", Risk.LOW, rebuild, reboot=True)
            return
        owner = owner_of(packages, duplicate)
        builder = next((m for m in dkms.modules if m.version == old), None) if dkms else None
        if owner is not Unowned.NOBODY:
            told = owner.value if isinstance(owner, Unowned) else f"belongs to the package {owner}"
            text = (
                f"{duplicate} {told}: find out where the two modules come from, and uninstall the one you do not need"
            )
            steps: tuple[Action, ...] = (ByHand(text),)
            risk = Risk.HIGH
        elif builder and "/updates/" in duplicate:
            steps, risk = (DkmsRemove(builder.name, builder.version),), Risk.MEDIUM
        else:
            parts = next((f.parts for f in modules.files if f.path == duplicate), ())
            # Without a new index, modprobe still looks for the moved module.
            steps = (*map(MoveAside, (duplicate, *parts)), RefreshModuleIndex(kernel))
            risk = Risk.MEDIUM
        yield Plan(
            f"Remove the second module ({duplicate}), rebuild the initramfs of {kernel} and reboot",
            risk,
            (*steps, *rebuild),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        new, old, kernel = "550.120", "535.183.01", "6.8.0-50-generic"
        modules = f"/usr/lib/modules/{kernel}"

        def upgraded() -> Machine:
            return Machine.ubuntu2404().gpu().ubuntu_driver(new, loaded=False).loaded_driver(old)

        yield Scenario(
            "the initramfs contains the old module",
            upgraded().initramfs(kernel, {}, nvidia=old),
            finds=f"kernel:{kernel}",
            ladder=(("low reboot", "update-initramfs 6.8.0-50-generic", "reboot"),),
        )
        yield Scenario(
            "a second module that is not in the module index",
            upgraded()
            .nvidia_module(kernel, old, name="nvidia.ko", place="kernel/drivers/video")
            .file(f"{modules}/modules.dep", "updates/dkms/nvidia.ko:\n")
            .initramfs(kernel, {}),
            alone=False,
        )
        yield Scenario(
            "a second module from a .run installer",
            upgraded()
            .nvidia_module(kernel, old, name="nvidia.ko", place="kernel/drivers/video")
            .nvidia_module(kernel, old, name="nvidia-drm.ko", place="kernel/drivers/video")
            .initramfs(kernel, {}),
            finds=f"kernel:{kernel}",
            steps=("move-aside", "refresh-module-index", "update-initramfs", "reboot"),
            alone=False,
            ladder=(
                (
                    "medium reboot",
                    "move-aside /lib/modules/6.8.0-50-generic/kernel/drivers/video/nvidia.ko",
                    "move-aside /lib/modules/6.8.0-50-generic/kernel/drivers/video/nvidia-drm.ko",
                    "refresh-module-index 6.8.0-50-generic",
                    "update-initramfs 6.8.0-50-generic",
                    "reboot",
                ),
            ),  # the second installation is a problem of its own
        )
        yield Scenario(
            "modprobe finds a second module before Ubuntu's",
            Machine.ubuntu2404()
            .gpu()
            .ubuntu_driver(new, kernels=(), loaded=False)
            .loaded_driver(old)
            .nvidia_module(kernel, new, name="nvidia.ko", place="kernel/nvidia-550")
            .nvidia_module(kernel, old, name="nvidia.ko", place="updates"),
            finds=f"kernel:{kernel}",
            alone=False,
            ladder=(
                (
                    "medium reboot",
                    "move-aside /lib/modules/6.8.0-50-generic/updates/nvidia.ko",
                    "refresh-module-index 6.8.0-50-generic",
                    "update-initramfs 6.8.0-50-generic",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "modules.dep names the second module",
            Machine.ubuntu2404()
            .gpu()
            .ubuntu_driver(new, loaded=False)
            .loaded_driver(old)
            .nvidia_module(kernel, old, name="nvidia.ko", place="extra")
            .file(f"{modules}/modules.dep", "kernel/fs/ext4/ext4.ko:\nextra/nvidia.ko:\n"),
            finds=f"kernel:{kernel}",
            alone=False,
            ladder=(
                (
                    "medium reboot",
                    "move-aside /lib/modules/6.8.0-50-generic/extra/nvidia.ko",
                    "refresh-module-index 6.8.0-50-generic",
                    "update-initramfs 6.8.0-50-generic",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "an unreadable image, but the machine booted after the upgrade",
            upgraded()
            .file(f"/boot/initrd.img-{kernel}", b"\x02\x21\x4c\x18" + bytes(100))
            .file("/proc/stat", "cpu  1 2 3\nbtime 4102444800\n"),
            finds=f"kernel:{kernel}",
            steps=("update-initramfs", "reboot"),
        )
        yield Scenario(
            "systemd-boot has its own, outdated copy",
            Machine()
            .os_release("ubuntu", "24.04")
            .kernel(kernel, running=False)
            .ubuntu_driver(new, loaded=False)
            .initramfs(kernel, {}, nvidia=new)
            .initramfs(kernel, {}, nvidia=old, mtime=1.7e9, folder=f"/boot/efi/abc/{kernel}")
            .file(f"/boot/efi/abc/{kernel}/linux")
            .file(
                "/boot/efi/loader/entries/abc.conf",
                f"version {kernel}\nlinux /abc/{kernel}/linux\ninitrd /abc/ucode.img\ninitrd /abc/{kernel}/initrd.img-{kernel}\n",
            ),
            finds=f"kernel:{kernel}",
        )
        yield Scenario(
            "a mounted disk loads it at the next boot",
            Machine()
            .os_release("ubuntu", "24.04")
            .kernel(kernel, running=False)
            .ubuntu_driver(new, loaded=False)
            .initramfs(kernel, {}, nvidia=old, mtime=1.7e9),
            finds=f"kernel:{kernel}",
        )
        yield Scenario("only a reboot is missing", upgraded().initramfs(kernel, {}), alone=False)
        yield Scenario("all versions are equal", Machine.ubuntu2404_gpu().initramfs(kernel, {}, nvidia=new))
        yield Scenario(
            "the libraries match the loaded module; the newer module on the disk waits for its packages",
            Machine.ubuntu2404_gpu()
            .nvidia_module(kernel, "560.35.03", name="nvidia.ko")
            .initramfs(kernel, {}, nvidia=new),
            alone=False,
        )
        yield Scenario(
            "two Debian drivers side by side, one chosen",
            Machine.debian12_gpu().nvidia_module("6.1.0-50-amd64", "470.256.02", name="nvidia-tesla-470.ko"),
        )
        yield Scenario(
            "an image that cannot be unpacked",
            upgraded().file(f"/boot/initrd.img-{kernel}", b"LZ4?" * 100),
            unknown=True,
        )


def _second(files: list[ModuleFile], loaded: str | None, wanted: str | None) -> tuple[ModuleFile, ModuleFile] | None:
    """The module that is loaded and the one that should be, if there are several versions with the same name."""
    if len({f.version for f in files}) < 2:
        return None
    known = [f for f in files if f.indexed] or files
    taken = next((f for f in known if loaded and f.version == loaded), known[0])
    fit = (f for f in files if f.version != taken.version and f.stem == taken.stem)
    right = next((f for f in fit if f.version == (wanted or files[0].version)), None)
    return (taken, right) if right else None
