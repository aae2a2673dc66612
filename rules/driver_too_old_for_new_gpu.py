"""The driver is older than the GPU and does not know it.

What you see
    NVRM: installed in this system is not supported by the NVIDIA 550.90.07 driver release.
    nvidia-smi: No devices were found
Why
    A branch supports the GPUs that existed when it began. A stable release of a distribution keeps its branch for
    years; a new card needs a newer one.
Repair
    Install a newer branch: from backports, or from NVIDIA's repository, from one of them only.
What the repair risks
    The whole driver is exchanged.
By hand
    apt-get install nvidia-driver-NNN of a branch that supports the GPU; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
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

SAID = r"is not supported by the NVIDIA ([\d.]+) driver release"


class DriverTooOldForNewGpu(Rule):
    id = "driver-too-old-for-new-gpu"
    title = "The driver is too old for this GPU"
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
        said = next(journal.kernel(SAID, last_boot=True), None) if journal else None
        for gpu in gpus.gpus:
            told = said if said and not gpu.driver else None
            if not gpu.architecture and told is None:
                yield Unknown(f"PCI id 10de:{gpu.device} is in no list", f"gpu:{gpu.address}")
                continue
            too_old = gpu.first_branch is not None and driver.branch < gpu.first_branch
            if not too_old and (gpu.architecture or told is None):
                continue
            others = [g for g in gpus.gpus if g != gpu and (g.first_branch or 0) <= driver.branch]
            needs = f"branch {gpu.first_branch} or newer" if gpu.first_branch else "a newer branch"
            yield self.finding(
                f"gpu:{gpu.address}",
                f"Driver {driver.version} is older than the {gpu.name} ({gpu.architecture or 'unknown architecture'}), which needs {needs}",
                Evidence(driver.source, driver.version),
                Evidence(f"/sys/bus/pci/devices/{gpu.address}", f"10de:{gpu.device} {gpu.name}"),
                *([Evidence("kernel log", told.text)] if told else []),
                severity=Severity.WARNING if others else Severity.ERROR,
                needs=needs,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            f"Install a newer driver: {finding.detail['needs']}",
            Risk.HIGH,
            (
                ByHand(
                    f"choose one source (the distribution's newer release or backports, or NVIDIA's repository) and install {finding.detail['needs']} from it"
                ),
            ),
            reboot=True,
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "an RTX 5090 with 535", Machine.debian12().gpu("2b85", driver="").debian_driver(), finds=gpu, alone=False
        )
        yield Scenario(
            "an RTX 4090 with 470, next start",
            Machine.ubuntu2404().gpu("2684", driver="").ubuntu_driver("470.256.02", loaded=False),
            finds=gpu,
        )
        yield Scenario(
            "an id that no list has, but the kernel log says it",
            Machine.debian12()
            .gpu("fffe", driver="")
            .debian_driver()
            .says("kernel", "NVRM: installed in this system is not supported by the NVIDIA 535.261.03 driver release."),
            finds=gpu,
            alone=False,
        )
        yield Scenario("a Tesla T4 with 535, which some lists forget", Machine.debian12().gpu("1eb8").debian_driver())
        yield Scenario("a GTX 1080 Ti with 381", Machine.ubuntu2404().gpu().ubuntu_driver("381.22"), alone=False)
        yield Scenario("a GTX 1080 Ti with 535", Machine.debian12_gpu())
        yield Scenario("an id that nobody knows", Machine.debian12().gpu("fffe").debian_driver(), unknown=True)
