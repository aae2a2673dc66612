"""Ubuntu's prebuilt NVIDIA module is not installed for the kernel that boots, and DKMS does not build one.

What you see
    modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.8.0-51-generic

    nvidia-smi has failed because it couldn't communicate with the NVIDIA driver.
Why
    Ubuntu ships the driver's module already built and signed, in one package for each kernel:
    linux-modules-nvidia-550-6.8.0-51-generic. A metapackage such as linux-modules-nvidia-550-generic installs it for
    each new kernel.

    The module is missing if that metapackage is not installed, or belongs to another flavour of the kernel (generic,
    generic-hwe-22.04, aws, oem) than the one that you boot. With the right metapackage, no DKMS is needed.
Repair
    Install the module of this kernel, and the metapackage of its flavour for the next one.
What the repair risks
    Little: the modules of other kernels stay unchanged.
By hand
    dpkg -l 'linux-modules-nvidia-*' 'linux-image-*'
    apt-get install linux-modules-nvidia-550-$(uname -r) linux-modules-nvidia-550-generic
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    Dkms,
    Evidence,
    Finding,
    Kernel,
    KernelModules,
    LoadModules,
    Machine,
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
from dlhealth.lazy import regex

PREFIX = "linux-modules-nvidia-"
OF_A_KERNEL = regex(rf"{PREFIX}(?P<driver>\d{{3}}(?:-server)?(?:-open)?)-(?P<release>\d+\.\d+\.\d+-\d+-\S+)")
META = regex(rf"{PREFIX}(?P<driver>\d{{3}}(?:-server)?(?:-open)?)-(?P<flavour>[a-z][\w.-]*)")


class UbuntuPrebuiltModulesMissing(Rule):
    id = "ubuntu-prebuilt-modules-missing"
    title = "Ubuntu's prebuilt NVIDIA module is not installed for this kernel"
    stage = Stage.MODULE
    severity = Severity.ERROR
    explains = ("dkms-module-missing-for-running-kernel", "nouveau-bound-instead-of-nvidia")
    explained_by = ("held-packages-block-driver",)

    def detect(
        self, packages: Packages, kernel: Kernel, modules: KernelModules, dkms: Dkms | None
    ) -> Iterator[Finding | Unknown]:
        prebuilt = packages.installed(f"{PREFIX}*")
        if not prebuilt:
            return
        if dkms is None or dkms.problems:
            yield Unknown("cannot see whether DKMS builds the driver's module")
            return
        if dkms.newest() or any("-no-dkms" not in p.name for p in packages.installed("nvidia*dkms*")):
            return
        if kernel.target is None:
            yield Unknown(f"cannot find out which kernel boots next: {kernel.next_boot_source}")
        of_kernels = [(p, m) for p in prebuilt if (m := OF_A_KERNEL.fullmatch(p.name))]
        metas = [(p, m) for p in prebuilt if (m := META.fullmatch(p.name))]
        driver = next((m["driver"] for _, m in (*metas, *of_kernels)), "")
        for release, severity in kernels_to_judge(kernel):
            if modules.usable(release) or modules.on_disk(release) or not driver:
                continue
            wanted = f"{PREFIX}{driver}-{release}"
            meta = _metapackage(packages, driver, release)
            others = ", ".join(m["release"] for _, m in of_kernels[:3])
            yield self.finding(
                f"kernel:{release}",
                f"{wanted} is not installed, so kernel {release} has no NVIDIA module"
                + (f" (only {others} has one)" if others else ""),
                Evidence(f"/lib/modules/{release}", "no nvidia module"),
                *(Evidence("/var/lib/dpkg/status", f"{p.name} {p.version}") for p, _ in (*metas[:2], *of_kernels[:3])),
                *(
                    []
                    if not meta or meta in {p.name for p, _ in metas}
                    else [Evidence("/var/lib/dpkg/status", f"{meta}: not installed")]
                ),
                severity=severity,
                release=release,
                driver=driver,
                wanted=tuple(dict.fromkeys(filter(None, (wanted, meta)))),
            )

    def remedies(self, finding: Finding, kernel: Kernel, modules: KernelModules) -> Iterator[Plan]:
        release, driver, wanted = (finding.detail[k] for k in ("release", "driver", "wanted"))
        load = (LoadModules(("nvidia",)),) if release == kernel.running else ()
        yield Plan(f"Install Ubuntu's module for kernel {release}", Risk.LOW, (AptInstall(wanted), *load), network=True)
        headers = f"linux-headers-{release}"
        yield Plan(
            f"Build the module with DKMS: install nvidia-dkms-{driver} {headers}",
            Risk.MEDIUM,
            (AptInstall((f"nvidia-dkms-{driver}", headers)), UpdateInitramfs(release), *load),
            network=True,
        )
        for other in modules.working(kernel, release)[:1]:
            text = f"boot kernel {other} from the boot menu (Advanced options): it has an NVIDIA module"
            yield Plan(f"Boot kernel {other}", Risk.MEDIUM, (ByHand(text),), reboot=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        old, new = "6.8.0-49-generic", "6.8.0-50-generic"

        def prebuilt(machine: Machine, *kernels: str, meta: str = "") -> Machine:
            machine.gpu().ubuntu_driver(kernels=()).without_package("nvidia-dkms-550")
            machine.remove("/var/lib/dkms/nvidia/550.120/source")
            for kernel in kernels:
                machine.nvidia_module(kernel, "550.120", name="nvidia.ko", place="kernel/nvidia-550")
                machine.package(f"{PREFIX}550-{kernel}", "6.8.0-50.51")
            if meta:
                machine.package(f"{PREFIX}550-{meta}", "6.8.0-50.51", depends=f"{PREFIX}550-{kernels[-1]}")
            return machine

        def two() -> Machine:
            return (
                Machine.ubuntu2404()
                .kernel(old, running=False)
                .package("linux-image-generic", "6.8.0-50.51", depends=f"linux-image-{new}")
            )

        yield Scenario(
            "an image with the module of one kernel and no metapackage",
            prebuilt(two(), old),
            finds=f"kernel:{new}",
            ladder=(
                (
                    "low network",
                    f"apt-install {PREFIX}550-{new} {PREFIX}550-generic",
                    "load-modules nvidia",
                ),
                (
                    "medium network",
                    f"apt-install nvidia-dkms-550 linux-headers-{new}",
                    f"update-initramfs {new}",
                    "load-modules nvidia",
                ),
                ("medium reboot", f"by-hand {old}"),
            ),
        )
        hwe = "6.11.0-17-generic"
        yield Scenario(
            "the metapackage of another flavour than the kernel's",
            prebuilt(
                Machine.ubuntu2404()
                .kernel(hwe)
                .package("linux-image-generic-hwe-24.04", "6.11.0-17.17", depends=f"linux-image-{hwe}"),
                new,
                meta="generic",
            ),
            finds=f"kernel:{hwe}",
            ladder=(
                ("low network", f"apt-install {PREFIX}550-{hwe} {PREFIX}550-generic-hwe-24.04", "load-modules nvidia"),
                (
                    "medium network",
                    f"apt-install nvidia-dkms-550 linux-headers-{hwe}",
                    f"update-initramfs {hwe}",
                    "load-modules nvidia",
                ),
                ("medium reboot", f"by-hand {new}"),
            ),
        )
        yield Scenario("neither DKMS nor a missing module", prebuilt(two(), new, meta="generic"))
        yield Scenario("DKMS builds it", Machine.ubuntu2404_gpu().package(f"{PREFIX}550-{old}", "6.8.0-49.49"))
        yield Scenario(
            "an old kernel that is not booted has none",
            prebuilt(Machine.ubuntu2404().kernel("6.8.0-31-generic", running=False), new, meta="generic"),
        )
        yield Scenario("no package records", Machine().file("/etc/hostname", "disk"), unknown=True)


def _metapackage(packages: Packages, driver: str, release: str) -> str:
    """The metapackage that would bring the module of each new kernel of this flavour; "" if no metapackage brought the
    kernel."""
    brought: Package | None = next(
        (p for p in packages.installed("linux-image-*") if f"linux-image-{release}" in p.dependencies), None
    )
    return f"{PREFIX}{driver}-{brought.name.removeprefix('linux-image-')}" if brought else ""
