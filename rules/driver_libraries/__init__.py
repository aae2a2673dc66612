"""Faults of the driver's libraries and who finds which of them first."""
