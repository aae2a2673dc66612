"""nvidia-smi works, but CUDA has no /dev/nvidia-uvm, or one with a wrong number.

What you see
    CUDA unknown error - this may be due to an incorrectly set up environment
    cudaGetDeviceCount returned 30 or 999; it works with sudo, or after root used CUDA once.
Why
    CUDA needs the module nvidia_uvm and its device node, which nvidia-modprobe makes when it is first used. Where that
    program is missing or not set-user-ID, an ordinary user can't have it made; a udev rule or a script that makes the
    node with a fixed number makes a wrong one, because the kernel gives out the number anew at each start.
    Where nvidia-modprobe may make it, a missing node only means that nobody used CUDA yet.
Repair
    Load nvidia_uvm at each start, and install nvidia-modprobe; take a mknod of one's own away.
What the repair risks
    Nothing.
By hand
    apt-get install nvidia-modprobe; echo nvidia_uvm > /etc/modules-load.d/nvidia-uvm.conf; nvidia-modprobe -c 0 -u
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

    def detect(self, modules: KernelModules, devices: DeviceNodes) -> Iterator[Finding | Unknown]:
        if modules.loaded is None:
            yield Unknown("device nodes are made by a running kernel, and none runs here")
            return
        if "nvidia" not in modules.loaded:
            return
        node, major = devices.node("nvidia-uvm"), devices.majors.get("nvidia-uvm")
        if node is None:
            # It is made when CUDA is first used, if anybody may make it.
            if devices.creates or not (devices.live or devices.node("nvidiactl")):
                return
            yield self.finding(
                "host",
                f"/dev/nvidia-uvm is missing and nvidia-modprobe can't make it ({devices.modprobe}): CUDA fails for every user but root",
                Evidence("/dev/nvidia-uvm", "does not exist"),
                Evidence(MODPROBE, devices.modprobe),
                Evidence(
                    "/proc/modules",
                    "nvidia_uvm is loaded" if "nvidia_uvm" in modules.loaded else "nvidia_uvm is not loaded",
                ),
            )
        elif node.kind != "char":
            yield Unknown(f"/dev/nvidia-uvm is a {node.kind}: this is a copy, which has no device nodes")
        elif major is not None and node.major != major:
            makers = [m for m in devices.makers if "uvm" in m.text]
            yield self.finding(
                "host",
                f"/dev/nvidia-uvm has major number {node.major}, but the kernel gave {major} to nvidia-uvm: CUDA fails",
                Evidence("/dev/nvidia-uvm", f"major {node.major}"),
                Evidence("/proc/devices", f"{major} nvidia-uvm"),
                *(Evidence(m.source, m.text) for m in makers),
                wrong=", ".join(m.source for m in makers) or "a udev rule or start script with mknod /dev/nvidia-uvm",
            )

    def remedies(self, finding: Finding, devices: DeviceNodes, packages: Packages | None) -> Iterator[Plan]:
        if wrong := finding.detail.get("wrong"):
            yield Plan(
                "Take away what makes the node, and have nvidia-modprobe make it",
                Risk.LOW,
                (
                    ByHand(f"take the mknod out: {wrong}"),
                    ByHand("rm /dev/nvidia-uvm /dev/nvidia-uvm-tools; nvidia-modprobe -c 0 -u"),
                ),
            )
            return
        load = (WriteFile(CONFIGURATION, "nvidia_uvm\n"), LoadModules(("nvidia_uvm",)))
        if devices.modprobe != "does not exist":
            yield Plan(
                "Let nvidia-modprobe make device nodes for users, as its package has it",
                Risk.LOW,
                (ChangeMode(MODPROBE, 0o4755), *load),
            )
        elif packages is None:
            text = "install nvidia-modprobe (it comes with the driver), owned by root, with mode 4755"
            yield Plan("Get nvidia-modprobe back", Risk.LOW, (ByHand(text), *load))
        else:
            yield Plan(
                "Load nvidia_uvm at each start, and have nvidia-modprobe make its node",
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
        )
        yield Scenario(
            "nvidia-modprobe is missing",
            nodes(Machine.ubuntu2404_gpu()).remove("/usr/bin/nvidia-modprobe"),
            finds="host",
            steps=("apt-install", "write-file", "load-modules"),
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
        )
        yield Scenario("not used yet", nodes(Machine.debian12_gpu()))
        yield Scenario("as it must be", nodes(Machine.debian12_gpu()).node("/dev/nvidia-uvm", 511))
        yield Scenario("a copy with plain files", Machine.debian12_gpu().file("/dev/nvidia-uvm"), unknown=True)
        yield Scenario(
            "a disk that does not run", Machine().os_release("debian", "12").debian_driver(loaded=False), unknown=True
        )
