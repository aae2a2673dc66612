"""Faults of PATH, LD_LIBRARY_PATH and what else a login sets."""
