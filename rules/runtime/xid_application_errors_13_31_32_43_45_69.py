"""A program made an error on the GPU, or was ended (Xid 13, 31, 32, 43, 45, 68, 69).

What you see
    NVRM: Xid (PCI:0000:01:00): 31, pid=4711, name=python3, Ch 00000008, intr 00000000. MMU Fault

    CUDA error: an illegal memory access was encountered
Why
    The driver stopped a program that accessed memory it must not access, or that was killed while it used the GPU.
    The machine is healthy.

    If every program fails this way, or another Xid came first, that is the cause.
Repair
    The machine needs no repair. Fix the program.
What the repair risks
    Nothing.
By hand
    journalctl -k -b | grep -i xid
    compute-sanitizer PROGRAM
    # With older toolkits:
    cuda-memcheck PROGRAM
"""

from collections.abc import Iterator

from dlhealth.api import Machine, Scenario, XidRule


class XidApplicationErrors(XidRule):
    id = "xid-application-errors-13-31-32-43-45-69"
    title = "A program made an error on the GPU (Xid 13, 31, 32, 43, 45, 68, 69)"

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(number: int, text: str = "pid=4711, name=python3, Ch 00000008") -> Machine:
            return Machine.debian12_gpu().says("kernel", f"NVRM: Xid (PCI:0000:01:00): {number}, {text}")

        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "an illegal memory access",
            said(31),
            finds=gpu,
            alone=True,
            ladder=(("medium", "by-hand restart program that names look mistake"),),
        )
        yield Scenario("a graphics exception", said(13), finds=gpu, alone=False)
        yield Scenario("another number", said(48))

        yield Scenario(
            "before the last boot",
            Machine.debian12_gpu()
            .says("kernel", "NVRM: Xid (PCI:0000:01:00): 31, pid=1", 100.0)
            .says("kernel", "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)", 900.0),
        )
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
