"""The few lines that say which machine a report is about."""

from typing import Any

from dlhealth.engine.facts import Facts


def describe_machine(facts: Facts) -> dict[str, Any]:
    """The `host` object of the JSON report; what could not be had is null or empty."""
    return {}
