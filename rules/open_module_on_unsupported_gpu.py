"""The open kernel module is installed for a GPU that only the closed one supports.

What you see
    NVRM: installed in this system is not supported by open nvidia.ko because it does not include the required GPU
    System Processor (GSP).
    nvidia-smi: No devices were found
Why
    The open module needs a processor on the GPU that only Turing and newer have. Since branch 560 installers choose the
    open module by themselves, also for Maxwell, Pascal and Volta.
Repair
    Install the closed module of a branch that still supports the GPU.
What the repair risks
    Another driver package set; in a machine with an older and a newer GPU the closed module of branch 580 or older
    must serve both.
By hand
    apt-get install nvidia-driver-580 (without -open), remove the -open packages, update-initramfs -u; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverInPlace,
    Evidence,
    Finding,
    Gpus,
    Journal,
    Layer,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

# What the open module prints for a GPU without GSP (kernel-open/nvidia/nv.c).
SAID = r"not supported by open\b.*GPU System Processor"


class OpenModuleOnUnsupportedGpu(Rule):
    id = "open-module-on-unsupported-gpu"
    title = "The open kernel module does not support this GPU"
    layer = Layer.KERNEL_MODULE
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = (
        "login-loop-glx-broken-driver-mismatch",
        "nvidia-module-not-loaded",
        "gpu-driver-hung",
        "uvm-device-node-missing",
    )

    def detect(self, gpus: Gpus, driver: DriverInPlace, journal: Journal | None) -> Iterator[Finding | Unknown]:
        if not driver.open:
            return
        others = [g for g in gpus.gpus if g.supports_open]
        said = next(journal.kernel(SAID, last_boot=True), None) if journal else None
        for gpu in gpus.gpus:
            if gpu.supports_open or (gpu.supports_open is None and said is None):
                if gpu.supports_open is None:
                    yield Unknown(f"PCI id 10de:{gpu.device} is in no list", f"gpu:{gpu.address}")
                continue
            yield self.finding(
                f"gpu:{gpu.address}",
                f"The open kernel module {driver.version} is installed, which does not support the {gpu.name} ({gpu.architecture or 'unknown architecture'}): it needs the closed one",
                Evidence(driver.source, f"{driver.version}, open kernel module"),
                Evidence(
                    f"/sys/bus/pci/devices/{gpu.address}",
                    f"10de:{gpu.device} {gpu.name}: {gpu.architecture}, the open module starts with Turing",
                ),
                *([Evidence("kernel log", said.text)] if said else []),
                severity=Severity.WARNING if others else Severity.ERROR,
                last=str(gpu.last_branch or driver.branch),
            )

    def remedies(self, finding: Finding, driver: DriverInPlace) -> Iterator[Plan]:
        branch = min(int(finding.detail["last"]), driver.branch)
        yield Plan(
            f"Install the closed kernel module of branch {branch}",
            Risk.MEDIUM,
            (
                AptInstall(("nvidia-kernel-dkms",) if driver.debian else (driver.package(branch),)),
                ByHand("restart, and look with dlhealth doctor whether the closed module is loaded"),
            ),
            reboot=True,
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "-open packages on a Pascal",
            Machine.ubuntu2404().gpu("1b06", driver="").ubuntu_driver(open_flavour=True),
            finds=gpu,
            alone=False,
        )
        yield Scenario(
            "on the disk for the next start",
            Machine.ubuntu2404().gpu("1db6", driver="").ubuntu_driver(open_flavour=True, loaded=False),
            finds=gpu,
        )
        yield Scenario("a new GPU", Machine.ubuntu2404().gpu("2684").ubuntu_driver(open_flavour=True))
        yield Scenario(
            "a Tesla T4, which some lists forget", Machine.ubuntu2404().gpu("1eb8").ubuntu_driver(open_flavour=True)
        )
        yield Scenario("the closed module", Machine.debian12_gpu())
        yield Scenario(
            "an id that nobody knows", Machine.ubuntu2404().gpu("fffe").ubuntu_driver(open_flavour=True), unknown=True
        )
