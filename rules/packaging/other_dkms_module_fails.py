"""A DKMS module that the driver does not need fails to build, and packages of the kernel stay half-configured.

What you see
    run-parts: /etc/kernel/header_postinst.d/dkms exited with return code 11
    dpkg: error processing package linux-headers-6.1.0-9-amd64 (--configure)
    Consult /var/lib/dkms/virtualbox/7.0.16/build/make.log for more information.
Why
    DKMS builds every module that is registered for each new kernel. One module that does not build for it (virtualbox,
    zfs, evdi, a leftover of an older NVIDIA driver) makes the configuration of the kernel's package fail, and with it
    every later run of apt. The NVIDIA driver is not the cause, and may not be built for that kernel for this reason.
    A module that fails for a kernel that is no longer installed harms nothing.
Repair
    Remove the module's package, or install a version of it that supports the kernel. dpkg can then finish.
What the repair risks
    What needs that module (virtual machines, a file system, a device) does not work until a version that builds is
    installed. Do not remove the module of a file system that this machine uses.
By hand
    dkms status; read the first error in /var/lib/dkms/MODULE/VERSION/build/make.log
    apt-get remove PACKAGE (or, without a package: dkms remove MODULE/VERSION --all); dpkg --configure -a
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptRemove,
    Dkms,
    DkmsModule,
    DkmsOwners,
    DkmsRemove,
    DpkgConfigure,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    Machine,
    ModuleBuild,
    Package,
    PackageLocks,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class OtherDkmsModuleFails(Rule):
    id = "other-dkms-module-fails"
    title = "Another DKMS module does not build, and packages of the kernel stay half-configured"
    stage = Stage.PACKAGE_STATE
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("half-configured-driver-packages", "dkms-module-missing-for-running-kernel")

    def detect(
        self,
        dkms: Dkms,
        kernel: Kernel,
        modules: KernelModules,
        packages: Packages,
        owners: DkmsOwners,
        locks: PackageLocks | None,
    ) -> Iterator[Finding | Unknown]:
        failed = [
            (module, build)
            for module, build in _failed(dkms, kernel)
            if module in dkms.others or modules.usable(build.kernel)
        ]
        for module, build in failed:
            owner = owners.packages.get((module.name, module.version), "")
            unfinished = _unfinished(packages, build.kernel, owner)
            if not unfinished:
                continue
            if locks and locks.busy:
                yield Unknown(locks.busy)
                return
            names = ", ".join(p.name for p in unfinished)
            what = f"DKMS module {module.name} {module.version} ({owner or 'of no package'})"
            yield self.finding(
                f"package:{owner or module.name}",
                f"{what} does not build for kernel {build.kernel}, so {names} can't be configured: {build.error}",
                Evidence(build.log, build.error),
                *(Evidence("/var/lib/dpkg/status", f"{p.name} {p.version}: {p.state}") for p in unfinished),
                severity=Severity.WARNING if [p.name for p in unfinished] == [owner] else Severity.ERROR,
                about=(f"kernel:{build.kernel}",),
                module=module.name,
                version=module.version,
                owner=owner,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        module, version, owner = (finding.detail[k] for k in ("module", "version", "owner"))
        yield Plan(
            f"Remove {owner or f'{module} {version} from DKMS'} (unless a newer version of it is at hand), "
            "and let dpkg configure the rest",
            Risk.MEDIUM,
            (AptRemove((owner,)) if owner else DkmsRemove(module, version), DpkgConfigure()),
            network=bool(owner),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        release = "6.8.0-50-generic"
        log = (
            f"DKMS make.log for NAME for kernel {release} (x86_64)\n"
            "/var/lib/dkms/NAME/build/vboxdrv/linux/SUPDrv-linux.c:797:9: error: too few arguments to function 'x'\n"
            "make: *** [Makefile:82: modules] Error 2\n"
        )

        def module(machine: Machine, name: str, version: str, package: str = "") -> Machine:
            conf = f"/usr/src/{name}-{version}/dkms.conf"
            machine.file(conf, f'PACKAGE_NAME="{name}"\n').link(
                f"/var/lib/dkms/{name}/{version}/source", f"/usr/src/{name}-{version}"
            )
            if package:
                machine.package(package, version, files=[conf])
            return machine.file(f"/var/lib/dkms/{name}/{version}/build/make.log", log.replace("NAME", name))

        def stuck(machine: Machine) -> Machine:
            return machine.package(f"linux-headers-{release}", "6.8.0-50.51", status="install ok half-configured")

        yield Scenario(
            "virtualbox keeps the headers of the kernel half-configured",
            stuck(module(Machine.ubuntu2404_gpu(), "virtualbox", "7.0.16", "virtualbox-dkms")),
            finds="package:virtualbox-dkms",
            steps=("apt-remove", "dpkg-configure"),
            alone=True,
        )
        yield Scenario(
            "a module of no package, and no NVIDIA module for that kernel yet",
            stuck(
                module(Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False), "rtl8821cu", "5.12")
            ),
            finds="package:rtl8821cu",
            steps=("dkms-remove", "dpkg-configure"),
            alone=True,
        )
        yield Scenario(
            "a leftover of an older NVIDIA driver",
            stuck(module(Machine.ubuntu2404_gpu(), "nvidia-tesla-460", "460.106.00", "nvidia-tesla-460-kernel-dkms")),
            finds="package:nvidia-tesla-460-kernel-dkms",
            alone=True,
        )
        yield Scenario(
            "it fails, and no package waits for it", module(Machine.ubuntu2404_gpu(), "evdi", "1.14", "evdi")
        )
        yield Scenario(
            "it failed for a kernel that is gone",
            stuck(
                module(Machine.ubuntu2404_gpu(), "zfs", "2.1.5", "zfs-dkms").file(
                    "/var/lib/dkms/zfs/2.1.5/build/make.log",
                    log.replace("NAME", "zfs").replace(release, "5.15.0-1-generic"),
                )
            ),
        )
        yield Scenario(
            "it failed once and was built since",
            stuck(
                module(Machine.ubuntu2404_gpu(), "zfs", "2.1.5", "zfs-dkms").file(
                    f"/var/lib/dkms/zfs/2.1.5/{release}/x86_64/module/zfs.ko", "x"
                )
            ),
        )
        yield Scenario(
            "the driver's own module fails: another fault",
            stuck(
                module(Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False), "nvidia", "550.120")
            ),
        )
        yield Scenario(
            "apt is at work",
            stuck(module(Machine.ubuntu2404_gpu(), "virtualbox", "7.0.16", "virtualbox-dkms")).locked(
                "/var/lib/dpkg/lock", 1595, "dpkg"
            ),
            unknown=True,
        )


def _failed(dkms: Dkms, kernel: Kernel) -> Iterator[tuple[DkmsModule, ModuleBuild]]:
    """The builds that failed for kernels that are installed."""
    installed = {k.release for k in kernel.installed}
    for module in (*dkms.modules, *dkms.others):
        for build in module.builds:
            if build.fault and build.kernel in installed:
                yield module, build


def _unfinished(packages: Packages, release: str, owner: str) -> list[Package]:
    """The packages whose configuration runs that build, and that are not configured."""
    return [
        p
        for p in packages.all()
        if p.unpacked
        and p.state != "installed"
        and (p.name == owner or (p.name.startswith("linux-") and p.name.endswith(f"-{release}")))
    ]
