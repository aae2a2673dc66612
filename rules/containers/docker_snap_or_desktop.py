"""Docker is a snap or Docker Desktop, which does not use NVIDIA's toolkit of this machine.

What you see
    "could not select device driver "" with capabilities: [[gpu]]" or "load library failed: libnvidia-ml.so.1" from
    docker run --gpus, although NVIDIA's container toolkit is installed and nvidia-smi works outside.
Why
    The snap is confined and reads its own /var/snap/docker/current/config/daemon.json. Docker Desktop runs containers
    in a virtual machine that has no NVIDIA driver. Neither sees the toolkit that was installed with apt.
Repair
    Install Docker Engine from its own repository (docker-ce) or from the distribution (docker.io), and use that.
What the repair risks
    Images and volumes of the snap or of Docker Desktop stay there: save what you need first.
By hand
    snap list docker; docker context show; readlink -f "$(command -v docker)"
    snap remove docker; apt-get install docker.io; nvidia-ctk runtime configure --runtime=docker; systemctl restart docker
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
    title = "Docker is a snap or Docker Desktop, which does not use NVIDIA's toolkit of this machine"
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
            f"Docker is {what}, which does not use NVIDIA's container toolkit of this machine",
            Evidence(other, 'the context is "desktop-linux"' if docker.desktop else "Docker's snap"),
            Evidence(docker.toolkit, "NVIDIA's container toolkit"),
            Evidence("/usr/bin/dockerd", "is there" if docker.engine else "not installed"),
            kind="desktop" if docker.desktop else "snap",
            engine=docker.engine,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail["kind"] == "desktop" and finding.detail["engine"]:
            yield Plan("Use Docker Engine", Risk.LOW, (ByHand("docker context use default"),))
            return
        text = "Save what you need of images and volumes, install docker.io or docker-ce, and remove the other Docker"
        yield Plan("Use Docker Engine", Risk.MEDIUM, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine() -> Machine:
            return Machine.ubuntu2404_gpu().file("/usr/bin/nvidia-ctk", "", 0o755)

        snap = "/snap/docker/2746/meta/snap.yaml"
        desktop = '{"auths": {}, "currentContext": "desktop-linux"}'
        yield Scenario("the snap alone", machine().file(snap).link("/snap/docker/current", "2746"), finds="host")
        yield Scenario(
            "Docker Desktop beside the engine",
            machine().file("/usr/bin/dockerd", "", 0o755).file("/home/alice/.docker/config.json", desktop, uid=1000),
            finds="host",
        )
        yield Scenario(
            "the engine beside the snap",
            machine().file("/usr/bin/dockerd", "", 0o755).file(snap).link("/snap/docker/current", "2746"),
        )
        yield Scenario("a snap, and nobody installed the toolkit", Machine.ubuntu2404_gpu().file(snap))
        yield Scenario("in a container", machine().file("/.dockerenv"), unknown=True)
