"""The kernel is too new: the installed driver cannot be built for it.

What you see
    Error! Bad return status for module build on kernel: 6.17.9 (x86_64)

    nvidia-dkms-390 post-installation script subprocess returned error exit status 10

    In make.log: error: implicit declaration of function 'follow_pfn'
Why
    The internal interfaces of the kernel change with every release. A driver supports only the kernels that existed
    when it was released. On a newer kernel the build ends with C errors, and that kernel has no driver.

    dlhealth reports this if the log of a failed build shows it, or if this version of the package is known to fail on
    such a kernel. It also reports it if a build failed without a known reason, and the driver's branch ended before
    this kernel existed. An old version number alone proves nothing, because distributions adapt old drivers to newer
    kernels.

    "dkms apport: kernel package is not supported" only concerns bug reports.
Repair
    Install a newer driver from a branch that still supports the GPU, or stay on the last kernel that works.
What the repair risks
    A new driver version replaces the whole graphics stack. An old kernel gets no security fixes after its support
    ends.
By hand
    # Boot the previous kernel from the boot menu. Then install a newer
    # driver, or hold the metapackages that install newer kernels.
    # Debian:
    apt-mark hold linux-image-amd64 linux-headers-amd64
    # Ubuntu:
    apt-mark hold linux-generic linux-image-generic linux-headers-generic
    # If the packages of the new kernel stay half-configured, remove them:
    apt-get remove linux-image-KERNEL linux-headers-KERNEL
    dpkg --configure -a
"""

from collections.abc import Iterator

from dlhealth.api import (
    BuildFault,
    ByHand,
    Dkms,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    Machine,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    branch_of,
    dkms_package,
    kernels_without_module,
    lowest_driver_for_kernel,
    measured_failure,
    older_than_kernel,
)


class KernelTooNewForDriverBranch(Rule):
    id = "kernel-too-new-for-driver-branch"
    title = "The kernel is too new for the installed driver"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("dkms-module-missing-for-running-kernel", "half-configured-driver-packages")

    def detect(
        self, kernel: Kernel, modules: KernelModules, dkms: Dkms, packages: Packages | None
    ) -> Iterator[Finding]:
        for release, severity in kernels_without_module(kernel, modules, dkms):
            headers = any(k.headers for k in kernel.installed if k.release == release)
            for module in dkms.modules:
                build = module.build(release)
                needed = lowest_driver_for_kernel(release, module.version)
                older = older_than_kernel(module.version, release)
                told = build is not None and build.fault is BuildFault.KERNEL_TOO_NEW
                # A log that is cut, or not there, names no error; what else keeps a driver from a newer kernel is rare.
                failed = told or (build is not None and build.fault is BuildFault.UNKNOWN and build.kernel and older)
                package = dkms_package(packages, module.version)
                seen = measured_failure(module.name, package.version, release) if package and headers else None
                if not failed and (build is not None or not seen):
                    continue
                why = (
                    build.error
                    if build and told
                    else f"the build failed, and {older}"
                    if build
                    else "it was not built yet, and this package is known to fail on such a kernel"
                )
                branch = f"branch {branch_of(module.version)}: this kernel needs {needed} or newer"
                yield self.finding(
                    f"kernel:{release}",
                    f"Driver {module.version} does not build for kernel {release}: {why}",
                    *([Evidence(build.log, build.error)] if build else []),
                    *([Evidence(f"{package.name} {package.version}", f"failed on {seen}")] if package and seen else []),
                    *([Evidence("kernel_needs.json", branch)] if needed else []),
                    *([Evidence("driver_branches.json", older)] if older and not needed else []),
                    severity=severity,
                    release=release,
                    version=module.version,
                    needed=needed or "",
                )
                break

    def remedies(
        self, finding: Finding, kernel: Kernel, modules: KernelModules, packages: Packages | None
    ) -> Iterator[Plan]:
        release, needed = finding.detail["release"], finding.detail["needed"]
        works = modules.working(kernel, release)
        metapackages = " ".join(_metapackages(packages, release))
        hold = (
            f", and hold the packages that install newer kernels: apt-mark hold {metapackages}" if metapackages else ""
        )
        steps = (
            [
                f"boot kernel {works[0]} from the boot menu (Advanced options): its NVIDIA module is built",
                f"to stay on it, make it the boot loader's default{hold}",
            ]
            if works
            else ["install and boot the standard kernel of this distribution release"]
        )
        steps.append(
            f"or install driver {needed} or newer of the same branch, and boot kernel {release} again"
            if needed
            else "or install a newer driver branch that still supports this GPU (dlhealth doctor reports a branch that does not)"
        )
        if stuck := _stuck(packages, release):
            steps.append(
                f"after booting another kernel, remove the packages that cannot be configured, so that apt works again: "
                f"apt-get remove {' '.join(stuck)} && dpkg --configure -a"
            )
        yield Plan(
            "Choose: a newer driver, or the last kernel that works",
            Risk.MEDIUM,
            tuple(ByHand(s) for s in steps),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        new = "6.12.95+deb12-amd64"
        error = "/build/nvidia/os-mlock.c:23:12: error: implicit declaration of function ‘follow_pfn’; did you mean ‘folio_pfn’? [-Werror=implicit-function-declaration]\n"
        log = f"DKMS make.log for nvidia-tesla-470-470.256.02 for kernel {new} (x86_64)\nCFLAGS=-Werror=strict-prototypes\n{error}"
        base = Machine().os_release("debian", "12").user().gpu("1180", driver="")
        yield Scenario(
            "bookworm's driver 470 on the backports kernel",
            base.kernel(new)
            .dkms("nvidia-tesla-470", "470.256.02", ())
            .file("/var/lib/dkms/nvidia-tesla-470/470.256.02/build/make.log", log),
            finds=f"kernel:{new}",
            ladder=(
                (
                    "medium",
                    "by-hand install boot standard kernel this distribution",
                    "by-hand install newer driver branch that still",
                ),
            ),
        )
        yield Scenario(
            "a second kernel, for which the driver is too old as well",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(kernels=(), loaded=False)
            .file(
                "/var/lib/dkms/nvidia/550.120/build/make.log",
                "make -C /lib/modules/6.8.0-50-generic/build\n"
                "nvidia/os-mlock.c:23:12: error: implicit declaration of function 'follow_pfn'\n",
            ),
            finds="kernel:6.8.0-50-generic",
        )
        stuck = "6.12.1-1-liquorix-amd64"
        yield Scenario(
            "an unused kernel whose packages stay half-configured",
            Machine.ubuntu2404_gpu()
            .kernel(stuck, running=False)
            .package(f"linux-image-{stuck}", "6.12-2", status="install ok half-configured")
            .file(
                "/var/lib/dkms/nvidia/550.120/build/make.log",
                f"DKMS make.log for nvidia-550.120 for kernel {stuck} (x86_64)\n"
                "nvidia-drm/nvidia-drm-drv.c:207:6: error: 'struct drm_mode_config_funcs' has no member named 'x'\n",
            ),
            finds=f"kernel:{stuck}",
            alone=True,
            ladder=(
                (
                    "medium",
                    "by-hand 6.8.0-50-generic",
                    "by-hand stay make boot loader's default",
                    "by-hand install newer driver branch that still",
                    "by-hand linux-image-6.12.1-1-liquorix-amd64 --configure -a",
                ),
            ),
        )
        sid = "7.2.13+deb14-amd64"
        yield Scenario(
            "a package known to fail, not built yet for the next kernel",
            Machine.debian12()
            .kernel(sid, running=False, compiler="gcc-16 (Debian 16.1.0-2) 16.1.0")
            .gpu()
            .debian_driver(),
            finds=f"kernel:{sid}",
            ladder=(
                (
                    "medium",
                    "by-hand 6.1.0-50-amd64",
                    "by-hand stay make boot loader's default",
                    "by-hand 535.309.01 7.2.13+deb14-amd64",
                ),
            ),
        )
        yield Scenario(
            "another revision of that package, with unknown results",
            Machine.debian12()
            .kernel(sid, running=False)
            .gpu()
            .debian_driver()
            .package("nvidia-kernel-dkms", "535.261.03-2", source="nvidia-graphics-drivers"),
            alone=False,
        )

        def cut_off(version: str) -> Machine:
            log = f"DKMS make.log for nvidia-{version} for kernel 6.14.4-amd64 (x86_64)\nmake[1]: *** [Makefile:1] Error 2\n"
            machine = Machine().os_release("debian", "12").user().gpu("1180", driver="").kernel("6.14.4-amd64")
            return machine.dkms("nvidia", version, ()).file(f"/var/lib/dkms/nvidia/{version}/build/make.log", log)

        yield Scenario(
            "a log without an error, and a branch that ended before this kernel",
            cut_off("470.256.02"),
            finds="kernel:6.14.4-amd64",
            ladder=(
                (
                    "medium",
                    "by-hand install boot standard kernel this distribution",
                    "by-hand install newer driver branch that still",
                ),
            ),
        )
        yield Scenario("the same log, and a branch that knows this kernel", cut_off("580.95.05"))
        yield Scenario("built", Machine.debian12_gpu())
        yield Scenario(
            "the compiler is the reason, not the kernel",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(kernels=(), loaded=False)
            .file(
                "/var/lib/dkms/nvidia/550.120/build/make.log",
                "make -C /lib/modules/6.8.0-50-generic/build\n*** Failed CC version check. Bailing out! ***\n",
            ),
        )
        yield Scenario(
            "the kernel's version cannot be read",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )


def _metapackages(packages: Packages | None, release: str) -> tuple[str, ...]:
    """The installed packages that installed this kernel and will install the next. Only a hold on all of them stops
    newer kernels; a hold on the packages of one kernel does not."""
    brought = {f"linux-image-{release}", f"linux-headers-{release}"}
    while packages:
        known = set(brought)
        brought |= {
            p.name for p in packages.installed("linux-*") if known & set(p.dependencies) and release not in p.name
        }
        if brought == known:
            break
    return tuple(sorted(name for name in brought if release not in name))


def _stuck(packages: Packages | None, release: str) -> tuple[str, ...]:
    """The packages of a kernel that dpkg cannot configure, because the module build for that kernel fails."""
    unfinished = {p.name for p in (packages.all() if packages else ()) if p.unpacked and p.state != "installed"}
    of_kernel = {n for n in unfinished if n.startswith("linux-") and n.endswith(f"-{release}")}
    waiting = unfinished.intersection(_metapackages(packages, release))
    return tuple(sorted(of_kernel | waiting)) if of_kernel else ()
