"""The installed compiler cannot build the NVIDIA module for this kernel.

What you see
    *** Failed CC version check. Bailing out! ***

    gcc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'

    /bin/sh: 1: gcc-12: not found
Why
    A kernel module must be built with a compiler that matches the one that built the kernel.

    An older gcc does not know the kernel's compiler options. This happens when gcc was switched to an old version
    (often for nvcc), when gcc was removed, or when the kernel needs a newer gcc than the default of the release
    (Ubuntu's HWE kernels).

    A newer gcc can refuse code that the kernel's gcc accepts, because it treats some old warnings as errors.

    The warning "the compiler differs from the one used to build the kernel" alone is harmless.
Repair
    Install the compiler that built the kernel, and build the module with it.

    If gcc was switched, dlhealth restores the default of the distribution. nvcc has its own option for its compiler
    (-ccbin).

    If the default gcc of the release differs from the kernel's, gcc stays unchanged and DKMS gets the right compiler.
What the repair risks
    Programs that you build later use the default gcc of the distribution.
By hand
    apt-get install gcc-12
    # If gcc-12 is the default of the release:
    ln -sfn gcc-12 /usr/bin/gcc
    dkms autoinstall
    # Otherwise:
    CC=/usr/bin/gcc-12 dkms install nvidia/VERSION -k KERNEL
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
    kernels_without_module,
)


class DkmsCompilerMismatch(Rule):
    id = "dkms-compiler-mismatch"
    title = "The compiler cannot build the NVIDIA module"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    explains = ("dkms-module-missing-for-running-kernel", "half-configured-driver-packages")

    def detect(
        self, kernel: Kernel, modules: KernelModules, dkms: Dkms, compilers: Compilers | None
    ) -> Iterator[Finding]:
        gcc = compilers.gcc if compilers else None
        for release, severity in kernels_without_module(kernel, modules, dkms):
            wanted = kernel.compiler_of(release)
            headers = any(k.headers for k in kernel.installed if k.release == release)
            for module in dkms.modules:
                build = module.build(release)
                failed = build is not None and build.fault in (BuildFault.COMPILER, BuildFault.NEWER_COMPILER)
                if not failed and not (build is None and headers and module.source and _too_old(gcc, wanted)):
                    continue
                # The make.log says it too, where the kernel's configuration was not seen.
                told = wanted or (build.compiler if build else "")
                yield self.finding(
                    f"kernel:{release}",
                    f"{_said(module, build, release)} ({_now(compilers)}; the kernel was built with {told or 'an unknown compiler'})",
                    *([Evidence(build.log, build.error)] if build else []),
                    *([Evidence(gcc.path, f"{gcc.real} ({gcc.source})")] if gcc else []),
                    *([Evidence(_told(kernel, release), wanted)] if wanted else []),
                    severity=severity,
                    release=release,
                    module=module.name,
                    version=module.version,
                    compiler=told,
                    newer=bool(build and build.fault is BuildFault.NEWER_COMPILER),
                )
                break

    def remedies(
        self, finding: Finding, kernel: Kernel, compilers: Compilers | None, packages: Packages | None
    ) -> Iterator[Plan]:
        release, module, version = (finding.detail[k] for k in ("release", "module", "version"))
        major = compiler_major(finding.detail["compiler"])
        gcc = compilers.gcc if compilers else None
        if finding.detail["newer"] and major:
            yield Plan(
                f"Build the module with gcc-{major}, the compiler that built the kernel",
                Risk.LOW,
                (AptInstall((f"gcc-{major}",)), ByHand(_named(major, module, version, release))),
                network=True,
            )
            return
        other = bool(gcc and major and gcc.version and gcc.version.partition(".")[0] != major)
        switched = other and _of_the_release(packages) in ("", major)
        yield Plan(
            f"Install gcc-{major}{', make it the default gcc' if switched else ''} and build the module"
            if major
            else "Install the distribution's compiler and build the module",
            Risk.MEDIUM if switched else Risk.LOW,
            (
                AptInstall((f"gcc-{major}",) if major else ("gcc",)),
                # The package gcc installs this link. An alternative in its place was set by somebody.
                *([MakeLink("/usr/bin/gcc", f"gcc-{major}")] if switched else []),
                DkmsBuild(module, version, release),
                UpdateInitramfs(release),
                *([LoadModules(("nvidia",))] if release == kernel.running else []),
            ),
            network=True,
        )
        if other and not switched:
            text = _named(major, module, version, release)
            yield Plan(f"Make DKMS use gcc-{major}, if it chose another compiler", Risk.LOW, (ByHand(text),))

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
            "an old gcc does not know an option",
            ubuntu(option),
            finds=release,
            steps=("apt-install", "dkms-build", "update-initramfs", "load-modules"),
            ladder=(
                (
                    "low network",
                    "apt-install gcc-13",
                    "dkms-build nvidia 550.120 6.8.0-50-generic",
                    "update-initramfs 6.8.0-50-generic",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "the driver's own compiler check fails",
            Machine.debian12()
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False)
            .file(
                "/var/lib/dkms/nvidia-current/535.261.03/build/make.log",
                "DKMS make.log for nvidia-current-535.261.03 for kernel 6.1.0-50-amd64 (x86_64)\n*** Failed CC version check. Bailing out! ***\n",
            ),
            finds=debian,
            ladder=(
                (
                    "low network",
                    "apt-install gcc-12",
                    "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                    "update-initramfs 6.1.0-50-amd64",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "the kernel's gcc was removed", ubuntu("/bin/sh: 1: x86_64-linux-gnu-gcc-13: not found\n"), finds=release
        )
        yield Scenario(
            "gcc was switched for nvcc, and nothing was built since then",
            switched(ubuntu(), "9"),
            finds=release,
            steps=("apt-install", "make-link", "dkms-build", "update-initramfs", "load-modules"),
            ladder=(
                (
                    "medium network",
                    "apt-install gcc-13",
                    "make-link /usr/bin/gcc gcc-13",
                    "dkms-build nvidia 550.120 6.8.0-50-generic",
                    "update-initramfs 6.8.0-50-generic",
                    "load-modules nvidia",
                ),
            ),
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
            "a newer gcc refuses what the kernel's gcc accepts",
            ubuntu(f"{newer}./common/inc/nv-mm.h:29:13: error: conflicting types for 'vm_fault_t'; have 'int'\n"),
            finds=release,
            alone=True,
            ladder=(
                ("low network", "apt-install gcc-13", "by-hand CC=/usr/bin/gcc-13 nvidia/550.120 -k 6.8.0-50-generic"),
            ),
        )
        yield Scenario(
            "a newer gcc, but the kernel's interface is the reason",
            ubuntu(f"{newer}nvidia/nv-mmap.c:9:5: error: 'struct vm_area_struct' has no member named '__vm_flags'\n"),
        )
        yield Scenario("failed once, built later", Machine.ubuntu2404_gpu().file(tree, log + option))
        yield Scenario("a gcc of the same version", switched(ubuntu(), "13"), alone=False)
        yield Scenario("an old gcc, but the module is built", switched(Machine.ubuntu2404_gpu(), "9"))
        yield Scenario(
            "the C code failed to build, not the compiler",
            switched(ubuntu("nvidia/nv.c:11:10: fatal error: nvmisc.h: No such file or directory\n"), "9"),
        )
        yield Scenario(
            "the kernel's version cannot be read",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )


def _of_the_release(packages: Packages | None) -> str:
    """The major version of the distribution's default gcc, from its package's version ("4:11.2.0-1ubuntu1"); "" if
    that package is not installed."""
    package = packages.get("gcc") if packages else None
    return package.upstream.partition(".")[0] if package and package.unpacked else ""


def _named(major: str, module: str, version: str, release: str) -> str:
    return f"CC=/usr/bin/gcc-{major} dkms install {module}/{version} -k {release}"


def _too_old(gcc: Compiler | None, wanted: str) -> bool:
    """Whether gcc has an older major version than the kernel's compiler, so that it lacks some of the options."""
    major, now = compiler_major(wanted), gcc.version.partition(".")[0] if gcc else ""
    return major.isdigit() and now.isdigit() and int(now) < int(major)


def _said(module: DkmsModule, build: ModuleBuild | None, release: str) -> str:
    what = f"{module.name} {module.version}"
    if build:
        return f"{what} cannot be built for kernel {release}: {build.error}"
    return f"{what} is not built for kernel {release}, and gcc is older than the compiler that built this kernel"


def _now(compilers: Compilers | None) -> str:
    if compilers is None:
        return "cannot tell which gcc is installed"
    gcc = compilers.gcc
    return f"gcc is {f'version {gcc.version}' if gcc.version else gcc.real}" if gcc else "gcc is not installed"


def _told(kernel: Kernel, release: str) -> str:
    configured = any(k.compiler for k in kernel.installed if k.release == release)
    return f"/boot/config-{release}" if configured else "/proc/version"
