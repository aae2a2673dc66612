"""The driver reported an error (Xid) whose number has no rule of its own in dlhealth.

What you see
    NVRM: Xid (PCI:0000:01:00): 109, pid=4711, name=python3, Ch 00000008, errorString CTX SWITCH TIMEOUT
Why
    NVIDIA's catalog has more than 150 Xid numbers, from harmless messages to damaged cards. dlhealth shows the
    immediate action that the catalog names for this number.
Repair
    Do what NVIDIA's catalog recommends.
What the repair risks
    A reset ends all programs on that GPU.
By hand
    journalctl -k -b | grep -i xid
    # NVIDIA's catalog: https://docs.nvidia.com/deploy/xid-errors/
"""

from collections.abc import Iterator

from dlhealth.api import Machine, Scenario, XidRule


class XidOther(XidRule):
    id = "xid-other"
    title = "The driver reported an error (Xid) without a rule of its own"

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(number: int, text: str = "pid=4711, name=python3, Ch 00000008") -> Machine:
            return Machine.debian12_gpu().says("kernel", f"NVRM: Xid (PCI:0000:01:00): {number}, {text}")

        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "a context switch timed out", said(109), finds=gpu, alone=True, ladder=(("medium", "by-hand --gpu-reset"),)
        )
        yield Scenario(
            "a number that needs no action",
            said(44),
            finds=gpu,
            alone=False,
            ladder=(("medium", "by-hand nothing done"),),
        )
        yield Scenario(
            "a number without a catalogued meaning, twice",
            said(999).says("kernel", "NVRM: Xid (PCI:0000:01:00): 999, pid=2", 5100.0),
            finds=gpu,
            ladder=(("medium", "by-hand note maker"),),
        )
        yield Scenario("another number", said(31))

        yield Scenario(
            "before the last boot",
            Machine.debian12_gpu()
            .says("kernel", "NVRM: Xid (PCI:0000:01:00): 109, pid=1", 100.0)
            .says("kernel", "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)", 900.0),
        )
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
