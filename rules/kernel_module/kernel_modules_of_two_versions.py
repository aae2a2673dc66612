"""nvidia.ko and the other modules of the driver have different versions.

What you see
    nvidia-modeset: Version mismatch: nvidia.ko(410.73) nvidia-modeset.ko(390.87)

    The screen stays black or X hangs, although nvidia.ko is loaded.
Why
    Two installations of the driver left modules for the same kernel, and the module index has some of each. nvidia.ko
    loads, the other modules refuse to.

    After an upgrade without a reboot, memory and disk have different versions. That is another problem.
Repair
    Rebuild and reinstall all modules of the driver for that kernel, so that they have one version.
What the repair risks
    Little: the other modules could not be loaded anyway.
By hand
    modinfo -F version nvidia nvidia-modeset nvidia-drm nvidia-uvm
    dkms uninstall nvidia/VERSION -k KERNEL
    dkms install --force nvidia/VERSION -k KERNEL
    update-initramfs -u
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Dkms,
    Evidence,
    Finding,
    Journal,
    Kernel,
    KernelModules,
    Machine,
    ModuleVersions,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
    kernels_to_judge,
    sayings,
)


class KernelModulesOfTwoVersions(Rule):
    id = "kernel-modules-of-two-versions"
    title = "The driver's kernel modules have different versions"
    stage = Stage.MODULE
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = (
        "login-loop-glx-broken-driver-mismatch",
        "login-loop-unexplained",
        "uvm-device-node-missing",
    )

    def detect(
        self, versions: ModuleVersions, kernel: Kernel, modules: KernelModules, journal: Journal | None
    ) -> Iterator[Finding | Unknown]:
        for release, severity in kernels_to_judge(kernel):
            main = modules.on_disk(release)
            if main is None:
                continue
            if not main.version:
                yield Unknown(f"cannot read the version of {main.path}: {main.problem}", f"kernel:{release}")
                continue
            others = [p for p in versions.parts if p.kernel == release and p.version not in ("", main.version)]
            if not others:
                continue
            here = journal if journal and release == kernel.running else None
            pattern = sayings()["two-versions"].pattern.pattern
            said = next(here.kernel(f"(?i){pattern}", last_boot=True), None) if here else None
            names = ", ".join(f"{p.path.rpartition('/')[2]} {p.version}" for p in others)
            yield self.finding(
                f"kernel:{release}",
                f"The NVIDIA modules of kernel {release} have different versions: {main.path.rpartition('/')[2]} {main.version}, but {names}",
                Evidence(main.path, main.version),
                *(Evidence(p.path, p.version) for p in others),
                *([Evidence(said.source, said.text.strip()[:200])] if said else []),
                severity=severity,
                release=release,
                version=main.version,
                paths=tuple(p.path for p in others),
            )

    def remedies(self, finding: Finding, dkms: Dkms) -> Iterator[Plan]:
        release, version = finding.detail["release"], finding.detail["version"]
        module = next((m for m in dkms.modules if m.version == version and m.source), None) or dkms.newest()
        if module:
            text = (
                f"dkms uninstall {module.name}/{module.version} -k {release}; move {' and '.join(finding.detail['paths'])} "
                f"out of the way, if still there; dkms install --force {module.name}/{module.version} -k {release}"
            )
        else:
            text = f"reinstall the driver for kernel {release}, so that all its modules have one version"
        yield Plan(
            f"Install all NVIDIA modules in one version for kernel {release}",
            Risk.MEDIUM,
            (ByHand(text), UpdateInitramfs(release), Reboot()),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        ubuntu = "6.8.0-50-generic"

        def mixed(machine: Machine, name: str, version: str = "535.183.01") -> Machine:
            return machine.nvidia_module(ubuntu, version, name=name, place="updates/dkms")

        yield Scenario(
            "nvidia-modeset has another version",
            mixed(Machine.ubuntu2404_gpu(), "nvidia-modeset.ko").says(
                "kernel", "nvidia-modeset: Version mismatch: nvidia.ko(550.120) nvidia-modeset.ko(535.183.01)"
            ),
            finds=f"kernel:{ubuntu}",
            alone=True,
            ladder=(
                (
                    "medium reboot",
                    "by-hand nvidia/550.120 -k 6.8.0-50-generic /lib/modules/6.8.0-50-generic/updates/dkms/nvidia-modeset.ko --force",
                    "update-initramfs 6.8.0-50-generic",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "nvidia-uvm has another version, and no log says so",
            mixed(Machine.ubuntu2404_gpu(), "nvidia-uvm.ko"),
            finds=f"kernel:{ubuntu}",
            ladder=(
                (
                    "medium reboot",
                    "by-hand nvidia/550.120 -k 6.8.0-50-generic /lib/modules/6.8.0-50-generic/updates/dkms/nvidia-uvm.ko --force",
                    "update-initramfs 6.8.0-50-generic",
                    "reboot",
                ),
            ),
        )
        yield Scenario("all have one version", Machine.ubuntu2404_gpu())
        yield Scenario(
            "the driver on the disk is newer than the loaded one",
            Machine.ubuntu2404().gpu().ubuntu_driver(loaded=False).loaded_driver("535.183.01"),
            alone=False,
        )
        yield Scenario(
            "the main module cannot be read",
            Machine.ubuntu2404_gpu().file(f"/lib/modules/{ubuntu}/updates/dkms/nvidia.ko", b"\x7fELF"),
            unknown=True,
        )
