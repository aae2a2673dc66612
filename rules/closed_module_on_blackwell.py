"""The closed kernel module is installed for a GPU that only the open one supports.

What you see
    nvidia-smi: No devices were found, while the driver is loaded.
    The kernel log says that the open kernel modules are required.
Why
    Blackwell GPUs (GeForce RTX 50, B100, B200) have no support in the closed module; a driver manager, or a person,
    chose the package without -open.
Repair
    Install the open module of the same branch.
What the repair risks
    GPUs before Turing in the same machine are not supported by the open module.
By hand
    apt-get install nvidia-driver-580-open; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverInPlace,
    Evidence,
    Finding,
    Gpus,
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


class ClosedModuleOnBlackwell(Rule):
    id = "closed-module-on-blackwell"
    title = "This GPU needs the open kernel module"
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

    def detect(self, gpus: Gpus, driver: DriverInPlace) -> Iterator[Finding | Unknown]:
        for gpu in gpus.gpus:
            if not gpu.needs_open or driver.open or (gpu.first_branch and driver.branch < gpu.first_branch):
                continue
            if driver.open is None:
                yield Unknown(f"{driver.source} does not tell which kernel module it is", f"gpu:{gpu.address}")
                continue
            yield self.finding(
                f"gpu:{gpu.address}",
                f"The closed kernel module {driver.version} is installed, which does not support the {gpu.name} ({gpu.architecture}): it needs the open one",
                Evidence(driver.source, f"{driver.version}, closed kernel module"),
                Evidence(f"/sys/bus/pci/devices/{gpu.address}", f"10de:{gpu.device} {gpu.name}: {gpu.architecture}"),
            )

    def remedies(self, finding: Finding, driver: DriverInPlace) -> Iterator[Plan]:
        yield Plan(
            f"Install the open kernel module of branch {driver.branch}",
            Risk.MEDIUM,
            (
                AptInstall(
                    ("nvidia-open-kernel-dkms",)
                    if driver.debian
                    else (driver.package(driver.branch, open_flavour=True),)
                ),
                ByHand("restart, and look with dlhealth doctor whether the open module is loaded"),
            ),
            reboot=True,
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "an RTX 5090 with the closed 580",
            Machine.ubuntu2404().gpu("2b85", driver="").ubuntu_driver("580.95.05"),
            finds=gpu,
            alone=False,
        )
        yield Scenario(
            "on the disk for the next start",
            Machine.ubuntu2404().gpu("2b85", driver="").ubuntu_driver("570.124.06", loaded=False),
            finds=gpu,
        )
        yield Scenario(
            "the open module", Machine.ubuntu2404().gpu("2b85").ubuntu_driver("580.95.05", open_flavour=True)
        )
        yield Scenario("another GPU", Machine.debian12_gpu())
        yield Scenario("no driver in sight", Machine.debian12().gpu("2b85", driver=""), unknown=True)
