"""A machine with NVSwitches has no fabric manager, or one with a different version than the driver.

What you see
    CUDA error 802: system not yet initialized (in every program, although nvidia-smi works)

    In the log of the fabric manager: interface version … don't match with driver version …
Why
    On boards with NVSwitches (HGX, DGX), the GPUs work only after the fabric manager has set up the switches. It must
    have exactly the driver's version, but the two are upgraded separately.
Repair
    Install the fabric manager in the driver's version, or upgrade the driver to the fabric manager's version. Enable
    the service at boot.
What the repair risks
    A restart of the fabric manager interrupts programs that use NVLink.
By hand
    cat /proc/driver/nvidia/version
    dpkg -l 'nvidia-fabricmanager*'
    journalctl -u nvidia-fabricmanager
    apt-get install nvidia-fabricmanager-535=VERSION
    systemctl enable --now nvidia-fabricmanager
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    Evidence,
    FabricManager,
    Finding,
    KernelModules,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    branch_of,
)


class FabricmanagerMissingOrMismatched(Rule):
    id = "fabricmanager-missing-or-mismatched"
    title = "A machine with NVSwitches has no fabric manager in the driver's version"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM

    def detect(self, fabric: FabricManager, modules: KernelModules) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in fabric.problems)
        driver = modules.loaded_version
        if not fabric.switches or not driver:
            return
        count = len(fabric.switches)
        switches = Evidence(
            f"/sys/bus/pci/devices/{fabric.switches[0]}",
            "an NVSwitch" if count == 1 else f"the first of {count} NVSwitches",
        )
        loaded = Evidence("/proc/driver/nvidia/version", driver)
        if not fabric.program and not fabric.package:
            yield self.finding(
                "host",
                f"The machine has {count} NVSwitch{'' if count == 1 else 'es'} but no fabric manager, so CUDA does not start (error 802)",
                switches,
                loaded,
                Evidence("/usr/bin/nv-fabricmanager", "not installed"),
                driver=driver,
                kind="missing",
            )
        elif not fabric.version:
            yield Unknown("no package owns the fabric manager, so its version is unknown")
        elif fabric.version != driver:
            yield self.finding(
                f"package:{fabric.package}",
                f"The fabric manager has version {fabric.version}, but the driver has {driver}, so CUDA does not start (error 802)",
                switches,
                loaded,
                Evidence("/var/lib/dpkg/status", f"{fabric.package} {fabric.version}"),
                driver=driver,
                kind="mismatched",
                package=fabric.package,
                version=fabric.version,
            )
        elif not fabric.enabled:
            yield self.finding(
                f"package:{fabric.package}",
                f"The fabric manager {fabric.version} is installed, but it does not start at boot",
                switches,
                Evidence("/etc/systemd/system", "no link starts nvidia-fabricmanager.service"),
                severity=Severity.WARNING,
                kind="disabled",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        start = ByHand("systemctl enable --now nvidia-fabricmanager")
        if finding.detail["kind"] == "disabled":
            yield Plan("Start the fabric manager, now and at each boot", Risk.MEDIUM, (start,))
            return
        driver = finding.detail["driver"]
        if finding.detail["kind"] == "missing":
            package = f"nvidia-fabricmanager-{branch_of(driver)}"
            yield Plan(f"Install {package}", Risk.MEDIUM, (AptInstall((package,)), start), network=True)
            return
        package, version = finding.detail["package"], finding.detail["version"]
        text = (
            f"list the versions with apt-cache madison {package}; then run apt-get install {package}=VERSION with the version that begins with {driver}. "
            f"If no source has it, upgrade the driver to {version} and reboot"
        )
        restart = ByHand("systemctl restart nvidia-fabricmanager")
        summary = f"Install the fabric manager in the driver's version {driver}"
        yield Plan(summary, Risk.MEDIUM, (ByHand(text), restart), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def board(version: str = "", *, enabled: bool = True, package: bool = True) -> Machine:
            machine = Machine.ubuntu2404().gpu(device="20b0").ubuntu_driver(version="535.183.01")
            for n in range(2):
                folder = f"/sys/bus/pci/devices/0000:4{n}:00.0"
                machine.file(f"{folder}/vendor", "0x10de\n").file(f"{folder}/device", "0x1af1\n")
                machine.file(f"{folder}/class", "0x068000\n")
            if version:
                machine.file("/usr/bin/nv-fabricmanager", "", 0o755)
                if package:
                    machine.package("nvidia-fabricmanager-535", f"{version}-0ubuntu0.24.04.1")
                if enabled:
                    machine.link(
                        "/etc/systemd/system/multi-user.target.wants/nvidia-fabricmanager.service",
                        "/lib/systemd/system/nvidia-fabricmanager.service",
                    )
            return machine

        yield Scenario(
            "of another version",
            board("535.161.08"),
            finds="package:nvidia-fabricmanager-535",
            ladder=(
                (
                    "medium network",
                    "by-hand nvidia-fabricmanager-535 nvidia-fabricmanager-535=VERSION 535.183.01 535.161.08",
                    "by-hand systemctl restart nvidia-fabricmanager",
                ),
            ),
        )
        yield Scenario(
            "not installed",
            board(),
            finds="host",
            ladder=(("medium network", "apt-install nvidia-fabricmanager-535", "by-hand --now"),),
        )
        yield Scenario(
            "not started",
            board("535.183.01", enabled=False),
            finds="package:nvidia-fabricmanager-535",
            ladder=(("medium", "by-hand --now"),),
        )
        yield Scenario("of the driver's version", board("535.183.01"))
        yield Scenario("no NVSwitch", Machine.ubuntu2404_gpu().package("nvidia-fabricmanager-535", "535.1.1-1"))
        yield Scenario("no package owns it", board("535.161.08", package=False), unknown=True)
