"""All that a rule may import."""

from dlhealth.actions import ChangeMode, ChangeOwner, RestartUnit
from dlhealth.engine.rule import Rule
from dlhealth.model import Evidence, Finding, Layer, Plan, Risk, Severity, Stage, Unknown
from dlhealth.probes.folders import SharedFolders
from dlhealth.testing import Machine, Scenario

API_VERSION = 1

__all__ = [
    "API_VERSION",
    "ChangeMode",
    "ChangeOwner",
    "Evidence",
    "Finding",
    "Layer",
    "Machine",
    "Plan",
    "RestartUnit",
    "Risk",
    "Rule",
    "Scenario",
    "Severity",
    "SharedFolders",
    "Stage",
    "Unknown",
]
