"""The build of the NVIDIA module fails because of the compiler.

What you see
    *** Failed CC version check. Bailing out! ***
    gcc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'
Why
    A module is built with the compiler that built the kernel, or a newer one. Where gcc was switched to an old version
    (often for nvcc) or removed, the options of the kernel are unknown to it.
Repair
    Install the kernel's compiler and let gcc be the distribution's again, then build the module. What nvcc needs is
    given to nvcc alone (-ccbin).
What the repair risks
    Programs that were built with the switched gcc are built with the distribution's from now on.
By hand
    apt-get install gcc-12; update-alternatives --auto gcc; dkms autoinstall
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    Compilers,
    Dkms,
    DkmsBuild,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    Layer,
    Machine,
    MakeLink,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)


class DkmsCompilerMismatch(Rule):
    id = "dkms-compiler-mismatch"
    title = "The NVIDIA module can't be built with this compiler"
    layer = Layer.KERNEL_MODULE
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    explains = ("dkms-module-missing-for-running-kernel", "half-configured-driver-packages")

    def detect(
        self, kernel: Kernel, modules: KernelModules, dkms: Dkms, compilers: Compilers | None
    ) -> Iterator[Finding]:
        for release, severity in kernel.to_judge():
            for module in dkms.modules:
                build = module.build(release)
                if build is None or build.cause != "compiler" or modules.on_disk(release):
                    continue
                gcc = compilers.gcc if compilers else None
                now = f"gcc is {gcc.version or gcc.real}" if gcc else "there is no gcc"
                wanted = kernel.compiler_of(release)
                yield self.finding(
                    f"kernel:{release}",
                    f"{module.name} {module.version} can't be built for kernel {release}: {build.error} ({now}, the kernel was built with {wanted or 'an unknown one'})",
                    Evidence(build.log, build.error),
                    *([Evidence(gcc.path, f"{gcc.real} ({gcc.version or 'unknown version'})")] if gcc else []),
                    *([Evidence(f"/boot/config-{release}", wanted)] if wanted else []),
                    severity=severity,
                    release=release,
                    module=module.name,
                    version=module.version,
                )

    def remedies(self, finding: Finding, kernel: Kernel, compilers: Compilers | None) -> Iterator[Plan]:
        release = finding.detail["release"]
        found = re.search(r"gcc(?:-(\d+))?\D*?(\d+)", kernel.compiler_of(release))
        major = (found[1] or found[2]) if found else ""
        gcc = compilers.gcc if compilers else None
        switched = bool(gcc and major and gcc.version.partition(".")[0] != major)
        yield Plan(
            f"Install gcc-{major} and build the module"
            if major
            else "Install the distribution's compiler and build the module",
            Risk.MEDIUM if switched else Risk.LOW,
            (
                AptInstall((f"gcc-{major}",) if major else ("gcc",)),
                # The link that the distribution's package gcc brings; an alternative in its place is somebody's switch.
                *([MakeLink("/usr/bin/gcc", f"gcc-{major}")] if switched else []),
                DkmsBuild(finding.detail["module"], finding.detail["version"], release),
            ),
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        tree = "/var/lib/dkms/nvidia/550.120/build/make.log"
        ubuntu = Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False)
        log = "DKMS make.log for nvidia-550.120 for kernel 6.8.0-50-generic (x86_64)\n"
        option = "x86_64-linux-gnu-gcc-9: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'\n"
        yield Scenario(
            "an option that the old gcc does not know", ubuntu.file(tree, log + option), finds="kernel:6.8.0-50-generic"
        )
        yield Scenario(
            "the compiler check of the driver",
            Machine.debian12()
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False)
            .file(
                "/var/lib/dkms/nvidia-current/535.261.03/build/make.log",
                "DKMS make.log for nvidia-current-535.261.03 for kernel 6.1.0-50-amd64 (x86_64)\n*** Failed CC version check. Bailing out! ***\n",
            ),
            finds="kernel:6.1.0-50-amd64",
        )
        warning = "warning: the compiler differs from the one used to build the kernel\n"
        yield Scenario(
            "only the harmless warning",
            Machine.debian12_gpu().file(
                "/var/lib/dkms/nvidia-current/535.261.03/6.1.0-50-amd64/x86_64/log/make.log", warning
            ),
        )
        yield Scenario(
            "failed once, built since",
            Machine.ubuntu2404_gpu().file(tree, log + option),
        )
        yield Scenario(
            "the kernel can't be read",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )
