"""The headers that modules are built with are missing for a kernel.

What you see
    Error! Your kernel headers for kernel 6.x cannot be found
    After a kernel update there is no NVIDIA driver.
Why
    The kernel came without the package of its headers: only the image's metapackage is installed, or the headers were
    removed. DKMS can't build anything for that kernel.
Repair
    Install the headers of that kernel, and build the module.
What the repair risks
    Little; it needs the network. Where that exact version has left the archive, image and headers go up together.
By hand
    apt-get install linux-headers-KERNEL; dkms autoinstall -k KERNEL
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
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


class KernelHeadersMissing(Rule):
    id = "kernel-headers-missing"
    title = "Kernel headers are missing"
    layer = Layer.KERNEL_MODULE
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    explains = (
        "dkms-module-missing-for-running-kernel",
        "driver-library-version-mismatch-after-upgrade",
        "half-configured-driver-packages",
        "login-loop-glx-broken-driver-mismatch",
        "nouveau-bound-instead-of-nvidia",
        "nvidia-module-not-loaded",
    )

    def detect(
        self, kernel: Kernel, modules: KernelModules, dkms: Dkms, packages: Packages | None
    ) -> Iterator[Finding]:
        wanted = bool(dkms.modules) or bool(packages and packages.installed("nvidia*dkms*"))
        if not wanted:
            return
        for release, severity in kernel.to_judge():
            known = next((k for k in kernel.installed if k.release == release), None)
            # A module that is there was built; the headers are needed again only for the next version.
            if known is None or known.headers or modules.on_disk(release):
                continue
            package = packages.get(f"linux-headers-{release}") if packages else None
            yield self.finding(
                f"kernel:{release}",
                f"The headers of kernel {release} are not installed, so no NVIDIA module can be built for it",
                Evidence(f"/lib/modules/{release}/build", "does not lead to a tree with a Makefile"),
                Evidence(
                    "/var/lib/dpkg/status", f"linux-headers-{release}: {package.state if package else 'not installed'}"
                ),
                severity=severity,
                release=release,
            )

    def remedies(self, finding: Finding, kernel: Kernel, dkms: Dkms) -> Iterator[Plan]:
        release = finding.detail["release"]
        module = next((m for m in reversed(dkms.modules) if m.source), None)
        build = (DkmsBuild(module.name, module.version, release), UpdateInitramfs(release)) if module else ()
        yield Plan(
            f"Install linux-headers-{release}"
            + (f" and build {module.name} {module.version} for it" if module else ""),
            Risk.LOW,
            (
                AptInstall((f"linux-headers-{release}",)),
                *build,
                *([LoadModules(("nvidia",))] if module and release == kernel.running else []),
            ),
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        new = "6.1.0-50-amd64"
        bare = Machine().os_release("debian", "12").kernel(new, headers=False).user().gpu(driver="")
        yield Scenario("a kernel without headers", bare.debian_driver(kernels=(), loaded=False), finds=f"kernel:{new}")
        yield Scenario(
            "a broken link, on a disk that does not run",
            Machine()
            .os_release("ubuntu", "24.04")
            .kernel("6.8.0-50-generic", running=False, headers=False)
            .link("/usr/lib/modules/6.8.0-50-generic/build", "/usr/src/linux-headers-6.8.0-50-generic")
            .ubuntu_driver(kernels=(), loaded=False),
            finds="kernel:6.8.0-50-generic",
        )
        yield Scenario("headers are there", Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False))
        yield Scenario(
            "built before the headers were removed",
            Machine().os_release("debian", "12").kernel(new, headers=False).user().gpu().debian_driver(),
        )
        yield Scenario("no driver to build", Machine().os_release("debian", "12").kernel(new, headers=False).user())
        yield Scenario(
            "the running kernel can't be read",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )
