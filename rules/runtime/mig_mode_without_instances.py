"""MIG is on, but the GPU has no instances, so CUDA finds no device on it.

What you see
    nvidia-smi lists the GPU with "MIG M. Enabled" and says: No MIG devices found

    torch.cuda.is_available() is False, or: device >= 0 && device < num_gpus INTERNAL ASSERT FAILED
Why
    With MIG, the GPU as a whole cannot be used, only its instances. The mode survives a reboot, the instances do not:
    they must be created again after each start.

    A program can use only one instance, even if there are several.
Repair
    Create instances, or turn MIG off.
What the repair risks
    Turning MIG off resets the GPU: no program may use it. Where Kubernetes manages the instances, leave them to it.
By hand
    nvidia-smi -L
    nvidia-smi mig -lgip
    # One instance with the whole GPU (profile 0), and a compute instance in it:
    nvidia-smi mig -i 0 -cgi 0 -C
    # Or without MIG:
    nvidia-smi -i 0 -mig 0
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    GpuModes,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class MigModeWithoutInstances(Rule):
    id = "mig-mode-without-instances"
    title = "MIG is on, but the GPU has no instances"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    risk = Risk.MEDIUM

    def detect(self, modes: GpuModes) -> Iterator[Finding | Unknown]:
        for gpu in modes.gpus:
            if not gpu.mig:
                continue
            if gpu.instances is None:
                yield Unknown(f"cannot tell whether the GPU {gpu.address} has MIG instances", f"gpu:{gpu.address}")
            elif not gpu.instances:
                managed = f"; {modes.manager}: Kubernetes may manage them" if modes.manager else ""
                yield self.finding(
                    f"gpu:{gpu.address}",
                    f"MIG is on for {gpu.name} ({gpu.address}), but it has no instances: CUDA cannot use it",
                    Evidence(modes.source, f"{gpu.address}: MIG mode enabled, no MIG devices{managed}"),
                    severity=Severity.NOTE if managed else Severity.WARNING,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        address = finding.subject.partition(":")[2]
        text = f"run nvidia-smi mig -i {address} -cgi 0 -C; for smaller profiles, see nvidia-smi mig -lgip"
        yield Plan("Create an instance", Risk.LOW, (ByHand(text),))
        text = f"end all programs on the GPU, then run nvidia-smi -i {address} -mig 0"
        yield Plan("Turn MIG off", Risk.MEDIUM, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        table = (
            "| MIG devices:                                                                |\n"
            "|==================+======================+===========+=======================|\n"
            "|  No MIG devices found                                                       |\n"
        )

        def posted(*modes: str, rest: str = table) -> Machine:
            report = (
                "==============NVSMI LOG==============\n\nDriver Version                            : 535.183.01\n\n"
            )
            for number, mode in enumerate(modes, 1):
                report += (
                    f"GPU 00000000:0{number}:00.0\n"
                    "    Product Name                          : NVIDIA A100-SXM4-80GB\n"
                    f"    MIG Mode\n        Current                           : {mode}\n"
                    f"        Pending                           : {mode}\n"
                    "    Compute Mode                          : Default\n"
                )
            version = "| NVIDIA-SMI 535.183.01    Driver Version: 535.183.01    CUDA Version: 12.2     |\n"
            return Machine().file("/q.txt", report).file("/smi.txt", version + rest)

        yield Scenario(
            "after a reboot",
            posted("Enabled"),
            finds="gpu:0000:01:00.0",
            ladder=(("low", "by-hand 0000:01:00.0 -cgi -C"), ("medium", "by-hand 0000:01:00.0 -mig")),
        )
        yield Scenario("one of two GPUs", posted("Disabled", "Enabled"), finds="gpu:0000:02:00.0")
        yield Scenario("MIG is off", posted("Disabled", rest=""))
        yield Scenario("a GPU without MIG", posted("N/A", rest=""))
        yield Scenario(
            "instances exist",
            posted("Enabled", rest="").append(
                "/q.txt", "    MIG Device\n        Index                             : 0\n"
            ),
        )
        yield Scenario("the instances were not posted", posted("Enabled", rest=""), unknown=True)
