"""Faults of GPUs inside containers."""
