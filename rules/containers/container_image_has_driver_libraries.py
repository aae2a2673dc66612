"""An image contains libraries of NVIDIA's driver, so on WSL2 its containers do not start with a GPU.

What you see
    nvidia-container-cli: mount error: file creation failed: …/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1: file exists

    Other images, such as nvidia/cuda, start with --gpus all.
Why
    NVIDIA's container toolkit puts the driver's libraries into each container. In WSL2 it makes links with the names of
    the libraries, and fails if the image has files of these names. They get into an image if it was built, or saved
    with docker commit, while the GPU was in the container, or if a package of it (libnvidia-compute, nvidia-opencl-dev)
    brings the driver.
Repair
    Remove the libraries from the image.
What the repair risks
    Low: the toolkit puts the right ones into each container.
By hand
    docker run --rm IMAGE ls -l /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1
    docker run --rm IMAGE dpkg -S libnvidia-ml.so.1
    docker build --no-cache -t IMAGE .
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    ImageLayers,
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


class ContainerImageHasDriverLibraries(Rule):
    id = "container-image-has-driver-libraries"
    title = "An image contains libraries of the driver, so its containers do not start with a GPU"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(self, platform: Platform, layers: ImageLayers) -> Iterator[Finding | Unknown]:
        if platform.setting is PlatformSetting.WSL and layers.libraries:
            yield self.finding(
                "host",
                "A Docker image contains libraries of the driver: its containers do not start with --gpus in WSL2",
                *(Evidence(path, "in a layer of an image") for path in layers.libraries[:3]),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = (
            "in the Dockerfile of the image, remove libcuda.so.1 and libnvidia-*.so.1, and the packages that bring them"
        )
        yield Plan("Remove the driver's libraries from the image", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        layer = "/var/lib/docker/overlay2/4f1d"
        library = "diff/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
        kernel = "5.15.153.1-microsoft-standard-WSL2"

        def wsl() -> Machine:
            machine = Machine().os_release("ubuntu", "22.04", "Ubuntu").user().package("libc6", "2.35-0ubuntu3")
            machine.file("/proc/sys/kernel/osrelease", f"{kernel}\n").file("/dev/dxg")
            machine.library("/usr/lib/wsl/lib/libcuda.so.1", "libcuda.so.1")
            machine.library("/usr/lib/wsl/lib/libcuda.so", "libcuda.so.1")
            return machine.file("/usr/bin/dockerd", "", 0o755).file(f"{layer}/diff/etc/hostname")

        yield Scenario(
            "the image was saved while the GPU was in it",
            wsl().file(f"{layer}/{library}"),
            finds="host",
            alone=False,
            ladder=(("low", "by-hand libcuda.so.1 libnvidia-*.so.1"),),
        )
        yield Scenario(
            "a package brought libcuda",
            wsl().library(f"{layer}/diff/usr/lib/x86_64-linux-gnu/libcuda.so.1", "libcuda.so.1"),
            finds="host",
            alone=False,
        )
        yield Scenario("clean images", wsl(), alone=False)
        yield Scenario(
            "only in a container that runs", wsl().file(f"{layer}/{library}").folder(f"{layer}-init"), alone=False
        )
        yield Scenario(
            "not WSL2",
            Machine.ubuntu2404_gpu().file("/usr/bin/dockerd", "", 0o755).file(f"{layer}/{library}"),
            alone=False,
        )
        yield Scenario("in a container", wsl().file("/.dockerenv"), unknown=True)
