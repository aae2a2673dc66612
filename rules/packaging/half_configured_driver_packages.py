"""Packages of the driver are unpacked but not configured.

What you see
    nvidia-driver-510 depends on nvidia-dkms-510; however: Package nvidia-dkms-510 is not configured yet.

    8 not fully installed or removed.

    Every run of apt fails, for other packages too.
Why
    The configuration of one package failed, and all packages that depend on it wait for it.

    The cause is the step that failed: a kernel module that does not build, a full /boot, or a python3 that is not the
    distribution's. If dlhealth finds such a cause, it repairs the cause first. For a failed build, it quotes the
    first error.
Repair
    Repair the cause, then let dpkg configure the remaining packages.
What the repair risks
    Little. If the cause still exists, the same step fails again, and nothing gets worse.
By hand
    dpkg --audit
    # The first error counts, not the last:
    less /var/log/apt/term.log
    dpkg --configure -a
    apt-get -f install
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptFailures,
    AptInstall,
    AptPurgeReinstall,
    Dkms,
    DpkgConfigure,
    Evidence,
    Finding,
    Gpus,
    Kernel,
    KernelModules,
    Machine,
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
    count,
)

ERRORS = ("half-configured", "unpacked", "half-installed")
TRIGGERS = ("triggers-awaited", "triggers-pending")
BUILDERS = ("linux-image-", "linux-headers-", "linux-modules-", "dkms", "initramfs-tools", "dracut")
"""Packages needed to build the driver's modules or to add them to the initramfs."""


class HalfConfiguredDriverPackages(Rule):
    id = "half-configured-driver-packages"
    title = "Packages of the driver are not configured"
    stage = Stage.PACKAGE_STATE
    severity = Severity.ERROR
    explains = ("third-party-package-pulls-other-libnvidia", "initramfs-old-nvidia-module")

    def detect(
        self,
        packages: Packages,
        locks: PackageLocks | None,
        failures: AptFailures | None,
        gpus: Gpus | None,
        dkms: Dkms | None,
        kernel: Kernel | None,
        modules: KernelModules | None,
    ) -> Iterator[Finding | Unknown]:
        unfinished = [p for p in packages.all() if p.state in (*ERRORS, *TRIGGERS)]
        if not unfinished:
            return
        ours = [p for p in packages.installed() if p.gpu]
        if not ours and not (gpus and gpus.gpus):
            return
        needed = {name for p in ours for name in p.dependencies}
        concerned = [p for p in unfinished if p.gpu or p.name in needed or p.name.startswith(BUILDERS)]
        if not concerned:
            return
        if locks and locks.busy:
            yield Unknown(locks.busy)
            return
        failed = [p for p in concerned if p.state in ERRORS]
        first = _first(failed or concerned)
        evidence = [
            Evidence("/var/lib/dpkg/status", f"{p.name} {p.version}: {p.want} {p.flag} {p.state}")
            for p in concerned[:12]
        ]
        for failure in failures.failures[:3] if failures else ():
            evidence.append(Evidence(failure.source, failure.text))
        more = count(len(concerned) - 1, "more package is", "more packages are")
        others = f" ({more} not configured)" if len(concerned) > 1 else ""
        step, named = "", f"{first.name} {first.version}".strip()
        for release in _releases(kernel, dkms) if modules else ():
            for module in dkms.modules if dkms and modules and not _usable(modules, release) else ():
                if not step and (build := module.failed(release)) and build.kernel:
                    step = (
                        f", because {module.name} {module.version} does not build for kernel {release}: {build.error}"
                    )
                    evidence.append(Evidence(build.log, build.error))
        yield self.finding(
            f"package:{first.name}",
            f"{named} is {first.state}{others}, so every run of apt fails{step}"
            if failed
            else f"{named} is {first.state}{others}: the last run of apt did not finish",
            *evidence,
            severity=Severity.ERROR if failed else Severity.WARNING,
            packages=tuple(sorted(p.name for p in (failed or concerned))),
        )

    def remedies(self, finding: Finding, packages: Packages) -> Iterator[Plan]:
        yield Plan("Configure the unpacked packages", Risk.LOW, (DpkgConfigure(),))
        broken = finding.detail["packages"]
        yield Plan(f"Reinstall {', '.join(broken)}", Risk.MEDIUM, (AptInstall(broken, reinstall=True),), network=True)
        yield Plan(
            "Purge the driver and reinstall the same version", Risk.HIGH,
            (AptPurgeReinstall(packages.driver_family),), network=True,
        )  # fmt: skip

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def failed(machine: Machine) -> Machine:
            version = "550.120-0ubuntu0.24.04.1"
            return machine.package(
                "nvidia-dkms-550", version, status="install ok half-configured", source="nvidia-graphics-drivers-550",
                files=["/usr/src/nvidia-550.120/dkms.conf"],
            ).package(
                "nvidia-driver-550", version, status="install ok unpacked", source="nvidia-graphics-drivers-550",
                depends=f"nvidia-dkms-550 (>= {version})",
            )  # fmt: skip

        yield Scenario(
            "the DKMS package failed, and the driver waits for it",
            failed(Machine.ubuntu2404_gpu()),
            finds="package:nvidia-dkms-550",
            steps=("dpkg-configure",),
            ladder=(
                ("low", "dpkg-configure"),
                ("medium network", "apt-install nvidia-dkms-550 nvidia-driver-550 reinstall"),
                ("high network", "apt-purge-reinstall libnvidia-cfg1-550..xserver-xorg-video-nvidia-550(18)"),
            ),
        )
        yield Scenario(
            "the first error of the build is quoted",
            failed(Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False)).file(
                "/var/lib/dkms/nvidia/550.120/build/make.log",
                "DKMS make.log for nvidia-550.120 for kernel 6.8.0-50-generic (x86_64)\n"
                "nvidia-uvm/uvm_va_block.c:8812:1: internal compiler error: Segmentation fault\n",
            ),
            finds="package:nvidia-dkms-550",
        )
        yield Scenario(
            "the machine went down while a library was unpacked",
            Machine.debian12_gpu().package("libcuda1", "535.261.03-1", status="install ok unpacked", multi_arch="same"),
            finds="package:libcuda1",
            ladder=(
                ("low", "dpkg-configure"),
                ("medium network", "apt-install libcuda1 reinstall"),
                ("high network", "apt-purge-reinstall firmware-nvidia-gsp..xserver-xorg-video-nvidia(33)"),
            ),
        )
        yield Scenario(
            "dpkg was interrupted",
            failed(Machine.ubuntu2404_gpu()).file("/var/lib/dpkg/updates/0000", ""),
            finds="package:nvidia-dkms-550",
            causes=("dpkg-interrupted",),
        )
        yield Scenario("everything is configured", Machine.ubuntu2404_gpu())
        yield Scenario(
            "only leftover configuration files",
            Machine.ubuntu2404_gpu().package("nvidia-utils-535", "535.183-1", status="deinstall ok config-files"),
        )
        yield Scenario(
            "an unrelated package is not configured",
            Machine.debian12_gpu().package("libreoffice-core", "4:7.4.7-1", status="install ok unpacked"),
        )
        yield Scenario(
            "apt is running", failed(Machine.ubuntu2404_gpu()).locked("/var/lib/dpkg/lock", 1595, "dpkg"), unknown=True
        )


def _releases(kernel: Kernel | None, dkms: Dkms | None) -> tuple[str, ...]:
    """The kernels that a package may be built for; where none is known, those of the builds that failed."""
    if kernel and (kernel.installed or kernel.running):
        return tuple(k.release for k in kernel.installed) or (kernel.running or "",)
    return tuple(b.kernel for m in (dkms.modules if dkms else ()) for b in m.builds if b.fault)


def _usable(modules: KernelModules, release: str) -> bool:
    file = modules.seen(release)
    return file is not None and not file.unfit


def _first(packages: list[Package]) -> Package:
    """The package that failed, before the packages that wait for it."""
    waited_for = {name for p in packages for name in p.dependencies}
    return min(
        packages, key=lambda p: (ERRORS.index(p.state) if p.state in ERRORS else 9, p.name not in waited_for, p.name)
    )
