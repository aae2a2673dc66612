"""nvidia-smi works, but CUDA has no /dev/nvidia-uvm, or one with a wrong number.

What you see
    CUDA unknown error - this may be due to an incorrectly set up environment
    cudaGetDeviceCount returned 30 or 999; it works with sudo, or after root used CUDA once.
Why
    CUDA needs the module nvidia_uvm and its device node, which nvidia-modprobe makes when it is first used. Where that
    program is missing or not set-user-ID, an ordinary user can't have it made; a rule that makes the node with a fixed
    number makes a wrong one.
Repair
    Load nvidia_uvm at each start, and install nvidia-modprobe.
What the repair risks
    Nothing.
By hand
    apt-get install nvidia-modprobe; echo nvidia_uvm > /etc/modules-load.d/nvidia-uvm.conf; nvidia-modprobe -c 0 -u
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    DeviceNodes,
    Evidence,
    Finding,
    KernelModules,
    Layer,
    LoadModules,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    WriteFile,
)

CONFIGURATION = "/etc/modules-load.d/nvidia-uvm.conf"


class UvmDeviceNodeMissing(Rule):
    id = "uvm-device-node-missing"
    title = "/dev/nvidia-uvm is missing or has a wrong number"
    layer = Layer.KERNEL_MODULE
    stage = Stage.MODULE
    severity = Severity.ERROR
    explains = ()

    def detect(self, modules: KernelModules, devices: DeviceNodes) -> Iterator[Finding]:
        if modules.loaded is None or "nvidia" not in modules.loaded:
            return
        node, major = devices.node("nvidia-uvm"), devices.majors.get("nvidia-uvm")
        if node is None:
            # It is made when CUDA is first used, if anybody may make it.
            if devices.creates or devices.node("nvidiactl") is None:
                return
            yield self.finding(
                "host",
                "/dev/nvidia-uvm is missing and nvidia-modprobe can't make it: CUDA fails for every user but root",
                Evidence("/dev/nvidia-uvm", "does not exist"),
                Evidence("/usr/bin/nvidia-modprobe", "missing, or not set-user-ID root"),
                Evidence(
                    "/proc/modules",
                    "nvidia_uvm is loaded" if "nvidia_uvm" in modules.loaded else "nvidia_uvm is not loaded",
                ),
            )
        elif major is not None and node.major != major:
            yield self.finding(
                "host",
                f"/dev/nvidia-uvm has major number {node.major}, but the kernel gave {major} to nvidia-uvm: CUDA fails",
                Evidence("/dev/nvidia-uvm", f"{node.kind}, major {node.major}"),
                Evidence("/proc/devices", f"{major} nvidia-uvm"),
                wrong="yes",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Load nvidia_uvm at each start, and have nvidia-modprobe make its node",
            Risk.LOW,
            (AptInstall(("nvidia-modprobe",)), WriteFile(CONFIGURATION, "nvidia_uvm\n"), LoadModules(("nvidia_uvm",))),
            network=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "nvidia-modprobe is not set-user-ID",
            Machine.debian12_gpu()
            .file("/usr/bin/nvidia-modprobe", "", 0o755)
            .node("/dev/nvidiactl", 195, 255)
            .node("/dev/nvidia0", 195),
            finds="host",
        )
        yield Scenario(
            "a node with a fixed number",
            Machine.ubuntu2404_gpu()
            .node("/dev/nvidiactl", 195, 255)
            .node("/dev/nvidia0", 195)
            .node("/dev/nvidia-uvm", 237),
            finds="host",
        )
        yield Scenario(
            "not used yet", Machine.debian12_gpu().node("/dev/nvidiactl", 195, 255).node("/dev/nvidia0", 195)
        )
        yield Scenario(
            "as it must be", Machine.debian12_gpu().node("/dev/nvidiactl", 195, 255).node("/dev/nvidia-uvm", 511)
        )
        yield Scenario(
            "a disk that does not run", Machine().os_release("debian", "12").debian_driver(loaded=False), unknown=True
        )
