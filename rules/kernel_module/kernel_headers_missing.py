"""The headers of a kernel are missing or unusable, so no module can be built for it.

What you see
    Error! Your kernel headers for kernel 6.x cannot be found

    make: *** /lib/modules/6.x/build: No such file or directory.  Stop.

    ./include/linux/module.h:21:10: fatal error: asm/orc_header.h: No such file or directory

    ERROR: modpost: nvidia: sizeof(struct of_device_id)=196 is not a modulo of the size of section ...

    There is no NVIDIA driver after a kernel update.
Why
    The kernel was installed without its headers. Usually only the metapackage of the kernel image is installed, not
    the one of the headers (HWE, cloud, oem and lowlatency kernels have their own). Or the headers were removed,
    wholly or partly. DKMS cannot build modules without them.

    Or the headers and the build tools do not match: linux-kbuild was upgraded but the headers were not, or
    linux-kbuild belongs to another architecture. Then every build fails in the kernel's own files.

    A kernel that already has its module needs headers only for the next driver update. Ubuntu's prebuilt modules need
    none.
Repair
    Install the headers of that kernel and build the module. The metapackage of the headers (see below) installs them
    with every later kernel. Until then, boot a kernel that has its module.
What the repair risks
    Little. It needs the network. If the archive no longer has that exact version, upgrade the image and the headers
    together.
By hand
    # Debian:
    apt-get install linux-headers-KERNEL linux-headers-amd64
    # Ubuntu:
    apt-get install linux-headers-KERNEL linux-headers-generic
    dkms autoinstall -k KERNEL
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    NO_HEADERS,
    AptInstall,
    BuildFault,
    ByHand,
    Dkms,
    DkmsBuild,
    DkmsModule,
    Evidence,
    Finding,
    InstalledKernel,
    Kernel,
    KernelModules,
    LoadModules,
    Machine,
    ModuleBuild,
    Package,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
    kernels_to_judge,
)

STATUS = "/var/lib/dpkg/status"
PARTS = r"linux-headers-[\w.+~-]+-common|linux-kbuild-[\w.+~-]+"


class KernelHeadersMissing(Rule):
    id = "kernel-headers-missing"
    title = "Kernel headers are missing"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    explains = ("dkms-module-missing-for-running-kernel", "half-configured-driver-packages")

    def detect(
        self, kernel: Kernel, modules: KernelModules, dkms: Dkms, packages: Packages | None
    ) -> Iterator[Finding | Unknown]:
        if not any(m.source or m.builds for m in dkms.modules) and not (
            packages and packages.installed("nvidia*dkms*")
        ):
            return
        for release, severity in kernels_to_judge(kernel):
            known = next(
                (k for k in kernel.installed if k.release == release), InstalledKernel(release, False, False, "")
            )
            # This kernel has its module: it needs headers only for the next driver version.
            if modules.usable(release):
                continue
            if known.headers:
                yield from self._unfit(release, severity, known, dkms, packages, modules.working(kernel, release))
                continue
            name = _package(packages, release)
            package = packages.get(name) if packages and name else None
            build, lacking = f"/lib/modules/{release}/build", known.lacking or NO_HEADERS
            lists = packages is not None and bool(name) and packages.lacks(name)
            if kernel.unseen and not known.lacking and not lists:
                yield Unknown(kernel.unseen)
                continue
            if package and package.state == "installed" and lacking == NO_HEADERS:
                yield Unknown(
                    f"{package.name} is installed, but {build} does not exist: probably a partition is not mounted"
                )
                continue
            seen = bool(known.lacking) or not kernel.unseen
            evidence = [Evidence(build, lacking)] if seen else []
            if packages:
                state = f"{name}: {package.state if package else 'not installed'}"
                evidence.append(Evidence(STATUS, state if name else f"no package owns kernel {release}"))
            if log := _failed(dkms.modules, release, BuildFault.HEADERS, BuildFault.KBUILD):
                evidence.append(Evidence(log.log, log.error))
            evidence += _working(modules.working(kernel, release))
            state = "are damaged" if package and package.unpacked else "are not installed"
            where = f"{build}: {lacking}" if seen else f"no package {name}"
            yield self.finding(
                f"kernel:{release}",
                f"The headers of kernel {release} {state} ({where}), so no NVIDIA module can be built for it",
                *evidence,
                severity=severity,
                release=release,
                package=name,
                damaged=bool(package and package.unpacked),
                # Debian has three packages: the headers of a flavour, the common ones, and the build tools.
                others=(*re.findall(PARTS, lacking), *_metapackages(packages, release)),
            )

    def _unfit(
        self,
        release: str,
        severity: Severity,
        known: InstalledKernel,
        dkms: Dkms,
        packages: Packages | None,
        working: tuple[str, ...],
    ) -> Iterator[Finding]:
        """A finding if headers are installed, but a build with them failed in the kernel's own files."""
        build = _failed(dkms.modules, release, BuildFault.KBUILD)
        if build is None:
            return
        headers = packages.get(f"linux-headers-{release}") if packages else None
        tools = [p for p in (packages.installed("linux-kbuild-*") if packages else ()) if _tools_of(p, release)]
        foreign = [p for p in tools if headers and p.architecture not in (headers.architecture, "all")]
        newer = [p for p in tools if headers and p.version != headers.version]
        yield self.finding(
            f"kernel:{release}",
            f"The headers of kernel {release} are damaged or come from two builds, so no module can be built with them: "
            f"{build.error}",
            Evidence(build.log, build.error),
            Evidence(known.headers, "the headers are installed"),
            *(Evidence(STATUS, f"{p.name} {p.version} is for architecture {p.architecture}") for p in foreign),
            *(
                Evidence(STATUS, f"{p.name} has version {p.version}, the headers {headers.version}")
                for p in newer
                if headers
            ),
            *_working(working),
            severity=severity,
            release=release,
            package=headers.name if headers else "",
            damaged=True,
            others=tuple(f"{p.name}:{headers.architecture}" if p in foreign and headers else p.name for p in tools),
            start=working[0] if working and newer else "",
        )

    def remedies(self, finding: Finding, kernel: Kernel, dkms: Dkms, modules: KernelModules) -> Iterator[Plan]:
        release = finding.detail["release"]
        if not finding.detail["package"]:
            if start := finding.detail.get("start"):
                text = f"boot kernel {start} from the boot menu (Advanced options): its NVIDIA module is built"
                yield Plan(f"Boot kernel {start}, which has its NVIDIA module", Risk.LOW, (ByHand(text),), reboot=True)
            text = (
                f"restore the source tree of kernel {release} at the target of /lib/modules/{release}/build, "
                "or boot a kernel of the distribution"
            )
            summary = f"No package has the headers of kernel {release}; it is probably self-built"
            yield Plan(summary, Risk.MEDIUM, (ByHand(text),))
            return
        names = (finding.detail["package"], *finding.detail["others"])
        damaged = finding.detail["damaged"]
        module = dkms.newest()
        build = (DkmsBuild(module.name, module.version, release), UpdateInitramfs(release)) if module else ()
        yield Plan(
            f"{'Reinstall' if damaged else 'Install'} {' '.join(names)}"
            + (f" and build {module.name} {module.version} for {release}" if module else ""),
            Risk.LOW,
            (
                AptInstall(names, reinstall=damaged),
                *build,
                *([LoadModules(("nvidia",))] if module and release == kernel.running else []),
            ),
            network=True,
        )
        for other in modules.working(kernel, release)[:1]:
            text = f"boot kernel {other} from the boot menu (Advanced options): its NVIDIA module is built"
            yield Plan(f"Boot kernel {other} until the headers are installed", Risk.LOW, (ByHand(text),), reboot=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        new, ubuntu = "6.1.0-50-amd64", "6.8.0-50-generic"
        source = f"/usr/src/linux-headers-{new}"
        bare = Machine().os_release("debian", "12").kernel(new, headers=False).user().gpu(driver="")
        damaged = Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False)
        yield Scenario(
            "a kernel without headers",
            bare.debian_driver(kernels=(), loaded=False),
            finds=f"kernel:{new}",
            steps=("apt-install", "dkms-build", "update-initramfs", "load-modules"),
            ladder=(
                (
                    "low network",
                    "apt-install linux-headers-6.1.0-50-amd64",
                    "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                    "update-initramfs 6.1.0-50-amd64",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "a Proxmox kernel, whose headers have another name",
            Machine()
            .os_release("debian", "12")
            .kernel("6.8.12-4-pve", headers=False)
            .without_package("linux-image-6.8.12-4-pve")
            .package("proxmox-kernel-6.8.12-4-pve-signed", "6.8.12-4")
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False),
            finds="kernel:6.8.12-4-pve",
            ladder=(
                (
                    "low network",
                    "apt-install proxmox-headers-6.8.12-4-pve",
                    "dkms-build nvidia-current 535.261.03 6.8.12-4-pve",
                    "update-initramfs 6.8.12-4-pve",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "a self-built kernel whose source is gone",
            Machine()
            .os_release("debian", "12")
            .kernel("6.11.0-mine+", headers=False)
            .without_package("linux-image-6.11.0-mine+")
            .link("/usr/lib/modules/6.11.0-mine+/build", "/home/tom/linux-6.11")
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False),
            finds="kernel:6.11.0-mine+",
            ladder=(("medium", "by-hand 6.11.0-mine+ /lib/modules/6.11.0-mine+/build"),),
        )
        yield Scenario(
            "a broken link on a mounted disk",
            Machine()
            .os_release("ubuntu", "24.04")
            .kernel(ubuntu, running=False, headers=False)
            .link(f"/usr/lib/modules/{ubuntu}/build", f"/usr/src/linux-headers-{ubuntu}")
            .ubuntu_driver(kernels=(), loaded=False),
            finds=f"kernel:{ubuntu}",
            steps=("apt-install", "dkms-build", "update-initramfs"),
            ladder=(
                (
                    "low network",
                    "apt-install linux-headers-6.8.0-50-generic",
                    "dkms-build nvidia 550.120 6.8.0-50-generic",
                    "update-initramfs 6.8.0-50-generic",
                ),
            ),
        )
        yield Scenario(
            "the Makefile is missing",
            Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False).remove(f"{source}/Makefile"),
            finds=f"kernel:{new}",
            ladder=(
                (
                    "low network",
                    "apt-install linux-headers-6.1.0-50-amd64 reinstall",
                    "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                    "update-initramfs 6.1.0-50-amd64",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "the common headers are missing",
            damaged.file(f"{source}/Makefile", "include /usr/src/linux-headers-6.1.0-50-common/Makefile\n"),
            finds=f"kernel:{new}",
            ladder=(
                (
                    "low network",
                    "apt-install linux-headers-6.1.0-50-amd64 linux-headers-6.1.0-50-common reinstall",
                    "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                    "update-initramfs 6.1.0-50-amd64",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "the build tools are missing",
            Machine.debian12()
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False)
            .link(f"{source}/scripts", "/usr/lib/linux-kbuild-6.1/scripts"),
            finds=f"kernel:{new}",
            ladder=(
                (
                    "low network",
                    "apt-install linux-headers-6.1.0-50-amd64 linux-kbuild-6.1 reinstall",
                    "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                    "update-initramfs 6.1.0-50-amd64",
                    "load-modules nvidia",
                ),
            ),
        )
        modpost = "ERROR: modpost: nvidia: sizeof(struct of_device_id)=196 is not a modulo of the size of section x\n"
        header = "./include/linux/module.h:21:10: fatal error: asm/orc_header.h: No such file or directory\n"

        def broken(text: str) -> Machine:
            log = f"DKMS make.log for nvidia-current-535.261.03 for kernel {new} (x86_64)\n{text}"
            path = "/var/lib/dkms/nvidia-current/535.261.03/build/make.log"
            machine = Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False)
            return machine.file(path, log).package(f"linux-headers-{new}", "6.1.176-1")

        yield Scenario(
            "the build tools are for another architecture",
            broken(modpost).package("linux-kbuild-6.1", "6.1.176-1", arch="i386"),
            finds=f"kernel:{new}",
            alone=True,
            ladder=(
                (
                    "low network",
                    "apt-install linux-headers-6.1.0-50-amd64 linux-kbuild-6.1:amd64 reinstall",
                    "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                    "update-initramfs 6.1.0-50-amd64",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "the build tools are newer than the headers",
            broken(header).package("linux-kbuild-6.1", "6.1.180-1"),
            finds=f"kernel:{new}",
            alone=True,
        )
        yield Scenario(
            "the driver needs a header that only older kernels have",
            broken("common/inc/nv-linux.h:21:10: fatal error: asm/kmap_types.h: No such file or directory\n"),
        )
        yield Scenario(
            "after an upgrade, with the old module loaded and new libraries",
            Machine()
            .os_release("ubuntu", "24.04")
            .kernel(ubuntu, headers=False)
            .user()
            .gpu()
            .ubuntu_driver("570.86.16", kernels=(), loaded=False)
            .loaded_driver("550.54.14"),
            finds=f"kernel:{ubuntu}",
            ladder=(
                (
                    "low network",
                    "apt-install linux-headers-6.8.0-50-generic",
                    "dkms-build nvidia 570.86.16 6.8.0-50-generic",
                    "update-initramfs 6.8.0-50-generic",
                    "load-modules nvidia",
                ),
            ),
        )
        yield Scenario(
            "only the kernel that boots next has none",
            Machine.debian12().kernel("6.1.0-51-amd64", running=False, headers=False).gpu().debian_driver(),
            finds="kernel:6.1.0-51-amd64",
            ladder=(
                (
                    "low network",
                    "apt-install linux-headers-6.1.0-51-amd64",
                    "dkms-build nvidia-current 535.261.03 6.1.0-51-amd64",
                    "update-initramfs 6.1.0-51-amd64",
                ),
                ("low reboot", "by-hand 6.1.0-50-amd64"),
            ),
        )
        yield Scenario(
            "headers are installed", Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False)
        )
        yield Scenario(
            "built before the headers were removed",
            Machine().os_release("debian", "12").kernel(new, headers=False).user().gpu().debian_driver(),
        )
        yield Scenario("no driver to build", Machine().os_release("debian", "12").kernel(new, headers=False).user())
        yield Scenario(
            "an old kernel that is not booted has none",
            Machine.debian12().kernel("6.1.0-9-amd64", running=False, headers=False).gpu().debian_driver(),
        )
        yield Scenario(
            "a partition is not mounted",
            Machine()
            .os_release("debian", "12")
            .kernel(new, headers=False)
            .package(f"linux-headers-{new}", "6.1.176-1")
            .debian_driver(kernels=(), loaded=False),
            unknown=True,
        )
        yield Scenario(
            "the running kernel's version cannot be read",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )


def _failed(modules: tuple[DkmsModule, ...], release: str, *faults: BuildFault) -> ModuleBuild | None:
    return next((b for m in modules if (b := m.failed(release)) and b.fault in faults), None)


def _tools_of(package: Package, release: str) -> bool:
    """Whether the package is a kernel's linux-kbuild, such as linux-kbuild-6.3 or -6.3.0 for 6.3.0-1-amd64."""
    return release.startswith(package.name.removeprefix("linux-kbuild-"))


def _working(kernels: tuple[str, ...]) -> list[Evidence]:
    return [Evidence(f"/lib/modules/{k}", "has its NVIDIA module: this kernel can be booted") for k in kernels[:1]]


def _package(packages: Packages | None, release: str) -> str:
    """The package of a kernel's headers, or "" if no package owns the kernel."""
    for maker in ("proxmox", "pve"):
        if packages and packages.shown(f"{maker}-kernel-{release}*"):
            return f"{maker}-headers-{release}"
    known = packages is None or packages.partial or packages.installed(f"linux-*-{release}*")
    return f"linux-headers-{release}" if known else ""


def _metapackages(packages: Packages | None, release: str) -> Iterator[str]:
    """The missing metapackages of headers, for the installed metapackages of images."""
    flavour = re.sub(r"^[\d.]+(?:-[\d.]+|[+~][\w.]+)*-", "", release)
    for package in packages.installed("linux-image-*") if packages and not packages.partial else ():
        name = package.name.removeprefix("linux-image-")
        kind = name.split("-hwe-")[0]
        if kind == flavour and packages and not packages.installed(f"linux-headers-{name}"):
            yield f"linux-headers-{name}"
