"""A GPU accepts no programs, or only one at a time: its compute mode is not Default.

What you see
    all CUDA-capable devices are busy or unavailable (error 46), although nvidia-smi shows free memory

    In nvidia-smi, the column "Compute M." shows "E. Process" or "Prohibited".
Why
    An administrator or a script of a cluster set the compute mode. Exclusive_Process accepts one program at a time,
    Prohibited accepts none.

    With NVIDIA's MPS, or a scheduler that gives each job a GPU, Exclusive_Process is intended.
Repair
    Set the mode back to Default, if nobody needs the other one.
What the repair risks
    Low: running programs go on. Several programs then share the GPU's memory.
By hand
    nvidia-smi -q -d COMPUTE
    nvidia-smi -i 0 -c DEFAULT
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

_LIMITED = ("Exclusive_Process", "Exclusive_Thread", "Prohibited")


class ComputeModeExclusive(Rule):
    id = "compute-mode-exclusive"
    title = "A GPU accepts no programs, or only one at a time"
    stage = Stage.APPLICATIONS
    severity = Severity.NOTE

    def detect(self, modes: GpuModes) -> Iterator[Finding | Unknown]:
        closed = [g for g in modes.gpus if g.compute == "Prohibited"]
        for gpu in modes.gpus:
            if not gpu.compute:
                yield Unknown(f"cannot tell the compute mode of the GPU {gpu.address}", f"gpu:{gpu.address}")
            elif gpu.compute in _LIMITED and not (modes.sharing and gpu.compute != "Prohibited"):
                accepts = "no program" if gpu in closed else "only one program at a time"
                yield self.finding(
                    f"gpu:{gpu.address}",
                    f"{gpu.name} accepts {accepts}: its compute mode is {gpu.compute}",
                    Evidence(modes.source, f"{gpu.address}: compute mode {gpu.compute}"),
                    # One GPU of several may be kept for the display. With none left, nothing can compute.
                    severity=Severity.WARNING if len(closed) == len(modes.gpus) else Severity.NOTE,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        address = finding.subject.partition(":")[2]
        text = f"if neither MPS nor a scheduler needs this mode, run nvidia-smi -i {address} -c DEFAULT"
        yield Plan("Accept all programs again", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def posted(*modes: str, process: str = "python") -> Machine:
            report = "==============NVSMI LOG==============\n\nDriver Version                            : 550.120\n\n"
            for number, mode in enumerate(modes, 1):
                line = f"    Compute Mode                          : {mode}\n" if mode else ""
                report += (
                    f"GPU 00000000:0{number}:00.0\n"
                    f"    Product Name                          : NVIDIA A40\n{line}"
                    f"    Processes\n        Process ID                        : 1\n            Name                          : {process}\n"
                )
            return Machine().file("/nvidia-smi.txt", report)

        yield Scenario(
            "one program at a time",
            posted("Exclusive_Process"),
            finds="gpu:0000:01:00.0",
            ladder=(("low", "by-hand 0000:01:00.0 DEFAULT"),),
        )
        yield Scenario("no GPU accepts programs", posted("Prohibited", "Prohibited"), finds="gpu:0000:02:00.0")
        yield Scenario("one is kept for the display", posted("Default", "Prohibited"), finds="gpu:0000:02:00.0")
        yield Scenario("shared by MPS", posted("Exclusive_Process", process="nvidia-cuda-mps-server"))
        yield Scenario("the default", posted("Default", "Default"))
        yield Scenario("the report does not tell", posted(""), unknown=True)
