"""Plans that change the driver's branch or the flavour of its kernel module."""

from dlhealth.actions import AptInstall, ByHand, Reboot
from dlhealth.judgements.driverfit import Drivers
from dlhealth.model import Plan, Risk


def reboot_into(what: str) -> Plan:
    """The driver that fits is installed, and only the running kernel does not use it yet."""
    return Plan(f"Reboot: {what} is already installed", Risk.MEDIUM, (Reboot(),), reboot=True)


def switch_to(package: str, drivers: Drivers, summary: str) -> Plan:
    """Install another driver from the distribution in place of the present one, and reboot."""
    install = AptInstall((package,), may_remove=drivers.packages, remove=drivers.beside)
    return Plan(summary, Risk.HIGH, (install, Reboot()), reboot=True, network=True)


def switch_by_hand(summary: str, text: str) -> Plan:
    """The same where the distribution has no package that fits."""
    return Plan(summary, Risk.HIGH, (ByHand(text),), reboot=True, network=True)


def choose_between(other: str, *, open_here: bool) -> Plan:
    """No driver supports both GPUs: this one needs the open kernel module and the other the closed one, or the reverse."""
    needs, has = ("closed", "open") if open_here else ("open", "closed")
    text = (
        f"no driver supports both GPUs: the {other} needs the {needs} kernel module, this GPU the {has} one. "
        "Remove one GPU, or leave this one unused"
    )
    return Plan("Choose which of the two GPUs to use", Risk.LOW, (ByHand(text),))
