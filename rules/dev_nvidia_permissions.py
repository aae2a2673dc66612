"""A user may not open the NVIDIA device nodes.

What you see
    Failed to initialize NVML: Insufficient Permissions
    CUDA works with sudo only.
Why
    The driver makes its nodes for everybody. Options of the module (NVreg_DeviceFile...), a udev rule or a chmod
    restrict them to a group that the user is not in.
Repair
    Add the user to the group that owns the nodes, or take the options away: a person decides, because sites with many
    users restrict them on purpose.
What the repair risks
    Nodes that everybody may open let every user use the GPU.
By hand
    usermod -aG GROUP USER, then log in again
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DeviceNodes,
    Evidence,
    Finding,
    Layer,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Users,
)

NAMES = ("nvidiactl", "nvidia0", "nvidia-uvm")


class DevNvidiaPermissions(Rule):
    id = "dev-nvidia-permissions"
    title = "The NVIDIA device nodes are closed to a user"
    layer = Layer.KERNEL_MODULE
    stage = Stage.ENVIRONMENT
    severity = Severity.WARNING

    def detect(self, devices: DeviceNodes, users: Users) -> Iterator[Finding]:
        for name in NAMES:
            node = devices.node(name)
            if node is None or node.kind != "char" or node.mode & 0o006 == 0o006:
                continue
            shut = [
                p.name
                for p in users.people
                if not (p.uid == node.uid and node.mode & 0o600 == 0o600)
                and not (node.gid in p.gids and node.mode & 0o060 == 0o060)
            ]
            if shut:
                options = [f"{k}={v}" for k, v in devices.parameters.items()]
                yield self.finding(
                    f"file:{node.path}",
                    f"{node.path} has mode {node.mode:04o}, owner {node.uid}:{node.gid}: {', '.join(shut)} can't use the GPU",
                    Evidence(node.path, f"mode {node.mode:04o}, owner {node.uid}, group {node.gid}"),
                    *([Evidence("/proc/driver/nvidia/params", ", ".join(options))] if options else []),
                    about=[f"user:{u}" for u in shut],
                    group=str(node.gid),
                    users=" ".join(shut),
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        group, users = finding.detail["group"], finding.detail["users"]
        yield Plan(
            "Let the users in, if they shall use the GPU",
            Risk.LOW,
            (
                ByHand(
                    f"add {users} to the group with number {group} (usermod -aG), or take NVreg_DeviceFile options out of /etc/modprobe.d"
                ),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "restricted by a chmod",
            Machine.debian12_gpu().node("/dev/nvidiactl", 195, 255, 0o660, 0, 44).node("/dev/nvidia-uvm", 511),
            finds="file:/dev/nvidiactl",
        )
        yield Scenario(
            "restricted by options of the module",
            Machine.ubuntu2404_gpu()
            .file(
                "/proc/driver/nvidia/params",
                "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 27\nDeviceFileMode: 432\n",
            )
            .node("/dev/nvidia0", 195, 0, 0o660, 0, 27)
            .node("/dev/nvidia-uvm", 511),
            finds="file:/dev/nvidia0",
        )
        yield Scenario(
            "open to all", Machine.debian12_gpu().node("/dev/nvidiactl", 195, 255).node("/dev/nvidia-uvm", 511)
        )
        yield Scenario(
            "restricted, and the user is in the group",
            Machine.debian12_gpu()
            .append("/etc/group", "gpu:x:44:alice\n")
            .node("/dev/nvidiactl", 195, 255, 0o660, 0, 44)
            .node("/dev/nvidia-uvm", 511),
        )
        yield Scenario(
            "a disk that does not run", Machine().os_release("debian", "12").debian_driver(loaded=False), unknown=True
        )
