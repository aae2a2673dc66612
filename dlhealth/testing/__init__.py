"""Builds machines to test rules on: real folders with real files, the same that `--root` reads. Public: rules that
live elsewhere are tested with it too."""

from dlhealth.testing.machine import Machine
from dlhealth.testing.scenario import Scenario

__all__ = ["Machine", "Scenario"]
