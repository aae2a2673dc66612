"""The NVIDIA module is there for the running kernel and nothing forbids it, but it is not loaded.

What you see
    NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.
Why
    Something kept it from loading at the start: a signature that Secure Boot rejects, another driver that holds the
    GPU, a blacklist, a GPU that it does not support. Or it was unloaded, or installed since the start.
Repair
    Load it.
What the repair risks
    Nothing: a module that can't load says why in the kernel log.
By hand
    modprobe nvidia; journalctl -k | grep -i nvrm
"""

from collections.abc import Iterator

from dlhealth.api import (
    Evidence,
    Finding,
    Gpus,
    Kernel,
    KernelModules,
    Layer,
    LoadModules,
    Machine,
    ModprobeConfig,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)


class NvidiaModuleNotLoaded(Rule):
    id = "nvidia-module-not-loaded"
    title = "The NVIDIA module is installed but not loaded"
    layer = Layer.KERNEL_MODULE
    stage = Stage.MODULE
    severity = Severity.ERROR
    explains = ("login-loop-glx-broken-driver-mismatch", "uvm-device-node-missing")

    def detect(self, gpus: Gpus, kernel: Kernel, modules: KernelModules, config: ModprobeConfig) -> Iterator[Finding]:
        disk = modules.on_disk(kernel.running)
        if modules.loaded is None or "nvidia" in modules.loaded or modules.loaded_version or disk is None:
            return
        # Switched off on purpose (prime-select), or held for a virtual machine: other rules, or none.
        chosen = [li for li in config.blacklists("nvidia") if "prime" in li.source or "blacklist-nvidia" in li.source]
        free = [g for g in gpus.gpus if g.driver != "vfio-pci"]
        if not free or chosen:
            return
        yield self.finding(
            f"kernel:{kernel.running}",
            f"The NVIDIA module {disk.version} is installed for kernel {kernel.running} but not loaded, so nothing can use the {free[0].name}",
            Evidence("/proc/modules", "no nvidia module"),
            Evidence(disk.path, disk.version),
            Evidence(f"/sys/bus/pci/devices/{free[0].address}", f"driver: {free[0].driver or 'none'}"),
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan("Load the module", Risk.LOW, (LoadModules(("nvidia",)),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "unloaded by hand",
            Machine.debian12().gpu(driver="").debian_driver(loaded=False),
            finds="kernel:6.1.0-50-amd64",
        )
        yield Scenario(
            "Secure Boot keeps it out",
            Machine.ubuntu2404().gpu(driver="").ubuntu_driver(loaded=False).secure_boot(),
            finds="kernel:6.8.0-50-generic",
            causes=("secure-boot-unsigned-module",),
        )
        yield Scenario("loaded", Machine.debian12_gpu())
        yield Scenario(
            "held for a virtual machine",
            Machine.debian12().gpu(driver="vfio-pci").debian_driver(loaded=False),
            alone=False,
        )
        yield Scenario(
            "switched off by prime-select",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .file("/lib/modprobe.d/blacklist-nvidia.conf", "blacklist nvidia\n"),
        )
        yield Scenario("no bus in sight", Machine().os_release("debian", "12").kernel("6.1.0-50-amd64"), unknown=True)
