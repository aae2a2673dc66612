"""A container has driver libraries of its own, of another version than the host's kernel module.

What you see
    Failed to initialize NVML: Driver/library version mismatch, inside the container only.
Why
    The kernel module is the host's. A container either gets the host's libraries mounted, as Docker and Podman do it with
    NVIDIA's toolkit, or has packages of the driver of its own, as is usual for LXC. Then both must have the same version,
    and an update on one side alone parts them.
Repair
    By hand: install the version of the host inside the container, without its kernel module.
What the repair risks
    Nothing on the host. A restart of the container or of the host changes nothing.
By hand
    cat /proc/driver/nvidia/version
    install the same version inside the container, without kernel modules: NVIDIA-Linux-x86_64-VERSION.run --no-kernel-modules
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DriverLibraries,
    DriverUse,
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
    Unknown,
    Unowned,
)


class ContainerDriverPackagesMismatch(Rule):
    id = "container-driver-packages-mismatch"
    title = "A container's own driver libraries are of another version than the host's module"
    layer = Layer.CONTAINERS
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM

    def detect(self, platform: Platform, use: DriverUse, libraries: DriverLibraries) -> Iterator[Finding | Unknown]:
        found = next((x for n in ("libcuda.so.1", "libnvidia-ml.so.1") if (x := libraries.find(n)) and x.version), None)
        if platform.setting is not PlatformSetting.CONTAINER or not use.version or found is None:
            return
        if found.version == use.version or found.owner is Unowned.NOBODY:
            return  # what no package put there is the host's, mounted when the container started
        if isinstance(found.owner, Unowned):
            yield Unknown(f"{found.path} is {found.version} and the host's module {use.version}; {found.owner.value}")
            return
        yield self.finding(
            "host",
            f"This container has driver libraries {found.version} of its own, but the host's kernel module is {use.version}",
            Evidence("/proc/driver/nvidia/version", f"the host's module {use.version}"),
            Evidence(found.real_path, f"package {found.owner}"),
            host=use.version,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        version = finding.detail["host"]
        text = f"inside the container, install the driver libraries of version {version} without a kernel module"
        yield Plan(f"Bring the container's libraries to {version}", Risk.MEDIUM, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/x86_64-linux-gnu"

        def container(host: str, mark: str = "/run/systemd/container", text: str = "lxc\n") -> Machine:
            return (
                Machine()
                .os_release("debian", "12")
                .user()
                .package("libc6", "2.36-9")
                .file(mark, text)
                .file("/proc/modules", "nvidia 1 0 - Live 0x0\n")
                .file(
                    "/proc/driver/nvidia/version",
                    f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {host}  Sun May 12 2024\n",
                )
            )

        def libraries(machine: Machine, version: str, *, packaged: bool) -> Machine:
            for name in ("libcuda.so", "libnvidia-ml.so"):
                path = f"{lib}/{name}.{version}"
                machine.library(path, f"{name}.1").link(f"{lib}/{name}.1", f"{name}.{version}")
                if packaged:
                    machine.package(f"{name.partition('.')[0]}1", f"{version}-1", [path, f"{lib}/{name}.1"])
            return machine

        yield Scenario("LXC", libraries(container("580.159.04"), "580.159.03", packaged=True), finds="host")
        yield Scenario(
            "Docker with a driver inside of the image",
            libraries(container("535.183.01", "/.dockerenv", ""), "550.54.15", packaged=True),
            finds="host",
        )
        yield Scenario("of the same version", libraries(container("580.159.04"), "580.159.04", packaged=True))
        yield Scenario("mounted by the toolkit", libraries(container("580.159.04"), "580.159.03", packaged=False))
        yield Scenario("no container", Machine.debian12_gpu())
        yield Scenario(
            "the list of its package is not there",
            libraries(container("580.159.04"), "580.159.03", packaged=True).remove("/var/lib/dpkg/info/libcuda1.list"),
            unknown=True,
        )
