"""Docker is a snap or Docker Desktop, which does not use this machine's NVIDIA container toolkit.

What you see
    docker run --gpus fails with: could not select device driver "" with capabilities: [[gpu]]

    Or with: load library failed: libnvidia-ml.so.1

    NVIDIA's container toolkit is installed, and nvidia-smi works outside of containers.
Why
    The snap is confined and reads its own /var/snap/docker/current/config/daemon.json. Docker Desktop runs containers
    in a virtual machine without an NVIDIA driver. Neither uses the toolkit that apt installed.
Repair
    Install and use Docker Engine, from its own repository (docker-ce) or from the distribution (docker.io).
What the repair risks
    Images and volumes stay in the snap or in Docker Desktop. Save the ones you need first.
By hand
    snap list docker
    docker context show
    readlink -f "$(command -v docker)"
    snap remove docker
    apt-get install docker.io
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


class DockerSnapOrDesktop(Rule):
    id = "docker-snap-or-desktop"
    title = "Docker is a snap or Docker Desktop, which does not use the NVIDIA toolkit"
    stage = Stage.APPLICATIONS
    severity = Severity.NOTE
    risk = Risk.MEDIUM

    def detect(self, docker: Docker, gpus: Gpus) -> Iterator[Finding | Unknown]:
        if not gpus.gpus or not docker.toolkit:
            return
        other = docker.desktop or ("" if docker.engine else docker.snap)
        if not other:
            return
        what = "Docker Desktop" if docker.desktop else "a snap"
        yield self.finding(
            "host",
            f"Docker is {what}, which does not use this machine's NVIDIA container toolkit",
            Evidence(other, 'the context is "desktop-linux"' if docker.desktop else "the Docker snap"),
            Evidence(docker.toolkit, "NVIDIA's container toolkit"),
            Evidence("/usr/bin/dockerd", "installed" if docker.engine else "not installed"),
            kind="desktop" if docker.desktop else "snap",
            engine=docker.engine,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail["kind"] == "desktop" and finding.detail["engine"]:
            yield Plan("Use Docker Engine", Risk.LOW, (ByHand("docker context use default"),))
            return
        text = "save the images and volumes you need, install docker.io or docker-ce, and remove the other Docker"
        yield Plan("Use Docker Engine", Risk.MEDIUM, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine() -> Machine:
            return Machine.ubuntu2404_gpu().file("/usr/bin/nvidia-ctk", "", 0o755)

        snap = "/snap/docker/2746/meta/snap.yaml"
        desktop = '{"auths": {}, "currentContext": "desktop-linux"}'
        yield Scenario(
            "only the snap",
            machine().file(snap).link("/snap/docker/current", "2746"),
            finds="host",
            ladder=(("medium network", "by-hand save images volumes need install docker.io"),),
        )
        yield Scenario(
            "Docker Desktop beside Docker Engine",
            machine().file("/usr/bin/dockerd", "", 0o755).file("/home/alice/.docker/config.json", desktop, uid=1000),
            finds="host",
            ladder=(("low", "by-hand docker context default"),),
        )
        yield Scenario(
            "Docker Engine beside the snap",
            machine().file("/usr/bin/dockerd", "", 0o755).file(snap).link("/snap/docker/current", "2746"),
        )
        yield Scenario("a snap without the toolkit", Machine.ubuntu2404_gpu().file(snap))
        yield Scenario("in a container", machine().file("/.dockerenv"), unknown=True)
