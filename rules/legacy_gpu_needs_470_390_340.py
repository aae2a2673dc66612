"""The GPU is supported only by a legacy branch of the driver (Kepler 470, Fermi 390, Tesla 340).

What you see
    NVRM: The NVIDIA GeForce GT 710 GPU installed in this system is supported through the NVIDIA 470.xx Legacy drivers.
    The 535.129.03 NVIDIA driver will ignore this GPU.
Why
    NVIDIA ends the support of an architecture with a branch. A newer driver loads, and ignores the GPU.
Repair
    Install the legacy branch, on a kernel that it still builds for; a card that is too old for any of today's CUDA is
    better served by nouveau.
What the repair risks
    340 and 390 do not build on current kernels and are gone from newer releases: then there is no accelerated driver.
By hand
    apt-get install nvidia-tesla-470-driver (Debian) or nvidia-driver-470 (Ubuntu); reboot
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

SAID = r"supported through the NVIDIA (\d+)\.xx Legacy drivers"
LEGACY = (470, 390, 340, 304, 173, 96, 71)


class LegacyGpuNeeds470390340(Rule):
    id = "legacy-gpu-needs-470-390-340"
    title = "The GPU needs a legacy branch of the driver"
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
            if not gpu.architecture and said is None:
                yield Unknown(f"PCI id 10de:{gpu.device} is in no list", f"gpu:{gpu.address}")
            if gpu.last_branch not in LEGACY or driver.branch <= gpu.last_branch:
                continue
            others = [g for g in gpus.gpus if g.last_branch is None or g.last_branch >= driver.branch]
            yield self.finding(
                f"gpu:{gpu.address}",
                f"Driver {driver.version} ignores the {gpu.name} ({gpu.architecture}): its last branch is {gpu.last_branch}",
                Evidence(driver.source, driver.version),
                Evidence(
                    f"/sys/bus/pci/devices/{gpu.address}",
                    f"10de:{gpu.device} {gpu.name}: last supported by branch {gpu.last_branch}",
                ),
                *([Evidence("kernel log", said.text)] if said else []),
                # An old card that only draws the screen beside one that computes is no fault.
                severity=Severity.NOTE if others else Severity.ERROR,
                branch=str(gpu.last_branch),
            )

    def remedies(self, finding: Finding, driver: DriverInPlace) -> Iterator[Plan]:
        branch = int(finding.detail["branch"])
        if branch < 390:
            yield Plan(
                "No driver that builds for current kernels supports this GPU",
                Risk.HIGH,
                (ByHand("use nouveau (remove the NVIDIA driver and its blacklist), or another card"),),
            )
            return
        yield Plan(
            f"Switch to branch {branch}, the last one for this GPU",
            Risk.HIGH,
            (
                AptInstall((driver.package(branch),)),
                ByHand("restart, and look with dlhealth doctor whether the module was built"),
            ),
            reboot=True,
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "a Kepler with 535", Machine.debian12().gpu("1286", driver="").debian_driver(), finds=gpu, alone=False
        )
        yield Scenario(
            "a Kepler with 550 on the disk",
            Machine.ubuntu2404().gpu("1180", driver="").ubuntu_driver(loaded=False),
            finds=gpu,
        )
        yield Scenario(
            "a Kepler beside a Pascal",
            Machine.debian12().gpu("1286", "0000:02:00.0", driver="").gpu().debian_driver(),
            finds="gpu:0000:02:00.0",
        )
        yield Scenario("a Kepler with 470", Machine.ubuntu2404().gpu("1180").ubuntu_driver("470.256.02"))
        yield Scenario("a Pascal with 535", Machine.debian12_gpu())
        yield Scenario("an id that nobody knows", Machine.debian12().gpu("fffe").debian_driver(), unknown=True)
