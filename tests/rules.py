"""The built-in rules and their scenarios, made once for all tests."""

import pytest

from dlhealth.engine.load import load_rules

RULES = load_rules("/nonexistent").rules
BY_ID = {rule.id: rule for rule in RULES}
SCENARIOS = [pytest.param(rule, s, id=f"{rule.id}: {s.name}") for rule in RULES for s in rule.scenarios()]
"""Each a rule and a scenario of it, as parameters of a test."""
FAULTY = [case for case in SCENARIOS if case.values[1].finds]
