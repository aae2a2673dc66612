"""Docker is not configured for NVIDIA's container toolkit.

What you see
    unknown or invalid runtime name: nvidia

    could not select device driver "" with capabilities: [[gpu]]

    Containers do not start at all.
Why
    Docker finds the toolkit in one of three ways: a runtime in /etc/docker/daemon.json, device descriptions in
    /etc/cdi, or a hook for --gpus. Installing the package sets up neither of the first two.

    If the toolkit is removed, its runtime stays in daemon.json. If that file is not valid JSON, often because of an
    extra comma after a change by hand, Docker does not start.
Repair
    Let nvidia-ctk add the runtime to daemon.json, or correct the file; then restart Docker.
What the repair risks
    The restart stops running containers, unless "live-restore" is set.
By hand
    docker info | grep -i runtimes
    cat /etc/docker/daemon.json
    nvidia-ctk runtime configure --runtime=docker
    systemctl restart docker
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Docker,
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

_DAEMON = "/etc/docker/daemon.json"


class DockerNvidiaRuntimeNotConfigured(Rule):
    id = "docker-nvidia-runtime-not-configured"
    title = "Docker is not configured for NVIDIA's container toolkit"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    risk = Risk.MEDIUM

    def detect(self, docker: Docker, gpus: Gpus) -> Iterator[Finding | Unknown]:
        if not gpus.gpus or not docker.engine or docker.desktop:
            return
        if docker.broken:
            yield self.finding(
                f"file:{_DAEMON}",
                f"{_DAEMON} is not valid JSON near line {docker.broken}: Docker does not start",
                Evidence(f"{_DAEMON}:{docker.broken}", "not valid JSON"),
                Evidence(docker.engine, "reads it when it starts"),
                severity=Severity.ERROR,
                kind="broken",
            )
            return
        if docker.runtimes is None:
            yield Unknown(f"the runtimes in {_DAEMON} have an unknown form")
            return
        nvidia = {name: path for name, path in docker.runtimes.items() if "nvidia" in name or "nvidia" in path}
        gone = next(((name, path) for name, path in nvidia.items() if path in docker.absent), None)
        if gone:
            name, path = gone
            yield self.finding(
                "host",
                f"{_DAEMON} names the runtime {name}, but its program {path} is not installed",
                Evidence(_DAEMON, f"runtimes: {name}: {path}" + (", the default" if docker.default == name else "")),
                Evidence(path, "not installed"),
                severity=Severity.ERROR if docker.default == name else Severity.WARNING,
                kind="gone",
            )
        elif docker.toolkit and not nvidia and not docker.cdi:
            works = f"; docker run --gpus works through {docker.hook}" if docker.hook else ""
            yield self.finding(
                "host",
                f"NVIDIA's container toolkit is installed, but Docker has no NVIDIA runtime{works}",
                Evidence(docker.toolkit, "NVIDIA's container toolkit"),
                Evidence(_DAEMON, f"runtimes: {', '.join(docker.runtimes) or 'none'}"),
                Evidence("/etc/cdi", "no description of NVIDIA devices"),
                severity=Severity.NOTE if docker.hook else Severity.WARNING,
                kind="unset",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        configure = ByHand("nvidia-ctk runtime configure --runtime=docker && systemctl restart docker")
        if finding.detail["kind"] == "broken":
            check = ByHand(f"correct {_DAEMON} (often a comma too many or too few), check it with dockerd --validate")
            yield Plan(f"Correct {_DAEMON}", Risk.LOW, (check, ByHand("systemctl restart docker")))
        elif finding.detail["kind"] == "gone":
            text = f"apt-get install nvidia-container-toolkit, or remove the runtime from {_DAEMON}, and restart Docker"
            yield Plan(
                "Reinstall the runtime, or remove it from the configuration", Risk.MEDIUM, (ByHand(text),), network=True
            )
        else:
            yield Plan("Configure Docker for NVIDIA's toolkit", Risk.MEDIUM, (configure,))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(settings: str = "", *programs: str) -> Machine:
            machine = Machine.ubuntu2404_gpu().file("/usr/bin/dockerd", "", 0o755)
            for program in programs:
                machine.file(f"/usr/bin/{program}", "", 0o755)
            return machine.file(_DAEMON, settings) if settings else machine

        runtime = '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}'
        default = runtime[:-1] + ', "default-runtime": "nvidia"}'
        yield Scenario(
            "only the hook",
            machine('{"log-driver": "json-file"}', "nvidia-ctk", "nvidia-container-runtime-hook"),
            finds="host",
            ladder=(("medium", "by-hand --runtime=docker"),),
        )
        yield Scenario("neither hook nor runtime", machine("", "nvidia-ctk"), finds="host")
        yield Scenario(
            "the toolkit was removed, but its runtime is the default",
            machine(default),
            finds="host",
            ladder=(("medium network", "by-hand nvidia-container-toolkit /etc/docker/daemon.json"),),
        )
        yield Scenario("configured", machine(runtime, "nvidia-ctk", "nvidia-container-runtime"))
        yield Scenario(
            "configured with CDI", machine("", "nvidia-ctk").file("/etc/cdi/nvidia.yaml", "cdiVersion: 0.5.0\n")
        )
        yield Scenario("the toolkit is not installed", machine())
        yield Scenario(
            "a comma too many",
            machine(
                '{\n  "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}},\n}\n', "nvidia-container-runtime"
            ),
            finds=f"file:{_DAEMON}",
            ladder=(("low", "by-hand /etc/docker/daemon.json --validate", "by-hand docker"),),
        )
        yield Scenario("an unknown form", machine('{"runtimes": ["nvidia"]}', "nvidia-ctk"), unknown=True)
        yield Scenario("an empty file", machine(" \n"))
