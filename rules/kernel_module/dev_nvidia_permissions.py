"""A user has no permission to open the NVIDIA device nodes.

What you see
    Failed to initialize NVML: Insufficient Permissions

    CUDA works only with sudo.
Why
    By default the driver creates device nodes that every user can open. Module options (NVreg_DeviceFileMode,
    NVreg_DeviceFileGID), a udev rule or a chmod can restrict them to a group. This user is not in that group.

    The module options do not affect /dev/nvidia-uvm.

    With the default mode 0666, membership in the groups video or render does not matter.
Repair
    Add the user to the group that owns the nodes, or remove the restriction. dlhealth does neither, because sites
    with many users restrict the nodes on purpose.
What the repair risks
    If every user can open the nodes, every user can use the GPU.
By hand
    # Then log out and in again:
    usermod -aG GROUP USER
"""

from collections.abc import Iterator

from dlhealth.api import (
    Account,
    ByHand,
    DeviceNodes,
    Evidence,
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
    Users,
)

# Users do not need these: nvidia-modeset is for the X server, nvidia-uvm-tools for profilers.
UNUSED = ("nvidia-modeset", "nvidia-uvm-tools")
NOBODY = 65534


class DevNvidiaPermissions(Rule):
    id = "dev-nvidia-permissions"
    title = "A user has no permission to open the NVIDIA device nodes"
    stage = Stage.ENVIRONMENT
    severity = Severity.WARNING

    def detect(self, devices: DeviceNodes, users: Users, modules: KernelModules) -> Iterator[Finding | Unknown]:
        nodes = [n for n in devices.nodes if n.path.removeprefix("/dev/") not in UNUSED]
        real = [n for n in nodes if n.kind == "char"]
        if any(NOBODY in (n.uid, n.gid) and n.mode & 0o006 != 0o006 for n in real):
            yield Unknown("the owner of a device node is a user outside this container")
            return
        found: dict[tuple[int, int, int], list[str]] = {}
        for node in real:
            found.setdefault((node.mode, node.uid, node.gid), []).append(node.path)
        configured = devices.configured()
        if not real and configured:
            found = {configured: ["/dev/nvidia0", "/dev/nvidiactl"]}
        options = [f"{k}: {v}" for k, v in devices.parameters.items()]
        for (mode, uid, gid), paths in found.items():
            shut = [p.name for p in users.people if not _may_open(p, mode, uid, gid)]
            if not shut:
                continue
            group = devices.groups.get(gid, str(gid))
            what = ", ".join(paths) if real else "With these module options, /dev/nvidia* will have"
            yield self.finding(
                f"file:{paths[0]}",
                f"{what}{' has' if len(paths) == 1 else ' have' if real else ''} mode {mode:04o}, group {group}: {', '.join(shut)} cannot use the GPU",
                *(
                    Evidence(path, f"mode {mode:04o}, owner {uid}, group {gid}{f' ({group})' * (group != str(gid))}")
                    for path in paths
                    if real
                ),
                *([Evidence("/proc/driver/nvidia/params", ", ".join(options))] if options else []),
                *(Evidence(li.source, f"options {li.module} {li.arguments}") for li in devices.options),
                *(Evidence(m.source, m.text) for m in devices.makers),
                about=[f"user:{u}" for u in shut],
                group=group if mode & 0o060 == 0o060 and gid else "",
                users=shut,
                lines=[*(li.source for li in devices.options), *(m.source for m in devices.makers)],
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        group, users = finding.detail["group"], " ".join(finding.detail["users"])
        lines = (
            ", ".join(finding.detail["lines"])
            or "/etc/modprobe.d (the NVreg_DeviceFile options) or from /etc/udev/rules.d"
        )
        if group:
            yield Plan(
                f"Add the users who need the GPU to group {group}",
                Risk.LOW,
                (ByHand(f"usermod -aG {group} USER (users without access: {users}), then log in again"),),
            )
        yield Plan(
            "Open the nodes to every user (the driver's default), unless the restriction is intended",
            Risk.LOW,
            (ByHand(f"remove the restriction from {lines}; run update-initramfs -u, then reboot"),),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "restricted by a chmod",
            Machine.debian12_gpu().node("/dev/nvidiactl", 195, 255, 0o660, 0, 44).node("/dev/nvidia-uvm", 511),
            finds="file:/dev/nvidiactl",
            ladder=(("low", "by-hand -aG 44"), ("low reboot", "by-hand NVreg_DeviceFile /etc/modprobe.d -u")),
        )
        yield Scenario(
            "restricted by module options",
            Machine.ubuntu2404_gpu()
            .file("/etc/modprobe.d/site.conf", "options nvidia NVreg_DeviceFileGID=27 NVreg_DeviceFileMode=0660\n")
            .file(
                "/proc/driver/nvidia/params",
                "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 27\nDeviceFileMode: 432\n",
            )
            .node("/dev/nvidia0", 195, 0, 0o660, 0, 27)
            .node("/dev/nvidia-uvm", 511),
            finds="file:/dev/nvidia0",
            ladder=(("low", "by-hand -aG 27"), ("low reboot", "by-hand /etc/modprobe.d/site.conf:1 -u")),
        )
        yield Scenario(
            "a mounted disk with such options",
            Machine()
            .os_release("debian", "12")
            .user()
            .debian_driver(loaded=False)
            .file(
                "/etc/modprobe.d/gpu.conf",
                "options nvidia-current NVreg_DeviceFileUID=0 NVreg_DeviceFileGID=44 NVreg_DeviceFileMode=0660\n",
            ),
            finds="file:/dev/nvidia0",
            alone=False,
            ladder=(
                ("low", "by-hand -aG 44"),
                ("low reboot", "by-hand /etc/modprobe.d/gpu.conf:1 -u"),
            ),  # this disk has only a driver and a user
        )
        yield Scenario(
            "open to every user", Machine.debian12_gpu().node("/dev/nvidiactl", 195, 255).node("/dev/nvidia-uvm", 511)
        )
        yield Scenario(
            "restricted, and the user is in the group",
            Machine.debian12_gpu()
            .append("/etc/group", "gpu:x:44:alice\n")
            .node("/dev/nvidiactl", 195, 255, 0o660, 0, 44)
            .node("/dev/nvidia-uvm", 511),
        )
        yield Scenario(
            "only the X server's node is restricted",
            Machine.debian12_gpu().node("/dev/nvidiactl", 195, 255).node("/dev/nvidia-modeset", 195, 254, 0o600),
        )
        yield Scenario("a mounted disk", Machine().os_release("debian", "12").debian_driver(loaded=False), unknown=True)


def _may_open(account: Account, mode: int, uid: int, gid: int) -> bool:
    """Whether the account may read and write: the first class (owner, group, other) that matches decides."""
    shift = 6 if account.uid == uid else 3 if gid in account.gids else 0
    return account.uid == 0 or mode >> shift & 6 == 6
