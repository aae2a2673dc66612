"""The build of the NVIDIA module fails because of the compiler.

What you see
    *** Failed CC version check. Bailing out! ***
    gcc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'
    /bin/sh: 1: gcc-12: not found
Why
    A module must be built with a compiler like the one that built the kernel.
    An older gcc does not know the kernel's options: gcc was switched to an old version (often for nvcc) or removed, or
    the kernel needs a newer gcc than the release's own, as Ubuntu's HWE kernels do.
    A newer gcc refuses code that the kernel's gcc accepted: it treats old warnings as errors.
    The warning that "the compiler differs from the one used to build the kernel" is harmless by itself.
Repair
    Install the kernel's compiler and build the module with it. Where somebody switched gcc, make it the distribution's
    again: nvcc has an option of its own for its compiler (-ccbin). Where the release's gcc is another one than the
    kernel's, gcc stays as it is and DKMS is told which compiler to use.
What the repair risks
    Programs that were built with the switched gcc are built with the distribution's gcc from now on.
By hand
    apt-get install gcc-12; ln -sfn gcc-12 /usr/bin/gcc (where that is the release's own); dkms autoinstall
    else: CC=/usr/bin/gcc-12 dkms install nvidia/VERSION -k KERNEL
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    BuildFault,
    ByHand,
    Compiler,
    Compilers,
    Dkms,
    DkmsBuild,
    DkmsModule,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    LoadModules,
    Machine,
    MakeLink,
    ModuleBuild,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    UpdateInitramfs,
    compiler_major,
)


class DkmsCompilerMismatch(Rule):
    id = "dkms-compiler-mismatch"
    title = "The NVIDIA module can't be built with this compiler"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    explains = ("dkms-module-missing-for-running-kernel", "half-configured-driver-packages")

    def detect(
        self, kernel: Kernel, modules: KernelModules, dkms: Dkms, compilers: Compilers | None
    ) -> Iterator[Finding]:
        gcc = compilers.gcc if compilers else None
        for release, severity in kernel.to_judge():
            if modules.usable(release):
                continue
            wanted = kernel.compiler_of(release)
            headers = any(k.headers for k in kernel.installed if k.release == release)
            for module in dkms.modules:
                build = module.build(release)
                failed = build is not None and build.fault in (BuildFault.COMPILER, BuildFault.NEWER_COMPILER)
                if not failed and not (build is None and headers and module.source and _too_old(gcc, wanted)):
                    continue
                yield self.finding(
                    f"kernel:{release}",
                    f"{_said(module, build, release)} ({_now(gcc)}, the kernel was built with {wanted or 'an unknown one'})",
                    *([Evidence(build.log, build.error)] if build else []),
                    *([Evidence(gcc.path, f"{gcc.real} ({gcc.source})")] if gcc else []),
                    *([Evidence(_told(kernel, release), wanted)] if wanted else []),
                    severity=severity,
                    release=release,
                    module=module.name,
                    version=module.version,
                    newer=bool(build and build.fault is BuildFault.NEWER_COMPILER),
                )
                break

    def remedies(
        self, finding: Finding, kernel: Kernel, compilers: Compilers | None, packages: Packages | None
    ) -> Iterator[Plan]:
        release, module, version = (finding.detail[k] for k in ("release", "module", "version"))
        major = compiler_major(kernel.compiler_of(release))
        gcc = compilers.gcc if compilers else None
        if finding.detail["newer"] and major:
            yield Plan(
                f"Build the module with gcc-{major}, which built the kernel",
                Risk.LOW,
                (AptInstall((f"gcc-{major}",)), ByHand(_named(major, module, version, release))),
                network=True,
            )
            return
        other = bool(gcc and major and gcc.version and gcc.version.partition(".")[0] != major)
        switched = other and _of_the_release(packages) in ("", major)
        yield Plan(
            f"Install gcc-{major}{', make it gcc again' if switched else ''} and build the module"
            if major
            else "Install the distribution's compiler and build the module",
            Risk.MEDIUM if switched else Risk.LOW,
            (
                AptInstall((f"gcc-{major}",) if major else ("gcc",)),
                # The link that the distribution's package gcc brings; an alternative in its place is somebody's switch.
                *([MakeLink("/usr/bin/gcc", f"gcc-{major}")] if switched else []),
                DkmsBuild(module, version, release),
                UpdateInitramfs(release),
                *([LoadModules(("nvidia",))] if release == kernel.running else []),
            ),
            network=True,
        )
        if other and not switched:
            text = _named(major, module, version, release)
            yield Plan(f"Tell DKMS to use gcc-{major}, which it did not choose by itself", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        tree = "/var/lib/dkms/nvidia/550.120/build/make.log"
        debian, release = "kernel:6.1.0-50-amd64", "kernel:6.8.0-50-generic"
        log = "DKMS make.log for nvidia-550.120 for kernel 6.8.0-50-generic (x86_64)\n"
        option = "x86_64-linux-gnu-gcc-9: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'\n"

        def ubuntu(text: str = "") -> Machine:
            machine = Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False)
            return machine.file(tree, log + text) if text else machine

        def switched(machine: Machine, version: str) -> Machine:
            machine.library(f"/usr/bin/x86_64-linux-gnu-gcc-{version}")
            machine.link(f"/usr/bin/gcc-{version}", f"x86_64-linux-gnu-gcc-{version}")
            return machine.link("/etc/alternatives/gcc", f"/usr/bin/gcc-{version}").link(
                "/usr/bin/gcc", "/etc/alternatives/gcc"
            )

        yield Scenario(
            "an option that the old gcc does not know",
            ubuntu(option),
            finds=release,
            steps=("apt-install", "dkms-build", "update-initramfs", "load-modules"),
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
            finds=debian,
        )
        yield Scenario(
            "the kernel's gcc was removed", ubuntu("/bin/sh: 1: x86_64-linux-gnu-gcc-13: not found\n"), finds=release
        )
        yield Scenario(
            "gcc was switched for nvcc, nothing was built since",
            switched(ubuntu(), "9"),
            finds=release,
            steps=("apt-install", "make-link", "dkms-build", "update-initramfs", "load-modules"),
        )
        warning = "warning: the compiler differs from the one used to build the kernel\n"
        yield Scenario(
            "only the harmless warning",
            Machine.debian12_gpu().file(
                "/var/lib/dkms/nvidia-current/535.261.03/6.1.0-50-amd64/x86_64/log/make.log", warning
            ),
        )
        newer = (
            "warning: the compiler differs from the one used to build the kernel\n"
            "  The kernel was built by: x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0-23ubuntu4) 13.2.0\n"
            "  You are using:           cc (Ubuntu 15.0.1-1) 15.0.1\n"
        )
        yield Scenario(
            "a newer gcc refuses what the kernel's accepted",
            ubuntu(f"{newer}./common/inc/nv-mm.h:29:13: error: conflicting types for 'vm_fault_t'; have 'int'\n"),
            finds=release,
            alone=True,
        )
        yield Scenario(
            "a newer gcc, but the kernel's interface changed",
            ubuntu(f"{newer}nvidia/nv-mmap.c:9:5: error: 'struct vm_area_struct' has no member named '__vm_flags'\n"),
        )
        yield Scenario("failed once, built since", Machine.ubuntu2404_gpu().file(tree, log + option))
        yield Scenario("a gcc that is as new", switched(ubuntu(), "13"), alone=False)
        yield Scenario("an old gcc, but the module is there", switched(Machine.ubuntu2404_gpu(), "9"))
        yield Scenario(
            "it was C that failed",
            switched(ubuntu("nvidia/nv.c:11:10: fatal error: nvmisc.h: No such file or directory\n"), "9"),
        )
        yield Scenario(
            "the kernel can't be read",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )


def _of_the_release(packages: Packages | None) -> str:
    """The major version of the distribution's own gcc, as its package has it: "4:11.2.0-1ubuntu1"; "" where it is not
    there to tell."""
    package = packages.get("gcc") if packages else None
    return package.upstream.partition(".")[0] if package and package.unpacked else ""


def _named(major: str, module: str, version: str, release: str) -> str:
    return f"CC=/usr/bin/gcc-{major} dkms install {module}/{version} -k {release}"


def _too_old(gcc: Compiler | None, wanted: str) -> bool:
    """Whether gcc is of an older major version than what built the kernel, whose options it does not know."""
    major, now = compiler_major(wanted), gcc.version.partition(".")[0] if gcc else ""
    return major.isdigit() and now.isdigit() and int(now) < int(major)


def _said(module: DkmsModule, build: ModuleBuild | None, release: str) -> str:
    what = f"{module.name} {module.version}"
    if build:
        return f"{what} can't be built for kernel {release}: {build.error}"
    return f"{what} is not built for kernel {release}, and gcc is older than what built that kernel"


def _now(gcc: Compiler | None) -> str:
    return f"gcc is {gcc.version or gcc.real}" if gcc else "there is no gcc"


def _told(kernel: Kernel, release: str) -> str:
    configured = any(k.compiler for k in kernel.installed if k.release == release)
    return f"/boot/config-{release}" if configured else "/proc/version"
