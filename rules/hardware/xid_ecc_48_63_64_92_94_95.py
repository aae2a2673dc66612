"""The GPU's memory has errors (Xid 48, 63, 64, 92, 94, 95).

What you see
    NVRM: Xid (PCI:0000:01:00): 48, pid=4711, name=python3, DBE (double bit error)

    nvidia-smi -q: rows are pending to be remapped
Why
    48, 64 and 95: an error that could not be corrected.

    63, 92 and 94: the driver corrected the error or took the memory row out of use. Only the program that used it was
    ended. The replacement row is used after the next reset.
Repair
    For 48, 64 and 95: end the programs and reset the GPU. For the others, nothing is needed immediately.
What the repair risks
    A reset ends all programs on that GPU.
By hand
    journalctl -k -b | grep -i xid
    nvidia-smi -q -d ECC,ROW_REMAPPER
    nvidia-smi --gpu-reset -i N
"""

from collections.abc import Iterator

from dlhealth.api import Machine, Scenario, XidRule


class XidEcc(XidRule):
    id = "xid-ecc-48-63-64-92-94-95"
    title = "The GPU's memory has errors (Xid 48, 63, 64, 92, 94, 95)"
    explains = ("xid-application-errors-13-31-32-43-45-69",)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(number: int, text: str = "pid=4711, name=python3, Ch 00000008") -> Machine:
            return Machine.debian12_gpu().says("kernel", f"NVRM: Xid (PCI:0000:01:00): {number}, {text}")

        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "a double bit error",
            said(48),
            finds=gpu,
            alone=True,
            ladder=(("medium", "by-hand reset hardware"),),
        )
        yield Scenario(
            "a row was taken out of use", said(63), finds=gpu, alone=False, ladder=(("medium", "by-hand nothing done"),)
        )
        yield Scenario("another number", said(31))

        yield Scenario(
            "before the last boot",
            Machine.debian12_gpu()
            .says("kernel", "NVRM: Xid (PCI:0000:01:00): 48, pid=1", 100.0)
            .says("kernel", "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)", 900.0),
        )
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
