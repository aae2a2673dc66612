"""The driver has branch 590 or newer, which no longer supports Maxwell, Pascal and Volta GPUs.

What you see
    NVRM: The NVIDIA GeForce GTX 1050 GPU installed in this system is supported through the NVIDIA 580.xx Legacy
    drivers. The 595.58.03 NVIDIA driver will ignore this GPU.

    nvidia-smi fails after an automatic upgrade.
Why
    Branch 580 is the last one for these architectures. Metapackages that follow the newest branch (cuda-drivers,
    nvidia-open, nvidia-driver from NVIDIA's repository) installed a newer branch in an ordinary upgrade.

    The PCI id decides, not the name of the card.
Repair
    Install branch 580 with the closed kernel module, and keep the machine on that branch.
What the repair risks
    The whole driver is replaced. A newer GPU in the same machine also uses the closed 580.
By hand
    # Ubuntu:
    apt-get install nvidia-driver-580
    # NVIDIA's repository:
    apt-get install nvidia-driver-pinning-580
    apt-get install --allow-downgrades cuda-drivers
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
    choose_between,
    reboot_into,
    switch_by_hand,
    switch_to,
)

PIN = (
    "with NVIDIA's repository: apt-get install nvidia-driver-pinning-580, then apt-get install --allow-downgrades cuda-drivers;"
    " after a .run file: nvidia-uninstall, then the .run file of a 580 with --kernel-module-type=proprietary"
)


class MaxwellPascalVoltaDroppedAfter580(Rule):
    id = "maxwell-pascal-volta-dropped-after-580"
    title = "The driver no longer supports this GPU"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.HIGH
    explains = ("gpu-driver-hung", "nouveau-bound-instead-of-nvidia", "nvidia-module-not-loaded")

    def detect(self, fit: DriverFit) -> Iterator[Finding | Unknown]:
        for doubt in fit.doubts:
            if not doubt.flavour:
                yield Unknown(doubt.reason, f"gpu:{doubt.gpu.address}")
        for misfit in fit.of(MisfitKind.DROPPED):
            yield self.finding(
                misfit.subject,
                f"{misfit.when}Driver {misfit.driver.version} ignores {misfit.who}; the last branch that supports it is {misfit.branch}",
                *misfit.evidence,
                severity=misfit.severity,
                branch=misfit.branch,
                cured=misfit.cured,
                newer=next((g.name for g in misfit.others if g.needs_open), ""),
            )

    def remedies(self, finding: Finding, drivers: Drivers) -> Iterator[Plan]:
        branch = finding.detail["branch"]
        if finding.detail["cured"]:
            yield reboot_into("a driver for this GPU")
            return
        if finding.detail["newer"]:
            yield choose_between(finding.detail["newer"], open_here=False)
            return
        offer = drivers.offer(branch, branch, open_flavour=False, near=branch)
        summary = f"Switch to branch {branch}, the last one for this GPU"
        if offer:
            yield switch_to(offer[1], drivers, summary)
        else:
            text = f"install branch {branch} with the closed kernel module from the same source as the current driver ({PIN}); then reboot"
            yield switch_by_hand(summary, text)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "a GTX 1080 Ti after an upgrade to 590",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver("590.48.01", loaded=False)
            .says(
                "kernel",
                "NVRM: The NVIDIA GeForce GTX 1080 Ti GPU installed in this system is supported through the NVIDIA 580.xx Legacy drivers."
                " Please visit http://www.nvidia.com/object/unix.html for more information. The 590.48.01 NVIDIA driver will ignore this GPU.",
            ),
            finds=gpu,
            steps=("apt-install", "reboot"),
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-580 may_remove=libnvidia-compute-590..xserver-xorg-video-nvidia-590(16)",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "loaded, but it drives no GPU",
            Machine.ubuntu2404().gpu("1c81", driver="").ubuntu_driver("595.58.03"),
            finds=gpu,
            ladder=(
                (
                    "high reboot network",
                    "apt-install nvidia-driver-580 may_remove=libnvidia-compute-595..xserver-xorg-video-nvidia-595(16)",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "a Volta, which the newest list lacks",
            Machine.ubuntu2404().gpu("1db2", driver="").ubuntu_driver("595.58.03", loaded=False),
            finds=gpu,
        )
        yield Scenario(
            "580 is still loaded, the next boot loads 590",
            Machine.ubuntu2404().gpu().ubuntu_driver("590.48.01", loaded=False).loaded_driver("580.95.05"),
            finds=gpu,
            alone=False,  # libraries newer than the loaded module are another problem
        )
        yield Scenario(
            "a new GPU is supported, the old one is not",
            Machine.ubuntu2404().gpu("2684").gpu("1b06", "0000:02:00.0", driver="").ubuntu_driver("590.48.01"),
            finds="gpu:0000:02:00.0",
        )
        yield Scenario("branch 580", Machine.ubuntu2404().gpu().ubuntu_driver("580.95.05"))
        yield Scenario(
            "a Turing with 590", Machine.ubuntu2404().gpu("1eb8").ubuntu_driver("590.48.01", open_flavour=True)
        )
        yield Scenario(
            "a Kepler, which lost support earlier",
            Machine.ubuntu2404().gpu("1180", driver="").ubuntu_driver("590.48.01", loaded=False),
        )
        yield Scenario(
            "an unknown id",
            Machine.ubuntu2404().gpu("fffe", driver="").ubuntu_driver("590.48.01"),
            unknown=True,
        )
