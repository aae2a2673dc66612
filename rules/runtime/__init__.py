"""Faults of faults that show only while the GPU works."""
