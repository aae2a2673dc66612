"""The NVIDIA module is there for the running kernel and nothing forbids it, but it is not loaded.

What you see
    NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.
Why
    Something kept it from loading at the start: a signature that Secure Boot rejects, another driver that holds the
    GPU, a blacklist, also one on the kernel's command line, a GPU that it does not support. Or the kernel refuses it
    because it was built with the headers of another build. Or it was unloaded, or installed since the start.
    A GPU that somebody switched off, or that a virtual machine has, is not reported.
Repair
    Load it; where modprobe does not find it, make its index anew first; or build it again.
What the repair risks
    Nothing: a module that can't load says why in the kernel log.
By hand
    modprobe nvidia, or depmod -a && modprobe nvidia; journalctl -k | grep -i nvrm
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DriverFit,
    Evidence,
    Finding,
    Gpus,
    GpuSwitch,
    Journal,
    Kernel,
    KernelModules,
    LoadModules,
    Machine,
    Plan,
    RefreshModuleIndex,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

# What the kernel says of a module that was built for another one than this.
FOREIGN = r"nvidia: (?:disagrees|version magic)"
# What the kernel says of a module that it did not take, or that found nothing to drive.
SAID = r"\bnvidia: (?:disagrees|Unknown symbol|version magic)|NVRM: (?:No NVIDIA|None of the NVIDIA|API mismatch)|nvidia.*probe.* failed with error"


class NvidiaModuleNotLoaded(Rule):
    id = "nvidia-module-not-loaded"
    title = "The NVIDIA module is installed but not loaded"
    stage = Stage.MODULE
    severity = Severity.ERROR
    explains = ("login-loop-glx-broken-driver-mismatch", "uvm-device-node-missing")

    def detect(
        self,
        gpus: Gpus,
        kernel: Kernel,
        modules: KernelModules,
        switch: GpuSwitch,
        fit: DriverFit | None,
        journal: Journal | None,
    ) -> Iterator[Finding | Unknown]:
        if modules.loaded is None:
            yield Unknown(
                "which modules are loaded can't be seen here (a disk, a container, or a kernel without modules)"
            )
            return
        disk = modules.on_disk(kernel.running)
        if "nvidia" in modules.loaded or modules.loaded_version or disk is None:
            return
        free = [g for g in gpus.gpus if not g.passed_through]
        if not free or switch.chosen:
            return
        # A GPU that the driver ignores is no reason to load it; where all are, that is the cause.
        unserved = fit.unserved() if fit else frozenset()
        wanting = [g for g in free if g.address not in unserved] or free
        said = next(journal.kernel(SAID, last_boot=True), None) if journal else None
        yield self.finding(
            f"kernel:{kernel.running}",
            f"The NVIDIA module {disk.version or disk.path} is installed for kernel {kernel.running} but not loaded, so nothing can use the {wanting[0].name}",
            Evidence("/proc/modules", "no nvidia module"),
            Evidence(disk.path, disk.version),
            *(Evidence(f"/sys/bus/pci/devices/{g.address}/driver", g.driver or "none") for g in wanting[:4]),
            *(Evidence(b.source, b.text) for b in switch.blockers[:2]),
            *([Evidence(said.source, said.text.strip()[:200])] if said else []),
            about=[f"gpu:{g.address}" for g in wanting],
            foreign=said.text.strip() if said and re.search(FOREIGN, said.text) else "",
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if foreign := finding.detail["foreign"]:
            yield Plan(
                "Build the module again, with the headers of the kernel that runs",
                Risk.MEDIUM,
                (
                    ByHand(
                        f"the kernel says: {foreign}. Remove the module from DKMS for this kernel, and install it again"
                    ),
                ),
            )
            return
        load = LoadModules(("nvidia",))
        yield Plan("Load the module", Risk.LOW, (load,))
        # One that was copied there by hand, or by a DKMS that was cut off, is in no index yet.
        index = RefreshModuleIndex(finding.subject.removeprefix("kernel:"))
        yield Plan("Make the kernel's index of modules anew, and load the module", Risk.LOW, (index, load))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        debian, ubuntu = "kernel:6.1.0-50-amd64", "kernel:6.8.0-50-generic"
        yield Scenario("unloaded by hand", Machine.debian12().gpu(driver="").debian_driver(loaded=False), finds=debian)
        yield Scenario(
            "built with the headers of another build of this kernel",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .says("kernel", "nvidia: disagrees about version of symbol module_layout"),
            finds=ubuntu,
        )
        yield Scenario(
            "Secure Boot keeps it out",
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
            "a blacklist that Bumblebee left",
            Machine.debian12()
            .gpu(driver="")
            .debian_driver(loaded=False)
            .file("/etc/modprobe.d/bumblebee.conf", "blacklist nvidia\n"),
            finds=debian,
            causes=("bumblebee-leftover-blacklists-nvidia",),
        )
        yield Scenario(
            "an old card that is ignored anyway is not why",
            Machine.debian12().gpu("1286", "0000:02:00.0", driver="").gpu(driver="").debian_driver(loaded=False),
            finds=debian,
        )
        yield Scenario("loaded", Machine.debian12_gpu())
        yield Scenario(
            "held for a virtual machine", Machine.debian12().gpu(driver="vfio-pci").debian_driver(loaded=False)
        )
        yield Scenario(
            "switched off by prime-select",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .file("/usr/bin/prime-select")
            .file("/lib/modprobe.d/blacklist-nvidia.conf", "blacklist nvidia\n"),
        )
        yield Scenario("no bus in sight", Machine().os_release("debian", "12").kernel("6.1.0-50-amd64"), unknown=True)
