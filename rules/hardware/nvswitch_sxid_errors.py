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
    sxid,
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
                known = sxid(event.number, fatal=event.fatal)
                yield self.finding(
                    f"switch:{event.address}",
                    known.told(event.address, event.times),
                    Evidence(event.source, event.text),
                    severity=known.severity_of(event.times),
                    advice=known.advice,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan("Reset the GPUs and the switches together", Risk.HIGH, (ByHand(finding.detail["advice"]),))

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
        yield Scenario(
            "an error of the whole fabric",
            said("23001, Fatal, Link 12 ingress SRC-VC buffer overflow"),
            finds=switch,
            ladder=(("high", "by-hand reboot fabric"),),
        )
        yield Scenario("another message from the switch", said("open"))
        yield Scenario("no log", Machine.debian12_gpu(), unknown=True)
