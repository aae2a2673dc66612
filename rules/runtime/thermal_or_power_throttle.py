"""A GPU runs slower than it could, because it is too hot or its power supply is at the limit.

What you see
    Training becomes slower after some minutes, and the GPU's clocks drop.

    nvidia-smi -q: HW Slowdown, HW Thermal Slowdown, HW Power Brake Slowdown or SW Thermal Slowdown is Active

    dcgmi: Thermal violations
Why
    Heat: blocked air, dust, a fan that stopped, old thermal paste, or other hot cards beside it.

    Power brake: the power supply or the server's management controller told the card to use less power.

    "Idle", "SW Power Cap" and "Applications Clocks Setting" are normal. A card at its power limit is not at fault.
Repair
    Cool the card. For a power brake, check the power supply, the cables and the management controller's settings.
What the repair risks
    Nothing.
By hand
    nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER
    # Watch it while a program runs:
    nvidia-smi --query-gpu=pci.bus_id,temperature.gpu,power.draw,clocks.sm,clocks.max.sm --format=csv -l 5
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
)

BRAKE, SLOWDOWN = "hardware power brake", "hardware slowdown"
HOT, TARGET = "hardware thermal slowdown", "software thermal slowdown"


class ThermalOrPowerThrottle(Rule):
    id = "thermal-or-power-throttle"
    title = "A GPU is slowed down by heat or by its power supply"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(self, health: CardHealth) -> Iterator[Finding | Unknown]:
        for card in health.cards:
            reasons, laptop = card.readings.slowdowns, _is_laptop(card)
            heat = _too_hot(card)
            if reasons is None and heat is None:
                yield Unknown(f"cannot tell whether the GPU {card.address} is slowed down", card.subject)
            elif heat:
                # A laptop's card reaches its target temperature by design.
                mild = laptop and heat == TARGET
                yield self._found(card, health.source, heat, Severity.NOTE if mild else Severity.WARNING)
            elif braked := next((r for r in (BRAKE, SLOWDOWN) if r in (reasons or ())), ""):
                if health.on_battery or (laptop and health.on_battery is None):
                    yield Unknown(f"the GPU {card.address} is slowed down, as laptops do on battery", card.subject)
                else:
                    yield self._found(card, health.source, braked, Severity.WARNING)

    def _found(self, card: Card, source: str, reason: str, severity: Severity) -> Finding:
        r = card.readings
        values = (
            (r.temperature, f"{r.temperature} °C"),
            (r.slowdown_temperature, f"slows down at {r.slowdown_temperature} °C"),
            (r.margin, f"{abs(r.margin or 0)} °C {'below' if (r.margin or 0) >= 0 else 'above'} the limit"),
            (r.power, f"{r.power:.0f} W" if r.power else ""),
            (r.power_limit, f"limit {r.power_limit:.0f} W" if r.power_limit else ""),
        )
        known = ", ".join(text for value, text in values if value is not None)
        return self.finding(
            card.subject,
            f"{card.name} ({card.address}) is slowed down: {reason}",
            Evidence(source, f"{card.address}: {reason}{f'; {known}' if known else ''}"),
            severity=severity,
            power=reason == BRAKE,
            both=reason == SLOWDOWN,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        cool = "clean the fans and filters, check that each fan turns, give the card more air, and lower the room's temperature"
        feed = (
            "check the card's power cables and the power supply, and in a server the power and thermal settings of its"
            " management controller (iDRAC, iLO, BMC)"
        )
        if not finding.detail["power"]:
            yield Plan("Cool the GPU", Risk.LOW, (ByHand(cool),))
        if finding.detail["power"] or finding.detail["both"]:
            yield Plan("Check the power supply", Risk.LOW, (ByHand(feed),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        reasons, slow = "Clocks Event Reasons", "Clocks Event Reasons/HW Slowdown"
        gpu = "gpu:0000:01:00.0"
        laptop = {"Product Name": "NVIDIA GeForce RTX 4070 Laptop GPU"}
        brake = {slow: "Active", f"{slow}/HW Power Brake Slowdown": "Active"}
        yield Scenario(
            "too hot",
            Machine().posted_report(
                {slow: "Active", f"{slow}/HW Thermal Slowdown": "Active", "Temperature/GPU Current Temp": "90 C"}
            ),
            finds=gpu,
            ladder=(("low", "by-hand fans filters air"),),
        )
        yield Scenario(
            "the management controller pulls the power brake, on one of two GPUs",
            Machine().posted_report({}, brake),
            finds="gpu:0000:02:00.0",
            ladder=(("low", "by-hand cables supply iDRAC"),),
        )
        yield Scenario(
            "a driver that does not say which slowdown",
            Machine().posted_report({slow: "Active", f"{slow}/HW Thermal Slowdown": "", f"{slow}/HW Power Brake Slowdown": ""}),
            finds=gpu,
            ladder=(("low", "by-hand fans filters air"), ("low", "by-hand cables supply iDRAC")),
        )  # fmt: skip
        yield Scenario(
            "no reason is reported, but it is above its limit",
            Machine().posted_report({"Temperature/GPU Current Temp": "93 C", slow: "N/A", f"{slow}/HW Thermal Slowdown": "N/A"}),
            finds=gpu,
        )  # fmt: skip
        yield Scenario(
            "a card whose margin is used up",
            Machine().posted_report({"Temperature/GPU Slowdown Temp": "N/A", "Temperature/GPU T.Limit Temp": "-1 C"}),
            finds=gpu,
        )
        yield Scenario(
            "a laptop at its target temperature",
            Machine().posted_report({**laptop, f"{reasons}/SW Thermal Slowdown": "Active"}),
            finds=gpu,
            alone=False,
        )
        yield Scenario(
            "at the power limit, with full load",
            Machine().posted_report({f"{reasons}/SW Power Cap": "Active", f"{reasons}/Applications Clocks Setting": "Active"}),
        )  # fmt: skip
        yield Scenario(
            "nothing to do", Machine().posted_report({f"{reasons}/Idle": "Active", "Utilization/GPU": "0 %"})
        )
        yield Scenario("a laptop, perhaps on battery", Machine().posted_report({**laptop, **brake}), unknown=True)
        yield Scenario(
            "a card that tells nothing",
            Machine().posted_report(dict.fromkeys((slow, f"{slow}/HW Thermal Slowdown", f"{slow}/HW Power Brake Slowdown", f"{reasons}/Idle", f"{reasons}/SW Power Cap", f"{reasons}/SW Thermal Slowdown", "Temperature/GPU Slowdown Temp"), "N/A")),
            unknown=True,
        )  # fmt: skip


def _too_hot(card: Card) -> str | None:
    """Why the card is too hot, "" if it is not, None if that is not known."""
    r = card.readings
    if r.slowdowns and (reason := next((s for s in (HOT, TARGET) if s in r.slowdowns), "")):
        return reason
    if r.temperature is not None and r.slowdown_temperature:
        return "above its slowdown temperature" if r.temperature >= r.slowdown_temperature else ""
    if r.margin is not None:
        return "" if r.margin > 0 else "above its slowdown temperature"
    return None if r.slowdowns is None else ""


def _is_laptop(card: Card) -> bool:
    return any(word in card.name for word in ("Laptop", "Max-Q", "Mobile"))
