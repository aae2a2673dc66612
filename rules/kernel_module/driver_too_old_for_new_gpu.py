"""The driver is older than the GPU and does not know it.

What you see
    NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2b85)
    NVRM: installed in this system is not supported by the NVIDIA 550.90.07 driver release.
    nvidia-smi: No devices were found
Why
    A branch supports the GPUs that existed when it began. A stable release of a distribution keeps its branch for
    years; a new card needs a newer one.
    The same message comes from virtual machines and from devices that don't wake up: where the GPU is one that the
    branch supports, this is not the cause. A list that lacks a GPU proves nothing either.
Repair
    Install a newer branch: of the distribution, from backports, or from NVIDIA's repository; from one of them only.
What the repair risks
    The whole driver is exchanged.
By hand
    apt-get install nvidia-driver-NNN of a branch that supports the GPU (with -open for Blackwell); reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverFit,
    Drivers,
    Finding,
    Machine,
    MisfitKind,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class DriverTooOldForNewGpu(Rule):
    id = "driver-too-old-for-new-gpu"
    title = "The driver is too old for this GPU"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.HIGH
    explains = ("gpu-driver-hung", "nouveau-bound-instead-of-nvidia", "nvidia-module-not-loaded")

    def detect(self, fit: DriverFit) -> Iterator[Finding | Unknown]:
        for doubt in fit.doubts:
            if not doubt.flavour:
                yield Unknown(doubt.reason, f"gpu:{doubt.gpu.address}")
        for misfit in fit.of(MisfitKind.TOO_OLD):
            needs = f"branch {misfit.branch} or newer" if misfit.branch else "a newer branch"
            yield self.finding(
                misfit.subject,
                f"{misfit.when}Driver {misfit.driver.version} is too old for {misfit.who}: it needs {needs}",
                *misfit.evidence,
                severity=misfit.severity,
                needs=needs,
                branch=misfit.branch,
                highest=min((g.last_branch for g in misfit.others if g.last_branch), default=None),
                open=misfit.gpu.needs_open,
                cured=misfit.cured,
            )

    def remedies(self, finding: Finding, drivers: Drivers) -> Iterator[Plan]:
        detail = finding.detail
        if detail["cured"]:
            yield Plan("Restart: the next start has a driver for this GPU", Risk.MEDIUM, (Reboot(),), reboot=True)
            return
        lowest, highest = detail["branch"], detail["highest"]
        offer = None
        if lowest:
            offer = drivers.offer(lowest, highest, open_flavour=detail["open"], near=0)
        if offer:
            yield Plan(
                f"Install branch {offer[0]} of the distribution",
                Risk.HIGH,
                (AptInstall((offer[1],), may_remove=drivers.packages, remove=drivers.beside), Reboot()),
                reboot=True,
                network=True,
            )
            return
        limit = f" and at most {highest} (for the other GPU)" if highest else ""
        flavour = ", open kernel module" if detail["open"] else ""
        text = f"choose one source (a newer release of the distribution, its backports, or NVIDIA's repository) and install {detail['needs']}{limit}{flavour} from it, then restart"
        yield Plan(f"Install a newer driver: {detail['needs']}", Risk.HIGH, (ByHand(text),), reboot=True, network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        said = (
            "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:{id})",
            "NVRM: installed in this system is not supported by the",
            "NVRM: NVIDIA 535.261.03 driver release.",
            "NVRM: Please see 'Appendix A - Supported NVIDIA GPU Products'",
        )
        yield Scenario(
            "an RTX 5090 with 535", Machine.debian12().gpu("2b85", driver="").debian_driver(loaded=False), finds=gpu
        )
        yield Scenario(
            "an RTX 4090 with 470, loaded",
            Machine.ubuntu2404().gpu("2684", driver="").ubuntu_driver("470.256.02"),
            finds=gpu,
            steps=("apt-install", "reboot"),
        )
        yield Scenario(
            "an RTX 5090 with 565",
            Machine.ubuntu2404().gpu("2b85", driver="").ubuntu_driver("565.57.01", loaded=False, open_flavour=True),
            finds=gpu,
        )
        unlisted = Machine.debian12().gpu("fffe", driver="").debian_driver(loaded=False)
        for number, line in enumerate(said):
            unlisted.says("kernel", line.format(id="fffe"), 5.0 + number / 1000)
        yield Scenario("an id that no list has, but the kernel log says it", unlisted, finds=gpu)
        yield Scenario(
            "the log of a machine that does not run",
            Machine()
            .os_release("debian", "12")
            .kernel("6.1.0-50-amd64", running=False)
            .debian_driver(loaded=False)
            .says(
                "kernel",
                "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2b85) installed in this system is not supported by the NVIDIA 535.261.03 driver release.",
            ),
            finds=gpu,
        )
        virtual = Machine.debian12().gpu("2331", driver="").debian_driver()
        for number, line in enumerate(said):
            virtual.says("kernel", line.format(id="2331"), 5.0 + number / 1000)
        yield Scenario("the message about a GPU that the branch supports has another cause", virtual, unknown=True)
        yield Scenario("a Tesla T4 with 535, which some lists forget", Machine.debian12().gpu("1eb8").debian_driver())
        yield Scenario("a GTX 1080 Ti with 381", Machine.ubuntu1604_runfile())
        yield Scenario("a GTX 1080 Ti with 535", Machine.debian12_gpu())
        yield Scenario(
            "an id that nobody knows", Machine.debian12().gpu("fffe", driver="").debian_driver(), unknown=True
        )
        yield Scenario(
            "an id that nobody knows, but the driver holds it", Machine.debian12().gpu("fffe").debian_driver()
        )
