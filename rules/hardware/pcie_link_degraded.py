"""A GPU works, but its PCIe link is slower than the GPU and the slot can run.

What you see
    Copies between memory and GPU are slow. Programs wait for data although the GPU has nothing to do.

    nvidia-smi -q shows under load: Link Width Max 16x, Current 4x

    pci 0000:04:00.0: 31.504 Gb/s available PCIe bandwidth, limited by 8.0 GT/s PCIe x4 link
Why
    The link runs with fewer lanes or at a lower speed if the card is not fully seated, if its contacts are dirty, or
    because of a riser cable or a setting of the firmware.

    A GPU that has nothing to do lowers the speed of its link to save power. dlhealth judges the link only while the GPU
    works. Two slots that share their lanes run at half the width by design.
Repair
    Reseat the card and its riser, try another slot, and check the slot's setting in the firmware.
What the repair risks
    The machine must be switched off.
By hand
    # While a program uses the GPU:
    nvidia-smi --query-gpu=pci.bus_id,pstate,pcie.link.gen.current,pcie.link.gen.max,pcie.link.width.current,pcie.link.width.max --format=csv
    journalctl -k -b | grep -iE 'aer|PCIe Bus Error|available PCIe bandwidth'
    lspci -vvs ADDRESS | grep LnkSta
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Card,
    CardHealth,
    Evidence,
    Finding,
    Journal,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

MUCH = 0.25
"""Of the bandwidth. Half of it may be how the mainboard shares its lanes, and programs hardly notice it."""


class PcieLinkDegraded(Rule):
    id = "pcie-link-degraded"
    title = "A GPU's PCIe link is slower than it can be"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    explained_by = ("xid-79-fallen-off-bus",)

    def detect(self, health: CardHealth, journal: Journal | None) -> Iterator[Finding | Unknown]:
        for card in health.cards:
            share = _share(card)
            if share is None:
                yield Unknown(f"cannot tell how the GPU {card.address} is linked", card.subject)
            elif share < 1 and not card.readings.loaded:
                yield Unknown(
                    f"the PCIe link of the GPU {card.address} cannot be judged: the GPU has too little to do", card.subject
                )  # fmt: skip
            elif share < 1:
                r = card.readings
                now, most = (f"{r.link_width} lanes of generation {r.link_generation}",
                             f"{r.most_link_width} lanes of generation {r.most_link_generation}")  # fmt: skip
                yield self.finding(
                    card.subject,
                    f"The PCIe link of {card.name} ({card.address}) runs with {now} under load; possible: {most}",
                    Evidence(
                        health.source, f"{card.address}: the link has {now}; possible: {most}; GPU load: {r.load} %"
                    ),
                    *_errors(card, journal),
                    severity=Severity.WARNING if share <= MUCH else Severity.NOTE,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = (
            "switch the machine off, reseat the card and its riser, or try another slot; in the firmware's setup menu, set"
            " the slot's speed to automatic and check whether another slot or an M.2 disk shares its lanes"
        )
        yield Plan("Check the card's seat, its riser and its slot", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        width, generation = "PCI/GPU Link Info/Link Width", "PCI/GPU Link Info/PCIe Generation"
        gpu = "gpu:0000:01:00.0"
        idle = {"Performance State": "P8", "Utilization/GPU": "0 %", "Clocks Event Reasons/Idle": "Active"}
        yield Scenario(
            "four of sixteen lanes",
            Machine().posted_report({f"{width}/Current": "4x"}),
            finds=gpu,
            ladder=(("low", "by-hand reseat riser slot firmware"),),
        )
        yield Scenario(
            "the first generation under load, on one of two GPUs",
            Machine().posted_report({}, {f"{generation}/Current": "1"}),
            finds="gpu:0000:02:00.0",
        )
        yield Scenario(
            "two slots share their lanes", Machine().posted_report({f"{width}/Current": "8x"}), finds=gpu, alone=False
        )
        yield Scenario("sixteen lanes", Machine().posted_report({}, {}))
        yield Scenario(
            "an older slot, by design",
            Machine()
            .posted_report({f"{generation}/Max": "3", f"{generation}/Current": "3"})
            .file(
                "/dmesg.txt",
                "[    1.200000] pci 0000:01:00.0: 126.016 Gb/s available PCIe bandwidth, limited by 8.0 GT/s PCIe x16 link at"
                " 0000:00:01.0 (capable of 252.048 Gb/s with 16.0 GT/s PCIe x16 link)\n",
            ),
        )
        yield Scenario("nothing to do", Machine().posted_report({f"{generation}/Current": "1", **idle}), unknown=True)
        yield Scenario("the load is not known", Machine().posted_report({f"{width}/Current": "1x", "Utilization/GPU": "N/A"}),
                       unknown=True)  # fmt: skip


def _share(card: Card) -> float | None:
    """How much of the possible bandwidth the link has now. Each generation doubles it."""
    r = card.readings
    if not (r.link_width and r.link_generation and r.most_link_width and r.most_link_generation):
        return None
    return float(r.link_width / r.most_link_width * 2.0 ** (r.link_generation - r.most_link_generation))


def _errors(card: Card, journal: Journal | None) -> Iterator[Evidence]:
    """The newest error of the link in the kernel log."""
    said = list(journal.kernel("PCIe Bus Error", last_boot=True)) if journal else []
    yield from (Evidence(line.source, line.text.strip()[:200]) for line in said[-1:] if card.address in line.text)
