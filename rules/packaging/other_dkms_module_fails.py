"""Another DKMS module, not the driver's, fails to build, so the packages of a kernel stay half-configured.

What you see
    run-parts: /etc/kernel/header_postinst.d/dkms exited with return code 11

    dpkg: error processing package linux-headers-6.1.0-9-amd64 (--configure)

    Consult /var/lib/dkms/virtualbox/7.0.16/build/make.log for more information.
Why
    DKMS builds every registered module for each new kernel. If one of them (virtualbox, zfs, evdi, a leftover of an
    older NVIDIA driver) does not build, the configuration of the kernel package fails, and so does every later run of
    apt.

    The NVIDIA driver is not the cause. But its module may be missing for that kernel because of this.

    A module that fails for an uninstalled kernel does no harm.
Repair
    Remove the module's package, or install a version that supports the kernel. Then dpkg can finish.
What the repair risks
    Whatever needs that module (virtual machines, a file system, a device) stops working until you install a version
    that builds. Do not remove the module of a file system that this machine uses.
By hand
    dkms status
    less /var/lib/dkms/MODULE/VERSION/build/make.log
    apt-get remove PACKAGE
    # If it belongs to no package:
    dkms remove MODULE/VERSION --all
    dpkg --configure -a
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptRemove,
    ByHand,
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
    title = "Another DKMS module fails to build, so kernel packages stay half-configured"
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
        owners: DkmsOwners | None,
        locks: PackageLocks | None,
    ) -> Iterator[Finding | Unknown]:
        failed = [
            (module, build)
            for module, build in _failed(dkms, kernel)
            if module in dkms.others or (not kernel.unseen and modules.usable(build.kernel))
        ]
        for module, build in failed:
            owner = owners.packages.get((module.name, module.version), "") if owners else None
            unfinished = _unfinished(packages, build.kernel, owner or "")
            if not unfinished:
                continue
            if locks and locks.busy:
                yield Unknown(locks.busy)
                return
            names = ", ".join(p.name for p in unfinished)
            source = "" if owner is None else f" ({owner or 'from no package'})"
            what = f"DKMS module {module.name} {module.version}{source}"
            yield self.finding(
                f"package:{owner or module.name}",
                f"{what} does not build for kernel {build.kernel}, so {names} cannot be configured: {build.error}",
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
        if owner is None:
            find = (
                f"find the package that has /usr/src/{module}-{version}: dpkg -S /usr/src/{module}-{version}/dkms.conf"
            )
            without = f"if there is none: dkms remove {module}/{version} --all"
            steps = (find, "remove that package, unless a newer version is available", without, "dpkg --configure -a")
            yield Plan(f"Remove {module} {version} from DKMS", Risk.MEDIUM, tuple(ByHand(step) for step in steps))
            return
        yield Plan(
            f"Remove {owner or f'{module} {version} from DKMS'} (unless a newer version is available), "
            "and let dpkg configure the other packages",
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
            "virtualbox fails, so the kernel headers stay half-configured",
            stuck(module(Machine.ubuntu2404_gpu(), "virtualbox", "7.0.16", "virtualbox-dkms")),
            finds="package:virtualbox-dkms",
            steps=("apt-remove", "dpkg-configure"),
            alone=True,
            ladder=(("medium network", "apt-remove virtualbox-dkms", "dpkg-configure"),),
        )
        yield Scenario(
            "a module from no package, and no NVIDIA module for that kernel yet",
            stuck(
                module(Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False), "rtl8821cu", "5.12")
            ),
            finds="package:rtl8821cu",
            steps=("dkms-remove", "dpkg-configure"),
            alone=True,
            ladder=(("medium", "dkms-remove rtl8821cu 5.12", "dpkg-configure"),),
        )
        yield Scenario(
            "a leftover of an older NVIDIA driver",
            stuck(module(Machine.ubuntu2404_gpu(), "nvidia-tesla-460", "460.106.00", "nvidia-tesla-460-kernel-dkms")),
            finds="package:nvidia-tesla-460-kernel-dkms",
            alone=True,
            ladder=(("medium network", "apt-remove nvidia-tesla-460-kernel-dkms", "dpkg-configure"),),
        )
        yield Scenario(
            "it fails, but no package waits for it", module(Machine.ubuntu2404_gpu(), "evdi", "1.14", "evdi")
        )
        yield Scenario(
            "it failed for an uninstalled kernel",
            stuck(
                module(Machine.ubuntu2404_gpu(), "zfs", "2.1.5", "zfs-dkms").file(
                    "/var/lib/dkms/zfs/2.1.5/build/make.log",
                    log.replace("NAME", "zfs").replace(release, "5.15.0-1-generic"),
                )
            ),
        )
        yield Scenario(
            "it failed once and was built later",
            stuck(
                module(Machine.ubuntu2404_gpu(), "zfs", "2.1.5", "zfs-dkms").file(
                    f"/var/lib/dkms/zfs/2.1.5/{release}/x86_64/module/zfs.ko", "x"
                )
            ),
        )
        yield Scenario(
            "the driver's own module fails, which is another problem",
            stuck(
                module(Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False), "nvidia", "550.120")
            ),
        )
        yield Scenario(
            "apt is running",
            stuck(module(Machine.ubuntu2404_gpu(), "virtualbox", "7.0.16", "virtualbox-dkms")).locked(
                "/var/lib/dpkg/lock", 1595, "dpkg"
            ),
            unknown=True,
        )


def _failed(dkms: Dkms, kernel: Kernel) -> Iterator[tuple[DkmsModule, ModuleBuild]]:
    """The failed builds for installed kernels."""
    installed = {k.release for k in kernel.installed}
    for module in (*dkms.modules, *dkms.others):
        for build in module.builds:
            if build.fault and (build.kernel in installed or kernel.unseen):
                yield module, build


def _unfinished(packages: Packages, release: str, owner: str) -> list[Package]:
    """The unconfigured packages whose configuration runs that build."""
    return [
        p
        for p in packages.all()
        if p.unpacked
        and p.state != "installed"
        and (p.name == owner or (p.name.startswith("linux-") and p.name.endswith(f"-{release}")))
    ]
