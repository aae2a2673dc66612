"""A container gets the GPU without /dev/nvidia-uvm, which CUDA needs.

What you see
    nvidia-smi works in the container, but CUDA fails: CUDA unknown error, or torch.cuda.is_available() is False

    error gathering device information while adding custom device "/dev/nvidia-uvm": no such file or directory
Why
    CUDA needs /dev/nvidia-uvm, and nvidia-smi does not. The kernel module nvidia_uvm is often loaded only by the first
    CUDA program. A CDI specification that was written before does not list the node, and neither does an LXC
    configuration or a list of --device options without it.
Repair
    Load nvidia_uvm on the host, then write the CDI specification again, or pass the node to the container. A running
    container does not change: it must be created again.
What the repair risks
    Low: the container is restarted.
By hand
    # On the host:
    nvidia-modprobe -c 0 -u
    nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml
    docker run --device nvidia.com/gpu=all IMAGE
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CdiSpecs,
    ContainerDevices,
    Evidence,
    Finding,
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
)

_UVM = "/dev/nvidia-uvm"


class ContainerUvmNodesMissing(Rule):
    id = "container-uvm-nodes-missing"
    title = "A container gets the GPU without /dev/nvidia-uvm"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    explained_by = ("uvm-device-node-missing",)

    def detect(self, platform: Platform, inside: ContainerDevices, cdi: CdiSpecs | None) -> Iterator[Finding | Unknown]:
        if inside.has_gpu and _UVM not in inside.nodes:
            yield self.finding(
                "host",
                f"This container has {inside.nodes[0]} but not {_UVM}: CUDA does not start in it",
                Evidence("/dev", " ".join(inside.nodes)),
                Evidence(_UVM, "does not exist"),
                severity=Severity.ERROR,
                path="",
            )
        if cdi is None or platform.setting is not PlatformSetting.MACHINE:
            return
        yield from (Unknown(problem) for problem in cdi.problems)
        for spec in cdi.specs:
            counts = cdi.better(spec) is None and not spec.missing  # a stale one has a rule of its own
            if counts and "/dev/nvidiactl" in spec.nodes and _UVM not in spec.nodes:
                yield self.finding(
                    f"file:{spec.path}",
                    f"{spec.path} gives containers the GPU without {_UVM}: CUDA does not start in them",
                    Evidence(spec.path, f"device nodes: {' '.join(spec.nodes)}"),
                    path=spec.path,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if path := finding.detail["path"]:
            text = f"run nvidia-modprobe -c 0 -u, then nvidia-ctk cdi generate --output={path}, and create the containers again"
            yield Plan(f"Write {path} with all device nodes", Risk.LOW, (ByHand(text),))
            return
        text = (
            f"on the host, run nvidia-modprobe -c 0 -u; then create this container again with {_UVM} and {_UVM}-tools "
            "(docker run --gpus all passes both)"
        )
        yield Plan(f"Pass {_UVM} to the container", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def spec(*nodes: str) -> str:
            listed = "".join(f"  - path: {node}\n" for node in nodes)
            return f"---\ncontainerEdits:\n  deviceNodes:\n{listed}devices:\n- name: all\nkind: nvidia.com/gpu\n"

        def container(*nodes: str) -> Machine:
            machine = (
                Machine()
                .os_release("debian", "12")
                .user()
                .package("libc6", "2.36-9")
                .file("/run/systemd/container", "lxc\n")
            )
            for node in nodes:
                machine.node(f"/dev/{node}", 195)
            return machine

        path = "/etc/cdi/nvidia.yaml"
        yield Scenario(
            "the specification was written before nvidia_uvm was loaded",
            Machine.ubuntu2404_gpu().file(path, spec("/dev/nvidiactl", "/dev/nvidia0")),
            finds=f"file:{path}",
            ladder=(("low", f"by-hand -c --output={path}"),),
        )
        yield Scenario(
            "an LXC container without the node",
            container("nvidiactl", "nvidia0"),
            finds="host",
            ladder=(("low", "by-hand /dev/nvidia-uvm /dev/nvidia-uvm-tools"),),
        )
        yield Scenario(
            "all nodes",
            Machine.ubuntu2404_gpu().file(path, spec("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm")),
        )
        yield Scenario("a container with all nodes", container("nvidiactl", "nvidia0", "nvidia-uvm"))
        yield Scenario("a container without a GPU", container())
        yield Scenario(
            "the specification is replaced by a complete one",
            Machine.ubuntu2404_gpu()
            .file(path, spec("/dev/nvidiactl"))
            .file("/run/cdi/nvidia.yaml", spec("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm")),
        )
        yield Scenario("not readable", Machine.ubuntu2404_gpu().fifo(path), unknown=True)
