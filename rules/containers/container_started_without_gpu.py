"""A container that needs a GPU was started without one.

What you see
    CUDA driver version is insufficient for CUDA runtime version

    Could not find cuda drivers on your machine, GPU will not be used (from TensorFlow)

    nvidia-smi: command not found, but on the host it works.
Why
    Containers get no GPU by themselves. Docker gives them one only with --gpus, with --device nvidia.com/gpu=all, or
    if its default runtime is nvidia. In a Compose file, the service needs a reservation of devices.
Repair
    Create the container again with the GPU. The host's driver is not changed.
What the repair risks
    What the container wrote outside of its volumes is lost when it is removed.
By hand
    # On the host:
    docker run --rm --gpus all IMAGE nvidia-smi
    # In a Compose file, at the service:
    deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    ContainerDevices,
    Evidence,
    Finding,
    Machine,
    Plan,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class ContainerStartedWithoutGpu(Rule):
    id = "container-started-without-gpu"
    title = "A container that needs a GPU was started without one"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    explains = ("libcuda-missing-from-loader", "torch-wheel-newer-than-driver", "cuda-runtime-newer-than-driver")

    def detect(self, inside: ContainerDevices, environments: PythonEnvironments | None) -> Iterator[Finding | Unknown]:
        # Containers share the kernel's /proc: without this file, the host has no driver, and no container gets a GPU.
        if not inside.container or inside.nodes or not inside.driver:
            return
        if inside.unread:
            yield Unknown(f"cannot tell whether a GPU was left out on purpose: {inside.unread}")
            return
        wants = _wish(inside, environments)
        if wants is None or inside.visible in ("void", "none", ""):
            return
        yield self.finding(
            "host",
            f"This container has no GPU although the host has a driver, and {wants.shows} asks for one",
            wants,
            Evidence("/dev", "no device node of NVIDIA's driver"),
            Evidence("/proc/driver/nvidia/version", "the host's driver is loaded"),
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = "on the host, remove this container and create it again with docker run --gpus all (in Compose: a reservation of devices)"
        yield Plan("Start the container with the GPU", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def container(variables: str = "PATH=/usr/bin", *, driver: bool = True) -> Machine:
            machine = (
                Machine()
                .os_release("ubuntu", "22.04")
                .user()
                .package("libc6", "2.35-0ubuntu3")
                .file("/.dockerenv")
                .folder("/dev")
                .file("/proc/1/environ", variables.replace(" ", "\0"))
                .file("/proc/modules", "nvidia 1 0 - Live 0x0\n")
            )
            text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.120  Thu Jun 12 00:00:00 UTC 2025\n"
            return machine.file("/proc/driver/nvidia/version", text) if driver else machine

        image = "PATH=/usr/bin NVIDIA_VISIBLE_DEVICES=all NVIDIA_REQUIRE_CUDA=cuda>=12.1"
        yield Scenario("an image with CUDA", container(image), finds="host", ladder=(("low", "by-hand --gpus"),))
        yield Scenario(
            "PyTorch with CUDA",
            container().python_environment("/opt/venv", torch="2.3.0+cu121", cuda="12.1", uid=0),
            finds="host",
            alone=False,
        )
        yield Scenario("the GPU was left out on purpose", container("PATH=/usr/bin NVIDIA_VISIBLE_DEVICES=void"))
        yield Scenario("nothing in it wants a GPU", container())
        yield Scenario("with a GPU", container(image).node("/dev/nvidiactl", 195, 255).node("/dev/nvidia0", 195))
        yield Scenario("the host has no driver", container(image, driver=False))
        yield Scenario("the image's variables are not readable", container().fifo("/proc/1/environ"), unknown=True)
        yield Scenario("no container", Machine.ubuntu2404_gpu())


def _wish(inside: ContainerDevices, environments: PythonEnvironments | None) -> Evidence | None:
    """What in a container wants a GPU; None if nothing does."""
    if inside.visible:
        return Evidence("/proc/1/environ", f"NVIDIA_VISIBLE_DEVICES={inside.visible}")
    for environment in environments.environments if environments else ():
        if environment.torch and environment.torch.backend == "cuda":
            return Evidence(environment.torch.source, f"PyTorch {environment.torch.version}")
        if environment.tensorflow and environment.tensorflow.gpu:
            return Evidence(environment.tensorflow.source, f"TensorFlow {environment.tensorflow.version}")
    return None
