"""Faults of dpkg, apt and where the driver's packages come from."""
