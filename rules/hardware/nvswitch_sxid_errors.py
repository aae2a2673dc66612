"""An NVSwitch reported an error (SXid).

What you see
    nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up

    CUDA programs that use several GPUs fail or hang.
Why
    An NVSwitch, the switch that connects the GPUs of a server, had an error. A fatal error ends the programs on all
    GPUs that use that link, and the link stays unusable until a reset. A non-fatal error was corrected.
Repair
    End the programs on all GPUs, then reset the GPUs and the switches together. If the error returns, have the board
    and its cables tested.
What the repair risks
    All programs on all GPUs of the machine end.
By hand
    journalctl -k -b | grep -i sxid
    systemctl stop nvidia-fabricmanager
    nvidia-smi --gpu-reset
    systemctl start nvidia-fabricmanager
"""

from collections.abc import Iterator

from dlhealth.api import (
    SXID_FAULT,
    ByHand,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    XidEvents,
)


class NvswitchSxidErrors(Rule):
    id = SXID_FAULT
    title = "An NVSwitch reported an error (SXid)"
    stage = Stage.REBOOT
    severity = Severity.ERROR
    risk = Risk.HIGH
    explains = ("xid-74-nvlink",)

    def detect(self, xids: XidEvents) -> Iterator[Finding]:
        for event in xids.events:
            if event.switch:
                kind = "fatal" if event.fatal else "non-fatal"
                yield self.finding(
                    f"switch:{event.address}",
                    f"The NVSwitch at {event.address} reported the {kind} error SXid {event.number}",
                    Evidence(event.source, event.text),
                    severity=Severity.ERROR if event.fatal else Severity.NOTE,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = "end all programs on the GPUs, stop nvidia-fabricmanager, run nvidia-smi --gpu-reset, and start nvidia-fabricmanager"
        yield Plan("Reset the GPUs and the switches together", Risk.HIGH, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def said(text: str) -> Machine:
            return Machine.debian12_gpu().says("kernel", f"nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): {text}")

        switch = "switch:0000:c1:00.0"
        yield Scenario(
            "a fatal link error",
            said("20034, Fatal, Link 30 LTSSM Fault Up"),
            finds=switch,
            alone=True,
            ladder=(("high", "by-hand --gpu-reset"),),
        )
        yield Scenario(
            "a corrected error", said("28006, Non-fatal, Link 46 MC TS crumbstore MCTO (First)"), finds=switch
        )
        yield Scenario("another message from the switch", said("open"))
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
