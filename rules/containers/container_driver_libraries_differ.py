"""A container has its own driver libraries, and their version differs from the host's kernel module.

What you see
    Failed to initialize NVML: Driver/library version mismatch (only inside the container)
Why
    A container uses the host's kernel module. Docker and Podman with NVIDIA's toolkit also mount the host's libraries
    into the container. LXC containers usually have their own driver packages. Then both sides must have the same
    version, and an update on only one side breaks this.
Repair
    By hand: inside the container, install the host's driver version, without its kernel module.
What the repair risks
    Nothing on the host changes. A restart of the container or the host does not help.
By hand
    cat /proc/driver/nvidia/version
    # Inside the container, with that version:
    sh NVIDIA-Linux-x86_64-VERSION.run --no-kernel-modules
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


class ContainerDriverLibrariesDiffer(Rule):
    id = "container-driver-libraries-differ"
    title = "The container's driver libraries have a different version than the host's module"
    layer = Layer.CONTAINERS
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM

    def detect(self, platform: Platform, use: DriverUse, libraries: DriverLibraries) -> Iterator[Finding | Unknown]:
        found = next((x for n in ("libcuda.so.1", "libnvidia-ml.so.1") if (x := libraries.find(n)) and x.version), None)
        if platform.setting is not PlatformSetting.CONTAINER or not use.version or found is None:
            return
        if found.version == use.version or found.owner is Unowned.NOBODY:
            return  # a library without a package is the host's, mounted when the container started
        if isinstance(found.owner, Unowned):
            yield Unknown(
                f"{found.path} has version {found.version}, the host's module {use.version}; {found.owner.value}"
            )
            return
        yield self.finding(
            "host",
            f"This container has its own driver libraries {found.version}, but the host's kernel module has version {use.version}",
            Evidence("/proc/driver/nvidia/version", f"the host's module has version {use.version}"),
            Evidence(found.real_path, f"package {found.owner}"),
            host=use.version,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        version = finding.detail["host"]
        text = f"inside the container, install the driver libraries of version {version} without a kernel module"
        yield Plan(
            f"Install the driver libraries {version} in the container", Risk.MEDIUM, (ByHand(text),), network=True
        )

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

        yield Scenario(
            "LXC",
            libraries(container("580.159.04"), "580.159.03", packaged=True),
            finds="host",
            ladder=(("medium network", "by-hand 580.159.04"),),
        )
        yield Scenario(
            "Docker with a driver in the image",
            libraries(container("535.183.01", "/.dockerenv", ""), "550.54.15", packaged=True),
            finds="host",
            ladder=(("medium network", "by-hand 535.183.01"),),
        )
        yield Scenario("the same version", libraries(container("580.159.04"), "580.159.04", packaged=True))
        yield Scenario("mounted by the toolkit", libraries(container("580.159.04"), "580.159.03", packaged=False))
        yield Scenario("no container", Machine.debian12_gpu())
        yield Scenario(
            "the package's file list is missing",
            libraries(container("580.159.04"), "580.159.03", packaged=True).remove("/var/lib/dpkg/info/libcuda1.list"),
            unknown=True,
        )
