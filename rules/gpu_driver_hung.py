"""The NVIDIA driver is loaded but does not answer.

What you see
    nvidia-smi hangs, or says: Unable to determine the device handle, GPU is lost, Unknown Error.
Why
    The driver, or the GPU's firmware, is stuck after a fault; the first NVRM or Xid line in the kernel log says which.
    Reinstalling the driver changes nothing about it.
Repair
    Restart the machine; where it comes back, the kernel log's first line decides.
What the repair risks
    Running jobs end.
By hand
    journalctl -k | grep -iE 'nvrm|xid'; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Journal,
    KernelModules,
    Layer,
    Machine,
    Nvml,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

FAILED = r"NVRM: .*(?:RmInitAdapter failed|rm_init_adapter failed|GSP RPC|Timeout waiting for RPC)|NVRM: Xid \([^)]*\): (?:119|120),"


class GpuDriverHung(Rule):
    id = "gpu-driver-hung"
    title = "The NVIDIA driver does not answer"
    layer = Layer.RUNTIME
    stage = Stage.REBOOT
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("login-loop-glx-broken-driver-mismatch",)

    def detect(self, modules: KernelModules, nvml: Nvml | None, journal: Journal | None) -> Iterator[Finding | Unknown]:
        if not modules.loaded_version:
            return
        log = next(journal.kernel(FAILED, last_boot=True), None) if journal else None
        said = [Evidence("kernel log", log.text)] if log else []
        if nvml is None and journal is None:
            yield Unknown("neither NVML nor the kernel log can be asked")
        elif nvml is not None and nvml.outcome in ("hung", "crashed", "nonsense"):
            how = (
                f"did not come back from {nvml.call or 'its first call'}"
                if nvml.outcome == "hung"
                else nvml.text or nvml.outcome
            )
            yield self.finding(
                "host",
                f"The NVIDIA driver {modules.loaded_version} is loaded but does not answer: NVML {how}",
                Evidence("libnvidia-ml.so.1", f"{nvml.call or 'the first call'}: {nvml.outcome} {nvml.text}".rstrip()),
                *said,
            )
        elif log and (nvml is None or nvml.outcome == "error" or not nvml.gpus):
            yield self.finding(
                "host",
                f"The NVIDIA driver {modules.loaded_version} could not start the GPU: {log.text}",
                *said,
                *([Evidence("libnvidia-ml.so.1", nvml.text or nvml.outcome)] if nvml else []),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Restart the machine; if it happens again, follow the first NVRM or Xid line of the kernel log",
            Risk.MEDIUM,
            (ByHand("save your work and end jobs on the GPU"), Reboot()),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "the firmware of the GPU did not start",
            Machine.ubuntu2404_gpu().says("kernel", "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0xffff:1622)"),
            finds="host",
        )
        yield Scenario(
            "the firmware stopped answering",
            Machine.debian12_gpu().says(
                "kernel", "NVRM: Xid (PCI:0000:01:00): 119, pid=1234, Timeout waiting for RPC from GSP!"
            ),
            finds="host",
        )
        yield Scenario(
            "nothing of that in the log",
            Machine.debian12_gpu().says("kernel", "NVRM: loading NVIDIA UNIX x86_64 Kernel Module"),
        )
        yield Scenario(
            "an application's fault",
            Machine.debian12_gpu().says("kernel", "NVRM: Xid (PCI:0000:01:00): 31, pid=1234, MMU Fault"),
        )
        yield Scenario("neither log nor NVML", Machine.debian12_gpu(), unknown=True)
