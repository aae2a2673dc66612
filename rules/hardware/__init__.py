"""Faults of the cards themselves and the bus they are on."""
