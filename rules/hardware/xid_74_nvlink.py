"""A link between GPUs failed (Xid 74, 144 to 150).

What you see
    NVRM: Xid (PCI:0000:01:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 4

    NVRM: Xid (PCI:0000:01:00): 145, RLW_RXPIPE Nonfatal XC0 i0 Link 13
Why
    An NVLink connection had an error. If another Xid (48, 79, 94, 95, 119) appeared within the same minute, that one
    caused it.
Repair
    End the programs and reset the GPUs. If the error returns, check the bridge, cables or switches.
What the repair risks
    A reset ends all programs on the linked GPUs.
By hand
    journalctl -k -b | grep -i xid
    nvidia-smi nvlink -s
    nvidia-smi nvlink -e
"""

from collections.abc import Iterator

from dlhealth.api import Machine, Scenario, XidRule


class XidNvlink(XidRule):
    id = "xid-74-nvlink"
    title = "A link between GPUs failed (Xid 74, 144 to 150)"
    explains = ("xid-application-errors-13-31-32-43-45-69",)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(number: int, text: str = "pid=4711, name=python3, Ch 00000008") -> Machine:
            return Machine.debian12_gpu().says("kernel", f"NVRM: Xid (PCI:0000:01:00): {number}, {text}")

        gpu = "gpu:0000:01:00.0"
        yield Scenario(
            "a fatal link error",
            said(74),
            finds=gpu,
            alone=True,
            ladder=(("medium", "by-hand reset connection"),),
        )
        yield Scenario("an NVLink 5 error", said(145), finds=gpu, alone=False)
        yield Scenario("another number", said(31))

        yield Scenario(
            "before the last boot",
            Machine.debian12_gpu()
            .says("kernel", "NVRM: Xid (PCI:0000:01:00): 74, pid=1", 100.0)
            .says("kernel", "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)", 900.0),
        )
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
