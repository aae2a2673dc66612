"""The shared memory of a container is too small for PyTorch's worker processes.

What you see
    RuntimeError: DataLoader worker (pid 37) is killed by signal: Bus error. It is possible that dataloader's workers
    are out of shared memory. Please try to raise your shared memory limit.

    Or NCCL fails with several GPUs: Error while creating shared memory segment /dev/shm/nccl-…
Why
    Docker gives a container 64 MiB of /dev/shm. PyTorch's DataLoader passes each batch through it if it has worker
    processes (num_workers), and NCCL uses it between GPUs. A program that needs more ends with a bus error.

    The GPU and its memory are not the cause. The same message on a machine without containers usually means a damaged
    data file or disk.
Repair
    Create the container again with more shared memory.
What the repair risks
    Shared memory counts as memory of the host, as far as it is used. --ipc=host also shares it with all programs of the
    host.
By hand
    df -h /dev/shm
    # On the host:
    docker run --shm-size=8g IMAGE
    # In a Compose file, at the service:
    shm_size: 8gb
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

_DEFAULT = 64 << 20
"""Docker's, in bytes. Who sets another size has thought about it."""


class ShmTooSmall(Rule):
    id = "shm-too-small"
    title = "The shared memory of a container is too small for PyTorch's worker processes"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(self, inside: ContainerDevices, environments: PythonEnvironments) -> Iterator[Finding | Unknown]:
        if not inside.has_gpu:
            return
        torch = next((e.torch for e in environments.environments if e.torch and e.torch.backend == "cuda"), None)
        if torch is None:
            yield from (Unknown(problem) for problem in environments.problems)
        elif inside.shm is None:
            yield Unknown("cannot tell how large /dev/shm is: /proc/mounts has no line for it")
        elif inside.shm <= _DEFAULT:
            size = inside.shm >> 20
            yield self.finding(
                "host",
                f"This container has {size} MiB of shared memory: PyTorch's DataLoader with workers may fail in it",
                Evidence("/proc/mounts", f"/dev/shm: tmpfs of {size} MiB"),
                Evidence(torch.source, f"PyTorch {torch.version}"),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = "on the host, create this container again with docker run --shm-size=8g (in Compose: shm_size: 8gb), or use num_workers=0"
        yield Plan("Give the container more shared memory", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def container(mounts: str, torch: str = "2.3.0+cu121", *, gpu: bool = True) -> Machine:
            machine = (
                Machine()
                .os_release("ubuntu", "22.04")
                .user()
                .package("libc6", "2.35-0ubuntu3")
                .file("/.dockerenv")
                .file("/proc/mounts", mounts)
            )
            for name, major in (("nvidiactl", 195), ("nvidia0", 195), ("nvidia-uvm", 511)) if gpu else ():
                machine.node(f"/dev/{name}", major)
            cuda = "12.1" if "+cu" in torch else ""
            return machine.python_environment("/opt/venv", torch=torch, cuda=cuda, uid=0) if torch else machine

        docker = "shm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size={}k,inode64 0 0\n"
        yield Scenario(
            "Docker's default",
            container(docker.format(65536)),
            finds="host",
            ladder=(("low", "by-hand --shm-size=8g num_workers=0"),),
        )
        yield Scenario(
            "even less", container("tmpfs / tmpfs rw 0 0\n" + docker.format(16384), "2.6.0+cu126"), finds="host"
        )
        yield Scenario("8 GiB", container(docker.format(8 << 20)))
        yield Scenario(
            "the host's, by --ipc=host", container("tmpfs /dev/shm tmpfs rw,nosuid,nodev,size=32844044k 0 0\n")
        )
        yield Scenario("PyTorch for the CPU", container(docker.format(65536), "2.3.0+cpu"))
        yield Scenario("without PyTorch", container(docker.format(65536), ""))
        yield Scenario("a container without a GPU", container(docker.format(65536), gpu=False))
        yield Scenario("no container", Machine.ubuntu2404_gpu().python_environment(torch="2.3.0+cu121", cuda="12.1"))
        yield Scenario("the size is not known", container(""), unknown=True)
