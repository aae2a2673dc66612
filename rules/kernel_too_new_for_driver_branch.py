"""The kernel is newer than what the driver can be built for.

What you see
    Error! Bad return status for module build on kernel: 6.17.9 (x86_64)
    nvidia-dkms-390 post-installation script subprocess returned error exit status 10
Why
    The kernel's inner interfaces change with every release. A driver knows those of kernels before it; on a newer one
    its build ends with C errors, and that kernel has no driver.
Repair
    A newer driver of a branch that still supports the GPU; or staying on the last kernel that works.
What the repair risks
    Another driver version is a change of the whole graphics stack; an old kernel gets no security fixes once it is out
    of support.
By hand
    Choose the previous kernel in the boot menu; then install a newer driver, or hold the kernel's packages.
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Dkms,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    Layer,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    branch_of,
    lowest_driver_for_kernel,
)


class KernelTooNewForDriverBranch(Rule):
    id = "kernel-too-new-for-driver-branch"
    title = "The kernel is too new for the installed driver"
    layer = Layer.KERNEL_MODULE
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("dkms-module-missing-for-running-kernel", "half-configured-driver-packages")

    def detect(self, kernel: Kernel, modules: KernelModules, dkms: Dkms) -> Iterator[Finding]:
        for release, severity in kernel.to_judge():
            for module in dkms.modules:
                build = module.build(release)
                if build is None or build.cause not in ("kernel-too-new", "gpl-symbol") or modules.on_disk(release):
                    continue
                needed = lowest_driver_for_kernel(release, module.version)
                yield self.finding(
                    f"kernel:{release}",
                    f"Driver {module.version} does not build for kernel {release}: {build.error}",
                    Evidence(build.log, build.error),
                    *(
                        [
                            Evidence(
                                "kernel_needs.json",
                                f"branch {branch_of(module.version)}: {needed} or newer for this kernel",
                            )
                        ]
                        if needed
                        else []
                    ),
                    severity=severity,
                    release=release,
                    version=module.version,
                    needed=needed or "",
                )

    def remedies(self, finding: Finding, kernel: Kernel, modules: KernelModules) -> Iterator[Plan]:
        release, needed = finding.detail["release"], finding.detail["needed"]
        works = [
            k.release for k in kernel.installed if k.has_image and k.release != release and modules.on_disk(k.release)
        ]
        steps = (
            [f"start kernel {works[-1]} from the boot menu (Advanced options): its module is built"] if works else []
        )
        steps.append(
            f"install driver {needed} or newer of the same branch"
            if needed
            else "install a newer driver branch that supports this GPU, or a kernel of the distribution's release"
        )
        yield Plan(
            "A newer driver, or the last kernel that works: a person decides",
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
            "bookworm's Tesla 470 on the backports kernel",
            base.kernel(new)
            .dkms("nvidia-tesla-470", "470.256.02", ())
            .file("/var/lib/dkms/nvidia-tesla-470/470.256.02/build/make.log", log),
            finds=f"kernel:{new}",
        )
        modpost = "ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol '__rcu_read_lock'\n"
        yield Scenario(
            "a symbol that became GPL-only",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(kernels=(), loaded=False)
            .file(
                "/var/lib/dkms/nvidia/550.120/build/make.log", f"make -C /lib/modules/6.8.0-50-generic/build\n{modpost}"
            ),
            finds="kernel:6.8.0-50-generic",
        )
        yield Scenario("built", Machine.debian12_gpu())
        yield Scenario(
            "the compiler, not the kernel",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(kernels=(), loaded=False)
            .file(
                "/var/lib/dkms/nvidia/550.120/build/make.log",
                "make -C /lib/modules/6.8.0-50-generic/build\n*** Failed CC version check. Bailing out! ***\n",
            ),
        )
        yield Scenario(
            "the kernel can't be read",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )
