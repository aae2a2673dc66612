"""NVIDIA's Linux driver is installed inside WSL2, where Windows provides the driver.

What you see
    Building module for kernel ...-microsoft-standard-WSL2 fails: no repository has its headers.

    nvidia-smi inside WSL2: Failed to initialize NVML, although it works in Windows.
Why
    WSL2 uses the Windows driver; its libcuda is in /usr/lib/wsl/lib. A Linux driver finds no device there, its module
    cannot be built for the WSL2 kernel, and its libcuda may hide the right one.

    The packages cuda and cuda-drivers install the Linux driver. The package cuda-toolkit does not.
Repair
    Remove the driver packages. Keep the CUDA toolkit.
What the repair risks
    apt may also remove packages that depend on the driver, such as cuda. You can install the toolkit again as
    cuda-toolkit.
By hand
    dpkg -l | grep -E 'nvidia-(driver|dkms)|libnvidia|cuda-drivers'
    # Remove the listed packages:
    sudo apt-get remove PACKAGE1 PACKAGE2
    sudo apt-get install cuda-toolkit
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DriverPackages,
    Evidence,
    Finding,
    Layer,
    Machine,
    Plan,
    Platform,
    PlatformSetting,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)


class WslLinuxDriverInside(Rule):
    id = "wsl-linux-driver-inside"
    title = "NVIDIA's Linux driver is installed inside WSL2"
    layer = Layer.PACKAGING
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = (
        "dkms-module-missing-for-running-kernel",
        "half-configured-driver-packages",
        "kernel-headers-missing",
        "kernel-too-new-for-driver-branch",
        "libcuda-missing-from-loader",
        "nvidia-module-not-loaded",
        "partial-driver-install",
    )

    def detect(self, platform: Platform, driver: DriverPackages) -> Iterator[Finding]:
        if platform.setting is not PlatformSetting.WSL or not driver.members:
            return
        names = [m.package.name for m in driver.members]
        yield self.finding(
            "host",
            f"NVIDIA's Linux driver {driver.version} is installed inside WSL2, where Windows provides the driver",
            *(Evidence("/var/lib/dpkg/status", f"{m.package.name} {m.package.version}") for m in driver.members[:6]),
            names=tuple(names),
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        names = " ".join(finding.detail["names"])
        yield Plan(
            "Remove the packages of the Linux driver",
            Risk.MEDIUM,
            (ByHand(f"check what else is removed: sudo apt-get -s remove {names}; then run it again without -s"),),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        kernel = "5.15.153.1-microsoft-standard-WSL2"

        def wsl() -> Machine:
            return (
                Machine()
                .os_release("ubuntu", "22.04", "Ubuntu")
                .user()
                .package("libc6", "2.35-0ubuntu3")
                .file("/proc/sys/kernel/osrelease", f"{kernel}\n")
                .file("/proc/version", f"Linux version {kernel} (gcc 11.2.0)\n")
                .file("/proc/modules")
                .file("/sys/bus/pci/devices/0000:00:00.0/vendor", "0x1414\n")
                .library("/usr/lib/wsl/lib/libcuda.so.1", "libcuda.so.1")
                .file("/dev/dxg")
            )

        names = ("nvidia-driver-535", "nvidia-dkms-535", "libnvidia-compute-535", "nvidia-utils-535")

        def with_driver(machine: Machine, *packages: str) -> Machine:
            for name in packages:
                machine.package(name, "535.183.01-0ubuntu1")
            return machine

        yield Scenario(
            "apt install cuda",
            with_driver(wsl(), *names),
            finds="host",
            ladder=(("medium", "by-hand -s nvidia-driver-535 nvidia-dkms-535 libnvidia-compute-535 nvidia-utils-535"),),
        )
        yield Scenario(
            "only the libraries",
            with_driver(wsl(), "libnvidia-compute-535"),
            finds="host",
            ladder=(("medium", "by-hand -s libnvidia-compute-535"),),
        )
        yield Scenario("only the toolkit", wsl().cuda_toolkit("12.4", "12.4.131"))
        yield Scenario("a machine without WSL", Machine.ubuntu2404_gpu())
        yield Scenario("no package records", wsl().remove("/var/lib/dpkg/status"), unknown=True)
