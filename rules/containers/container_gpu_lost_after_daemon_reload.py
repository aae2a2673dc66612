"""A running container loses the GPU when systemd reloads its units on the host.

What you see
    Failed to initialize NVML: Unknown Error (in a container that had the GPU before; the host's nvidia-smi works)

    A restart of the container helps for some hours or days.
Why
    With the cgroup driver systemd, systemd manages which devices a container may use. The hook of --gpus allows the
    driver's device nodes without telling systemd. "systemctl daemon-reload", which package upgrades also run, then
    resets the list to what systemd knows, and the container may not open the nodes any more.

    systemd only knows devices that have a link in /dev/char, and the driver makes none.
Repair
    Restart the container. To prevent it: let udev make the links in /dev/char, or name the nodes with --device, or use
    CDI devices.
What the repair risks
    The restart ends the programs in the container. The links harm nothing.
By hand
    # On the host:
    docker restart CONTAINER
    nvidia-ctk system create-dev-char-symlinks --create-all
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    ContainerDevices,
    DockerContainers,
    Evidence,
    Finding,
    Machine,
    Nvml,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    WriteFile,
)

_UNKNOWN_ERROR = 999
"""NVML_ERROR_UNKNOWN."""
_RULE = "/etc/udev/rules.d/71-nvidia-dev-char.rules"
_LINKS = "nvidia-ctk system create-dev-char-symlinks --create-all"
_LINE = f'ACTION=="add", DEVPATH=="/bus/pci/drivers/nvidia", RUN+="/usr/bin/{_LINKS}"\n'


class ContainerGpuLostAfterDaemonReload(Rule):
    id = "container-gpu-lost-after-daemon-reload"
    title = "A container loses the GPU when systemd reloads its units"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR

    def detect(
        self, inside: ContainerDevices, containers: DockerContainers | None, nvml: Nvml | None
    ) -> Iterator[Finding | Unknown]:
        if inside.container:
            yield from self._inside(inside, nvml)
        elif containers is None:
            yield Unknown("cannot tell here which containers use the GPU")
        elif containers.cgroups == "systemd" and not containers.links:
            yield from self._will_lose(containers)

    def _inside(self, inside: ContainerDevices, nvml: Nvml | None) -> Iterator[Finding | Unknown]:
        if not inside.has_gpu:
            return
        refused = inside.allowed is not None and not any("w" in x for x in inside.allowed)
        unknown = nvml is not None and nvml.outcome == "error" and nvml.code == _UNKNOWN_ERROR
        if refused or unknown:
            shows = "; ".join(inside.allowed or ()) or "no line for the driver's nodes (195)"
            yield self.finding(
                "host",
                f"This container may no longer open {inside.nodes[0]}, which it was given",
                Evidence("/dev", " ".join(inside.nodes)),
                *([Evidence("/sys/fs/cgroup/devices/devices.list", shows)] if refused else []),
                *([Evidence("NVML", f"{nvml.text} ({nvml.code})")] if nvml and unknown else []),
                inside=True,
            )
        elif inside.allowed is None and nvml is None:
            yield Unknown("cannot tell whether this container may open the GPU's nodes: cannot query NVML")

    def _will_lose(self, containers: DockerContainers) -> Iterator[Finding]:
        exposed = [
            c for c in containers.containers if c.gpus and not c.privileged and "/dev/nvidiactl" not in c.devices
        ]
        if exposed:
            ids = ", ".join(c.id for c in exposed)
            yield self.finding(
                "host",
                f"The next systemctl daemon-reload may take the GPU from the container{'s' * (len(exposed) > 1)} {ids}",
                *(Evidence(c.source, "started with --gpus, without --device for the driver's nodes") for c in exposed),
                Evidence("/dev/char/195:255", "does not exist"),
                Evidence("/etc/docker/daemon.json", "the cgroup driver is systemd"),
                severity=Severity.NOTE,
                inside=False,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail["inside"]:
            text = f"on the host, restart this container (docker restart CONTAINER), and run {_LINKS}"
            yield Plan("Restart the container", Risk.MEDIUM, (ByHand(text),))
            return
        now = ByHand(f"run {_LINKS}, then restart the containers")
        yield Plan("Let udev make the links in /dev/char", Risk.LOW, (WriteFile(_RULE, _LINE), now))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        identity = "5f0c" * 16

        def host(settings: str, daemon: str = "{}") -> Machine:
            return (
                Machine.ubuntu2404_gpu()
                .file("/usr/bin/dockerd", "", 0o755)
                .file("/usr/bin/nvidia-ctk", "", 0o755)
                .file("/usr/bin/nvidia-container-runtime-hook", "", 0o755)
                .file("/etc/docker/daemon.json", daemon)
                .file("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
                .folder(f"/run/containerd/io.containerd.runtime.v2.task/moby/{identity}")
                .file(f"/var/lib/docker/containers/{identity}/hostconfig.json", settings, 0o600)
            )

        def container(allowed: str) -> Machine:
            return (
                Machine()
                .os_release("ubuntu", "22.04")
                .user()
                .package("libc6", "2.35-0ubuntu3")
                .file("/.dockerenv")
                .node("/dev/nvidiactl", 195, 255)
                .node("/dev/nvidia0", 195)
                .node("/dev/nvidia-uvm", 511)
                .file("/sys/fs/cgroup/devices/devices.list", allowed)
            )

        gpus = '{"Runtime": "runc", "DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}], "Devices": []}'
        listed = gpus.replace("[]}", '[{"PathOnHost": "/dev/nvidiactl"}]}')
        yield Scenario(
            "after the reload, in the container",
            container("c 1:3 rwm\nc 195:* m\n"),
            finds="host",
            ladder=(("medium", "by-hand --create-all"),),
        )
        yield Scenario(
            "before the reload, on the host",
            host(gpus),
            finds="host",
            ladder=(("low", f"write-file {_RULE} {_LINE.strip()}", "by-hand --create-all"),),
        )
        yield Scenario("the nodes are allowed", container("c 195:255 rw\nc 195:0 rw\n"))
        yield Scenario("everything is allowed", container("a *:* rwm\n"))
        yield Scenario("the nodes are named by --device", host(listed))
        yield Scenario("the cgroup driver is cgroupfs", host(gpus, '{"exec-opts": ["native.cgroupdriver=cgroupfs"]}'))
        yield Scenario("the links exist", host(gpus).link("/dev/char/195:255", "../nvidiactl"))
        yield Scenario("a container without a GPU", host('{"Runtime": "runc", "DeviceRequests": null}'))
        yield Scenario("no Docker", Machine.ubuntu2404_gpu())
        yield Scenario(
            "Docker's containers are not readable",
            host(gpus).fifo(f"/var/lib/docker/containers/{identity}/hostconfig.json"),
            unknown=True,
        )
