"""Kubernetes uses containerd, which does not know NVIDIA's container runtime.

What you see
    Failed to create pod sandbox: … no runtime for "nvidia" is configured

    Or pods with a GPU stay pending, and the device plugin logs that it finds no NVML library.
Why
    On a Kubernetes node, containerd starts the containers. It gives them a GPU only with NVIDIA's runtime from its
    own configuration, /etc/containerd/config.toml. A configuration for Docker has no effect on it.

    A program that rewrites this file can remove the runtime. Or the runtime's program was removed, and its line
    stayed.
Repair
    Let nvidia-ctk add the runtime, then restart containerd.
What the repair risks
    A restart of containerd does not stop running containers. Pods that are starting at that moment wait.
By hand
    grep -n nvidia /etc/containerd/config.toml
    nvidia-ctk runtime configure --runtime=containerd
    systemctl restart containerd
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Containerd,
    Evidence,
    Finding,
    Gpus,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

_CONFIG = "/etc/containerd/config.toml"


class ContainerdNvidiaRuntimeNotConfigured(Rule):
    id = "containerd-nvidia-runtime-not-configured"
    title = "containerd is not configured for NVIDIA's container runtime"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    risk = Risk.MEDIUM

    def detect(self, containerd: Containerd, gpus: Gpus) -> Iterator[Finding | Unknown]:
        if not gpus.gpus or not containerd.program or not containerd.kubelet:
            return
        if containerd.absent:
            place, program = containerd.absent[0]
            yield self.finding(
                "host",
                f"{place} names the runtime {program}, which is not installed: pods with a GPU do not start",
                Evidence(place, program),
                Evidence(program, "not installed"),
                severity=Severity.ERROR,
                gone=True,
            )
        elif containerd.toolkit and not containerd.runtimes and not containerd.cdi:
            yield self.finding(
                "host",
                "NVIDIA's container toolkit is installed, but containerd, which Kubernetes uses, has no NVIDIA runtime",
                Evidence(containerd.toolkit, "NVIDIA's container toolkit"),
                Evidence(_CONFIG, "names no nvidia-container-runtime"),
                Evidence(containerd.kubelet, "a Kubernetes node"),
                gone=False,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        configure = ByHand("nvidia-ctk runtime configure --runtime=containerd && systemctl restart containerd")
        if finding.detail["gone"]:
            install = ByHand("apt-get install nvidia-container-toolkit")
            yield Plan("Reinstall the runtime", Risk.MEDIUM, (install, configure), network=True)
        else:
            yield Plan("Configure containerd for NVIDIA's runtime", Risk.MEDIUM, (configure,))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def node(config: str = "", *programs: str) -> Machine:
            machine = Machine.ubuntu2404_gpu()
            for program in ("containerd", "kubelet", *programs):
                machine.file(f"/usr/bin/{program}", "", 0o755)
            return machine.file(_CONFIG, config) if config else machine

        runc = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\n  default_runtime_name = "runc"\n'
        options = 'containerd.runtimes.nvidia.options]\n  BinaryName = "/usr/bin/nvidia-container-runtime"\n'
        nvidia = f'{runc}[plugins."io.containerd.grpc.v1.cri".{options}'
        toolkit = ("nvidia-ctk", "nvidia-container-runtime")
        yield Scenario(
            "only runc",
            node(runc, *toolkit),
            finds="host",
            ladder=(("medium", "by-hand --runtime=containerd"),),
        )
        yield Scenario("no configuration", node("", *toolkit), finds="host")
        yield Scenario(
            "the toolkit was removed",
            node(nvidia),
            finds="host",
            ladder=(("medium network", "by-hand nvidia-container-toolkit", "by-hand --runtime=containerd"),),
        )
        yield Scenario("configured", node(nvidia, *toolkit))
        yield Scenario(
            "configured in a file of its own",
            node(runc, *toolkit).file("/etc/containerd/conf.d/99-nvidia.toml", nvidia),
        )
        yield Scenario("with device descriptions", node(f"{runc}  enable_cdi = true\n", *toolkit))
        yield Scenario("no Kubernetes", node(runc, *toolkit).remove("/usr/bin/kubelet"))
        yield Scenario("no toolkit on this node", node(runc))
        yield Scenario("in a container", node(runc, *toolkit).file("/.dockerenv"), unknown=True)
