"""The GPU's memory has errors that it could not correct, or has no spare memory left to replace bad rows.

What you see
    nvidia-smi -q: Remapping Failure Occurred: Yes

    nvidia-smi -q: ECC Errors, Volatile, DRAM Uncorrectable: 2

    CUDA error: uncorrectable ECC error encountered
Why
    Memory cells of the card failed. A card with ECC replaces the bad rows (or, before Ampere, retires the pages) at the
    next reset. A card without spare rows must be replaced.

    Corrected errors and replaced rows are normal in small numbers.
Repair
    End the programs and reset the GPU, so that the replacement takes effect. If no spare row is left, replace the card.
What the repair risks
    A reset ends all programs on that GPU.
By hand
    nvidia-smi -q -d ECC,ROW_REMAPPER,PAGE_RETIREMENT
    nvidia-smi --gpu-reset -i N
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Card,
    CardHealth,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    count,
)


class GpuMemoryErrors(Rule):
    id = "gpu-memory-errors"
    title = "The GPU's memory has errors that were not corrected"
    stage = Stage.REBOOT
    severity = Severity.WARNING
    risk = Risk.MEDIUM
    explained_by = ("xid-ecc-48-63-64-92-94-95",)

    def detect(self, health: CardHealth) -> Iterator[Finding | Unknown]:
        for card in health.cards:
            r = card.readings
            pending = r.remap_pending or card.pages_pending
            named = f"{card.name} ({card.address})"
            if r.remap_failed:
                found = f"{named} has bad memory and no spare rows to replace it", Severity.ERROR, True
            elif r.uncorrected:
                errors = count(r.uncorrected, "memory error")
                found = f"{named} could not correct {errors}", Severity.WARNING, False
            elif pending:
                found = f"{named}: replaced memory is used after the next reset", Severity.NOTE, False
            else:
                if r.ecc is not False and r.uncorrected is None and r.remap_failed is None:
                    yield Unknown(f"the GPU {card.address} does not count memory errors", card.subject)
                continue
            title, severity, final = found
            yield self.finding(
                card.subject, title, Evidence(health.source, _shown(card)), severity=severity, final=final
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        address = finding.subject.partition(":")[2]
        reset = f"end all programs on the GPU, then run nvidia-smi --gpu-reset -i {address}, or reboot"
        if not finding.detail["final"]:
            yield Plan("Reset the GPU", Risk.MEDIUM, (ByHand(reset),))
        text = "run no important jobs on this GPU, and ask the card's vendor for a replacement"
        yield Plan("Replace the card", Risk.HIGH, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu, rows, errors = "gpu:0000:01:00.0", "Remapped Rows", "ECC Errors/Volatile"
        geforce = {
            "Product Name": "NVIDIA GeForce GTX 1080 Ti",
            "ECC Mode/Current": "N/A",
            **{f"{errors}/{kind} Uncorrectable": "N/A" for kind in ("SRAM", "DRAM")},
            **{f"{rows}/{key}": "" for key in ("Correctable Error", "Uncorrectable Error", "Pending",
                                               "Remapping Failure Occurred")},
        }  # fmt: skip
        yield Scenario(
            "no spare row is left",
            Machine().posted_report({f"{rows}/Remapping Failure Occurred": "Yes", f"{rows}/Pending": "Yes"}),
            finds=gpu,
            ladder=(("high", "by-hand vendor replacement"),),
        )
        yield Scenario(
            "uncorrected errors on one of two GPUs",
            Machine().posted_report({}, {f"{errors}/DRAM Uncorrectable": "2"}),
            finds="gpu:0000:02:00.0",
            ladder=(("medium", "by-hand 0000:02:00.0 --gpu-reset"), ("high", "by-hand vendor replacement")),
        )
        yield Scenario(
            "a row waits for a reset", Machine().posted_report({f"{rows}/Pending": "Yes"}), finds=gpu, alone=False
        )
        yield Scenario("rows that were replaced", Machine().posted_report({f"{rows}/Uncorrectable Error": "3"}))
        yield Scenario("ECC is off", Machine().posted_report({**geforce, "ECC Mode/Current": "Disabled"}))
        yield Scenario("a card without ECC", Machine().posted_report(geforce), unknown=True)


def _shown(card: Card) -> str:
    r = card.readings
    counts = (
        (r.uncorrected, f"{r.uncorrected} uncorrected errors since the driver was loaded"),
        (r.uncorrected_ever, f"{r.uncorrected_ever} ever"),
        (r.remapped_rows, f"{r.remapped_rows} rows replaced"),
        (r.remap_pending, "a replacement waits for a reset"),
        (r.remap_failed, "a replacement failed"),
        (r.retired_pages, f"{r.retired_pages} pages retired"),
        (card.pages_pending, "a page waits for a reset"),
    )
    return f"{card.address}: {', '.join(text for value, text in counts if value)}"
