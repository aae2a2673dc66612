"""Faults of CUDA toolkits."""
