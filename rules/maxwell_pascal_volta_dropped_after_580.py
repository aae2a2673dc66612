"""The driver is of branch 590 or newer, which no longer supports Maxwell, Pascal and Volta.

What you see
    NVRM: The NVIDIA GeForce GTX 1050 GPU installed in this system is supported through the NVIDIA 580.xx Legacy drivers.
    The 595.58.03 NVIDIA driver will ignore this GPU.
Why
    Branch 580 is the last for these architectures. Metapackages that follow the newest branch (cuda-drivers,
    nvidia-open) went past it in an ordinary upgrade.
Repair
    Install branch 580 with the closed module, and pin it.
What the repair risks
    The whole driver is exchanged; a newer GPU in the same machine stays on 580 too.
By hand
    apt-get install nvidia-driver-580 (or cuda-drivers-580, nvidia-driver-pinning-580); reboot
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


class MaxwellPascalVoltaDroppedAfter580(Rule):
    id = "maxwell-pascal-volta-dropped-after-580"
    title = "The driver no longer supports this GPU"
    layer = Layer.KERNEL_MODULE
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.HIGH
    explains = (
        "login-loop-glx-broken-driver-mismatch",
        "nvidia-module-not-loaded",
        "nouveau-bound-instead-of-nvidia",
        "gpu-driver-hung",
        "uvm-device-node-missing",
        "open-module-on-unsupported-gpu",
    )

    def detect(self, gpus: Gpus, driver: DriverInPlace, journal: Journal | None) -> Iterator[Finding | Unknown]:
        for gpu in gpus.gpus:
            if not gpu.architecture:
                yield Unknown(f"PCI id 10de:{gpu.device} is in no list", f"gpu:{gpu.address}")
            if gpu.last_branch != 580 or driver.branch <= 580:
                continue
            said = next(journal.kernel("NVIDIA 580.xx Legacy drivers", last_boot=True), None) if journal else None
            others = [g for g in gpus.gpus if g.last_branch is None]
            yield self.finding(
                f"gpu:{gpu.address}",
                f"Driver {driver.version} ignores the {gpu.name} ({gpu.architecture}): its last branch is 580",
                Evidence(driver.source, driver.version),
                Evidence(
                    f"/sys/bus/pci/devices/{gpu.address}", f"10de:{gpu.device} {gpu.name}: last supported by branch 580"
                ),
                *([Evidence("kernel log", said.text)] if said else []),
                severity=Severity.WARNING if others else Severity.ERROR,
            )

    def remedies(self, finding: Finding, driver: DriverInPlace) -> Iterator[Plan]:
        packages = ("nvidia-driver-580",) if not driver.debian else ("cuda-drivers-580",)
        yield Plan(
            "Switch to branch 580, the last one for this GPU",
            Risk.HIGH,
            (
                AptInstall(packages),
                ByHand("restart; then keep the branch: apt-get install nvidia-driver-pinning-580, or a pin of 580.*"),
            ),
            reboot=True,
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "a GTX 1080 Ti after an upgrade to 590",
            Machine.ubuntu2404().gpu(driver="").ubuntu_driver("590.48.01"),
            finds=gpu,
            alone=False,
        )
        yield Scenario(
            "a Volta, next start",
            Machine.ubuntu2404().gpu("1db6", driver="").ubuntu_driver("595.58.03", loaded=False),
            finds=gpu,
        )
        yield Scenario("branch 580", Machine.ubuntu2404().gpu().ubuntu_driver("580.95.05"))
        yield Scenario(
            "a Turing with 590", Machine.ubuntu2404().gpu("1eb8").ubuntu_driver("590.48.01", open_flavour=True)
        )
        yield Scenario(
            "an id that nobody knows", Machine.ubuntu2404().gpu("fffe").ubuntu_driver("590.48.01"), unknown=True
        )
