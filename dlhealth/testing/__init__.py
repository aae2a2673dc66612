"""Builds machines to test rules on: real directories with real files, in the form that `--root` reads. Public: external
rules use it too."""

from dlhealth.testing.machine import Machine
from dlhealth.testing.scenario import Scenario

__all__ = ["Machine", "Scenario"]
