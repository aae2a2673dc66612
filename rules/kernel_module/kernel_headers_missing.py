"""The headers that modules are built with are missing for a kernel.

What you see
    Error! Your kernel headers for kernel 6.x cannot be found
    make: *** /lib/modules/6.x/build: No such file or directory.  Stop.
    After a kernel update there is no NVIDIA driver.
Why
    The kernel came without the package of its headers: only the image's metapackage is installed (HWE, cloud, oem and
    lowlatency kernels have their own), or the headers were removed, or half of them. DKMS can't build anything for that
    kernel.
    A kernel whose module is there needs no headers until the next driver, and Ubuntu's prebuilt modules never do.
Repair
    Install the headers of that kernel and build the module. The metapackage of the headers, which a person chooses, keeps
    them coming with each kernel.
What the repair risks
    Little; it needs the network. Where that exact version has left the archive, image and headers go up together.
By hand
    apt-get install linux-headers-KERNEL linux-headers-amd64 (Ubuntu: linux-headers-generic); dkms autoinstall -k KERNEL
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    Dkms,
    DkmsBuild,
    Evidence,
    Finding,
    InstalledKernel,
    Kernel,
    KernelModules,
    LoadModules,
    Machine,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
)

STATUS = "/var/lib/dpkg/status"
PARTS = r"linux-headers-[\w.+~-]+-common|linux-kbuild-[\w.+~-]+"


class KernelHeadersMissing(Rule):
    id = "kernel-headers-missing"
    title = "Kernel headers are missing"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    explains = (
        "dkms-module-missing-for-running-kernel",
        "driver-library-version-mismatch-after-upgrade",
        "half-configured-driver-packages",
        "login-loop-glx-broken-driver-mismatch",
        "login-loop-unexplained",
        "nouveau-bound-instead-of-nvidia",
        "nvidia-module-not-loaded",
    )

    def detect(
        self, kernel: Kernel, modules: KernelModules, dkms: Dkms, packages: Packages | None
    ) -> Iterator[Finding | Unknown]:
        if not any(m.source or m.builds for m in dkms.modules) and not (
            packages and packages.installed("nvidia*dkms*")
        ):
            return
        for release, severity in kernel.to_judge():
            known = next(
                (k for k in kernel.installed if k.release == release), InstalledKernel(release, False, False, "")
            )
            # A module that is there was built; the headers are needed again only for the next version.
            if known.headers or modules.usable(release):
                continue
            name = _package(packages, release)
            package = packages.get(name) if packages and name else None
            build, lacking = f"/lib/modules/{release}/build", known.lacking or "not there"
            if package and package.state == "installed" and lacking == "not there":
                yield Unknown(
                    f"{package.name} is installed, but {build} is not there: a part of the disk may be missing"
                )
                continue
            evidence = [Evidence(build, lacking)]
            if packages:
                state = f"{name}: {package.state if package else 'not installed'}"
                evidence.append(Evidence(STATUS, state if name else f"no package has kernel {release}"))
            log = next((b for m in dkms.modules if (b := m.build(release)) and b.cause == "headers"), None)
            if log:
                evidence.append(Evidence(log.log, log.error))
            state = "are damaged" if package and package.unpacked else "are not installed"
            yield self.finding(
                f"kernel:{release}",
                f"The headers of kernel {release} {state} ({build}: {lacking}), so no NVIDIA module can be built for it",
                *evidence,
                severity=severity,
                release=release,
                package=name,
                damaged=bool(package and package.unpacked),
                # Debian's are three packages: what flavours have in common, and the tools, are in ones of their own.
                others=(*re.findall(PARTS, lacking), *_metapackages(packages, release)),
            )

    def remedies(self, finding: Finding, kernel: Kernel, dkms: Dkms) -> Iterator[Plan]:
        release = finding.detail["release"]
        if not finding.detail["package"]:
            text = f"put the tree that kernel {release} was built in where /lib/modules/{release}/build points to, or start a kernel of the distribution"
            yield Plan("Bring its headers back: this kernel was built by hand", Risk.MEDIUM, (ByHand(text),))
            return
        names = (finding.detail["package"], *finding.detail["others"])
        damaged = finding.detail["damaged"]
        module = dkms.newest()
        build = (DkmsBuild(module.name, module.version, release), UpdateInitramfs(release)) if module else ()
        yield Plan(
            f"Install {' '.join(names)}{' again' if damaged else ''}"
            + (f" and build {module.name} {module.version} for {release}" if module else ""),
            Risk.LOW,
            (
                AptInstall(names, reinstall=damaged),
                *build,
                *([LoadModules(("nvidia",))] if module and release == kernel.running else []),
            ),
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        new, ubuntu = "6.1.0-50-amd64", "6.8.0-50-generic"
        source = f"/usr/src/linux-headers-{new}"
        bare = Machine().os_release("debian", "12").kernel(new, headers=False).user().gpu(driver="")
        damaged = Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False)
        yield Scenario("a kernel without headers", bare.debian_driver(kernels=(), loaded=False), finds=f"kernel:{new}")
        yield Scenario(
            "a kernel of Proxmox, whose headers have a name of their own",
            Machine()
            .os_release("debian", "12")
            .kernel("6.8.12-4-pve", headers=False)
            .without_package("linux-image-6.8.12-4-pve")
            .package("proxmox-kernel-6.8.12-4-pve-signed", "6.8.12-4")
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False),
            finds="kernel:6.8.12-4-pve",
        )
        yield Scenario(
            "a kernel that was built by hand, whose source is gone",
            Machine()
            .os_release("debian", "12")
            .kernel("6.11.0-mine+", headers=False)
            .without_package("linux-image-6.11.0-mine+")
            .link("/usr/lib/modules/6.11.0-mine+/build", "/home/tom/linux-6.11")
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False),
            finds="kernel:6.11.0-mine+",
        )
        yield Scenario(
            "a broken link, on a disk that does not run",
            Machine()
            .os_release("ubuntu", "24.04")
            .kernel(ubuntu, running=False, headers=False)
            .link(f"/usr/lib/modules/{ubuntu}/build", f"/usr/src/linux-headers-{ubuntu}")
            .ubuntu_driver(kernels=(), loaded=False),
            finds=f"kernel:{ubuntu}",
        )
        yield Scenario(
            "the tree has lost its Makefile",
            Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False).remove(f"{source}/Makefile"),
            finds=f"kernel:{new}",
        )
        yield Scenario(
            "the headers that flavours have in common are gone",
            damaged.file(f"{source}/Makefile", "include /usr/src/linux-headers-6.1.0-50-common/Makefile\n"),
            finds=f"kernel:{new}",
        )
        yield Scenario(
            "the tools that modules are built with are gone",
            Machine.debian12()
            .gpu(driver="")
            .debian_driver(kernels=(), loaded=False)
            .link(f"{source}/scripts", "/usr/lib/linux-kbuild-6.1/scripts"),
            finds=f"kernel:{new}",
        )
        yield Scenario(
            "after an upgrade: the old module is loaded, the libraries are new",
            Machine()
            .os_release("ubuntu", "24.04")
            .kernel(ubuntu, headers=False)
            .user()
            .gpu()
            .ubuntu_driver("570.86.16", kernels=(), loaded=False)
            .loaded_driver("550.54.14"),
            finds=f"kernel:{ubuntu}",
        )
        yield Scenario(
            "only the next kernel has none",
            Machine.debian12().kernel("6.1.0-51-amd64", running=False, headers=False).gpu().debian_driver(),
            finds="kernel:6.1.0-51-amd64",
        )
        yield Scenario("headers are there", Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False))
        yield Scenario(
            "built before the headers were removed",
            Machine().os_release("debian", "12").kernel(new, headers=False).user().gpu().debian_driver(),
        )
        yield Scenario("no driver to build", Machine().os_release("debian", "12").kernel(new, headers=False).user())
        yield Scenario(
            "an old kernel, that nobody starts, has none",
            Machine.debian12().kernel("6.1.0-9-amd64", running=False, headers=False).gpu().debian_driver(),
        )
        yield Scenario(
            "a part of the disk is missing",
            Machine()
            .os_release("debian", "12")
            .kernel(new, headers=False)
            .package(f"linux-headers-{new}", "6.1.176-1")
            .debian_driver(kernels=(), loaded=False),
            unknown=True,
        )
        yield Scenario(
            "the running kernel can't be read",
            Machine().os_release("debian", "12").fifo("/proc/sys/kernel/osrelease"),
            unknown=True,
        )


def _package(packages: Packages | None, release: str) -> str:
    """The package of a kernel's headers; "" for a kernel that came in no package."""
    for maker in ("proxmox", "pve"):
        if packages and packages.installed(f"{maker}-kernel-{release}*"):
            return f"{maker}-headers-{release}"
    known = packages is None or packages.installed(f"linux-*-{release}*")
    return f"linux-headers-{release}" if known else ""


def _metapackages(packages: Packages | None, release: str) -> Iterator[str]:
    """The metapackages that would have brought the headers, where only those of the images are installed."""
    flavour = re.sub(r"^[\d.]+(?:-[\d.]+|[+~][\w.]+)*-", "", release)
    for package in packages.installed("linux-image-*") if packages else ():
        name = package.name.removeprefix("linux-image-")
        kind = name.split("-hwe-")[0]
        if kind == flavour and packages and not packages.installed(f"linux-headers-{name}"):
            yield f"linux-headers-{name}"
