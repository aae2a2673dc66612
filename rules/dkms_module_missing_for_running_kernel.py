"""The NVIDIA module is not built for the kernel that runs, or for the one that starts next.

What you see
    NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.
    modprobe: FATAL: Module nvidia not found in directory /lib/modules/...
Why
    DKMS builds the module anew for each kernel. A kernel update whose build failed, or that came without its headers,
    leaves a kernel without a driver; it is noticed at the next start.
Repair
    Build the module for that kernel. Where something keeps it from being built (no headers, an unsuitable compiler,
    a kernel that the driver is too old for), that is repaired first.
What the repair risks
    Little: the modules of other kernels stay as they are, and the previous kernel in the boot menu works meanwhile.
By hand
    dkms autoinstall -k KERNEL; modprobe nvidia
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Dkms,
    DkmsBuild,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    Layer,
    LoadModules,
    Machine,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    UpdateInitramfs,
)

PACKAGES = (
    "nvidia-kernel-dkms",
    "nvidia-*-kernel-dkms",
    "nvidia-open-kernel-dkms",
    "nvidia-dkms-*",
    "nvidia-dkms",
    "nvidia-dkms-open",
)


class DkmsModuleMissingForRunningKernel(Rule):
    id = "dkms-module-missing-for-running-kernel"
    title = "The NVIDIA module is not built for this kernel"
    layer = Layer.KERNEL_MODULE
    stage = Stage.MODULE
    severity = Severity.ERROR
    explains = (
        "driver-library-version-mismatch-after-upgrade",
        "login-loop-glx-broken-driver-mismatch",
        "nouveau-bound-instead-of-nvidia",
        "nvidia-module-not-loaded",
        "stale-xorg-conf-nvidia",
        "uvm-device-node-missing",
    )

    def detect(
        self, kernel: Kernel, modules: KernelModules, dkms: Dkms, packages: Packages | None
    ) -> Iterator[Finding]:
        installed = [p.name for pattern in PACKAGES for p in packages.installed(pattern)] if packages else []
        if not installed and not dkms.modules:
            return
        for release, severity in kernel.to_judge():
            if modules.on_disk(release):
                continue
            build = next((b for m in dkms.modules if (b := m.build(release))), None)
            said = (
                f"the last build failed: {build.error}"
                if build and build.state == "failed"
                else "it was never built, or removed"
            )
            when = "this kernel has" if release == kernel.running else "the next boot comes up with"
            yield self.finding(
                f"kernel:{release}",
                f"No NVIDIA module for kernel {release}: {when} no NVIDIA driver ({said})",
                Evidence(f"/lib/modules/{release}", "no nvidia module in updates, extra or kernel/drivers/video"),
                *[Evidence("/var/lib/dpkg/status", f"{name} is installed, which builds it") for name in installed[:1]],
                *[Evidence(f"/var/lib/dkms/{m.name}/{m.version}", _built_for(m.builds)) for m in dkms.modules],
                *([Evidence(build.log, build.error)] if build and build.error else []),
                severity=severity,
                release=release,
            )

    def remedies(self, finding: Finding, kernel: Kernel, dkms: Dkms) -> Iterator[Plan]:
        release = finding.detail["release"]
        module = next((m for m in reversed(dkms.modules) if m.source), None)
        if module is None:
            yield Plan(
                "DKMS has no source to build from: the driver's packages must be installed again",
                Risk.MEDIUM,
                (
                    ByHand(
                        "apt-get install --reinstall the nvidia DKMS package (nvidia-kernel-dkms or nvidia-dkms-NNN)"
                    ),
                ),
                network=True,
            )
            return
        running = release == kernel.running
        yield Plan(
            f"Build {module.name} {module.version} for kernel {release}",
            Risk.LOW,
            (
                DkmsBuild(module.name, module.version, release),
                UpdateInitramfs(release),
                *([LoadModules(("nvidia",))] if running else []),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        old, new = "6.1.0-49-amd64", "6.1.0-50-amd64"
        two = Machine().os_release("debian", "12").kernel(old).kernel(new, running=False).user().gpu()
        yield Scenario(
            "a kernel update whose module was not built",
            Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False),
            finds=f"kernel:{new}",
        )
        yield Scenario(
            "Ubuntu, module of the old kernel only",
            Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=("6.8.0-49-generic",), loaded=False),
            finds="kernel:6.8.0-50-generic",
        )
        yield Scenario("only the next kernel lacks it", two.debian_driver(kernels=(old,)), finds=f"kernel:{new}")
        yield Scenario(
            "a disk that does not run",
            Machine().os_release("debian", "12").kernel(new, running=False).debian_driver(kernels=(), loaded=False),
            finds=f"kernel:{new}",
        )
        yield Scenario("built", Machine.debian12_gpu())
        yield Scenario(
            "built for both",
            Machine()
            .os_release("debian", "12")
            .kernel(old)
            .kernel(new, running=False)
            .gpu()
            .debian_driver(kernels=(old, new)),
        )
        yield Scenario("no driver wanted", Machine.debian12().gpu(driver="nouveau"))
        yield Scenario(
            "modules that can't be listed",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )


def _built_for(builds: tuple[object, ...]) -> str:
    kernels = [b.kernel for b in builds if b.state == "built"]  # type: ignore[attr-defined]
    return f"built for {', '.join(kernels)}" if kernels else "built for no kernel"
