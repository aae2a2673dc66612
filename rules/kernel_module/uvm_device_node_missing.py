"""CUDA needs /dev/nvidia-uvm, but the node is missing or has a wrong device number.

What you see
    CUDA unknown error - this may be due to an incorrectly set up environment

    cudaGetDeviceCount returned 30 or 999

    nvidia-smi works. CUDA works with sudo, or after root has used CUDA once.
Why
    CUDA needs the module nvidia_uvm and its device node. The program nvidia-modprobe creates the node when CUDA is
    first used. If that program is missing or is not set-user-ID, an ordinary user cannot create the node.

    A udev rule or a script that creates the node with a fixed number creates a wrong one, because the kernel assigns
    a new number at each boot.

    If nvidia-modprobe can create the node, a missing node only means that nobody has used CUDA since the boot.
Repair
    Load nvidia_uvm at each boot and install nvidia-modprobe. Remove the script's or rule's mknod command.
What the repair risks
    Nothing.
By hand
    apt-get install nvidia-modprobe
    echo nvidia_uvm > /etc/modules-load.d/nvidia-uvm.conf
    nvidia-modprobe -c 0 -u
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    ChangeMode,
    DeviceNodes,
    Evidence,
    Finding,
    KernelModules,
    LoadModules,
    Machine,
    Packages,
    Plan,
    Platform,
    PlatformSetting,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    WriteFile,
)

CONFIGURATION = "/etc/modules-load.d/nvidia-uvm.conf"
MODPROBE = "/usr/bin/nvidia-modprobe"


class UvmDeviceNodeMissing(Rule):
    id = "uvm-device-node-missing"
    title = "/dev/nvidia-uvm is missing or has a wrong number"
    stage = Stage.MODULE
    severity = Severity.ERROR

    def detect(self, platform: Platform, modules: KernelModules, devices: DeviceNodes) -> Iterator[Finding | Unknown]:
        if platform.setting is PlatformSetting.CONTAINER:
            return  # container-uvm-nodes-missing judges the nodes that a container is given
        if modules.loaded is None:
            yield Unknown("skipped on a mounted disk: only a running kernel has device nodes")
            return
        if "nvidia" not in modules.loaded:
            return
        node, major = devices.node("nvidia-uvm"), devices.majors.get("nvidia-uvm")
        if node is None:
            # If nvidia-modprobe works, it creates the node at the first use of CUDA.
            if devices.creates or not (devices.live or devices.node("nvidiactl")):
                return
            yield self.finding(
                "host",
                f"/dev/nvidia-uvm is missing and nvidia-modprobe cannot create it ({devices.modprobe}): CUDA fails for every user except root",
                Evidence("/dev/nvidia-uvm", "does not exist"),
                Evidence(MODPROBE, devices.modprobe),
                Evidence(
                    "/proc/modules",
                    "nvidia_uvm is loaded" if "nvidia_uvm" in modules.loaded else "nvidia_uvm is not loaded",
                ),
            )
        elif node.kind != "char":
            yield Unknown(f"/dev/nvidia-uvm is a {node.kind}: a copy of a machine has no device nodes")
        elif major is not None and node.major != major:
            makers = [m for m in devices.makers if "uvm" in m.text]
            yield self.finding(
                "host",
                f"/dev/nvidia-uvm has major number {node.major}, but the kernel assigned {major} to nvidia-uvm: CUDA fails",
                Evidence("/dev/nvidia-uvm", f"major {node.major}"),
                Evidence("/proc/devices", f"{major} nvidia-uvm"),
                *(Evidence(m.source, m.text) for m in makers),
                wrong=", ".join(m.source for m in makers)
                or "a udev rule or boot script that runs mknod /dev/nvidia-uvm",
            )

    def remedies(self, finding: Finding, devices: DeviceNodes, packages: Packages | None) -> Iterator[Plan]:
        if wrong := finding.detail.get("wrong"):
            yield Plan(
                "Remove the mknod command, and let nvidia-modprobe create the node",
                Risk.LOW,
                (
                    ByHand(f"remove the mknod command from {wrong}"),
                    ByHand("rm /dev/nvidia-uvm /dev/nvidia-uvm-tools; nvidia-modprobe -c 0 -u"),
                ),
            )
            return
        load = (WriteFile(CONFIGURATION, "nvidia_uvm\n"), LoadModules(("nvidia_uvm",)))
        if devices.modprobe != "does not exist":
            yield Plan(
                "Make nvidia-modprobe set-user-ID (mode 4755, as in its package), and load nvidia_uvm at each boot",
                Risk.LOW,
                (ChangeMode(MODPROBE, 0o4755), *load),
            )
        elif packages is None:
            text = "install nvidia-modprobe (it is part of the driver), owned by root, with mode 4755"
            yield Plan("Reinstall nvidia-modprobe, and load nvidia_uvm at each boot", Risk.LOW, (ByHand(text), *load))
        else:
            yield Plan(
                "Install nvidia-modprobe, and load nvidia_uvm at each boot",
                Risk.LOW,
                (AptInstall(("nvidia-modprobe",), reinstall=packages.get("nvidia-modprobe") is not None), *load),
                network=True,
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def nodes(machine: Machine) -> Machine:
            return machine.node("/dev/nvidiactl", 195, 255).node("/dev/nvidia0", 195)

        yield Scenario(
            "nvidia-modprobe is not set-user-ID",
            nodes(Machine.debian12_gpu()).file("/usr/bin/nvidia-modprobe", "", 0o755),
            finds="host",
            steps=("change-mode", "write-file", "load-modules"),
            ladder=(
                (
                    "low",
                    "change-mode /usr/bin/nvidia-modprobe 4755",
                    "write-file /etc/modules-load.d/nvidia-uvm.conf nvidia_uvm",
                    "load-modules nvidia_uvm",
                ),
            ),
        )
        yield Scenario(
            "nvidia-modprobe is missing",
            nodes(Machine.ubuntu2404_gpu()).remove("/usr/bin/nvidia-modprobe"),
            finds="host",
            steps=("apt-install", "write-file", "load-modules"),
            ladder=(
                (
                    "low network",
                    "apt-install nvidia-modprobe reinstall",
                    "write-file /etc/modules-load.d/nvidia-uvm.conf nvidia_uvm",
                    "load-modules nvidia_uvm",
                ),
            ),
        )
        yield Scenario(
            "a udev rule with a fixed number",
            nodes(Machine.ubuntu2404_gpu())
            .node("/dev/nvidia-uvm", 237)
            .file(
                "/etc/udev/rules.d/70-nvidia-uvm.rules",
                '# for CUDA\nKERNEL=="nvidia", RUN+="/bin/mknod -m 666 /dev/nvidia-uvm c 237 0"\n',
            ),
            finds="host",
            ladder=(
                (
                    "low",
                    "by-hand /etc/udev/rules.d/70-nvidia-uvm.rules:2",
                    "by-hand /dev/nvidia-uvm /dev/nvidia-uvm-tools -c 0 -u",
                ),
            ),
        )
        yield Scenario("CUDA was not used yet", nodes(Machine.debian12_gpu()))
        yield Scenario("the right node", nodes(Machine.debian12_gpu()).node("/dev/nvidia-uvm", 511))
        yield Scenario("a copy of /dev with plain files", Machine.debian12_gpu().file("/dev/nvidia-uvm"), unknown=True)
        yield Scenario("a mounted disk", Machine().os_release("debian", "12").debian_driver(loaded=False), unknown=True)
