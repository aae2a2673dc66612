"""The driver says what a GPU needs to recover (Xid 154).

What you see
    NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)
Why
    Another Xid came first. This line says what the GPU needs now: a reset, a reboot of the machine, or the end of its
    programs.
Repair
    Do what the line asks for. A change to None says that the GPU has recovered.
What the repair risks
    Programs on that GPU end.
By hand
    journalctl -k -b | grep -i xid
"""

from collections.abc import Iterator

from dlhealth.api import Machine, Scenario, XidRule


class XidRecoveryAction(XidRule):
    id = "xid-154-recovery-action"
    title = "The driver asks for a GPU reset or a reboot (Xid 154)"

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(number: int, text: str = "pid=4711, name=python3, Ch 00000008") -> Machine:
            return Machine.debian12_gpu().says("kernel", f"NVRM: Xid (PCI:0000:01:00): {number}, {text}")

        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "a reset is required",
            said(154),
            finds=gpu,
            alone=True,
            ladder=(("medium", "by-hand what line asks says driver needs"),),
        )
        yield Scenario(
            "a reboot is required",
            said(154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"),
            finds=gpu,
        )
        yield Scenario("another number", said(31))
        yield Scenario(
            "it has recovered since",
            said(154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)").says(
                "kernel",
                "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
                5100.0,
            ),
        )

        yield Scenario(
            "before the last boot",
            Machine.debian12_gpu()
            .says("kernel", "NVRM: Xid (PCI:0000:01:00): 154, pid=1", 100.0)
            .says("kernel", "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)", 900.0),
        )
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
