"""A kernel update restricted a symbol to GPL modules, so the driver's closed module does not build.

What you see
    ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol '__rcu_read_lock'
Why
    The kernel exports some functions only to modules with a GPL license. An update of the kernel, even one within a
    stable series such as Debian 12's 6.1.76, can move a function there that the closed module uses. The build then stops
    at its last step.

    A later point release of the same driver branch no longer uses the function. The open kernel module is not affected.
Repair
    Upgrade the driver to its newest point release, which rebuilds the module. Until then, boot the previous kernel.
What the repair risks
    A new point release replaces module and libraries together. It needs a reboot.
By hand
    apt-get update
    apt-get install nvidia-driver-NNN
    # Or choose the previous kernel in the boot menu (Advanced options).
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    BuildFault,
    ByHand,
    Dkms,
    DriverPackages,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    Machine,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    kernels_without_module,
    lowest_driver_for_kernel,
)


class GplOnlySymbolBuildFailure(Rule):
    id = "gpl-only-symbol-build-failure"
    title = "The driver uses a symbol that the kernel now reserves for GPL modules"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("dkms-module-missing-for-running-kernel", "half-configured-driver-packages")

    def detect(self, kernel: Kernel, modules: KernelModules, dkms: Dkms) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in dkms.problems)
        if kernel.target is None and dkms.modules and not kernel.unseen:
            yield Unknown(f"cannot find out which kernel boots next: {kernel.next_boot_source}")
        for release, severity in kernels_without_module(kernel, modules, dkms):
            builds = ((m, b) for m in dkms.modules if (b := m.failed(release)) and b.fault is BuildFault.GPL_SYMBOL)
            module, build = next(builds, (None, None))
            if module is None or build is None:
                continue
            symbol = re.search(r"GPL-only symbol '?([\w.]+)'?", build.error)
            needed = lowest_driver_for_kernel(release, module.version)
            yield self.finding(
                f"kernel:{release}",
                f"Driver {module.version} does not build for kernel {release}: the kernel reserves "
                f"{symbol[1] if symbol else 'a symbol'} for GPL modules",
                Evidence(build.log, build.error),
                *(
                    [Evidence("kernel_needs.json", f"this kernel needs {needed} or newer of this branch")]
                    if needed
                    else []
                ),
                severity=severity,
                release=release,
            )

    def remedies(
        self, finding: Finding, kernel: Kernel, modules: KernelModules, driver: DriverPackages | None
    ) -> Iterator[Plan]:
        release = finding.detail["release"]
        if driver and driver.complete:
            yield Plan(
                f"Upgrade the driver to its newest point release ({', '.join(driver.complete)})",
                Risk.MEDIUM,
                (AptInstall(driver.complete), Reboot()),
                reboot=True,
                network=True,
            )
        works = modules.working(kernel, release)
        steps = (
            [f"boot kernel {works[0]} from the boot menu (Advanced options): its NVIDIA module is built"]
            if works
            else []
        )
        steps.append(
            "install the newest point release of this driver branch, or the open kernel module if the GPU supports it"
        )
        yield Plan(
            "Boot another kernel, or install a newer driver", Risk.MEDIUM, tuple(map(ByHand, steps)), reboot=True
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        modpost = "ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol '{}'\n"
        log = "/var/lib/dkms/nvidia/550.120/build/make.log"
        kernel = "6.8.0-50-generic"

        def failed(symbol: str) -> Machine:
            machine = Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False)
            return machine.file(log, f"make -C /lib/modules/{kernel}/build\n{modpost.format(symbol)}")

        yield Scenario(
            "__rcu_read_lock",
            failed("__rcu_read_lock"),
            finds=f"kernel:{kernel}",
            ladder=(
                ("medium reboot network", "apt-install nvidia-driver-550 nvidia-utils-550", "reboot"),
                ("medium reboot", "by-hand open"),
            ),
        )
        yield Scenario(
            "the older form of the message, on Debian, with a kernel that works",
            Machine()
            .os_release("debian", "12")
            .kernel("6.1.0-17-amd64", running=False)
            .kernel("6.1.0-18-amd64")
            .user()
            .gpu(driver="")
            .debian_driver("525.147.05", kernels=("6.1.0-17-amd64",), loaded=False)
            .file(
                "/var/lib/dkms/nvidia-current/525.147.05/build/make.log",
                "DKMS make.log for nvidia-current-525.147.05 for kernel 6.1.0-18-amd64 (x86_64)\n"
                "FATAL: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol 'rcu_read_unlock_strict'\n",
            ),
            finds="kernel:6.1.0-18-amd64",
            alone=False,
        )
        yield Scenario("the kernel that boots has its module", Machine.ubuntu2404_gpu().file(
            log, f"DKMS make.log for nvidia-550.120 for kernel 6.8.0-51-generic (x86_64)\n{modpost.format('x')}"
        ))  # fmt: skip
        yield Scenario(
            "an error of the compiler is another problem",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(kernels=(), loaded=False)
            .file(log, "nvidia/os-mlock.c:23:12: error: implicit declaration of function 'follow_pfn'\n"),
        )
        yield Scenario(
            "the kernel's version cannot be read",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )
