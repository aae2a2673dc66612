"""The NVIDIA driver is loaded, but it does not answer.

What you see
    nvidia-smi hangs, or reports: Unable to determine the device handle, Unknown Error.

    INFO: task nvidia-smi:1234 blocked for more than 120 seconds.
Why
    The driver or the GPU's firmware is stuck after an error. The first NVRM or Xid line in the kernel log names that
    error. Reinstalling the driver does not help.

    A GPU that could not start, or fell off the bus, looks similar. dlhealth reports those as separate problems.
Repair
    Reboot the machine. If the problem returns, follow the first line in the kernel log.
What the repair risks
    Running jobs end.
By hand
    journalctl -k | grep -iE 'nvrm|xid'
    systemctl reboot
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Journal,
    KernelModules,
    Line,
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
from dlhealth.lazy import regex

# Xid 119 and 120: the GPU's system processor (GSP) timed out or failed.
FAILED = (
    r"NVRM: .*Timeout waiting for RPC"
    r"|NVRM: Xid \([^)]*\): (?:119|120),|INFO: task (?:nvidia|irq/\d+-nvidia)\S* blocked for more than"
)
# The first error after the boot is closest to the cause.
FIRST = r"NVRM: (?!loading|Xid|objClInit|nvAssert)"
ADDRESS = regex(r"(?:GPU |PCI:)((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2})(?:\.(\d))?", re.IGNORECASE)
# Results of NVML that mean another problem: no permission (4), and different versions (18).
OTHERS = (4, 18)


class GpuDriverHung(Rule):
    id = "gpu-driver-hung"
    title = "The NVIDIA driver does not answer"
    stage = Stage.REBOOT
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("login-loop-glx-broken-driver-mismatch",)

    def detect(self, modules: KernelModules, nvml: Nvml | None, journal: Journal | None) -> Iterator[Finding | Unknown]:
        version = modules.loaded_version
        if not version:
            if modules.loaded is None:
                yield Unknown(
                    "cannot see which modules are loaded (a mounted disk, a container, or a kernel without modules)"
                )
            return
        log = next(journal.kernel(FAILED, last_boot=True), None) if journal else None
        first = next(journal.kernel(FIRST, last_boot=True), None) if journal and log else None
        said = [Evidence(li.source, li.text.strip()[:300]) for li in dict.fromkeys((log, first)) if li]
        if nvml is None and journal is None:
            yield Unknown("cannot query NVML or read the kernel log")
        elif nvml is not None and nvml.outcome == "hung":
            yield self.finding(
                "host",
                f"NVIDIA driver {version} is loaded but does not answer: {nvml.call or 'NVML'} does not return",
                Evidence("libnvidia-ml.so.1", nvml.text or f"no answer to {nvml.call}"),
                *said,
            )
        elif nvml is not None and nvml.outcome in ("crashed", "nonsense"):
            # A damaged library has the same effect, and then a reboot does not help.
            yield Unknown(f"NVML gave no usable answer: {nvml.text or nvml.outcome}")
        elif log and not (nvml and (nvml.code in OTHERS or _all_answer(nvml))):
            yield self.finding(
                _subject(log),
                f"NVIDIA driver {version} is stuck: {said[0].shows}",
                *said,
                *([Evidence("libnvidia-ml.so.1", nvml.text or nvml.outcome)] if nvml else []),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Reboot the machine; if it happens again, follow the first NVRM or Xid line in the kernel log",
            Risk.MEDIUM,
            (ByHand("save your work and end jobs on the GPU"), Reboot()),
            reboot=True,
        )
        yield Plan(
            "If it returns after each boot, check the firmware and the card",
            Risk.HIGH,
            (
                ByHand(
                    "update the mainboard's firmware, switch Above 4G Decoding on in its setup menu, reseat the card and its power cables, or try the card in another machine"
                ),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "the GPU's firmware stopped answering",
            Machine.debian12_gpu().says(
                "kernel", "NVRM: Xid (PCI:0000:01:00): 119, pid=1234, Timeout waiting for RPC from GSP!"
            ),
            finds="gpu:0000:01:00.0",
            causes=("xid-119-120-gsp-timeout",),
        )
        yield Scenario(
            "a program is stuck in the driver",
            Machine.debian12_gpu().says("kernel", "INFO: task nvidia-smi:4711 blocked for more than 120 seconds."),
            finds="host",
            ladder=(("medium reboot", "by-hand save your work jobs", "reboot"), ("high", "by-hand 4G")),
        )
        yield Scenario(
            "a GPU that did not start is another problem",
            Machine.ubuntu2404_gpu().says("kernel", "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0xffff:1622)"),
        )
        yield Scenario(
            "no such line in the log",
            Machine.debian12_gpu().says("kernel", "NVRM: loading NVIDIA UNIX x86_64 Kernel Module"),
        )
        yield Scenario(
            "an error of a program",
            Machine.debian12_gpu().says("kernel", "NVRM: Xid (PCI:0000:01:00): 31, pid=1234, MMU Fault"),
        )
        yield Scenario("neither a log nor NVML", Machine.debian12_gpu(), unknown=True)
        yield Scenario("a mounted disk", Machine().os_release("debian", "12").debian_driver(loaded=False), unknown=True)


def _all_answer(nvml: Nvml) -> bool:
    """Whether every GPU answers NVML now, so that the error in the log is over."""
    return nvml.outcome == "ok" and bool(nvml.gpus) and all(g.code is None for g in nvml.gpus)


def _subject(line: Line) -> str:
    found = ADDRESS.search(line.text)
    if not found:
        return "host"
    place = found[1].lower() if found[1].count(":") == 2 else f"0000:{found[1].lower()}"
    return f"gpu:{place}.{found[2] or 0}"
