"""The running kernel has an NVIDIA module, and no configuration forbids it, but it is not loaded.

What you see
    NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.
Why
    Something prevented the module from loading at boot: Secure Boot rejected its signature, another driver holds the
    GPU, a file or the kernel command line blacklists it, or it does not support the GPU.

    Or the kernel refuses the module because it was built with the headers of another kernel build.

    Or the module was unloaded, or installed after the boot.

    dlhealth does not report a GPU that was switched off on purpose or that a virtual machine uses.
Repair
    Load the module. If modprobe does not find it, rebuild the module index first (depmod). If the kernel refuses it,
    rebuild it.
What the repair risks
    Nothing. If the module cannot load, the kernel log gives the reason.
By hand
    modprobe nvidia
    # If modprobe does not find it:
    depmod -a
    modprobe nvidia
    # If that fails:
    journalctl -k | grep -i nvrm
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptSources,
    ByHand,
    Compilers,
    DriverFit,
    Evidence,
    Finding,
    Gpus,
    GpuSwitch,
    Journal,
    Kernel,
    KernelModules,
    Line,
    LoadModules,
    Machine,
    ModuleFile,
    Plan,
    RefreshModuleIndex,
    RejectedModule,
    Risk,
    Rule,
    Saying,
    Scenario,
    SecureBoot,
    Severity,
    Stage,
    Unknown,
    sayings,
    signer_of,
)

# Names in the table of kernel log patterns: why the module was refused. The first pattern found counts.
REASONS = ("magic", "foreign", "key-rejected", "unsigned", "rejected", "none-initialized", "api-mismatch")
PROBE_FAILED = r"nvidia.*probe.* failed with error"
REJECTED = ("key-rejected", "unsigned", "rejected")


class NvidiaModuleNotLoaded(Rule):
    id = "nvidia-module-not-loaded"
    title = "The NVIDIA module is installed but not loaded"
    stage = Stage.MODULE
    severity = Severity.ERROR
    explains = ("login-loop-glx-broken-driver-mismatch", "uvm-device-node-missing")

    def detect(
        self,
        gpus: Gpus | None,
        kernel: Kernel,
        modules: KernelModules,
        switch: GpuSwitch | None,
        fit: DriverFit | None,
        journal: Journal | None,
        boot: SecureBoot | None,
        compilers: Compilers | None,
        sources: AptSources | None,
        rejected: RejectedModule | None,
    ) -> Iterator[Finding | Unknown]:
        if rejected and (said := rejected.foreign):
            yield self._foreign(rejected.subject, said)
            return
        if gpus is None or switch is None:
            yield Unknown("cannot see which GPUs there are, or whether somebody switched them off")
            return
        if modules.loaded is None:
            yield Unknown(
                "cannot see which modules are loaded (a mounted disk, a container, or a kernel without modules)"
            )
            return
        disk = modules.on_disk(kernel.running)
        if "nvidia" in modules.loaded or modules.loaded_version or disk is None:
            return
        free = [g for g in gpus.gpus if not g.passed_through]
        if not free or switch.chosen:
            return
        if switch.problems:
            yield Unknown(f"cannot check what may keep the module from loading: {switch.problems[0]}")
            return
        # A GPU that the driver ignores does not need the module. If it ignores every GPU, that is the cause.
        unserved = fit.unserved() if fit else frozenset()
        wanting = [g for g in free if g.address not in unserved] or free
        reason, said = _reason(journal) if journal else (None, None)
        differ = _words(reason, said) if reason and said and reason.name == "magic" else ()
        built = _built_by(compilers, sources) if differ else ()
        refused = (
            f"; the kernel log says: {said.text.strip()[:200]}"
            if said and reason and reason.name != "none-initialized"
            else ""
        )
        yield self.finding(
            f"kernel:{kernel.running}",
            f"The NVIDIA module {disk.version or disk.path} is installed for kernel {kernel.running} but not loaded, so no program can use the {wanting[0].name}{refused}",
            Evidence("/proc/modules", "no nvidia module"),
            Evidence(disk.path, disk.version),
            *(Evidence(f"/sys/bus/pci/devices/{g.address}/driver", g.driver or "none") for g in wanting[:4]),
            *(Evidence(b.source, b.text) for b in switch.blockers[:2]),
            *([Evidence(said.source, said.text.strip()[:200])] if said else []),
            *built,
            about=[f"gpu:{g.address}" for g in wanting],
            reason=reason.name if reason else "",
            advice=reason.advice if reason else "",
            differ=differ,
            key=_key(boot, disk) if boot else "",
        )

    def _foreign(self, subject: str, said: Line) -> Finding:
        """Of a machine that only its kernel log shows."""
        builds = re.search(r"version magic '(\S+) .*' should be '(\S+) ", said.text)
        differ = builds is not None and builds[1] != builds[2]
        return self.finding(
            subject,
            f"The kernel refused the NVIDIA module, which was built for kernel {builds[1]}; this one is {builds[2]}"
            if builds and differ
            else "The kernel refused the NVIDIA module, which was built for another build of this kernel",
            Evidence(said.source, said.text.strip()[:200]),
            reason="foreign",
            advice=f"build the module for kernel {builds[2]}, or remove the copy of it that was built for {builds[1]}"
            if builds and differ
            else sayings()["foreign"].advice,
            differ=(),
            key="",
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        detail = finding.detail
        if detail["reason"] in REJECTED:
            key = detail["key"] or "CERTIFICATE (of the key that signed the module)"
            steps = (
                f"run mokutil --import {key}, and choose a password",
                "reboot, choose Enroll MOK on the blue screen, and enter that password",
            )
            summary = "Enroll the key that signed the module: the kernel rejects this key"
            yield Plan(summary, Risk.MEDIUM, tuple(ByHand(s) for s in steps), reboot=True)
            return
        if detail["differ"]:
            words = ", ".join(detail["differ"])
            text = (
                f"the compiler or the configuration of the module differs from the kernel's in: {words}. Install the "
                "compiler that built the kernel (remove a gcc from a PPA), then run dkms remove and dkms "
                "install for this kernel"
            )
            yield Plan("Rebuild the module with the compiler that built the kernel", Risk.MEDIUM, (ByHand(text),))
            return
        if detail["reason"] in ("magic", "foreign"):
            summary = "Rebuild the module with the headers of the running kernel"
            yield Plan(summary, Risk.MEDIUM, (ByHand(detail["advice"]),))
            return
        load = LoadModules(("nvidia",))
        yield Plan("Load the module", Risk.LOW, (load,))
        # A module that was copied by hand, or by an interrupted DKMS, is not in the index yet.
        index = RefreshModuleIndex(finding.subject.removeprefix("kernel:"))
        yield Plan("Rebuild the module index (depmod) and load the module", Risk.LOW, (index, load))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        debian, ubuntu = "kernel:6.1.0-50-amd64", "kernel:6.8.0-50-generic"
        yield Scenario(
            "unloaded by hand",
            Machine.debian12().gpu(driver="").debian_driver(loaded=False),
            finds=debian,
            steps=("load-modules",),
            ladder=(
                ("low", "load-modules nvidia"),
                ("low", "refresh-module-index 6.1.0-50-amd64", "load-modules nvidia"),
            ),
        )
        yield Scenario(
            "built with the headers of another build of this kernel",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .says("kernel", "nvidia: disagrees about version of symbol module_layout"),
            finds=ubuntu,
            ladder=(("medium", "by-hand module built with headers another build"),),
        )
        magic = "6.8.0-50-generic SMP preempt mod_unload modversions "
        yield Scenario(
            "built by a compiler that lacks a feature of the kernel's compiler",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .says("kernel", f"nvidia: version magic '{magic}' should be '{magic}retpoline '"),
            finds=ubuntu,
            alone=True,
            ladder=(("medium", "by-hand compiler configuration module differs from kernel's"),),
        )
        yield Scenario(
            "the kernel rejected its key, although the firmware may trust it",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .says("kernel", "Loading of module with unavailable key is rejected"),
            finds=ubuntu,
            alone=True,
            ladder=(("medium reboot", "by-hand --import", "by-hand reboot choose Enroll blue screen enter"),),
        )
        yield Scenario(
            "Secure Boot rejects it",
            Machine.ubuntu2404().gpu(driver="").ubuntu_driver(loaded=False).secure_boot(),
            finds=ubuntu,
            causes=("secure-boot-unsigned-module",),
        )
        yield Scenario(
            "the GPU is too old for it",
            Machine.debian12().gpu("1286", driver="").debian_driver(loaded=False),
            finds=debian,
            causes=("legacy-gpu-needs-470-390-340",),
        )
        yield Scenario(
            "nouveau holds the GPU",
            Machine.debian12()
            .gpu(driver="nouveau")
            .debian_driver(loaded=False)
            .remove("/etc/modprobe.d/nvidia-blacklists-nouveau.conf"),
            finds=debian,
            causes=("nouveau-bound-instead-of-nvidia",),
        )
        yield Scenario(
            "a blacklist left by Bumblebee",
            Machine.debian12()
            .gpu(driver="")
            .debian_driver(loaded=False)
            .file("/etc/modprobe.d/bumblebee.conf", "blacklist nvidia\n"),
            finds=debian,
            causes=("bumblebee-leftover-blacklists-nvidia",),
        )
        yield Scenario(
            "an old, ignored card is not the reason",
            Machine.debian12().gpu("1286", "0000:02:00.0", driver="").gpu(driver="").debian_driver(loaded=False),
            finds=debian,
        )
        yield Scenario("loaded", Machine.debian12_gpu())
        yield Scenario(
            "reserved for a virtual machine", Machine.debian12().gpu(driver="vfio-pci").debian_driver(loaded=False)
        )
        yield Scenario(
            "switched off by prime-select",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .file("/usr/bin/prime-select")
            .file("/lib/modprobe.d/blacklist-nvidia.conf", "blacklist nvidia\n"),
        )
        yield Scenario(
            "no PCI bus to read", Machine().os_release("debian", "12").kernel("6.1.0-50-amd64"), unknown=True
        )


def _reason(journal: Journal) -> tuple[Saying | None, Line | None]:
    """The line of the kernel log that says why the module is not loaded, and its pattern, if known."""
    for name in REASONS:
        saying = sayings()[name]
        if line := next(journal.kernel(f"(?i){saying.pattern.pattern}", last_boot=True), None):
            return saying, line
    return None, next(journal.kernel(PROBE_FAILED, last_boot=True), None)


def _words(saying: Saying, line: Line) -> tuple[str, ...]:
    """The words in which the version magic of module and kernel differ, apart from the release."""
    found = saying.pattern.search(line.text)
    has, wants = (found[name].split() for name in ("has", "wants")) if found else ([], [])
    return tuple(sorted(set(has[1:]) ^ set(wants[1:]))) if has[:1] == wants[:1] else ()


def _built_by(compilers: Compilers | None, sources: AptSources | None) -> Iterator[Evidence]:
    if compilers and compilers.gcc:
        yield Evidence(
            compilers.gcc.path, f"gcc {compilers.gcc.version or compilers.gcc.real} (the compiler that builds modules)"
        )
    for source in sources.sources if sources else ():
        if "toolchain" in source.uri:
            yield Evidence(source.source, f"{source.uri}: compilers from outside the release")


def _key(boot: SecureBoot, module: ModuleFile) -> str:
    """The path of this machine's certificate that signed the module, or ""."""
    known = boot.key_of(signer_of(module.signature)) if module.signature else None
    return known.path if known else ""
