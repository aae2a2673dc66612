"""The driver reported an error (Xid) by a number that has no fault of its own here.

What you see
    NVRM: Xid (PCI:0000:01:00): 109, pid=4711, name=python3, Ch 00000008, errorString CTX SWITCH TIMEOUT
Why
    NVIDIA's catalogue has more than 150 numbers, from notes that ask for nothing to faults of the card. The finding says
    the catalogue's immediate action for the number.
Repair
    The action that NVIDIA's catalogue names.
What the repair risks
    A reset ends all programs on that GPU.
By hand
    journalctl -k -b | grep -i xid
    https://docs.nvidia.com/deploy/xid-errors/
"""

from collections.abc import Iterator

from dlhealth.api import Machine, Scenario, XidRule


class XidOther(XidRule):
    id = "xid-other"
    title = "The driver reported an error by a number that has no fault of its own here"

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(number: int, text: str = "pid=4711, name=python3, Ch 00000008") -> Machine:
            return Machine.debian12_gpu().says("kernel", f"NVRM: Xid (PCI:0000:01:00): {number}, {text}")

        gpu = "gpu:0000:01:00.0"
        yield Scenario("a context switch that timed out", said(109), finds=gpu, alone=True)
        yield Scenario("a number that asks for nothing", said(44), finds=gpu, alone=False)
        yield Scenario("another number", said(31))

        yield Scenario(
            "before the last start",
            Machine.debian12_gpu()
            .says("kernel", "NVRM: Xid (PCI:0000:01:00): 109, pid=1", 100.0)
            .says("kernel", "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)", 900.0),
        )
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
