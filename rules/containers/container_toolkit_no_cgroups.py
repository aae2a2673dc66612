"""NVIDIA's container toolkit does not give the containers of Docker access to the GPU's device nodes.

What you see
    docker run --gpus all … nvidia-smi fails with: Failed to initialize NVML: Unknown Error

    On WSL: Failed to initialize NVML: GPU access blocked by the operating system

    nvidia-smi works outside of containers.
Why
    The line "no-cgroups = true" in /etc/nvidia-container-runtime/config.toml tells the toolkit not to allow the GPU's
    device nodes in the control group of a container. Docker and Podman without root need this line, because they may
    not change that control group. Docker that runs as root needs "false": otherwise the nodes are in the container, but
    no program may open them.
Repair
    Set no-cgroups = false.
What the repair risks
    A Docker or Podman without root on the same machine then fails to start containers with a GPU. Let them use device
    descriptions (nvidia-ctk cdi generate) instead.
By hand
    grep no-cgroups /etc/nvidia-container-runtime/config.toml
    nvidia-ctk config --set nvidia-container-cli.no-cgroups=false --in-place
"""

from collections.abc import Iterator

from dlhealth.api import (
    Docker,
    EditFile,
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
    ToolkitConfig,
    Unknown,
)

_CONFIG = "/etc/nvidia-container-runtime/config.toml"


class ContainerToolkitNoCgroups(Rule):
    id = "container-toolkit-no-cgroups"
    title = "NVIDIA's container toolkit gives Docker's containers no access to the GPU"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(self, docker: Docker, config: ToolkitConfig, gpus: Gpus) -> Iterator[Finding | Unknown]:
        if not docker.engine or not config.no_cgroups or not gpus.gpus or docker.rootless:
            return
        number, line = config.no_cgroups
        yield self.finding(
            f"file:{_CONFIG}",
            f"{_CONFIG}:{number} sets no-cgroups = true: Docker's containers may not open the GPU's nodes",
            Evidence(f"{_CONFIG}:{number}", line.strip()),
            Evidence(docker.engine, "Docker runs as root"),
        )

    def remedies(self, finding: Finding, config: ToolkitConfig) -> Iterator[Plan]:
        if config.no_cgroups:
            number, line = config.no_cgroups
            new = line.replace("true", "false", 1)
            yield Plan("Set no-cgroups = false", Risk.LOW, (EditFile(_CONFIG, ((number, line, new),)),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(text: str, base: Machine | None = None) -> Machine:
            docker = (base or Machine.ubuntu2404_gpu()).file("/usr/bin/dockerd", "", 0o755)
            return (
                docker.file("/usr/bin/nvidia-ctk", "", 0o755)
                .file("/usr/bin/nvidia-container-runtime-hook", "", 0o755)
                .file(_CONFIG, text)
            )

        yield Scenario(
            "set for an engine without root, with Docker",
            machine("[nvidia-container-cli]\nload-kmods = true\nno-cgroups = true\n"),
            finds=f"file:{_CONFIG}",
            alone=False,
            steps=("edit-file",),
            ladder=(("low", f"edit-file {_CONFIG} 3: no-cgroups = false"),),
        )
        yield Scenario(
            "with a comment behind it",
            machine("[nvidia-container-cli]\n  no-cgroups = true # true: see forum\n"),
            finds=f"file:{_CONFIG}",
            alone=False,
            ladder=(("low", f"edit-file {_CONFIG} 2: no-cgroups = false # true: see forum"),),
        )
        yield Scenario("the default", machine("[nvidia-container-cli]\n#no-cgroups = false\n"), alone=False)
        yield Scenario("commented out", machine("[nvidia-container-cli]\n#no-cgroups = true\n"), alone=False)
        yield Scenario(
            "the runtime uses device descriptions",
            machine('[nvidia-container-cli]\nno-cgroups = true\n[nvidia-container-runtime]\nmode = "cdi"\n'),
            alone=False,
        )
        yield Scenario(
            "alice runs Docker without root",
            machine("no-cgroups = true\n").file("/home/alice/.config/systemd/user/docker.service", uid=1000),
            alone=False,
        )
        yield Scenario(
            "only Podman",
            Machine.ubuntu2404_gpu().file("/usr/bin/podman", "", 0o755).file(_CONFIG, "no-cgroups = true\n"),
        )
        yield Scenario("in a container", machine("no-cgroups = true\n").file("/.dockerenv"), unknown=True)
