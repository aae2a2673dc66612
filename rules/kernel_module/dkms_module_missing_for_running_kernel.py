"""The running kernel, or the kernel that boots next, has no usable NVIDIA module.

What you see
    NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.

    modprobe: FATAL: Module nvidia not found in directory /lib/modules/...
Why
    Every kernel needs its own build of the NVIDIA module. DKMS builds it when a kernel is installed. If that build
    fails, or the kernel headers are missing, the new kernel has no driver. You notice it at the next boot.

    Ubuntu's prebuilt modules come in one package for each kernel. That package is missing if the metapackage is not
    installed.

    A module that is truncated, or was built for another kernel, does not count. A kernel that is not booted needs no
    module.
Repair
    Build the module for that kernel. If something prevents the build (no headers, an unsuitable compiler, a kernel
    too new for the driver), dlhealth reports that as the root cause and repairs it first.
What the repair risks
    Little: the modules of other kernels stay unchanged. Until then you can boot the previous kernel from the boot
    menu.
By hand
    dkms autoinstall -k KERNEL
    modprobe nvidia
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    BuildFault,
    ByHand,
    Dkms,
    DkmsBuild,
    DkmsModule,
    DriverLibraries,
    DriverPackage,
    DriverPackages,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    LoadModules,
    Machine,
    ModuleBuild,
    ModuleFile,
    Packages,
    Plan,
    PostedFailure,
    Risk,
    Rule,
    Scenario,
    SetAlternative,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
    kernels_without_module,
)

BUILDERS = "nvidia*dkms*"
"""nvidia-kernel-dkms, nvidia-tesla-470-kernel-dkms (Debian), nvidia-dkms-550-open (Ubuntu), nvidia-dkms (NVIDIA)."""
SPACE = {BuildFault.DISK_FULL: "the disk was full", BuildFault.MEMORY: "memory ran out"}


class DkmsModuleMissingForRunningKernel(Rule):
    id = "dkms-module-missing-for-running-kernel"
    title = "The NVIDIA module is not built for this kernel"
    stage = Stage.MODULE
    severity = Severity.ERROR
    explains = (
        "driver-library-version-mismatch-after-upgrade",
        "nouveau-bound-instead-of-nvidia",
        "stale-xorg-conf-nvidia",
    )

    def detect(
        self,
        kernel: Kernel,
        modules: KernelModules,
        dkms: Dkms | None,
        packages: Packages | None,
        libraries: DriverLibraries | None,
        driver: DriverPackages | None,
        failure: PostedFailure,
    ) -> Iterator[Finding | Unknown]:
        if dkms is None and not failure.evidence:
            yield Unknown("cannot see what DKMS has built")
            return
        for problem in dkms.problems if dkms else ():
            yield Unknown(problem)
        kept = [m for m in dkms.modules if m.source or m.builds] if dkms else []
        builders = () if packages is None else packages.shown(BUILDERS) if kept else packages.installed(BUILDERS)
        installed = [p for p in builders if "-no-dkms" not in p.name]
        # Ubuntu's prebuilt modules, or a .run file without DKMS: only the modules of other kernels show the driver.
        others = [f for f in modules.files if libraries and libraries.version]
        built = driver.role("prebuilt") if driver else ()
        if not installed and not kept and not others and not built and not failure.evidence:
            return
        if kernel.target is None and not kernel.unseen:
            yield Unknown(f"cannot find out which kernel boots next: {kernel.next_boot_source}")
        for release, severity in kernels_without_module(kernel, modules, dkms):
            named = kernel.target is not None or not kernel.unseen
            build = next((b for m in kept if (b := m.failed(release))), None)
            refused = _refused(kernel, release, kept, build)
            unfit = modules.on_disk(release) if named else None
            evidence = [Evidence(unfit.path, unfit.unfit)] if unfit else []
            if named and not unfit:
                evidence.append(Evidence(f"/lib/modules/{release}", "no nvidia module in updates, extra or kernel"))
            if failure.evidence and not installed and not kept and not built:
                evidence.append(failure.evidence)
            evidence += [Evidence("/var/lib/dpkg/status", f"{p.name} {p.version}: {p.state}") for p in installed[:1]]
            evidence += [Evidence(f"/var/lib/dkms/{m.name}/{m.version}", _built_for(m)) for m in kept]
            if not installed and not kept:
                evidence += [Evidence(f.path, f.version or "a module of another kernel") for f in others[:2]]
                evidence += [Evidence("/var/lib/dpkg/status", m.package.name) for m in built[:2] if not others]
            if build:
                evidence.append(Evidence(build.log, build.error))
            for other in modules.working(kernel, release)[:1]:
                evidence.append(Evidence(f"/lib/modules/{other}", "has its NVIDIA module: this kernel can be booted"))
            yield self.finding(
                f"kernel:{release}",
                f"No {'usable ' if unfit else ''}NVIDIA module for kernel {release}: "
                f"{_effect(kernel, modules, release)} ({_reason(unfit, build, refused)})",
                *evidence,
                severity=severity,
                release=release,
                refused=refused.name if refused else "",
                space=SPACE.get(build.fault, "") if build and build.fault else "",
                crashed=bool(build and build.fault is BuildFault.COMPILER_CRASHED),
                headers=bool(build and build.fault in (BuildFault.HEADERS, BuildFault.KBUILD)),
                package=installed[0].name if installed else "",
                prebuilt=(_prebuilt(others, packages) or _flavour_of(built)) if not installed and not kept else "",
                unfit=unfit.path if unfit else "",
                chosen=unfit.chosen if unfit else "",
                stem=unfit.stem if unfit else "",
                works=modules.working(kernel, release)[:1],
            )

    def remedies(self, finding: Finding, kernel: Kernel, dkms: Dkms | None) -> Iterator[Plan]:
        release, package, prebuilt = (finding.detail[k] for k in ("release", "package", "prebuilt"))
        load = (LoadModules(("nvidia",)),) if release == kernel.running else ()
        module = dkms.newest() if dkms else None
        if finding.detail["refused"]:
            yield Plan(
                "Boot the distribution's standard kernel: the NVIDIA driver does not support realtime kernels",
                Risk.MEDIUM,
                (ByHand("choose a kernel without -rt or -realtime in the boot menu, and make it the default"),),
                reboot=True,
            )
        elif dkms and (chosen := finding.detail["chosen"]):
            yield from _flavours(chosen, finding.detail["stem"], release, dkms, load)
        elif prebuilt:
            names = (f"linux-modules-nvidia-{prebuilt}-{release}",)
            again = bool(finding.detail["unfit"])
            yield Plan(
                f"{'Reinstall' if again else 'Install'} Ubuntu's module for kernel {release}",
                Risk.LOW,
                (AptInstall(names, reinstall=again), *load),
                network=True,
            )
            headers = f"linux-headers-{release}"
            yield Plan(
                f"Build the module with DKMS: install nvidia-dkms-{prebuilt} {headers}",
                Risk.MEDIUM,
                (AptInstall((f"nvidia-dkms-{prebuilt}", headers)), UpdateInitramfs(release), *load),
                network=True,
            )
            for other in finding.detail["works"]:
                text = f"boot kernel {other} from the boot menu (Advanced options): it has an NVIDIA module"
                yield Plan(f"Boot kernel {other}", Risk.MEDIUM, (ByHand(text),), reboot=True)
        elif (unfit := finding.detail["unfit"]) and package:
            # DKMS takes any module file in its place as built, so only a reinstall replaces it.
            yield Plan(
                f"Reinstall {package}, which rebuilds the module",
                Risk.MEDIUM,
                (AptInstall((package,), reinstall=True), UpdateInitramfs(release), *load),
                network=True,
            )
        elif unfit:
            what = f"dkms install --force {module.name}/{module.version} -k {release}" if module else "rebuild it"
            yield Plan(
                f"Replace the module with one that kernel {release} can load",
                Risk.MEDIUM,
                (ByHand(f"move {unfit} out of the way; {what}; depmod {release}"),),
            )
        elif module:
            build = (DkmsBuild(module.name, module.version, release), UpdateInitramfs(release), *load)
            what = f"{module.name} {module.version} for kernel {release}"
            if space := finding.detail["space"]:
                first = ByHand(
                    f"the last build failed because {space}: free some space first (check with df -h / /var /boot; free -h)"
                )
                yield Plan(f"Free some space, then build {what}", Risk.LOW, (first, *build))
            elif finding.detail["headers"]:
                first = ByHand(
                    f"reinstall the headers of kernel {release}, in exactly this version: they are incomplete"
                )
                yield Plan(f"Reinstall the kernel's headers, then build {what}", Risk.LOW, (first, *build))
            elif finding.detail["crashed"]:
                last = ByHand("if the compiler crashes again, test the memory (memtest86+), or use another gcc version")
                yield Plan(f"Rebuild {what}", Risk.LOW, (*build, last))
            else:
                yield Plan(f"Build {what}", Risk.LOW, build)
        elif package and dkms and not dkms.tree:
            text = f"mount the partition that contains it; if somebody removed the directory: apt-get install --reinstall {package}"
            yield Plan("Restore /var/lib/dkms, which does not exist", Risk.MEDIUM, (ByHand(text),), network=True)
        elif package:
            yield Plan(
                f"Reinstall {package}, because DKMS has no source to build from",
                Risk.MEDIUM,
                (AptInstall((package,), reinstall=True), UpdateInitramfs(release), *load),
                network=True,
            )
        else:
            yield Plan(
                "Run the driver's installer for this kernel",
                Risk.MEDIUM,
                (ByHand(f"install the driver for kernel {release} the same way as before, with DKMS"),),
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def prebuilt(machine: Machine, kernel: str) -> Machine:
            modules = f"linux-modules-nvidia-550-{kernel}"
            return (
                machine.gpu()
                .ubuntu_driver(kernels=())
                .nvidia_module(kernel, "550.120", name="nvidia.ko", place="kernel/nvidia-550")
                .without_package("nvidia-dkms-550")
                .package("nvidia-driver-550", "550.120-0ubuntu0.24.04.1", depends="linux-modules-nvidia-550-generic")
                .package("linux-modules-nvidia-550-generic", "6.8.0-50.51", depends=modules)
                .package(modules, "6.8.0-50.51")
                .remove("/var/lib/dkms/nvidia/550.120/source")
            )

        old, new = "6.1.0-49-amd64", "6.1.0-50-amd64"

        def two() -> Machine:
            machine = Machine().os_release("debian", "12").kernel(old).kernel(new, running=False)
            return machine.user().gpu().debian_driver(kernels=(old,))

        yield Scenario(
            "a kernel update without a module build",
            Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False),
            finds=f"kernel:{new}",
            steps=("dkms-build", "update-initramfs", "load-modules"),
            ladder=(
                (
                    "low",
                    "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                    "update-initramfs 6.1.0-50-amd64",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "Ubuntu, only the old kernel has a module",
            Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=("6.8.0-49-generic",), loaded=False),
            finds="kernel:6.8.0-50-generic",
            ladder=(
                (
                    "low",
                    "dkms-build nvidia 550.120 6.8.0-50-generic",
                    "update-initramfs 6.8.0-50-generic",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "only the kernel that boots next has none",
            two(),
            finds=f"kernel:{new}",
            steps=("dkms-build", "update-initramfs"),
            ladder=(("low", "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64", "update-initramfs 6.1.0-50-amd64"),),
        )
        yield Scenario(
            "a mounted disk",
            Machine().os_release("debian", "12").kernel(new, running=False).debian_driver(kernels=(), loaded=False),
            finds=f"kernel:{new}",
        )
        yield Scenario(
            "--next-boot checks only the next kernel",
            two(),
            finds=f"kernel:{new}",
            next_boot=True,
        )
        yield Scenario(
            "missing headers are the cause",
            Machine()
            .os_release("ubuntu", "24.04")
            .kernel("6.8.0-51-generic", headers=False)
            .gpu(driver="")
            .ubuntu_driver(kernels=("6.8.0-50-generic",), loaded=False),
            finds="kernel:6.8.0-51-generic",
            causes=("kernel-headers-missing",),
        )
        conf = "/etc/modprobe.d/nvidia.conf"
        yield Scenario(
            "the chosen flavour is not the built one",
            Machine.debian12_gpu().file(conf, "install nvidia modprobe -i nvidia-tesla-470 $CMDLINE_OPTS\n"),
            finds=f"kernel:{new}",
            alone=False,
            ladder=(
                (
                    "medium",
                    "set-alternative nvidia /usr/lib/nvidia/current",
                    "update-initramfs 6.1.0-50-amd64",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "the chosen flavour is built",
            Machine.debian12_gpu().file(conf, "install nvidia modprobe -i nvidia-current $CMDLINE_OPTS\n"),
        )
        yield Scenario(
            "the disk was full during the build",
            Machine.debian12()
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False)
            .file(
                "/var/lib/dkms/nvidia-current/535.261.03/build/make.log",
                f"DKMS make.log for nvidia-current-535.261.03 for kernel {new} (x86_64)\n"
                "/var/tmp/nv-pci.c:1055:1: fatal error: error writing to /tmp/cc0B6OOx.s: No space left on device\n",
            ),
            finds=f"kernel:{new}",
            ladder=(
                (
                    "low",
                    "by-hand -h / /var /boot",
                    "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                    "update-initramfs 6.1.0-50-amd64",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "its package was unpacked but not configured",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(kernels=(), loaded=False)
            .remove("/var/lib/dkms/nvidia/550.120/source")
            .mark("nvidia-dkms-550", "install ok unpacked"),
            finds="kernel:6.8.0-50-generic",
            steps=("apt-install", "update-initramfs", "load-modules"),
            causes=("half-configured-driver-packages",),
            ladder=(
                (
                    "medium network",
                    "apt-install nvidia-dkms-550 reinstall",
                    "update-initramfs 6.8.0-50-generic",
                    "load-modules nvidia",
                ),
            ),
        )
        ubuntu, newer = "6.8.0-50-generic", "6.8.0-51-generic"
        yield Scenario(
            "prebuilt modules only for the previous kernel",
            prebuilt(Machine.ubuntu2404().kernel(newer, running=False), ubuntu),
            finds=f"kernel:{newer}",
            causes=("ubuntu-prebuilt-modules-missing",),
            ladder=(
                ("low network", "apt-install linux-modules-nvidia-550-6.8.0-51-generic"),
                (
                    "medium network",
                    "apt-install nvidia-dkms-550 linux-headers-6.8.0-51-generic",
                    "update-initramfs 6.8.0-51-generic",
                ),
                ("medium reboot", "by-hand 6.8.0-50-generic"),
            ),
        )
        yield Scenario(
            "a realtime kernel, which the driver does not support",
            Machine()
            .os_release("debian", "12")
            .kernel("6.1.0-50-rt-amd64")
            .file("/boot/config-6.1.0-50-rt-amd64", "#\nCONFIG_PREEMPT_RT=y\n")
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False)
            .file(
                "/usr/src/nvidia-current-535.261.03/dkms.conf",
                'BUILD_EXCLUSIVE_CONFIG="!CONFIG_PREEMPT_RT !CONFIG_PREEMPT_RT_FULL"\n',
            ),
            finds="kernel:6.1.0-50-rt-amd64",
            ladder=(("medium reboot", "by-hand -rt"),),
        )
        yield Scenario(
            "Ubuntu's realtime kernel, as the log of the build says",
            Machine()
            .os_release("ubuntu", "24.04")
            .kernel("6.8.1-1015-realtime")
            .gpu(driver="")
            .ubuntu_driver(kernels=(), loaded=False)
            .file(
                "/var/lib/dkms/nvidia/550.120/build/make.log",
                "DKMS make.log for nvidia-550.120 for kernel 6.8.1-1015-realtime (x86_64)\n"
                "The kernel you are installing for is a PREEMPT_RT kernel!\n\n"
                "*** Failed PREEMPT_RT sanity check. Bailing out! ***\n",
            ),
            finds="kernel:6.8.1-1015-realtime",
            ladder=(("medium reboot", "by-hand -realtime"),),
        )
        dkms = f"/usr/lib/modules/{ubuntu}/updates/dkms/nvidia.ko"
        yield Scenario(
            "an empty module file: the disk was full",
            Machine.ubuntu2404().gpu(driver="").ubuntu_driver(loaded=False).file(dkms, b""),
            finds=f"kernel:{ubuntu}",
            ladder=(
                (
                    "medium network",
                    "apt-install nvidia-dkms-550 reinstall",
                    "update-initramfs 6.8.0-50-generic",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "a module copied from another kernel, on a mounted disk",
            Machine()
            .os_release("debian", "12")
            .kernel(new, running=False)
            .debian_driver(kernels=(), loaded=False)
            .nvidia_module(new, "535.261.03", name="nvidia-current.ko", vermagic=f"{old} SMP preempt mod_unload "),
            finds=f"kernel:{new}",
            ladder=(("medium network", "apt-install nvidia-kernel-dkms reinstall", "update-initramfs 6.1.0-50-amd64"),),
        )
        yield Scenario("built", Machine.debian12_gpu())
        yield Scenario("prebuilt by Ubuntu, no DKMS", prebuilt(Machine.ubuntu2404(), ubuntu))
        yield Scenario(
            "compressed",
            Machine.ubuntu2404().gpu().ubuntu_driver(kernels=()).loaded_driver("550.120")
            .file(f"/usr/lib/modules/{ubuntu}/updates/dkms/nvidia.ko.zst", b"\x28\xb5\x2f\xfd"),
        )  # fmt: skip
        yield Scenario(
            "an old kernel that is not booted has none",
            Machine.debian12().kernel("6.1.0-9-amd64", running=False).gpu().debian_driver(),
        )
        yield Scenario(
            "built for both kernels",
            Machine()
            .os_release("debian", "12")
            .kernel(old)
            .kernel(new, running=False)
            .gpu()
            .debian_driver(kernels=(old, new)),
        )
        yield Scenario("no NVIDIA driver installed", Machine.debian12().gpu(driver="nouveau"))
        yield Scenario(
            "another operating system boots next",
            Machine.debian12()
            .gpu()
            .debian_driver()
            .file("/boot/grub/grub.cfg", "menuentry 'Windows' {\n chainloader /EFI/Microsoft/Boot/bootmgfw.efi\n}\n"),
            unknown=True,
            next_boot=True,
        )
        yield Scenario(
            "modules that cannot be listed",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )


def _effect(kernel: Kernel, modules: KernelModules, release: str) -> str:
    if release != kernel.running:
        return "the next boot comes up without an NVIDIA driver"
    if modules.loaded is not None and "nvidia" in modules.loaded:
        return f"the loaded module ({modules.loaded_version or 'unknown version'}) is lost at the next boot"
    return "this kernel has no NVIDIA driver"


def _reason(unfit: ModuleFile | None, build: ModuleBuild | None, refused: DkmsModule | None) -> str:
    if unfit:
        return f"{unfit.path}: {unfit.unfit}"
    if refused:
        return f"{refused.name} {refused.version} does not support realtime kernels"
    return f"the last build failed: {build.error}" if build else "it was not built, or was removed"


def _refused(kernel: Kernel, release: str, kept: list[DkmsModule], build: ModuleBuild | None) -> DkmsModule | None:
    """The module that refuses this kernel because it is a realtime kernel."""
    said = build is not None and build.fault is BuildFault.REALTIME
    realtime = any(k.realtime for k in kernel.installed if k.release == release)
    return next((m for m in kept if (build in m.builds if said else realtime and m.no_realtime)), None)


def _flavours(chosen: str, built: str, release: str, dkms: Dkms, load: tuple[LoadModules, ...]) -> Iterator[Plan]:
    """Debian installs several drivers side by side; an alternative chooses the one that modprobe loads."""
    module = next((m for m in dkms.modules if m.name == chosen and m.source), None)
    if module:
        yield Plan(
            f"Build {chosen} {module.version}, the chosen driver, for kernel {release}",
            Risk.LOW,
            (DkmsBuild(module.name, module.version, release), UpdateInitramfs(release), *load),
        )
    folder = f"/usr/lib/nvidia/{built.removeprefix('nvidia-')}"
    yield Plan(
        f"Switch to {built}, which has a module for kernel {release}",
        Risk.MEDIUM,
        (SetAlternative("nvidia", folder), UpdateInitramfs(release), *load),
    )


def _prebuilt(others: list[ModuleFile], packages: Packages | None) -> str:
    """The flavour of Ubuntu's prebuilt modules: "550" or "550-server-open"."""
    for file in others:
        for package in packages.installed(f"linux-modules-nvidia-*-{file.kernel}") if packages else ():
            return package.name.removeprefix("linux-modules-nvidia-").removesuffix(f"-{file.kernel}")
    return ""


def _flavour_of(built: tuple[DriverPackage, ...]) -> str:
    """The same, by the packages that are installed: linux-modules-nvidia-550-6.8.0-44-generic."""
    names = (re.fullmatch(r"linux-modules-nvidia-(\d+(?:-server)?(?:-open)?)-.*", m.package.name) for m in built)
    return next((found[1] for found in names if found), "")


def _built_for(module: DkmsModule) -> str:
    kernels = [b.kernel for b in module.builds if not b.fault]
    return f"built for {', '.join(kernels)}" if kernels else "not built for any kernel"
