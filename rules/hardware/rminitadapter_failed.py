"""The driver found the GPU but could not start it (RmInitAdapter failed).

What you see
    nvidia-smi: No devices were found

    NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x40:2192)

    NVRM: GPU 0000:01:00.0: rm_init_adapter failed, device minor number 0
Why
    The start of the GPU stopped at some step. The numbers in parentheses do not tell why: the lines before them do.
    Known reasons are a missing firmware file of the driver, a GPU that keeps a broken state until its power is off, a
    VBIOS that cannot be read, too little address space, and a damaged card.

    A kernel module of the wrong flavour, a GPU that fell off the bus and missing address space (BAR) look the same.
    dlhealth reports those as separate problems.
Repair
    If the firmware file is missing, reinstall the package that has it. Otherwise power the machine off, so that the
    GPU loses its state; a reboot alone does not always do that.
What the repair risks
    Running jobs end.
By hand
    journalctl -k -b | grep -iE 'nvrm|nvidia'
    ls /lib/firmware/nvidia/
    # Then power off, wait ten seconds, and power on:
    systemctl poweroff
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverPackages,
    Finding,
    Kernel,
    KernelModules,
    Machine,
    Obstacle,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UnstartedGpus,
    UpdateInitramfs,
)

POWER_OFF = "end running programs, power the machine off, and power it on after ten seconds"
HARDWARE = {
    Obstacle.STALE_STATE: "if the error returns: update the driver and the mainboard's firmware; the GPU was not reset cleanly",
    Obstacle.VBIOS: "if the error returns: reseat the card; in a virtual machine, give the GPU its ROM file; otherwise have the card"
    " replaced, because its firmware is unreadable",
    Obstacle.CARD_FIRMWARE: "if the error returns: check the power cables, the riser and the slot, then test the card in another machine",
    Obstacle.DMA: "if the error returns: update the mainboard's firmware, and check its IOMMU settings",
    Obstacle.UNKNOWN: "if the error returns: update the mainboard's firmware, switch Above 4G Decoding on in its setup menu, reseat the"
    " card and its power cables, or test the card in another machine",
}


class RmInitAdapterFailed(Rule):
    id = "rminitadapter-failed"
    title = "The driver could not start the GPU"
    stage = Stage.MODULE
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("login-loop-glx-broken-driver-mismatch",)
    explained_by = (
        "closed-module-on-blackwell",
        "driver-too-old-for-new-gpu",
        "gpu-driver-hung",
        "legacy-gpu-needs-470-390-340",
        "maxwell-pascal-volta-dropped-after-580",
        "open-module-on-unsupported-gpu",
        "xid-119-120-gsp-timeout",
        "xid-79-fallen-off-bus",
    )

    def detect(self, modules: KernelModules, unstarted: UnstartedGpus) -> Iterator[Finding | Unknown]:
        if modules.loaded is None and not modules.loaded_version and not unstarted.gpus:
            yield Unknown("cannot see whether the driver is loaded (a mounted disk, or a container)")
            return
        driver = f"Driver {modules.loaded_version}" if modules.loaded_version else "The driver"
        for gpu in unstarted.gpus:
            missing = gpu.obstacle is Obstacle.FIRMWARE_FILE
            evidence = [gpu.said, gpu.reason, unstarted.firmware if missing else None]
            yield self.finding(
                f"gpu:{gpu.address}" if gpu.address else "host",
                f"{driver} could not start the GPU{f' at {gpu.address}' if gpu.address else ''}: {gpu.obstacle.value}",
                *filter(None, evidence),
                obstacle=gpu.obstacle,
                version=modules.loaded_version or "",
            )

    def remedies(self, finding: Finding, driver: DriverPackages | None, kernel: Kernel) -> Iterator[Plan]:
        obstacle, version = finding.detail["obstacle"], finding.detail["version"]
        if obstacle is Obstacle.FIRMWARE_FILE:
            yield _firmware(version, driver, kernel)
            return
        yield Plan(
            "Power the machine off and on",
            Risk.MEDIUM,
            (ByHand(POWER_OFF), ByHand(HARDWARE[obstacle])),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        failed = "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x40:2192)"

        def said(machine: Machine, *lines: str) -> Machine:
            for number, line in enumerate(lines):
                machine.says("kernel", line, 5000.0 + number)
            return machine

        yield Scenario(
            "a second start, without a reset in between",
            said(
                Machine.ubuntu2404_gpu(),
                "NVRM: GPU0 _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP",
                "NVRM: GPU0 RmInitAdapter: Cannot initialize GSP firmware RM",
                failed,
            ),
            finds=gpu,
            ladder=(("medium reboot", "by-hand power off", "by-hand firmware"),),
        )
        yield Scenario(
            "the firmware file is missing",
            said(
                Machine.ubuntu2404()
                .gpu("2684")
                .ubuntu_driver(open_flavour=True)
                .folder("/lib/firmware/nvidia")
                .package("nvidia-firmware-550-550.120", "550.120-0ubuntu0.24.04.1"),
                "nvidia 0000:01:00.0: Direct firmware load for nvidia/550.120/gsp_ga10x.bin failed with error -2",
                "NVRM: RmFetchGspRmImages: No firmware image found",
                "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x61:0x56:1594)",
            ),
            finds=gpu,
            ladder=(
                (
                    "medium reboot network",
                    "apt-install nvidia-firmware-550-550.120 reinstall",
                    "update-initramfs 6.8.0-50-generic",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "the firmware package of Debian is missing",
            said(
                Machine.debian12()
                .gpu("2684")
                .debian_driver()
                .without_package("firmware-nvidia-gsp")
                .folder("/lib/firmware/nvidia"),
                "nvidia 0000:01:00.0: firmware: failed to load nvidia/535.261.03/gsp_ga10x.bin (-2)",
                "nvidia 0000:01:00.0: Direct firmware load for nvidia/535.261.03/gsp_ga10x.bin failed with error -2",
                failed,
            ),
            finds=gpu,
            ladder=(
                (
                    "medium reboot network",
                    "apt-install firmware-nvidia-gsp",
                    "update-initramfs 6.1.0-50-amd64",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "nothing before it names the cause, and no triple is read as a damaged card",
            said(Machine.ubuntu2404_gpu(), "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x25:0x40:1238)"),
            finds=gpu,
            ladder=(("medium reboot", "by-hand power off", "by-hand 4G"),),
        )
        yield Scenario(
            "an old driver that does not name the GPU",
            said(Machine.debian12_gpu(), "NVRM: RmInitAdapter failed! (0x25:0x40:1084)"),
            finds=gpu,
        )
        yield Scenario(
            "one of two GPUs, whose lines are told apart",
            said(
                Machine.ubuntu2404_gpu().gpu("2684", "0000:02:00.0"),
                "NVRM: GPU0 _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP",
                failed,
                "NVRM: kgspExtractVbiosFromRom_TU102: did not find valid ROM signature",
                "NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x62:0x25:2015)",
            ),
            finds="gpu:0000:02:00.0",
        )
        yield Scenario(
            "the closed module on a Blackwell is the cause",
            said(
                Machine.ubuntu2404().gpu("2b85").ubuntu_driver("580.95.05"),
                "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x22:0x56:884)",
            ),
            finds=gpu,
            causes=("closed-module-on-blackwell",),
        )
        yield Scenario(
            "it fell off the bus",
            said(
                Machine.debian12_gpu().file("/sys/bus/pci/devices/0000:01:00.0/config", b"\xff" * 64),
                "NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus.",
                failed,
            ),
            finds=gpu,
            causes=("xid-79-fallen-off-bus",),
        )
        yield Scenario(
            "a program that was killed while the firmware was loaded",
            said(
                Machine.ubuntu2404_gpu(),
                "nvidia 0000:01:00.0: loading /lib/firmware/nvidia/550.120/gsp_ga10x.bin failed with error -4",
            ),
        )
        yield Scenario(
            "before the last boot",
            Machine.debian12_gpu()
            .says("kernel", failed, 100.0)
            .says("kernel", "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)", 900.0),
        )
        yield Scenario("it started", said(Machine.debian12_gpu(), "NVRM: loading NVIDIA UNIX x86_64 Kernel Module"))
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)


def _firmware(version: str, driver: DriverPackages | None, kernel: Kernel) -> Plan:
    """Bring the firmware of the loaded version: it must be exactly that version."""
    parts = driver.role("firmware") if driver else ()
    installed = next(
        (m.package.name for m in parts if version in (m.package.upstream, m.package.name[-len(version) :])), ""
    )
    name = installed or _package(version, driver)
    if not name or kernel.running is None:
        text = f"install the firmware of driver {version} the same way as the driver: /lib/firmware/nvidia/{version}/gsp_*.bin"
        return Plan("Install the driver's firmware", Risk.MEDIUM, (ByHand(text), Reboot()), reboot=True)
    return Plan(
        f"{'Reinstall' if installed else 'Install'} {name}, the firmware of driver {version}, and reboot",
        Risk.MEDIUM,
        (AptInstall((name,), reinstall=bool(installed)), UpdateInitramfs(kernel.running), Reboot()),
        reboot=True,
        network=True,
    )


def _package(version: str, driver: DriverPackages | None) -> str:
    """The package that would have it; "" if the packages' naming does not tell."""
    member = next(
        (m for m in (driver.role("module", "driver") if driver else ()) if m.package.upstream == version), None
    )
    if member is None:
        return ""
    if member.family.startswith("debian"):
        return (
            f"firmware-nvidia-{member.family.removeprefix('debian-')}-gsp"
            if "tesla" in member.family
            else "firmware-nvidia-gsp"
        )
    if member.family in ("ubuntu", "ubuntu-server"):
        return f"nvidia-firmware-{member.branch}{member.family.removeprefix('ubuntu')}-{version}"
    return ""
