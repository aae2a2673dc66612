"""The installed driver is older than the GPU and does not support it.

What you see
    NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2b85) installed in this system is not supported by the NVIDIA
    550.90.07 driver release.

    nvidia-smi: No devices were found
Why
    A driver branch supports the GPUs that existed when the branch began. A stable distribution release keeps its
    branch for years, so a new card needs a newer branch.

    Virtual machines and devices that fail to wake up print the same message. If the branch supports the GPU, dlhealth
    does not report this problem. A GPU that is missing from NVIDIA's list proves nothing either.
Repair
    Install a newer branch: from the distribution, from its backports, or from NVIDIA's repository. Use only one of
    these sources.
What the repair risks
    The whole driver is replaced.
By hand
    # NNN: a branch that supports the GPU (add -open for Blackwell)
    apt-get install nvidia-driver-NNN
    systemctl reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    DriverFit,
    Drivers,
    Finding,
    Machine,
    MisfitKind,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    reboot_into,
    switch_by_hand,
    switch_to,
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
                f"{misfit.when}Driver {misfit.driver.version} is too old for {misfit.who}, which needs {needs}",
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
            yield reboot_into("a driver for this GPU")
            return
        lowest, highest = detail["branch"], detail["highest"]
        offer = None
        if lowest:
            offer = drivers.offer(lowest, highest, open_flavour=detail["open"], near=0)
        if offer:
            yield switch_to(offer[1], drivers, f"Install driver branch {offer[0]} from the distribution")
            return
        limit = f" and at most {highest} (for the other GPU)" if highest else ""
        flavour = " with the open kernel module" if detail["open"] else ""
        text = f"choose one source (a newer release of the distribution, its backports, or NVIDIA's repository), install {detail['needs']}{limit}{flavour} from it, then reboot"
        yield switch_by_hand(f"Install {detail['needs']} of the NVIDIA driver", text)

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
            "an RTX 5090 with 535",
            Machine.debian12().gpu("2b85", driver="").debian_driver(loaded=False),
            finds=gpu,
            ladder=(("high reboot network", "by-hand 570"),),
        )
        yield Scenario(
            "an RTX 4090 with 470, loaded",
            Machine.ubuntu2404().gpu("2684", driver="").ubuntu_driver("470.256.02"),
            finds=gpu,
            steps=("apt-install", "reboot"),
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-595 may_remove=libnvidia-compute-470..xserver-xorg-video-nvidia-470(16)",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "an RTX 5090 with 565",
            Machine.ubuntu2404().gpu("2b85", driver="").ubuntu_driver("565.57.01", loaded=False, open_flavour=True),
            finds=gpu,
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-595-open may_remove=libnvidia-compute-565..xserver-xorg-video-nvidia-565(16)",
                    "reboot",
                ),
            ),
        )
        unlisted = Machine.debian12().gpu("fffe", driver="").debian_driver(loaded=False)
        for number, line in enumerate(said):
            unlisted.says("kernel", line.format(id="fffe"), 5.0 + number / 1000)
        yield Scenario(
            "an unlisted id, but the kernel log reports it",
            unlisted,
            finds=gpu,
            ladder=(("high reboot network", "by-hand choose source newer release distribution backports"),),
        )
        yield Scenario(
            "the log of a mounted disk",
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
        yield Scenario("the same message about a supported GPU has another cause", virtual, unknown=True)
        yield Scenario("a Tesla T4 with 535, which some lists lack", Machine.debian12().gpu("1eb8").debian_driver())
        yield Scenario("a GTX 1080 Ti with 381", Machine.ubuntu1604_runfile())
        yield Scenario("a GTX 1080 Ti with 535", Machine.debian12_gpu())
        yield Scenario("an unknown id", Machine.debian12().gpu("fffe", driver="").debian_driver(), unknown=True)
        yield Scenario("an unknown id that the driver holds", Machine.debian12().gpu("fffe").debian_driver())
