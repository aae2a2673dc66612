"""dlhealth: finds the root cause when a machine with an NVIDIA GPU breaks, and repairs it safely."""

__version__ = "0.1.0"
